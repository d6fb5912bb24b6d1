package replication

import (
	"testing"

	"github.com/replblk/replblk/replication/state"
)

func fencingConfig() Config {
	c := testConfig()
	c.Volumes[0].Fencing = state.ResourceAndStonith
	return c
}

// handled answers the handler that a node has started.
func (n *testNode) handled(t *testing.T, want Handler, exit int) {
	t.Helper()
	for i := range n.handlers {
		if n.handlers[i].Handler == want && n.handlers[i].IO != 0 {
			n.post(Event{Kind: EvHandler, IO: n.handlers[i].IO, Exit: exit})
			n.handlers = nil
			n.p.settle()
			return
		}
	}
	t.Fatalf("%s did not run %v", n.name, want)
}

func TestWritesWaitForFencing(t *testing.T) {
	for _, tc := range []struct {
		exit   int
		thawed bool
	}{{fencePeerOutdated, true}, {fencePeerKilled, true}, {fencePeerUnreachable, true}, {fencePeerInconsistent, true}, {0, false}, {1, false}} {
		p := newPair(fencingConfig(), fencingConfig())
		a, _ := establish(t, p)
		p.apart = true
		p.cut()
		p.settle()
		id := a.request(OpWrite, 8, 4096, 5)
		p.tick(20)
		if _, ok := a.outcome[id]; ok || !a.r.State(0).SuspFen {
			t.Fatal("I/O goes on before the peer is fenced")
		}
		a.handled(t, HandlerFencePeer, tc.exit)
		if o, ok := a.outcome[id]; ok != tc.thawed || o != OK {
			t.Fatalf("exit %d: answered %v, outcome %v\n%s", tc.exit, ok, o, p.take())
		}
	}
}

func TestReconnectEndsTheWaitForFencing(t *testing.T) {
	p := newPair(fencingConfig(), fencingConfig())
	a, b := establish(t, p)
	p.apart = true
	p.cut()
	p.settle()
	id := a.request(OpWrite, 8, 4096, 5)
	p.tick(5)
	p.apart = false
	p.tick(30)
	if o, ok := a.outcome[id]; !ok || o != OK {
		t.Fatalf("write: %v %v\n%s", o, ok, p.take())
	}
	if b.data[8] != 5 {
		t.Fatal("b misses the write")
	}
	p.equal(t)
}

func TestPromotionFencesFirst(t *testing.T) {
	p := newPair(fencingConfig(), fencingConfig())
	a, b := establish(t, p)
	a.request(OpWrite, 8, 4096, 5)
	p.tick(2)
	p.apart = true
	p.cut()
	p.tick(2)
	token := b.admin(Admin{Kind: AdminPrimary})
	p.tick(2)
	if r, ok := b.replies[token]; ok {
		t.Fatalf("answered %v before the peer is fenced", r)
	}
	b.handled(t, HandlerFencePeer, fencePeerKilled)
	p.tick(2)
	if b.replies[token] != state.Success || b.r.State(0).PeerDisk != state.Outdated {
		t.Fatalf("promotion: %v, %v\n%s", b.replies[token], b.r.State(0), p.take())
	}
}
