//go:build interop

package interop

import (
	"bytes"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/replblk/replblk/block"
	"github.com/replblk/replblk/block/faulty"
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
		k.allowed = []string{"NegAck", "peer is in troubles", upgraded, "shut down by peer", "error receiving ReportState"}
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
	k.allowed = []string{"NegAck", "peer is in troubles", upgraded, "Resync aborted", "partner DISKLESS", "shut down by peer"}
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

// breaks replaces the kernel's disk by one on which every request fails, or mends it.
func (k *kernel) breaks(broken bool) {
	k.t.Helper()
	target := "linear /dev/vda 0"
	if broken {
		target = "error"
	}
	k.sh("export DM_DISABLE_UDEV=1; dmsetup suspend --noflush breakable && dmsetup load breakable --table '" + k.table(target) + "' && dmsetup resume breakable")
}

// TestKernelDiskFails has the kernel's disk fail in each role. It detaches, replblk serves what it
// reads, and it is resynced when the disk is back.
func TestKernelDiskFails(t *testing.T) {
	for _, primary := range []string{"kernel", "replblk"} {
		t.Run(primary+" Primary", func(t *testing.T) {
			o := brisk()
			o.breakable = true
			o.kernelDisk += " on-io-error detach;"
			k, p := established(t, o)
			k.allowed = []string{upgraded, "IO error", "IO ERROR", ": error=", "local WRITE", "local READ", "meta data", "Local IO failed", "Sending NegDReply", "my Disk seems to have failed"}
			if primary == "kernel" {
				k.sh("drbdadm primary r0")
				k.dd(1, 0, 2048)
			} else {
				p.kind(replication.AdminPrimary)
				p.scribble(1, 10)
			}
			k.breaks(true)
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
			k.breaks(false)
			k.sh("drbdadm attach r0")
		})
	}
}
