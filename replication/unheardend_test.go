package replication

import (
	"testing"

	"github.com/replblk/replblk/metadata"
	"github.com/replblk/replblk/replication/state"
)

// endUnheard is a pair with fencing whose b was the target of a resync and is UpToDate, which a,
// the Primary, has not heard of: it does not look at its events.
func endUnheard(t *testing.T) (p *pair, a, b *testNode) {
	t.Helper()
	p = newPair(fencingConfig(), fencingConfig())
	a, b = establish(t, p)
	p.apart = true
	p.cut()
	p.settle()
	a.handled(t, HandlerFencePeer, fencePeerUnreachable)
	a.request(OpWrite, 8, 4096, 7)
	p.tick(2)
	p.apart = false
	b.watch = func() {
		if s := b.r.State(0); s.Disk == state.UpToDate && s.Conn == state.Connected {
			a.asleep = true
		}
	}
	for n := 0; n < 100 && !a.asleep; n++ {
		p.tick(1)
	}
	b.watch = nil
	if s, peer := a.r.State(0), b.r.State(0); s.Conn != state.SyncSource || peer.Disk != state.UpToDate {
		t.Fatalf("a is %v, b is %v", s, peer)
	}
	a.hold(EvPacket)
	a.asleep, p.apart = false, true
	return p, a, b
}

// TestSourceDoesNotHearTheEnd: the connection is lost when a resync has come to its end at the
// target and the source, a Primary, has not heard of it. What it knows is that the target
// has confirmed every block, so that this may be as good as its own copy and be promoted
// without what is written from now on: it must be fenced before anything is answered.
func TestSourceDoesNotHearTheEnd(t *testing.T) {
	p, a, b := endUnheard(t)
	p.cut()
	p.settle()
	id := a.request(OpWrite, 16, 4096, 8)
	p.tick(20)
	if _, ok := a.outcome[id]; ok || !a.r.State(0).SuspFen {
		t.Fatalf("a is %v, and goes on beside b, which is %v", a.r.State(0), b.r.State(0))
	}
	b.admin(Admin{Kind: AdminOutdate})
	p.settle()
	a.handled(t, HandlerFencePeer, fencePeerOutdated)
	if a.outcome[id] != OK {
		t.Fatalf("write: %v", a.outcome[id])
	}
	p.apart = false
	p.tick(60)
	p.states(t, "Connected Primary/Secondary UpToDate/UpToDate", "Connected Secondary/Primary UpToDate/UpToDate")
	p.equal(t)
}

// TestSourceDiesBeforeItHearsTheEnd: the same, and the source loses its power. Its disk does not
// say that the peer is Outdated, for it is not, and may be Primary by then.
func TestSourceDiesBeforeItHearsTheEnd(t *testing.T) {
	p, a, b := endUnheard(t)
	p.cut()
	if f := a.decoded(t).Flags; f.Has(metadata.PeerOutDated) || !f.Has(metadata.WasUpToDate) {
		t.Errorf("on the disk of a: %v", f)
	}
	a.restart(fencingConfig())
	p.settle()
	if s := a.r.State(0); s.Disk != state.Consistent {
		t.Errorf("a is %v beside b, which is %v", s, b.r.State(0))
	}
	a.admin(Admin{Kind: AdminConnect})
	p.apart = false
	p.tick(60)
	p.states(t, "Connected Secondary/Secondary UpToDate/UpToDate", "Connected Secondary/Secondary UpToDate/UpToDate")
	p.equal(t)
}
