//go:build interop

package interop

import (
	"testing"
	"time"

	"github.com/replblk/replblk/block"
	"github.com/replblk/replblk/replication"
	"github.com/replblk/replblk/replication/state"
)

// TestSuspendIO: the operator of a Primary suspends its requests and resumes them, once beside
// an idle connection, once while the other node goes and comes back: the writes wait, and both
// have them in the end.
func TestSuspendIO(t *testing.T) {
	for _, breaks := range []bool{false, true} {
		name := map[bool]string{true: ", the network breaks"}[breaks]
		t.Run("kernel Primary"+name, func(t *testing.T) {
			k, p := established(t, outage())
			k.allowed = append(k.allowed, "Suspended")
			k.sh("drbdadm primary r0")
			k.dd(1, 0, 1024)
			k.sh("drbdadm suspend-io r0; rm -f /tmp/wrote")
			k.wait("suspended", func(s procState) bool { return s.flags[0] == 's' })
			k.sh("(yes waits | dd of=/dev/drbd0 bs=64k iflag=fullblock count=16 oflag=direct conv=notrunc 2>/tmp/wrote.err && touch /tmp/wrote) >/dev/null & sleep 1; ! [ -e /tmp/wrote ]")
			resume := func() {
				k.sh("drbdadm resume-io r0; " + awaitFile("/tmp/wrote", 900, "cat /tmp/wrote.err /proc/drbd"))
			}
			if breaks {
				broken(k, p, resume)
			} else {
				resume()
			}
			settled(k, p)
			k.dd(2, 512, 1024)
		})
		t.Run("replblk Primary"+name, func(t *testing.T) {
			k, p := established(t, outage())
			p.kind(replication.AdminPrimary)
			p.scribble(1, 5)
			p.kind(replication.AdminSuspendIO)
			p.wait("suspended", func(s state.State) bool { return s.Susp })
			written := make(chan error, 1)
			go func() { written <- block.WriteAt(p.Volume(0), make([]byte, 65536), 4096) }()
			select {
			case err := <-written:
				t.Fatalf("a write was answered although requests are suspended: %v", err)
			case <-time.After(time.Second):
			}
			resume := func() {
				p.kind(replication.AdminResumeIO)
				if err := <-written; err != nil {
					t.Errorf("write: %v", err)
				}
			}
			if breaks {
				broken(k, p, resume)
			} else {
				resume()
			}
			settled(k, p)
			p.scribble(2, 5)
		})
	}
}
