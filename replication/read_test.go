package replication

import (
	"testing"

	"github.com/replblk/replblk/replication/state"
)

// unsettledWrite is a Primary, the target of a resync, with a write that the peer has and the own disk
// does not answer. An application has read the new contents, from the peer. What it owes is in a.owed.
func unsettledWrite(t *testing.T) (p *pair, a *testNode, id ReqID) {
	t.Helper()
	p = newPair(fastResync(), fastResync())
	a, _ = establish(t, p)
	a.request(OpWrite, 8, 4096, 5)
	p.tick(3)
	a.admin(Admin{Kind: AdminInvalidate})
	for step := 0; a.r.State(0).Conn != state.SyncTarget || !a.r.vols[0].inSync(8, 8); step++ {
		if step == 100 {
			t.Fatalf("a is %v\n%s", a.r.State(0), p.take())
		}
		p.tick(1)
	}
	a.hung = true
	id = a.request(OpWrite, 8, 4096, 7)
	a.next()
	a.hung = false
	if p.settle(); len(a.owed) != 1 || a.data[8] != 5 {
		t.Fatalf("the disk of a owes %d answers, it has %d\n%s", len(a.owed), a.data[8], p.take())
	}
	return p, a, id
}

// endWrite lets the disk do what it owes, and checks that both are answered only then.
func endWrite(t *testing.T, p *pair, a *testNode, write, read ReqID, want Outcome) {
	t.Helper()
	p.settle()
	if o, ok := a.outcome[read]; ok {
		t.Fatalf("a is %v, the read is answered %v, with %d\n%s", a.r.State(0), o, a.reqs[read][0], p.take())
	}
	for i := range uint64(8) {
		a.data[8+i] = 7
	}
	a.post(Event{Kind: EvDisk, IO: a.owed[0]})
	p.settle()
	for _, id := range []ReqID{write, read} {
		if o, ok := a.outcome[id]; !ok || o != want || o == OK && a.reqs[id][0] != 7 {
			t.Errorf("a is %v, request %d: %v %v, %d\n%s", a.r.State(0), id, ok, o, a.reqs[id][0], p.take())
		}
	}
}

// ended waits for the end of the resync, of which the write is no part.
func ended(t *testing.T, p *pair, a *testNode) {
	t.Helper()
	for step := 0; a.r.State(0).Disk != state.UpToDate; step++ {
		if step == 300 {
			t.Fatalf("a is %v\n%s", a.r.State(0), p.take())
		}
		p.tick(1)
	}
}

// A Primary that was the target of a resync until a moment ago has read from its peer what a write
// has not brought to its own disk yet. When the connection is lost, a read waits for that write: it
// must not see the old contents after the new ones (simulator, seed 140886). If the resync has not
// ended, neither counts then.
func TestReadWaitsForTheOwnDisk(t *testing.T) {
	for _, want := range []Outcome{OK, IOError} {
		p, a, write := unsettledWrite(t)
		if want == OK {
			ended(t, p, a)
		}
		seen := a.request(OpRead, 8, 4096, 0)
		if p.settle(); a.outcome[seen] != OK || a.reqs[seen][0] != 7 {
			t.Fatalf("a is %v, read %d\n%s", a.r.State(0), a.reqs[seen][0], p.take())
		}
		p.apart = true
		p.cut()
		endWrite(t, p, a, write, a.request(OpRead, 8, 4096, 0), want)
	}
}

// So does a read that the peer was asked for when the connection was lost.
func TestReadOnItsWayWaitsForTheOwnDisk(t *testing.T) {
	p, a, write := unsettledWrite(t)
	ended(t, p, a)
	read := a.request(OpRead, 8, 4096, 0)
	a.alone()
	p.apart = true
	p.cut()
	endWrite(t, p, a, write, read, OK)
}
