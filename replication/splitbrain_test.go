package replication

import (
	"testing"

	"github.com/replblk/replblk/metadata"
	"github.com/replblk/replblk/replication/state"
)

// parted is a pair whose nodes were both Primary alone; b is Secondary again. Nothing is
// connected, and b has fewer changes.
func parted(t *testing.T, cfg Config) (p *pair, a, b *testNode) {
	t.Helper()
	p = newPair(cfg, cfg)
	a, b = establish(t, p)
	for _, n := range []*testNode{b, a} {
		n.admin(Admin{Kind: AdminDisconnect, Force: true})
	}
	p.settle()
	b.admin(Admin{Kind: AdminPrimary})
	p.settle()
	for i := range uint64(3) {
		a.request(OpWrite, 8*i, 4096, 1)
	}
	b.request(OpWrite, 80, 4096, 2)
	p.tick(2)
	return p, a, b
}

func helperConfig(as0 Policy) Config {
	c := testConfig()
	c.AfterSB = [3]Policy{as0, SBCallHelper, SBCallHelper}
	return c
}

func (n *testNode) decoded(t *testing.T) (sb metadata.Superblock) {
	t.Helper()
	if err := sb.Decode(n.super); err != nil {
		t.Fatal(err)
	}
	return sb
}

func (n *testNode) ran(h Handler) bool {
	for i := range n.handlers {
		if n.handlers[i].Handler == h {
			return true
		}
	}
	return false
}

// S01: call-pri-lost-after-sb takes the role from a Primary that must give its changes up.
func TestLoserOfSplitBrainStepsDown(t *testing.T) {
	p, a, b := parted(t, helperConfig(SBDiscardLeastChanges))
	a.admin(Admin{Kind: AdminSecondary})
	for i := range uint64(5) {
		a.r.vols[0].disk.bm.SetRange(100+i, 101+i) // now b has fewer changes, and is Primary
	}
	p.tick(2)
	for _, n := range p.nodes {
		n.admin(Admin{Kind: AdminConnect})
	}
	p.tick(30)
	p.states(t, "Connected Secondary/Secondary UpToDate/UpToDate", "Connected Secondary/Secondary UpToDate/UpToDate")
	p.equal(t)
	if b.data[80] == 2 || b.data[0] != 1 || b.ran(HandlerPriLostAfterSB) {
		t.Fatalf("b kept what it should discard, or called for help\n%s", p.take())
	}
	if sb := b.decoded(t); sb.Flags.Has(metadata.PrimaryInd) {
		t.Errorf("mark of a Primary on disk: %v", sb.Flags)
	}
}

// A client that uses the volume must not find other data under it: the handler runs and
// the split brain stays.
func TestLoserOfSplitBrainInUse(t *testing.T) {
	p, a, b := parted(t, helperConfig(SBDiscardLeastChanges))
	a.admin(Admin{Kind: AdminSecondary})
	a.r.vols[0].disk.bm.SetRange(100, 110)
	b.post(Event{Kind: EvUsers, Size: 1})
	p.tick(2)
	for _, n := range p.nodes {
		n.admin(Admin{Kind: AdminConnect})
	}
	p.tick(15)
	p.states(t, "WFConnection Secondary/Unknown UpToDate/DUnknown", "StandAlone Primary/Unknown UpToDate/DUnknown")
	if b.data[80] != 2 || a.data[0] != 1 || !b.ran(HandlerPriLostAfterSB) {
		t.Fatalf("data was touched or no help called for\n%s", p.take())
	}
}

// A tentative connection says what would happen and changes nothing, on either node.
func TestTentativeConnection(t *testing.T) {
	p, a, b := parted(t, helperConfig(SBDiscardLeastChanges))
	b.admin(Admin{Kind: AdminSecondary})
	p.tick(20)
	before := [2]metadata.Superblock{a.decoded(t), b.decoded(t)}
	a.admin(Admin{Kind: AdminConnect, Tentative: true})
	b.admin(Admin{Kind: AdminConnect})
	p.tick(20)
	var seen [2]state.Conn
	for i, n := range p.nodes {
		for _, e := range n.notes {
			if e.Note == NoteDryRun {
				seen[i] = e.New.Conn
			}
		}
	}
	if seen != [2]state.Conn{state.WFBitMapS, state.WFBitMapT} {
		t.Errorf("verdicts: %v, want a source\n%s", seen, p.take())
	}
	if s := a.r.State(0); s.Conn != state.StandAlone || s.Role != state.Primary {
		t.Errorf("a is %v", s)
	}
	if s := b.r.State(0); s.Conn != state.WFConnection {
		t.Errorf("b is %v, want it to wait for the connection in earnest", s)
	}
	if after := [2]metadata.Superblock{a.decoded(t), b.decoded(t)}; after != before {
		t.Errorf("metadata was\n%+v, is\n%+v", before, after)
	}
	a.admin(Admin{Kind: AdminConnect})
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
