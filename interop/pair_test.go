//go:build interop

package interop

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/replblk/replblk/replication"
)

var capture = flag.Bool("interop.pcap", false, "keep what is on the wire as TEST.pcap in -interop.out")

// peerDisk is the file that is replblk's disk, and secondDisk that of volume 1.
func peerDisk() string   { return filepath.Join(machine.dir, "peer.img") }
func secondDisk() string { return filepath.Join(machine.dir, "peer1.img") }

// start begins a scenario with two fresh disks, none of the nodes connected. When the test
// is over, both nodes must be settled, and the kernel must
// not have complained.
func start(t *testing.T, o options) (*kernel, *peer) {
	t.Helper()
	_, disk := o.device()
	k := &kernel{t: t, disk: disk}
	k.begin()
	k.configure(o)
	k.create(o)
	record(t)
	k.up()
	t.Cleanup(k.end)
	k.peer = newPeer(t, o, peerDisk(), true)
	t.Cleanup(func() {
		defer k.peer.close()
		if !t.Failed() {
			settled(k, k.peer)
		}
	})
	return k, k.peer
}

// record captures packets until the test ends.
func record(t *testing.T) {
	if !*capture {
		return
	}
	c := exec.Command("tcpdump", "-i", tapName, "-B", "65536", "-U", "-w", fileName(t, "pcap"), "tcp")
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(time.Second)
	t.Cleanup(func() { _ = c.Process.Signal(syscall.SIGINT); _ = c.Wait() })
}

// connect connects both nodes of a fresh pair, which leaves both Inconsistent.
func connect(k *kernel, p *peer) {
	k.t.Helper()
	p.kind(replication.AdminConnect)
	p.wait("connect", connected)
	k.wait("connect", procState.connected)
}

// established starts a pair that is in sync because the kernel's operator says so.
func established(t *testing.T, o options) (*kernel, *peer) {
	t.Helper()
	k, p := start(t, o)
	connect(k, p)
	k.sh("drbdadm -- --clear-bitmap new-current-uuid r0/0")
	if o.two {
		k.sh("drbdadm -- --clear-bitmap new-current-uuid r0/1")
	}
	settled(k, p)
	return k, p
}

// settled waits until both nodes say that they are in sync, and compares the states that
// they report, their generations, and their disks byte by byte outside of the metadata.
func settled(k *kernel, p *peer) {
	k.t.Helper()
	settledVolume(k, p, 0, k.disk, p.disk)
	if p.o.two {
		settledVolume(k, p, 1, machine.big, secondDisk())
	}
}

func settledVolume(k *kernel, p *peer, vol uint16, theirs, ours string) {
	k.t.Helper()
	p.waitFor(vol, "in sync", inSync)
	k.waitFor(vol, "in sync, roles as replblk says", func(s procState) bool { return s.inStep(p, vol) })
	sameUUIDs(k, p, vol)
	if n := p.Status().Volumes[vol].OutOfSync; n != 0 {
		k.t.Errorf("replblk: volume %d: %d blocks out of sync", vol, n)
	}
	size := int64(p.Volume(vol).Geometry().Sectors) * 512
	if p.o.proto() == 'A' { // an answered write may still be on its way
		for deadline := time.Now().Add(waitTimeout / 2); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
			if s, err := firstDifference(theirs, ours, size); err != nil || s < 0 {
				break
			}
		}
	}
	sameDisks(k.t, theirs, ours, size)
}

// agreed waits until both nodes are connected again, without a resync, and in sync.
func agreed(k *kernel, p *peer) {
	k.t.Helper()
	before := k.gi()
	settled(k, p)
	if after := k.gi(); before != after {
		k.t.Errorf("kernel: UUIDs were %v, are %v", before, after)
	}
}

// justCreated is the generation of a disk that never had any data.
const justCreated = 4

// sameUUIDs compares the generation identifiers. Bit 0 of the current one is the
// role, and of the others a leftover. A history with the generation of the empty disk
// is as good as one without.
func sameUUIDs(k *kernel, p *peer, vol uint16) {
	k.t.Helper()
	var ours [4]string
	for i, u := range p.Status().Volumes[vol].UUIDs {
		ours[i] = fmt.Sprintf("%016X", u)
	}
	theirs := k.giOf(vol)
	if k.overran {
		theirs[3], ours[3] = "0", "0"
	}
	sameGenerations(k.t, theirs, ours)
}

