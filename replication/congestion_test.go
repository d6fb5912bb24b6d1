package replication

import (
	"slices"
	"testing"

	"github.com/replblk/replblk/metadata"
	"github.com/replblk/replblk/replication/state"
	"github.com/replblk/replblk/replication/wire"
)

// congestedPair is a pair with protocol A whose Primary, a, may have 64 sectors on their way.
func congestedPair(t *testing.T, policy OnCongestion) (*pair, *testNode, *testNode) {
	t.Helper()
	cfg := testConfig()
	cfg.Protocol, cfg.OnCongestion, cfg.CongestionFill = ProtocolA, policy, 64
	p := newPair(cfg, cfg)
	a, b := establish(t, p)
	return p, a, b
}

// TestPullAhead: a burst that the link cannot carry is answered at once, noted as out of sync,
// and copied when the link is idle again.
func TestPullAhead(t *testing.T) {
	p, a, b := congestedPair(t, CongestionPullAhead)
	b.asleep = true
	var ids []ReqID
	for i := range uint64(20) {
		ids = append(ids, a.request(OpWrite, i*80, 8192, 10+i))
	}
	p.settle()
	if s := a.r.State(0); s.Conn != state.Ahead {
		t.Fatalf("a is %v\n%s", s, p.take())
	}
	for _, id := range ids {
		if o, done := a.outcome[id]; !done || o != OK {
			t.Fatalf("write %d: %v %v", id, o, done)
		}
	}
	b.asleep = false
	p.settle()
	p.states(t, "Ahead Primary/Secondary UpToDate/Consistent", "Behind Secondary/Primary Outdated/UpToDate")
	if got, want := b.r.vols[0].disk.bm.Weight(), a.r.vols[0].disk.bm.Weight(); got != want || got == 0 {
		t.Fatalf("%d bits set at the peer, %d here", got, want)
	}
	p.tick(60)
	p.states(t, "Connected Primary/Secondary UpToDate/UpToDate", "Connected Secondary/Primary UpToDate/UpToDate")
	p.equal(t)
	if b.data[19*80] != 29 || a.r.vols[0].sent != 0 {
		t.Fatalf("b has %d, %d sectors on their way", b.data[19*80], a.r.vols[0].sent)
	}
	if !a.r.vols[0].disk.sb.UUIDs.Same(&b.r.vols[0].disk.sb.UUIDs) {
		t.Fatal("UUIDs differ")
	}
}

// TestCongestionPolicies: block does nothing, disconnect goes on alone.
func TestCongestionPolicies(t *testing.T) {
	for policy, want := range map[OnCongestion]state.Conn{CongestionBlock: state.Connected, CongestionDisconnect: state.StandAlone} {
		p, a, b := congestedPair(t, policy)
		b.asleep = true
		for i := range uint64(20) {
			a.request(OpWrite, i*80, 8192, 10+i)
		}
		p.settle()
		b.asleep = false
		p.tick(20)
		if s := a.r.State(0); s.Conn != want || s.Disk != state.UpToDate {
			t.Errorf("policy %d: a is %v", policy, s)
		}
	}
}

// TestCongestionExtents: many extents in use are congestion, too.
func TestCongestionExtents(t *testing.T) {
	cfg := testConfig()
	cfg.Protocol, cfg.OnCongestion, cfg.CongestionExtents = ProtocolA, CongestionPullAhead, 4
	p := newPair(cfg, cfg)
	a, b := establish(t, p)
	b.asleep = true
	for i := range uint64(8) {
		a.request(OpWrite, i*8192, 512, 10+i)
	}
	p.settle()
	if s := a.r.State(0); s.Conn != state.Ahead {
		t.Fatalf("a is %v", s)
	}
	b.asleep = false
	p.tick(60)
	p.states(t, "Connected Primary/Secondary UpToDate/UpToDate", "Connected Secondary/Primary UpToDate/UpToDate")
	p.equal(t)
}

// TestAheadAndTrouble: what happens to either node while one is behind must not make its data
// pass for current.
func TestAheadAndTrouble(t *testing.T) {
	for name, trouble := range map[string]func(p *pair, a, b *testNode){
		"the link breaks":          func(p *pair, _, _ *testNode) { p.cut() },
		"the Primary's disk fails": func(_ *pair, a, _ *testNode) { a.failing[OpWrite] = true; a.request(OpWrite, 9000, 4096, 3) },
		"the Primary detaches by force": func(_ *pair, a, _ *testNode) {
			a.admin(Admin{Kind: AdminDetach, Force: true})
		},
		"the peer is promoted": func(_ *pair, a, b *testNode) {
			a.admin(Admin{Kind: AdminSecondary})
			a.admin(Admin{Kind: AdminDisconnect})
			b.admin(Admin{Kind: AdminPrimary})
		},
	} {
		t.Run(name, func(t *testing.T) {
			p, a, b := congestedPair(t, CongestionPullAhead)
			b.asleep = true
			for i := range uint64(20) {
				a.request(OpWrite, i*80, 8192, 10+i)
			}
			p.settle()
			b.asleep = false
			p.settle()
			p.apart = true
			trouble(p, a, b)
			p.settle()
			if s := b.r.State(0); s.Disk == state.UpToDate || s.Disk == state.Consistent {
				t.Errorf("the peer that was behind is %v", s)
			}
			p.apart = false
			p.tick(20)
			id := a.request(OpRead, 19*80, 4096, 0)
			p.settle()
			if o, done := a.outcome[id]; done && o == OK && a.reqs[id][0] != 29 {
				t.Errorf("a reads %d, it was told that 29 is written", a.reqs[id][0])
			}
			if s := b.r.State(0); s.Disk == state.UpToDate && b.data[19*80] != 29 {
				t.Errorf("b is %v without the data", s)
			}
		})
	}
}

