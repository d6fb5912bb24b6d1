//go:build interop

package interop

import (
	"io"
	"os"
	"testing"

	"github.com/replblk/replblk/replication"
)

// TestTakeover exchanges the disks of the two nodes, metadata and all: replblk goes on
// with what the kernel has written and the kernel with what replblk has written. Both
// must find the same generations, so that nothing is resynced.
func TestTakeover(t *testing.T) {
	o := options{}
	k, p := established(t, o)
	kernelWrites(k, p)
	for range 2 { // there and back
		k.sh("drbdadm down r0")
		p.close()
		exchangeDisks(t, k.disk, p.disk)
		k.forgetCache()
		p = k.again(o)
		k.up()
		p.kind(replication.AdminConnect)
		agreed(k, p)
		replblkWrites(k, p)
		kernelWrites(k, p)
	}
}

// TestTakeoverCrashed gives replblk the disk of a kernel that was Primary and lost
// power: its activity log says what may not be on the other disk.
func TestTakeoverCrashed(t *testing.T) {
	o := options{}
	k, p := established(t, o)
	k.sh("drbdadm primary r0")
	k.fio("8m")
	k.dd(1, 0, 65536)
	k.sh("sync")
	crashed := readFile(t, k.disk) // as it would be after a power failure now
	k.sh("drbdadm down r0")
	p.close()
	survivor := readFile(t, p.disk)
	writeFile(t, p.disk, crashed)
	writeFile(t, k.disk, survivor)
	k.forgetCache()
	k.up()
	p = k.again(o)
	if n := p.Status().Volumes[0].OutOfSync; n < 1024 {
		t.Errorf("replblk: %d blocks out of sync after the activity log was applied", n)
	}
	p.kind(replication.AdminConnect)
}

// TestTakeoverCrashedReplblk gives the kernel the disk of replblk as a Primary that
// lost power.
func TestTakeoverCrashedReplblk(t *testing.T) {
	o := options{}
	k, p := established(t, o)
	p.kind(replication.AdminPrimary)
	p.scribble(1, 40)
	crashed := readFile(t, p.disk)
	p.close()
	k.sh("drbdadm down r0")
	survivor := readFile(t, k.disk)
	writeFile(t, p.disk, survivor)
	writeFile(t, k.disk, crashed)
	k.forgetCache()
	p = k.again(o)
	k.up()
	if s := k.state(); s.oos == "0" {
		t.Errorf("kernel: nothing out of sync after the activity log was applied: %+v", s)
	}
	p.kind(replication.AdminConnect)
}

// again starts replblk's node again on its disk, which may have been exchanged.
func (k *kernel) again(o options) *peer {
	k.t.Helper()
	k.peer = newPeer(k.t, o, k.peer.disk, false)
	return k.peer
}

func exchangeDisks(t *testing.T, a, b string) {
	t.Helper()
	x, y := readFile(t, a), readFile(t, b)
	writeFile(t, a, y)
	writeFile(t, b, x)
}

func readFile(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// writeFile overwrites in place: the machine has the file open.
func writeFile(t *testing.T, path string, b []byte) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := io.NewOffsetWriter(f, 0).Write(b); err != nil {
		t.Fatal(err)
	}
}
