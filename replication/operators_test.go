package replication

import (
	"math/rand/v2"
	"testing"

	"github.com/replblk/replblk/replication/state"
)

// Scenarios of the fault catalogue: what operators ask for at a bad moment.

// H03: both operators force their Inconsistent node to be Primary at the same moment. One of
// them gets it, the other is told so.
func TestForcedPromotionOfBoth(t *testing.T) {
	p := newPair(fastResync(), fastResync())
	a, b := p.nodes[0], p.nodes[1]
	p.bringUp()
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
