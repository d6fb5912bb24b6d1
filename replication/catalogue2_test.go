package replication

import (
	"math/rand/v2"
	"testing"

	"github.com/replblk/replblk/metadata"
	"github.com/replblk/replblk/replication/state"
	"github.com/replblk/replblk/replication/wire"
)

// More scenarios of the fault catalogue.

// H03: both operators force their Inconsistent node to be Primary at the same moment. One of
// them gets it, the other is told so.
func TestForcedPromotionOfBoth(t *testing.T) {
	p := newPair(fastResync(), fastResync())
	a, b := p.nodes[0], p.nodes[1]
	for _, n := range p.nodes {
		n.attach()
		n.admin(Admin{Kind: AdminConnect})
	}
	p.settle()
	tokens := [2]uint64{a.admin(Admin{Kind: AdminPrimary, Force: true}), b.admin(Admin{Kind: AdminPrimary, Force: true})}
	p.tick(150)
	won := 0
	for i, n := range p.nodes {
		r, answered := n.replies[tokens[i]]
		if !answered || r.OK() != (n.r.State(0).Role == state.Primary) {
			t.Errorf("%s: %v %v, %v", n.name, answered, r, n.r.State(0))
		}
		if r.OK() {
			won++
		}
	}
	if won != 1 {
		t.Fatalf("%d are Primary\n%s", won, p.take())
	}
	p.equal(t)
	for _, n := range p.nodes {
		if s := n.r.State(0); s.Conn != state.Connected || s.Disk != state.UpToDate {
			t.Errorf("%s: %v", n.name, s)
		}
	}
}

// H04: a frozen Primary owes a generation when its peer comes back before anybody has fenced
// it. The own UUID changes in the middle of the handshake, and the peer gets what it lacks.
func TestOwedGenerationIsPaidInTheHandshake(t *testing.T) {
	p := newPair(fencingConfig(), fencingConfig())
	a, b := establish(t, p)
	before := a.r.vols[0].disk.sb.UUIDs
	b.asleep = true
	a.request(OpWrite, 8, 4096, 5)
	p.settle() // it is on this disk, the peer never sees it
	p.cut()
	b.inbox, b.asleep = b.inbox[len(b.inbox)-1:], false
	p.apart = true
	p.settle()
	if !a.r.vols[0].owing || !a.r.State(0).SuspFen {
		t.Fatalf("nothing is owed: %v\n%s", a.r.State(0), p.take())
	}
	p.apart = false
	p.tick(60)
	p.states(t, "Connected Primary/Secondary UpToDate/UpToDate", "Connected Secondary/Primary UpToDate/UpToDate")
	p.equal(t)
	if now := a.r.vols[0].disk.sb.UUIDs; b.data[8] != 5 || metadata.SameUUID(now.Current(), before.Current()) || a.r.vols[0].owing {
		t.Errorf("b has %d, generations %x after %x", b.data[8], now, before)
	}
}

// R13: a resync and a verify with the smallest max-buffers, while both directions are full of
// writes.
func TestTinyMaxBuffers(t *testing.T) {
	cfg := withVerify()
	cfg.MaxBuffers = 32
	p := newPair(cfg, cfg)
	a, _ := establish(t, p)
	p.outage()
	load := func(ticks int) {
		for i := range uint64(ticks) {
			for j := range uint64(30) {
				a.request(OpWrite, (i*31+j)*1024%120000, 8192, i*100+j)
			}
			p.tick(1)
		}
	}
	load(40)
	if s := a.r.State(0); s.Conn != state.Connected {
		t.Fatalf("%v\n", s)
	}
	if r := p.command(t, a, Admin{Kind: AdminVerify}); !r.OK() {
		t.Fatal(r)
	}
	load(20)
	for n := 0; n < 3000 && a.r.State(0).Conn != state.Connected; n++ {
		p.tick(1)
	}
	p.tick(30)
	p.states(t, "Connected Primary/Secondary UpToDate/UpToDate", "Connected Secondary/Primary UpToDate/UpToDate")
	p.equal(t)
}

// S06: a Primary that loses a split brain because it has no changes gets a write while that is
// being decided. It is not answered with success and then overwritten.
func TestZeroChangesAndWritesInFlight(t *testing.T) {
	cfg := fastResync()
	cfg.AfterSB, cfg.RRConflict = [3]Policy{SBDiscardZeroChanges, SBViolently, SBDisconnect}, RRViolently
	for steps := range 60 {
		p := newPair(cfg, cfg)
		p.quiet = true
		establishQuiet(p)
		a, b := p.nodes[0], p.nodes[1]
		for _, n := range p.nodes {
			n.admin(Admin{Kind: AdminDisconnect, Force: true})
		}
		p.settle()
		b.admin(Admin{Kind: AdminPrimary})
		b.request(OpWrite, 80, 4096, 2)
		p.tick(2)
		b.admin(Admin{Kind: AdminSecondary})
		p.tick(30)
		for _, n := range p.nodes {
			n.admin(Admin{Kind: AdminConnect})
		}
		for range steps {
			p.link()
			p.step(0)
			p.step(1)
		}
		id := a.request(OpWrite, 8, 4096, 7)
		p.tick(60)
		o, answered := a.outcome[id]
		kept := a.data[8] == 7
		if a.r.State(0).Conn >= state.Connected {
			kept = kept && b.data[8] == 7
		}
		if !answered || o == OK && !kept {
			t.Fatalf("after %d steps: answered %v %v, a has %d, b %d; %v, %v", steps, answered, o, a.data[8], b.data[8], a.r.State(0), b.r.State(0))
		}
	}
}

