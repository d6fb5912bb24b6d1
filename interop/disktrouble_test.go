//go:build interop

package interop

import (
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/replblk/replblk/block"
	"github.com/replblk/replblk/replication"
	"github.com/replblk/replblk/replication/state"
)

// troubled are the kernel's messages about a disk that has lost its upper half.
var troubled = []string{"Local IO failed", "error=10", "IO ERROR", "failed with error -5", "meta data update failed", "ASSERT( drbd_md_ss(device->ldev)",
	"Sending NegDReply", "Sending NegRSDReply", "Can not satisfy peer's read request", "Resync aborted", "callbacks suppressed", upgraded}

// halved is a pair whose kernel's disk can fail: on-io-error is pass_on, so that the peer is
// told about each block before the disk is given up.
func halved(t *testing.T) (k *kernel, p *peer, lost uint64) {
	t.Helper()
	o := verifying("crc32c")
	o.kernelDisk += "on-io-error pass_on;"
	k, p = established(t, o)
	k.allowed = troubled
	t.Cleanup(func() { k.resize(diskSize) })
	return k, p, diskSize / 512 * 3 / 4
}

// halve makes all I/O of the kernel to the upper half of its disk fail, and returns what was
// there: a disk that is made smaller forgets it.
func (k *kernel) halve() []byte {
	k.t.Helper()
	k.sh("sync")
	lost := readFile(k.t, k.disk)[diskSize/2:]
	k.resize(diskSize / 2)
	return lost
}

// mend makes the disk whole again and gives it back to the kernel.
func (k *kernel) mend(lost []byte) {
	k.t.Helper()
	k.sh("drbdadm detach r0")
	k.resize(diskSize)
	f, err := os.OpenFile(k.disk, os.O_WRONLY, 0)
	if err != nil {
		k.t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(lost, diskSize/2); err != nil {
		k.t.Fatal(err)
	}
	k.sh(fmt.Sprintf("until [ $(blockdev --getsize64 /dev/vda) = %d ]; do sleep 0.1; done", diskSize))
	k.forgetCache()
	k.sh("drbdadm attach r0")
}

func kernelDiskless(s state.State) bool { return s.PeerDisk == state.Diskless }

// TestFailingKernelDisk takes half of the kernel's disk away, metadata too, in the middle
// of its service: the kernel refuses single blocks (P_NEG_ACK, P_NEG_DREPLY,
// P_NEG_RS_DREPLY), then gives its disk up. With its disk whole again it catches up.
func TestFailingKernelDisk(t *testing.T) {
	t.Run("write", func(t *testing.T) {
		k, p, lost := halved(t)
		p.kind(replication.AdminPrimary)
		p.scribble(1, 10)
		upper := k.halve()
		if err := block.WriteAt(p.Volume(0), make([]byte, 8192), lost); err != nil {
			t.Errorf("replblk has a good disk, and its write fails: %v", err)
		}
		p.wait("the kernel gives its disk up", kernelDiskless)
		if n := p.Status().Volumes[0].OutOfSync; n != 2 {
			t.Errorf("%d blocks out of sync, want the 2 of the write", n)
		}
		p.refuses(replication.Admin{Kind: replication.AdminDetach}, state.NoUpToDateDisk)
		p.scribble(2, 10)
		k.mend(upper)
		settled(k, p)
	})
	t.Run("read", func(t *testing.T) {
		k, p, lost := halved(t)
		p.kind(replication.AdminPrimary)
		p.scribble(1, 10)
		p.kind(replication.AdminDetach)
		p.scribble(3, 5)
		k.wait("replblk is Diskless", func(s procState) bool { return s.ds == "UpToDate/Diskless" })
		upper := k.halve()
		buf := make([]byte, 8192)
		if err := block.ReadAt(p.Volume(0), buf, 0); err != nil {
			t.Errorf("read of what the kernel still has: %v", err)
		}
		if err := block.ReadAt(p.Volume(0), buf, lost); err == nil {
			t.Error("read of what nobody has succeeds")
		}
		p.wait("the kernel gives its disk up", kernelDiskless) // else the offer may overtake the news
		// The kernel began a generation when replblk lost its disk, and has it on a disk that is
		// gone: what replblk's own disk holds is older as far as anybody can tell.
		if err := p.offer(0, p.disk); err == nil {
			p.wait("the disk is refused", func(s state.State) bool { return s.Disk == state.Diskless })
		}
		k.mend(upper)
		p.wait("the kernel has its disk", func(s state.State) bool { return s.PeerDisk == state.UpToDate })
		if err := block.ReadAt(p.Volume(0), buf, lost); err != nil {
			t.Errorf("read from the disk that is back: %v", err)
		}
		p.attach()
		settled(k, p)
	})
	t.Run("resync", func(t *testing.T) {
		k, p, _ := halved(t)
		p.kind(replication.AdminInvalidate)
		p.wait("resync", func(s state.State) bool { return s.Conn == state.SyncTarget })
		time.Sleep(100 * time.Millisecond)
		upper := k.halve()
		p.wait("the kernel gives its disk up, or the resync has ended", func(s state.State) bool { return s.Conn == state.Connected })
		if s := p.State(0); s.Disk == state.UpToDate {
			t.Errorf("replblk has what nobody could read: %+v", s)
		}
		k.mend(upper)
		settled(k, p)
	})
}
