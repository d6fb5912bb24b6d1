//go:build interop

package interop

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/replblk/replblk/block"
	"github.com/replblk/replblk/block/faulty"
	"github.com/replblk/replblk/block/file"
	"github.com/replblk/replblk/replication"
	"github.com/replblk/replblk/replication/state"
)

// flaws are what is wrong with replblk's disk from now on.
type flaws struct {
	p       *peer
	rules   []faulty.Rule
	current *faulty.Device
}

// flawed starts a pair in sync in which replblk's disk can fail.
func flawed(t *testing.T, o options) (*kernel, *peer, *flaws) {
	t.Helper()
	f := &flaws{}
	o.wrap = func(d block.Device) block.Device {
		f.current = faulty.New(d, f.rules...)
		return f.current
	}
	k, p := established(t, o)
	f.p = p
	return k, p, f
}

func (f *flaws) set(rules ...faulty.Rule) { f.rules = rules; f.current.Set(rules...) }

// The middle of the disk, in sectors, where nothing of the metadata is.
const badFirst, badEnd = 64 << 11, 65 << 11

func eio(ops ...block.Op) faulty.Rule {
	return faulty.Rule{Ops: ops, First: badFirst, End: badEnd, Err: syscall.EIO}
}

func diskless(s state.State) bool { return s.Disk == state.Diskless }

// TestReplblkDiskFails has replblk's disk fail in each role: under on-io-error detach it goes on
// without, and the kernel serves both; under pass_on the kernel learns what is missing.
func TestReplblkDiskFails(t *testing.T) {
	const badKiB = badFirst / 2
	t.Run("Secondary, write", func(t *testing.T) {
		k, p, f := flawed(t, options{})
		k.allowed = append([]string{"NegAck", "peer is in troubles", upgraded, "error receiving ReportState"}, noticed...)
		k.sh("drbdadm primary r0")
		k.dd(1, 0, 1024)
		f.set(eio(block.Write))
		k.dd(2, badKiB-128, 512)
		p.wait("detached", diskless)
		k.wait("detached", func(s procState) bool { return s.ds == "UpToDate/Diskless" })
		k.dd(3, badKiB-512, 2048)
		f.set()
		p.attach()
		settled(k, p)
		k.dd(4, badKiB, 1024)
	})
	for op, name := range map[block.Op]string{block.Write: "Primary, write", block.Read: "Primary, read"} {
		t.Run(name, func(t *testing.T) {
			k, p, f := flawed(t, options{})
			k.allowed = []string{upgraded}
			p.kind(replication.AdminPrimary)
			p.scribbleAt(1, 10, badFirst-4096, 8192)
			want := bytes.Repeat([]byte("read from the kernel's disk later."), 2048)
			if err := block.WriteAt(p.Volume(0), want[:65536], badFirst-8); err != nil {
				t.Fatal(err)
			}
			f.set(eio(op))
			if op == block.Write {
				copy(want, "written to the kernel's disk alone")
				if err := block.WriteAt(p.Volume(0), want[:65536], badFirst-8); err != nil {
					t.Errorf("write: %v", err)
				}
			}
			b := make([]byte, 65536)
			for range 2 { // a read that fails here, and one without a disk
				if err := block.ReadAt(p.Volume(0), b, badFirst-8); err != nil || !bytes.Equal(b, want[:65536]) {
					t.Errorf("read %.40q, %v", b, err)
				}
				p.wait("detached", diskless)
			}
			k.wait("detached", func(s procState) bool { return s.ds == "UpToDate/Diskless" })
			p.scribbleAt(2, 10, badFirst-4096, 8192)
			f.set()
			p.attach()
		})
	}
	t.Run("target of a resync", func(t *testing.T) {
		o := brisk()
		k, p, f := flawed(t, o)
		k.allowed = []string{"NegAck", upgraded, "Resync aborted", "partner DISKLESS"}
		k.sh("drbdadm primary r0")
		k.dd(1, 0, 128)
		k.dd(1, badKiB, 1024)
		f.set(eio(block.Write))
		p.kind(replication.AdminInvalidate)
		p.wait("detached", diskless)
		k.wait("detached", func(s procState) bool { return s.ds == "UpToDate/Diskless" })
		f.set()
		p.attach()
	})
	t.Run("disk that hangs, disk-timeout", func(t *testing.T) {
		k, p, f := flawed(t, options{core: func(c *replication.Config) { c.Volumes[0].DiskTimeoutTenths = 20 }})
		k.allowed = append([]string{upgraded, "error receiving ReportState"}, noticed...)
		k.sh("drbdadm primary r0")
		f.set(faulty.Rule{Ops: []block.Op{block.Write}, First: badFirst, End: badEnd, Hold: true})
		k.dd(2, badKiB-128, 512)
		k.wait("given up", func(s procState) bool { return s.ds == "UpToDate/Diskless" || s.ds == "UpToDate/Failed" })
		k.dd(3, badKiB-512, 2048)
		f.current.Release()
		f.set()
		p.wait("detached, and the disk let go of", func(s state.State) bool {
			d, err := file.Open(p.disk, file.Options{})
			return err == nil && d.Close() == nil && diskless(s)
		})
		p.attach()
	})
	t.Run("pass_on", func(t *testing.T) {
		o := brisk()
		quick := o.core
		o.core = func(c *replication.Config) { quick(c); c.Volumes[0].OnIOError = replication.OnErrorPassOn }
		k, p, f := flawed(t, o)
		k.allowed = []string{"NegAck", "peer is in troubles", "Peer is in troubles"}
		k.sh("drbdadm primary r0")
		f.set(eio(block.Write))
		k.dd(2, badKiB, 64)
		k.wait("the kernel knows what is missing", func(s procState) bool { return s.oos != "0" })
		t.Logf("kernel %+v, replblk %+v", k.state(), p.State(0))
		f.set()
		k.sh("drbdadm disconnect r0 && drbdadm connect r0")
	})
}