// S12, S13: a split brain is found while the operator wants something else. Each handler runs
// once for a connection, both data sets are kept, and nobody stays in a transient state.
func TestSplitBrainWhileSomethingIsPending(t *testing.T) {
	for _, kind := range []AdminKind{AdminResize, AdminDetach, AdminInvalidate, AdminVerify, AdminPrimary, AdminDisconnect} {
		for steps := range 25 {
			p, a, b := parted(t, testConfig())
			p.quiet = true
			b.admin(Admin{Kind: AdminSecondary})
			p.tick(30)
			for _, n := range p.nodes {
				n.handlers = nil
				n.admin(Admin{Kind: AdminConnect})
			}
			for range steps {
				p.link()
				p.step(0)
				p.step(1)
			}
			token := b.admin(Admin{Kind: kind})
			p.tick(150)
			if _, answered := b.replies[token]; !answered {
				t.Fatalf("command %d after %d steps is not answered: %v", kind, steps, b.r.State(0))
			}
			if a.data[0] != 1 || b.data[80] != 2 || a.data[80] == 2 || b.data[0] == 1 {
				t.Fatalf("command %d after %d steps: a has %d and %d, b %d and %d", kind, steps, a.data[0], a.data[80], b.data[0], b.data[80])
			}
			for _, n := range p.nodes {
				if c := n.r.State(0).Conn; c != state.StandAlone && c != state.WFConnection && (kind != AdminDetach || c != state.Connected) {
					t.Errorf("command %d after %d steps: %s stays %v", kind, steps, n.name, c)
				}
				if n.asked(HandlerSplitBrain) > 1 || n.asked(HandlerInitialSplitBrain) > 1 {
					t.Errorf("command %d after %d steps: %s has called for help too often: %v", kind, steps, n.name, n.handlers)
				}
			}
		}
	}
}

// P02: both are promoted at once, the link dies at any moment between the requests and their
// answers, and a witness is asked who goes on: never both.
func TestPromotionOfBothWhileTheLinkDies(t *testing.T) {
	for steps := range 30 {
		p := newPair(fencingConfig(), fencingConfig())
		p.quiet = true
		establishQuiet(p)
		a, b := p.nodes[0], p.nodes[1]
		a.admin(Admin{Kind: AdminSecondary})
		p.tick(30)
		for _, n := range p.nodes {
			n.handlers = nil
			n.admin(Admin{Kind: AdminPrimary})
		}
		for range steps {
			p.step(steps & 1)
			p.step(1 - steps&1)
		}
		p.apart = true
		p.cut()
		winner := ""
		for range 20 {
			p.tick(1)
			for _, n := range p.nodes {
				for _, h := range n.handlers {
					if h.Handler != HandlerFencePeer || h.IO == 0 {
						continue
					}
					exit := fencePeerPrimary
					if winner == "" || winner == n.name {
						winner, exit = n.name, fencePeerKilled
					}
					n.post(Event{Kind: EvHandler, IO: h.IO, Exit: exit})
				}
				n.handlers = nil
			}
		}
		usable := 0
		for _, n := range p.nodes {
			id := n.request(OpWrite, 8, 4096, 1)
			p.tick(2)
			if o, ok := n.outcome[id]; ok && o == OK {
				usable++
			}
		}
		if usable > 1 {
			t.Fatalf("after %d steps both take writes: %v, %v", steps, a.r.State(0), b.r.State(0))
		}
	}
}

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

// N13: a second answer to a write, before its epoch is confirmed, changes nothing, whatever it
// says of success.
func TestSecondAnswerToAWrite(t *testing.T) {
	p := newPair()
	a, b := establish(t, p)
	id := a.request(OpWrite, 8, 4096, 5)
	p.settle()
	q := &a.r.ios.list[0]
	ack := wire.BlockAck{Sector: 8, BlockID: a.r.ios.blockID(0), Size: 4096}
	if !q.inEpoch || q.sector != 8 {
		t.Fatalf("the write is not in slot 0: %+v", q)
	}
	for _, cmd := range []wire.Command{wire.CmdWriteAck, wire.CmdRSWriteAck} {
		a.hears(cmd, MetaSocket, ack.AppendTo(nil))
	}
	p.tick(60)
	p.states(t, "Connected Primary/Secondary UpToDate/UpToDate", "Connected Secondary/Primary UpToDate/UpToDate")
	if p.equal(t); a.outcome[id] != OK || b.data[8] != 5 {
		t.Errorf("write %v, b has %d", a.outcome[id], b.data[8])
	}
}

