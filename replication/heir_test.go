package replication

import (
	"testing"

	"github.com/replblk/replblk/replication/state"
	"github.com/replblk/replblk/replication/wire"
)

// TestOnlyCopyIsAnsweredWithItsGeneration: the Primary's disk fails. What only the peer has is
// answered when the peer's new generation is on its disk: before that, if both nodes die, the
// crashed Primary would be the source and take it back (found by the simulator, seed 45579).
func TestOnlyCopyIsAnsweredWithItsGeneration(t *testing.T) {
	fail := func(t *testing.T) (p *pair, a, b *testNode, id, read ReqID) {
		p = newPair()
		a, b = establish(t, p)
		p.tick(3)
		b.stuck, a.failing[OpWrite] = true, true
		id = a.request(OpWrite, 8, 4096, 5)
		p.settle()
		read = a.request(OpRead, 8, 4096, 0)
		p.tick(5)
		if _, ok := a.outcome[id]; ok || b.data[8] != 5 || a.r.State(0).PeerDisk != state.UpToDate {
			t.Fatalf("answered %v, the peer has %d\n%s", ok, b.data[8], p.take())
		}
		if _, ok := a.outcome[read]; ok {
			t.Fatal("an application has read what both may forget")
		}
		return p, a, b, id, read
	}
	for name, tc := range map[string]struct {
		then func(p *pair, b *testNode)
		want Outcome
	}{
		"durable": {func(p *pair, b *testNode) { b.unstick(); p.tick(2) }, OK},
		"lost":    {func(p *pair, _ *testNode) { p.apart = true; p.cut(); p.tick(2) }, IOError},
		"failed":  {func(p *pair, b *testNode) { b.metaErr = DiskIOError; b.unstick(); p.tick(2) }, IOError},
		"never":   {func(p *pair, _ *testNode) { p.tick(testConfig().TimeoutTenths) }, OK},
	} {
		t.Run(name, func(t *testing.T) {
			p, a, b, id, read := fail(t)
			tc.then(p, b)
			if o, ok := a.outcome[id]; !ok || o != tc.want || a.outcome[read] != tc.want {
				t.Errorf("write answered %v %v, read %v, want %v\n%s", ok, o, a.outcome[read], tc.want, p.take())
			}
			if f := a.r.Status().Volumes[0].Frozen; f {
				t.Error("still frozen")
			}
		})
	}
}

// TestHeirOfADetachedDisk: the same when an operator has taken the disk away. A peer of our kind
// does not write before its new generation is durable; a kernel may, and says so.
func TestHeirOfADetachedDisk(t *testing.T) {
	p := newPair()
	a, b := establish(t, p)
	p.tick(3)
	b.stuck = true
	detached := a.admin(Admin{Kind: AdminDetach})
	id := a.request(OpWrite, 8, 4096, 5)
	p.settle()
	if q := &a.r.ios.list[0]; q.sector != 8 || !a.replies[detached].OK() {
		t.Fatalf("the write is not in slot 0: %+v; detach %v\n%s", q, a.replies[detached], p.take())
	}
	ack := wire.BlockAck{Sector: 8, BlockID: a.r.ios.blockID(0), Size: 4096}
	a.hears(wire.CmdWriteAck, MetaSocket, ack.AppendTo(nil))
	p.tick(3)
	if o, ok := a.outcome[id]; ok {
		t.Fatalf("answered %v before the peer has told its new generation\n%s", o, p.take())
	}
	b.unstick()
	p.tick(2)
	if o, ok := a.outcome[id]; !ok || o != OK || b.data[8] != 5 {
		t.Fatalf("write: %v %v, %d\n%s", ok, o, b.data[8], p.take())
	}
	a.attach()
	p.tick(30)
	p.states(t, "Connected Primary/Secondary UpToDate/UpToDate", "Connected Secondary/Primary UpToDate/UpToDate")
	p.equal(t)
}

// TestNothingWaitsForNoHeir: a Primary loses a disk that did not count, that of a target. Its
// peer begins no generation, so nothing waits for one.
func TestNothingWaitsForNoHeir(t *testing.T) {
	p := newPair()
	a, b := establish(t, p)
	if r := p.command(t, a, Admin{Kind: AdminInvalidate}); !r.OK() || a.r.State(0).Conn != state.SyncTarget {
		t.Fatalf("%v, %v", r, a.r.State(0))
	}
	detached := a.admin(Admin{Kind: AdminDetach})
	p.settle()
	id := a.request(OpWrite, 8, 4096, 5)
	p.settle()
	if o, ok := a.outcome[id]; !ok || o != OK || b.data[8] != 5 || !a.replies[detached].OK() {
		t.Fatalf("write: %v %v, %d; detach %v, %v\n%s", ok, o, b.data[8], a.replies[detached], a.r.State(0), p.take())
	}
}

// TestHeirThatIsNotHeardOf: the Primary's disk is taken away, and the connection is lost before
// the peer has told its new generation. The disk cannot come back before the peer does.
func TestHeirThatIsNotHeardOf(t *testing.T) {
	p := newPair()
	a, b := establish(t, p)
	a.request(OpWrite, 8, 4096, 1)
	p.tick(3)
	b.stuck = true
	a.admin(Admin{Kind: AdminDetach})
	p.tick(2)
	p.apart = true
	p.cut()
	b.unstick()
	p.tick(3)
	a.attach()
	p.tick(60)
	p.states(t, "WFConnection Primary/Unknown Diskless/DUnknown", "WFConnection Secondary/Unknown UpToDate/DUnknown")
	p.apart = false
	p.tick(3)
	a.attach()
	p.tick(60)
	p.states(t, "Connected Primary/Secondary UpToDate/UpToDate", "Connected Secondary/Primary UpToDate/UpToDate")
	p.equal(t)
}