// TestNoSpace has replblk's sparse file meet a full file system in the middle of the kernel's
// writes: the disk is given up like a broken one, and comes back when there is room.
func TestNoSpace(t *testing.T) {
	dir := filepath.Join(machine.dir, "small")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=40m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	k, _ := established(t, brisk())
	k.allowed = append([]string{"NegAck", "peer is in troubles", upgraded, "Resync aborted", "partner DISKLESS"}, noticed...)
	k.peer.close()
	k.wait("replblk has gone", procState.waiting)
	o := k.peer.o
	k.peer = newPeer(t, o, filepath.Join(dir, "peer.img"), true)
	p := k.peer
	p.kind(replication.AdminConnect)
	k.sh("drbdadm primary r0")
	p.wait("resync", func(s state.State) bool { return s.Conn == state.SyncTarget || s.Disk == state.Diskless })
	k.fill(0)
	p.wait("no room", diskless)
	k.wait("detached", func(s procState) bool { return s.ds == "UpToDate/Diskless" })
	k.fill(1)
	if err := syscall.Mount("tmpfs", dir, "tmpfs", syscall.MS_REMOUNT, "size=200m"); err != nil {
		t.Fatal(err)
	}
	p.attach()
}

// fill writes 48 MiB that are not zero.
func (k *kernel) fill(seed int) {
	k.t.Helper()
	k.dd(seed, seed*1024, 48<<10)
}

// Tables of the breakable device.
func wholeTable() string { return fmt.Sprintf("0 %d linear /dev/vda 0", diskSize/512) }
func deadTable() string  { return fmt.Sprintf("0 %d error", diskSize/512) }

// noMetaTable is one on which everything from a sector on fails.
func noMetaTable(from uint64) string {
	return fmt.Sprintf("0 %d linear /dev/vda 0\n%d %d error", from, from, diskSize/512-from)
}

// becomes replaces what is behind the kernel's disk.
func (k *kernel) becomes(table string) {
	k.t.Helper()
	k.sh("export DM_DISABLE_UDEV=1; dmsetup suspend --noflush breakable && printf '" + table + "' | dmsetup load breakable && dmsetup resume breakable")
}

// kernelDiskFailed is what the kernel says of a disk that fails.
var kernelDiskFailed = []string{"drbd_md_sync_page_io", "IO error", "IO ERROR", ": error=", "local WRITE", "local READ", "meta data", "Local IO failed",
	"Sending NegDReply", "my Disk seems to have failed"}

// TestKernelDiskFails has the kernel's disk fail in each role. It detaches, replblk serves what it
// reads, and it is resynced when the disk is back.
func TestKernelDiskFails(t *testing.T) {
	for _, primary := range []string{"kernel", "replblk"} {
		t.Run(primary+" Primary", func(t *testing.T) {
			o := brisk()
			o.breakable = true
			o.kernelDisk += " on-io-error detach;"
			k, p := established(t, o)
			k.allowed = append([]string{upgraded}, kernelDiskFailed...)
			if primary == "kernel" {
				k.sh("drbdadm primary r0")
				k.dd(1, 0, 2048)
			} else {
				p.kind(replication.AdminPrimary)
				p.scribble(1, 10)
			}
			k.becomes(deadTable())
			if primary == "kernel" {
				k.dd(2, 1024, 2048)
				k.sh("dd if=/dev/drbd0 of=/dev/null bs=1M count=8 iflag=direct")
			} else {
				p.scribble(2, 10)
			}
			p.wait("the kernel has no disk", func(s state.State) bool { return s.PeerDisk == state.Diskless })
			k.wait("no disk", func(s procState) bool { return s.ds == "Diskless/UpToDate" })
			if primary == "kernel" {
				k.dd(3, 4096, 1024)
			} else {
				p.scribble(3, 10)
			}
			k.becomes(wholeTable())
			k.sh("drbdadm attach r0")
		})
	}
}

// TestMetadataFails: the metadata of a Primary cannot be written any more, though its data can.
// It gives its disk up before it answers a write that the metadata must know of, and the other
// node serves both.
func TestMetadataFails(t *testing.T) {
	t.Run("replblk", func(t *testing.T) {
		k, p, f := flawed(t, brisk())
		k.allowed = []string{upgraded}
		p.kind(replication.AdminPrimary)
		p.scribbleAt(1, 5, 0, 8192)
		f.set(faulty.Rule{Ops: []block.Op{block.Write}, First: p.sectors(), End: diskSize / 512, Err: syscall.EIO})
		p.scribble(2, 10)
		p.wait("detached", diskless)
		k.wait("detached", func(s procState) bool { return s.ds == "UpToDate/Diskless" })
		p.scribble(3, 5)
		f.set()
		p.attach()
	})
	t.Run("kernel", func(t *testing.T) {
		o := brisk()
		o.breakable = true
		o.kernelDisk += " on-io-error detach;"
		k, p := established(t, o)
		k.allowed = append([]string{upgraded}, kernelDiskFailed...)
		k.sh("drbdadm primary r0")
		k.dd(1, 0, 1024)
		k.becomes(noMetaTable(p.sectors()))
		k.dd(2, 32768, 2048) // extents that its activity log does not have yet
		p.wait("the kernel has no disk", func(s state.State) bool { return s.PeerDisk == state.Diskless })
		k.dd(3, 65536, 1024)
		k.becomes(wholeTable())
		k.sh("drbdadm attach r0")
	})
}
