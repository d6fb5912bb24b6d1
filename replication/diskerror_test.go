package replication

import (
	"testing"

	"github.com/replblk/replblk/replication/state"
)

// Scenarios of the fault catalogue: a disk that fails one operation.

// B11: a read error takes the disk of a Primary out of service. What it could not read is
// remembered on the disk, and copied from the peer when it is attached again.
func TestUnreadableBlockIsCopiedAfterTheAttach(t *testing.T) {
	p := newPair(fastResync(), fastResync())
	a, b := establish(t, p)
	a.request(OpWrite, 800, 4096, 5)
	p.tick(30)
	a.data[800], a.bad[800] = 99, true
	id := a.request(OpRead, 800, 4096, 0)
	p.tick(3)
	if o, ok := a.outcome[id]; !ok || o != OK || a.reqs[id][0] != 5 || a.r.State(0).Disk != state.Diskless {
		t.Fatalf("read %v %v: %d, %v", ok, o, a.reqs[id][0], a.r.State(0))
	}
	delete(a.bad, 800)
	a.attach()
	p.tick(60)
	p.states(t, "Connected Primary/Secondary UpToDate/UpToDate", "Connected Secondary/Primary UpToDate/UpToDate")
	p.equal(t)
	if a.data[800] != 5 {
		t.Errorf("a has %d, b %d", a.data[800], b.data[800])
	}
}

// W20: a discard that one of the disks refuses. Nothing is detached on the node that could do
// it, and both read the same in the end.
func TestDiscardFailsOnOneSide(t *testing.T) {
	for who := range 2 {
		p := newPair(fastResync(), fastResync())
		a, _ := establish(t, p)
		a.request(OpWrite, 256, 65536, 5)
		p.tick(2)
		p.nodes[who].failing[OpDiscard] = true
		id := a.request(OpDiscard, 256, 65536, 0)
		p.tick(5)
		if o, ok := a.outcome[id]; !ok || o != OK {
			t.Fatalf("node %d: %v %v\n%s", who, ok, o, p.take())
		}
		if s := p.nodes[1-who].r.State(0); s.Disk != state.UpToDate {
			t.Errorf("the other node is %v", s)
		}
		p.nodes[who].failing[OpDiscard] = false
		p.nodes[who].attach()
		p.tick(60)
		p.states(t, "Connected Primary/Secondary UpToDate/UpToDate", "Connected Secondary/Primary UpToDate/UpToDate")
		p.equal(t)
	}
}
