package replication

import (
	"slices"
	"testing"

	"github.com/replblk/replblk/metadata"
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

// A Primary that is suspended until its peer is fenced goes on with a peer that has come back and
// lacks its writes when that has heard so, and not before: the peer may be disconnected, and
// would be promoted without them (found by the simulator, seed 37967).
func TestReconnectedTargetMustHear(t *testing.T) {
	p := newPair(fencingConfig(), fencingConfig())
	a, b := establish(t, p)
	p.apart = true
	b.asleep = true
	id := a.request(OpWrite, 8, 4096, 5)
	p.settle()
	p.cut()
	b.inbox, b.asleep = b.inbox[len(b.inbox)-1:], false
	p.tick(5)
	p.apart = false
	p.link()
	p.apart = true
	for steps := 0; a.r.State(0).Conn != state.WFBitMapS; steps++ {
		if steps > 1000 {
			t.Fatalf("a is %v\n%s", a.r.State(0), p.take())
		}
		if b.r.State(0).Conn < state.WFReportParams {
			b.next()
		}
		a.next()
	}
	a.alone()
	if o, ok := a.outcome[id]; ok {
		t.Errorf("the write is answered %v while b is %v", o, b.r.State(0))
	}
	b.admin(Admin{Kind: AdminDisconnect, Force: true})
	b.inbox = b.inbox[len(b.inbox)-1:]
	p.tick(5)
	if o, ok := a.outcome[id]; ok || !a.r.State(0).SuspFen {
		t.Errorf("a is %v, the write is answered %v %v, b is %v\n%s", a.r.State(0), ok, o, b.r.State(0), p.take())
	}
	b.admin(Admin{Kind: AdminConnect})
	p.apart = false
	p.tick(30)
	p.states(t, "Connected Primary/Secondary UpToDate/UpToDate", "Connected Secondary/Primary UpToDate/UpToDate")
	if p.equal(t); a.outcome[id] != OK || b.data[8] != 5 {
		t.Errorf("the write is answered %v, b has %d", a.outcome[id], b.data[8])
	}
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

// A frozen Primary, a zombie, begins no generation of its own: the node that takes over
// is the source when it comes back (P05, P07, X06; found by soak run).
func TestFrozenPrimaryFollowsWhoTookOver(t *testing.T) {
	p := newPair(fencingConfig(), fencingConfig())
	a, b := establish(t, p)
	generation := func(n *testNode) uint64 { return n.r.vols[0].disk.sb.UUIDs.Current() &^ 1 }
	before := generation(a)
	p.apart = true
	p.cut()
	p.settle()
	lost := a.request(OpWrite, 8, 4096, 5)
	p.tick(5)
	a.handled(t, HandlerFencePeer, 1) // the witness has chosen b
	b.admin(Admin{Kind: AdminPrimary})
	p.tick(2)
	b.handled(t, HandlerFencePeer, fencePeerKilled)
	b.request(OpWrite, 80, 4096, 6)
	p.tick(5)
	if _, answered := a.outcome[lost]; answered || generation(a) != before {
		t.Fatalf("a frozen Primary answered (%v) or went on to %x\n%s", answered, generation(a), p.take())
	}
	if generation(b) == before {
		t.Fatal("b wrote alone in the old generation")
	}
	a.r, a.inbox, a.wants = New(fencingConfig()), nil, false // shot, and started again
	a.attach()
	a.admin(Admin{Kind: AdminConnect})
	p.apart = false
	p.tick(30)
	p.states(t, "Connected Secondary/Primary UpToDate/UpToDate", "Connected Primary/Secondary UpToDate/UpToDate")
	if p.equal(t); a.data[80] != 6 {
		t.Fatal("a misses b's write")
	}
}

// The generation comes before the answer, once the peer is out of the way.
func TestGenerationFollowsFencing(t *testing.T) {
	p := newPair(fencingConfig(), fencingConfig())
	a, _ := establish(t, p)
	before := a.r.vols[0].disk.sb.UUIDs
	p.apart = true
	p.cut()
	p.settle()
	id := a.request(OpWrite, 8, 4096, 5)
	p.tick(5)
	a.stuck = true
	a.handled(t, HandlerFencePeer, fencePeerKilled)
	p.tick(1)
	now := a.r.vols[0].disk.sb.UUIDs
	if _, answered := a.outcome[id]; answered || now.Current() == before.Current() || now.Bitmap()|1 != before.Current()|1 {
		t.Fatalf("answered %v, generations %x after %x\n%s", answered, now, before, p.take())
	}
	a.stuck = false
	for _, io := range a.unsaid {
		a.post(Event{Kind: EvMeta, IO: io})
	}
	p.tick(2)
	if o, answered := a.outcome[id]; !answered || o != OK {
		t.Fatalf("answered %v %v\n%s", answered, o, p.take())
	}
}

// A disconnect under fencing outdates the one that does not go on, whoever asks for it
// (spec 5.3); it stays outdated until they are connected again.
func TestDisconnectOutdates(t *testing.T) {
	for _, asks := range []int{0, 1} {
		p := newPair(fencingConfig(), fencingConfig())
		a, b := establish(t, p)
		n := p.nodes[asks]
		token := n.admin(Admin{Kind: AdminDisconnect})
		p.tick(30)
		if n.replies[token] != state.Success {
			t.Fatalf("%s: disconnect: %v\n%s", n.name, n.replies[token], p.take())
		}
		sa, sb := a.r.State(0), b.r.State(0)
		if sa.PeerDisk != state.Outdated || sa.SuspFen || sb.Disk != state.Outdated || a.ran(HandlerFencePeer) {
			t.Fatalf("%s asked: a is %v, b is %v\n%s", n.name, sa, sb, p.take())
		}
		id := a.request(OpWrite, 8, 4096, 5)
		p.tick(2)
		if o, ok := a.outcome[id]; !ok || o != OK {
			t.Fatalf("write alone: %v %v", ok, o)
		}
		if r := b.admin(Admin{Kind: AdminPrimary}); true {
			p.tick(2)
			if b.replies[r] != state.NoUpToDateDisk {
				t.Fatalf("promotion of the outdated node: %v", b.replies[r])
			}
		}
		n.admin(Admin{Kind: AdminConnect})
		p.tick(30)
		p.states(t, "Connected Primary/Secondary UpToDate/UpToDate", "Connected Secondary/Primary UpToDate/UpToDate")
		p.equal(t)
	}
}

// TestDisconnectWhoseAnswerIsLost: the Secondary asks to be outdated with the end of the
// connection, the Primary agrees, and goes on without fencing. The Secondary is outdated too when
// the answer is lost (found by the simulator, seed 115791).
func TestDisconnectWhoseAnswerIsLost(t *testing.T) {
	p := newPair(fencingConfig(), fencingConfig())
	a, b := establish(t, p)
	p.apart = true
	token := b.admin(Admin{Kind: AdminDisconnect})
	for steps := 0; a.r.State(0).PeerDisk != state.Outdated; steps++ {
		if b.next(); steps > 100 {
			t.Fatalf("a is %v\n%s", a.r.State(0), p.take())
		}
		a.next()
	}
	b.inbox = slices.DeleteFunc(b.inbox, func(ev Event) bool { return ev.Kind == EvPacket })
	b.drop(true)
	id := a.request(OpWrite, 8, 4096, 5)
	p.tick(30)
	if s := b.r.State(0); s.Disk != state.Outdated || s.Conn != state.StandAlone || b.replies[token] != state.Success || a.outcome[id] != OK {
		t.Fatalf("b is %v, disconnect %v, write alone %v\n%s", s, b.replies[token], a.outcome[id], p.take())
	}
	promotion := b.admin(Admin{Kind: AdminPrimary})
	p.tick(2)
	if b.replies[promotion] != state.NoUpToDateDisk {
		t.Errorf("promotion of the outdated node: %v", b.replies[promotion])
	}
}

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

// TestSourceDisconnectsAtTheEnd: the same, and the operator disconnects the source, which has still to
// hear of the end: the target outdates itself with it, as if it had been known to be UpToDate.
func TestSourceDisconnectsAtTheEnd(t *testing.T) {
	p, a, b := endUnheard(t)
	token := a.admin(Admin{Kind: AdminDisconnect})
	id := a.request(OpWrite, 16, 4096, 8)
	p.tick(30)
	ok(t, p, a, token)
	if s := b.r.State(0); s.Disk >= state.Consistent || a.outcome[id] != OK || a.r.State(0).SuspFen {
		t.Fatalf("a is %v, write %v; b is %v\n%s", a.r.State(0), a.outcome[id], s, p.take())
	}
	p.apart = false
	a.admin(Admin{Kind: AdminConnect})
	b.admin(Admin{Kind: AdminConnect})
	p.tick(60)
	p.states(t, "Connected Primary/Secondary UpToDate/UpToDate", "Connected Secondary/Primary UpToDate/UpToDate")
	p.equal(t)
}

// TestSecondarySourceDisconnectsAtTheEnd: without a Primary nobody needs to be outdated, and the disk of
// the source does not say that the peer is.
func TestSecondarySourceDisconnectsAtTheEnd(t *testing.T) {
	p, a, b := endUnheard(t)
	a.admin(Admin{Kind: AdminSecondary})
	token := a.admin(Admin{Kind: AdminDisconnect})
	p.tick(30)
	ok(t, p, a, token)
	if f, s := a.decoded(t).Flags, b.r.State(0); f.Has(metadata.PeerOutDated) || s.Disk != state.UpToDate {
		t.Fatalf("on the disk of a: %v; b is %v\n%s", f, s, p.take())
	}
}