func sameGenerations(t *testing.T, theirs, ours [4]string) {
	t.Helper()
	t.Logf("kernel %v, replblk %v", theirs, ours)
	for i := range theirs {
		var n, m uint64
		if _, err := fmt.Sscanf(theirs[i]+" "+ours[i], "%X %X", &n, &m); err != nil {
			t.Fatal(err)
		}
		if i > 1 && (n == justCreated && m == 0 || n == 0 && m == justCreated) {
			continue
		}
		if n&^1 != m&^1 {
			t.Errorf("UUID %d: kernel has %s, replblk %s", i, theirs[i], ours[i])
		}
	}
}

// sameDisks compares the first size bytes of two files.
func sameDisks(t *testing.T, a, b string, size int64) {
	t.Helper()
	if sector, err := firstDifference(a, b, size); err != nil {
		t.Fatal(err)
	} else if sector >= 0 {
		t.Errorf("disks differ from sector %d on", sector)
	}
}

// firstDifference returns the first sector that two files do not share, -1 if there is
// none.
func firstDifference(a, b string, size int64) (int64, error) {
	fa, err := os.Open(a)
	if err != nil {
		return 0, err
	}
	defer fa.Close()
	fb, err := os.Open(b)
	if err != nil {
		return 0, err
	}
	defer fb.Close()
	ma, err := mapped(fa, size)
	if err != nil {
		return 0, err
	}
	defer func() { _ = syscall.Munmap(ma) }()
	mb, err := mapped(fb, size)
	if err != nil {
		return 0, err
	}
	defer func() { _ = syscall.Munmap(mb) }()
	const chunk = 1 << 20
	for off := int64(0); ; off += chunk {
		if off, err = nextData(off, size, fa, fb); err != nil || off >= size {
			return -1, err
		}
		n := min(chunk, size-off)
		a, b := ma[off:off+n], mb[off:off+n]
		if bytes.Equal(a, b) {
			continue
		}
		for s := int64(0); s < n; s += 512 {
			if !bytes.Equal(a[s:s+512], b[s:s+512]) {
				return (off + s) / 512, nil
			}
		}
	}
}

// mapped is the beginning of a file in memory: there is too much of it to copy every time.
func mapped(f *os.File, size int64) ([]byte, error) {
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if fi.Size() < size {
		return nil, fmt.Errorf("%s has %d bytes, want %d", f.Name(), fi.Size(), size)
	}
	return syscall.Mmap(int(f.Fd()), 0, int(size), syscall.PROT_READ, syscall.MAP_SHARED)
}

// nextData returns where, from off on, one of the files has something else than a hole;
// size if none has.
func nextData(off, size int64, files ...*os.File) (int64, error) {
	const seekData = 3 // SEEK_DATA of lseek(2)
	next := size
	for _, f := range files {
		switch n, err := syscall.Seek(int(f.Fd()), off, seekData); {
		case err == nil:
			next = min(next, n)
		case !errors.Is(err, syscall.ENXIO): // which is: no more data
			return 0, err
		}
	}
	return next, nil
}

// TestComparisonNotices is about these tests: one byte that differs is found.
func TestComparisonNotices(t *testing.T) {
	k, p := established(t, brisk())
	k.sh("drbdadm primary r0")
	k.dd(1, 0, 8192)
	settled(k, p)
	f, err := os.OpenFile(p.disk, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte{0xff}, 5000*512+17); err != nil {
		t.Fatal(err)
	}
	if s, err := firstDifference(k.disk, p.disk, int64(p.sectors())*512); err != nil || s != 5000 {
		t.Errorf("difference found in sector %d, %v, want 5000", s, err)
	}
	p.kind(replication.AdminInvalidate)
}

// TestCommandsArrive is about these tests too: a command of which the serial line has lost a character is not
// carried out, but asked for again.
func TestCommandsArrive(t *testing.T) {
	for _, lossy := range []string{"7 1 10 7\necho los\n\n", "7 1 10 70\necho lost\n\n"} {
		if _, err := machine.shell.Write([]byte(lossy)); err != nil {
			t.Fatal(err)
		}
		// It hears "again" about what it has not sent, and sends its own twice.
		if out, code, err := machine.run("echo two; echo lines", commandTimeout); err != nil || code != 0 || out == "" || strings.Contains(out, "los") {
			t.Errorf("after %q: exit %d, %v: %s", lossy, code, err, out)
		}
	}
}