// TestDetachWhileAhead: the only good copy is not detached in good order.
func TestDetachWhileAhead(t *testing.T) {
	p, a, b := congestedPair(t, CongestionPullAhead)
	b.asleep = true
	for i := range uint64(20) {
		a.request(OpWrite, i*80, 8192, 10+i)
	}
	p.settle()
	b.asleep = false
	token := a.admin(Admin{Kind: AdminDetach})
	p.settle()
	if r := a.replies[token]; r != state.NoUpToDateDisk {
		t.Fatalf("detach: %v, %v", r, a.r.State(0))
	}
}

// TestTargetPullsAheadOfItsEnd: the Primary was the target of a resync, has ended it and pulled
// ahead before its source had every confirmation. The source becomes Behind, and target, and
// takes the generation that the Primary has now, not the one that it had before (simulator, seed
// 51452: a split brain without a fault).
func TestTargetPullsAheadOfItsEnd(t *testing.T) {
	cfg := fastResync()
	cfg.Protocol, cfg.OnCongestion, cfg.CongestionFill = ProtocolA, CongestionPullAhead, 16
	p := newPair(cfg, cfg)
	a, b := establish(t, p)
	a.request(OpWrite, 8, 4096, 5)
	p.tick(3)
	a.admin(Admin{Kind: AdminDetach, Force: true})
	p.tick(3)
	a.request(OpWrite, 8, 4096, 6)
	p.tick(3)
	a.attach()
	var late []Event
	run := func(until func() bool) {
		for range 100000 {
			moved := a.next()
			b.inbox = slices.DeleteFunc(b.inbox, func(ev Event) bool {
				held := ev.Kind == EvPacket && ev.Cmd == wire.CmdRSWriteAck
				if held {
					late = append(late, ev)
				}
				return held
			})
			if until() {
				return
			}
			if !b.next() && !moved {
				p.now += 100 * Millisecond
				a.post(Event{Kind: EvTick})
				b.post(Event{Kind: EvTick})
			}
		}
		t.Fatalf("a is %v, b is %v\n%s", a.r.State(0), b.r.State(0), p.take())
	}
	run(func() bool {
		return len(late) > 0 && a.r.State(0).Conn == state.Connected && a.r.State(0).Disk == state.UpToDate
	})
	for i := range uint64(4) {
		a.request(OpWrite, 800+i*8, 4096, 7+i)
		a.next()
	}
	run(func() bool { return b.r.State(0).Conn == state.Behind })
	for _, ev := range late {
		b.post(ev)
	}
	p.tick(60)
	p.states(t, "Connected Primary/Secondary UpToDate/UpToDate", "Connected Secondary/Primary UpToDate/UpToDate")
	p.equal(t)
	if x, y := a.r.vols[0].disk.sb.UUIDs, b.r.vols[0].disk.sb.UUIDs; !metadata.SameUUID(x.Current(), y.Current()) {
		t.Errorf("in sync, and of different generations: %x and %x", x, y)
	}
}

// grownInPeace waits until both have the size that a's disk has room for, and a has not complained.
func grownInPeace(t *testing.T, p *pair, a *testNode) {
	t.Helper()
	p.tick(100)
	p.sized(t, a.layout.DataSectors)
	p.states(t, "Connected Primary/Secondary UpToDate/UpToDate", "Connected Secondary/Primary UpToDate/UpToDate")
	p.equal(t)
	if a.noted(NoteProtocolError) > 0 {
		t.Errorf("the peer broke the protocol\n%s", p.take())
	}
}

// TestPullAheadWaitsForTheSize: the peer has been asked to grow. It may have, so a Primary that pulled
// ahead now would be asked for blocks beyond its own end when the resync runs (simulator, seed 8864).
func TestPullAheadWaitsForTheSize(t *testing.T) {
	p, a, b := congestedPair(t, CongestionPullAhead)
	a.grow(40000)
	b.grow(40000)
	b.stuck = true
	a.admin(Admin{Kind: AdminResize})
	p.settle()
	if stage := b.r.vols[0].rz.stage; stage <= resizeDraining {
		t.Fatalf("b has not begun to grow\n%s", p.take())
	}
	for i := range uint64(20) {
		a.request(OpWrite, i*80, 8192, 10+i)
	}
	p.settle()
	b.unstick()
	grownInPeace(t, p, a)
}

// TestLeftBehindAfterGrowing: a Secondary has grown, and says so, when the Primary pulls ahead. The
// resync would be about space that the Primary does not have; a new connection settles the size.
func TestLeftBehindAfterGrowing(t *testing.T) {
	p, a, b := congestedPair(t, CongestionPullAhead)
	a.grow(40000)
	a.admin(Admin{Kind: AdminResize})
	p.tick(3) // b has no room, and knows of a's
	a.asleep = true
	b.grow(40000)
	b.admin(Admin{Kind: AdminResize})
	p.settle()
	if size := b.r.vols[0].size; size != b.layout.DataSectors {
		t.Fatalf("b has %d sectors\n%s", size, p.take())
	}
	asks := a.inbox
	a.inbox = nil
	for i := range uint64(20) {
		a.request(OpWrite, i*80, 8192, 10+i)
	}
	a.alone()
	if s := a.r.State(0); s.Conn != state.Ahead {
		t.Fatalf("a is %v\n%s", s, p.take())
	}
	a.inbox, a.asleep = append(a.inbox, asks...), false
	grownInPeace(t, p, a)
}
