//go:build interop

package interop

import (
	"testing"
	"time"

	"github.com/replblk/replblk/block"
	"github.com/replblk/replblk/replication"
	"github.com/replblk/replblk/replication/state"
)

// TestDetachUnderLoad has both nodes lose their disks in turn, and get them back, while the
// Primary writes without a pause.
func TestDetachUnderLoad(t *testing.T) {
	turns := func(k *kernel, p *peer) {
		for range 2 {
			p.do(replication.Admin{Kind: replication.AdminDetach})
			k.wait("replblk is Diskless", func(s procState) bool { return s.ds == "UpToDate/Diskless" })
			p.attach()
			p.wait("replblk is back", func(s state.State) bool { return s.Disk == state.UpToDate })
			k.wait("replblk is back", func(s procState) bool { return s.ds == "UpToDate/UpToDate" })
			k.sh("drbdadm detach r0")
			p.wait("the kernel is Diskless", func(s state.State) bool { return s.PeerDisk == state.Diskless })
			k.sh("drbdadm attach r0")
			k.wait("the kernel is back", func(s procState) bool { return s.ds == "UpToDate/UpToDate" })
			p.wait("its source knows", func(s state.State) bool { return s.PeerDisk == state.UpToDate })
		}
	}
	t.Run("kernel Primary", func(t *testing.T) {
		k, p := established(t, brisk())
		k.allowed = []string{upgraded, "my Disk seems to have failed"} // says the kernel of a write that is done when it has let its disk go
		k.sh("drbdadm primary r0")
		stop := k.keepWriting(0)
		turns(k, p)
		stop()
	})
	t.Run("replblk Primary", func(t *testing.T) {
		k, p := established(t, brisk())
		k.allowed = []string{upgraded}
		p.kind(replication.AdminPrimary)
		enough, done := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(done)
			for seed := uint64(1); ; seed++ {
				select {
				case <-enough:
					return
				default:
					p.scribbleAt(seed, 5, 0, 60000)
				}
			}
		}()
		turns(k, p)
		close(enough)
		<-done
	})
}

// TestNoData: a Primary without a disk loses the node that serves it. With on-no-data-accessible
// suspend-io its requests wait for the other one instead of failing.
func TestNoData(t *testing.T) {
	t.Run("replblk Primary", func(t *testing.T) {
		o := outage()
		quick := o.core
		o.core = func(c *replication.Config) { quick(c); c.SuspendOnNoData = true }
		k, p := established(t, o)
		k.allowed = append([]string{upgraded}, noticed...)
		p.kind(replication.AdminPrimary)
		p.scribble(1, 5)
		p.do(replication.Admin{Kind: replication.AdminDetach})
		k.wait("replblk is Diskless", func(s procState) bool { return s.ds == "UpToDate/Diskless" })
		cable(t, "down")
		defer cable(t, "up")
		p.wait("no data", func(s state.State) bool { return s.SuspNod && s.Conn < state.Connected })
		written := make(chan error, 1)
		go func() { written <- block.WriteAt(p.Volume(0), make([]byte, 65536), 4096) }()
		select {
		case err := <-written:
			t.Fatalf("a write without any data was answered: %v", err)
		case <-time.After(time.Second):
		}
		k.wait("replblk has gone", procState.waiting)
		cable(t, "up")
		if err := <-written; err != nil {
			t.Errorf("write: %v", err)
		}
		p.scribble(2, 5)
		p.attach()
	})
	t.Run("kernel Primary", func(t *testing.T) {
		o := outage()
		k, p := established(t, o)
		k.allowed = append([]string{upgraded, "Not fencing peer"}, noticed...)
		k.sh("drbdsetup resource-options r0 --on-no-data-accessible=suspend-io && drbdadm primary r0")
		k.dd(1, 0, 1024)
		k.sh("drbdadm detach r0")
		p.wait("the kernel is Diskless", func(s state.State) bool { return s.PeerDisk == state.Diskless })
		cable(t, "down")
		defer cable(t, "up")
		p.wait("the kernel has gone", waiting)
		k.wait("no data", func(s procState) bool { return s.waiting() && s.flags[0] == 's' })
		k.sh("rm -f /tmp/wrote; (yes waits | dd of=/dev/drbd0 bs=64k iflag=fullblock count=16 oflag=direct conv=notrunc 2>/tmp/wrote.err && touch /tmp/wrote) >/dev/null & sleep 1; ! [ -e /tmp/wrote ]")
		cable(t, "up")
		k.sh(awaitFile("/tmp/wrote", 900, "cat /tmp/wrote.err /proc/drbd"))
		k.sh("drbdadm attach r0")
	})
}