// N15: what is large is lost on its way, and what is small arrives: pings are answered, writes
// are not. The peer is given up in time, and nothing hangs.
func TestLargePacketsVanish(t *testing.T) {
	p := newPair()
	a, b := establish(t, p)
	id := a.request(OpWrite, 8, 4096, 5)
	a.alone()
	for range 600 {
		b.inbox = dropped(b.inbox, func(ev *Event) bool { return ev.Kind == EvPacket && ev.Socket == DataSocket })
		p.apart = true
		p.tick(1)
		if _, done := a.outcome[id]; done {
			break
		}
	}
	if o, ok := a.outcome[id]; !ok || o != OK || !a.has(NotePeerStuck) || a.r.vols[0].disk.bm.Weight() != 1 {
		t.Fatalf("write %v %v after %d s, %v\n%s", ok, o, p.now/Second, a.r.State(0), p.take())
	}
	if limit := Time(60*7) * 100 * Millisecond; p.now > limit+2*Second {
		t.Errorf("it took %d ms", p.now/Millisecond)
	}
}

func dropped(list []Event, drop func(*Event) bool) []Event {
	kept := list[:0]
	for i := range list {
		if !drop(&list[i]) {
			kept = append(kept, list[i])
		}
	}
	return kept
}

// F08: sizes that a peer makes up while it is connected. A Primary neither shrinks nor grows
// beyond its own disk, and what nobody can have ends the connection.
func TestMadeUpSizes(t *testing.T) {
	for name, c := range map[string]struct {
		sizes wire.Sizes
		stays bool
	}{
		"smaller":         {wire.Sizes{Backing: 4096, Current: 4096, MaxBioSize: 1 << 20}, false},
		"nothing":         {wire.Sizes{MaxBioSize: 1 << 20}, true},
		"larger than all": {wire.Sizes{Backing: metadata.MaxSectors, User: metadata.MaxSectors, Current: metadata.MaxSectors, MaxBioSize: 1 << 20}, true},
		"impossible":      {wire.Sizes{Backing: 1 << 62, Current: 1 << 62, MaxBioSize: 1 << 20}, false},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPair()
			a, _ := establish(t, p)
			a.request(OpWrite, 8, 4096, 5)
			p.tick(2)
			before := a.r.vols[0].size
			p.apart = true
			a.hears(wire.CmdSizes, DataSocket, c.sizes.AppendTo(nil, a.r.session()))
			p.tick(30)
			s := a.r.State(0)
			if a.r.vols[0].size != before || a.decoded(t).LASizeSectors != before || s.Role != state.Primary || s.Disk != state.UpToDate {
				t.Errorf("%d sectors became %d, %v", before, a.r.vols[0].size, s)
			}
			if (s.Conn >= state.Connected) != c.stays {
				t.Errorf("%v", s)
			}
		})
	}
}

// P11: an Outdated node is Outdated after a restart, and not promoted.
func TestOutdatedAfterRestart(t *testing.T) {
	p := newPair()
	_, b := establish(t, p)
	p.apart = true
	p.cut()
	p.tick(2)
	if r := p.command(t, b, Admin{Kind: AdminOutdate}); !r.OK() {
		t.Fatal(r)
	}
	for range 2 {
		b.restart(testConfig())
		p.tick(1)
		if r := p.command(t, b, Admin{Kind: AdminPrimary}); r.OK() || b.r.State(0).Disk != state.Outdated {
			t.Fatalf("%v, %v", r, b.r.State(0))
		}
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

// V06: sequences of commands at once, on both nodes, under load. Each is answered in bounded
// time, no state is illegal, and when the operator puts things right both copies are equal.
func TestCommandsAtRandom(t *testing.T) {
	kinds := []AdminKind{AdminConnect, AdminDisconnect, AdminPrimary, AdminSecondary, AdminDetach, AdminPauseSync, AdminResumeSync,
		AdminSuspendIO, AdminResumeIO, AdminVerify, AdminStopVerify, AdminRepair, AdminResize, AdminOutdate}
	for seed := range uint64(150) {
		p := newPair(withVerify(), withVerify())
		p.quiet = true
		establishQuiet(p)
		rng := rand.New(rand.NewPCG(seed, 9))
		tokens := [2][]uint64{}
		for range 12 {
			i := rng.IntN(2)
			n := p.nodes[i]
			tokens[i] = append(tokens[i], n.admin(Admin{Kind: kinds[rng.IntN(len(kinds))]}))
			p.nodes[0].request(OpWrite, rng.Uint64N(1000)*8, 4096, seed+1)
			for range rng.IntN(8) {
				p.link()
				p.step(rng.IntN(2))
			}
		}
		p.tick(120)
		for _, n := range p.nodes { // else a demotion waits for what is suspended
			n.admin(Admin{Kind: AdminResumeIO})
		}
		p.tick(120)
		for i, n := range p.nodes {
			for _, token := range tokens[i] {
				if _, answered := n.replies[token]; !answered {
					t.Fatalf("seed %d: %s has not answered command %d: %v", seed, n.name, token, n.r.State(0))
				}
			}
			if !n.r.State(0).Valid() {
				t.Fatalf("seed %d: %v", seed, n.r.State(0))
			}
		}
	}
}
