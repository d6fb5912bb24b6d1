package replication

import (
	"testing"

	"github.com/replblk/replblk/replication/state"
)

// TestFailedDiskDoesNotComeBackAsGood: a write fails here, is answered because the peer has
// it, and the connection is lost before the peer hears of the disk. The generations are
// equal, but the disk lacks the write: it must not serve.
func TestFailedDiskDoesNotComeBackAsGood(t *testing.T) {
	p := newPair()
	a, _ := establish(t, p)
	p.apart = true
	a.request(OpRead, 4096, 4096, 0)
	ev := a.inbox[0]
	a.inbox = nil
	a.step(&ev)
	slow := a.inbox[0] // as long as this read is on the disk, that is Failed and not Diskless
	a.inbox = nil
	a.failing[OpWrite] = true
	id := a.request(OpWrite, 8, 4096, 7)
	for n := 0; n < 1000 && len(a.outcome) == 0; n++ {
		for _, n := range p.nodes {
			n.next()
		}
	}
	if o, ok := a.outcome[id]; !ok || o != OK {
		t.Fatalf("write: %v, %v", o, ok)
	}
	p.cut()
	p.tick(2)
	a.post(slow)
	p.tick(2)
	a.failing[OpWrite] = false
	a.attach()
	p.tick(2)
	if s := a.r.State(0); s.Disk == state.UpToDate {
		t.Errorf("the disk that lacks the write is %v", s)
	}
}
