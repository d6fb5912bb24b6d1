package replication

import (
	"testing"

	"github.com/replblk/replblk/replication/state"
)

// outdated makes a pair whose b has missed writes of a, and is about to connect.
func outdated(t *testing.T) (p *pair, a, b *testNode) {
	t.Helper()
	p = newPair(fastResync(), fastResync())
	a, b = establish(t, p)
	b.admin(Admin{Kind: AdminDisconnect})
	p.settle()
	a.request(OpWrite, 0, 4096, 7)
	p.tick(2)
	b.admin(Admin{Kind: AdminConnect})
	return p, a, b
}

func (n *testNode) asked(h Handler) (times int) {
	for _, e := range n.handlers {
		if e.Handler == h {
			times++
		}
	}
	return times
}

func TestHandlersBeforeAResync(t *testing.T) {
	for _, c := range []struct {
		name           string
		source, target int // exit codes
		resync         bool
	}{
		{"both agree", 0, 0, true},
		{"the source's is 3", 3, 0, true},
		{"the source's vetoes", 1, 0, false},
		{"the target's vetoes", 0, 1, false},
		{"the target's is 3", 0, 3, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, a, b := outdated(t)
			a.exit, b.exit = c.source, c.target
			p.tick(3)
			if c.resync {
				p.resynced(t)
			} else {
				if s := b.r.State(0); s.Conn >= state.Connected || b.data[0] != 0 || s.Disk < state.Outdated {
					t.Errorf("b is %v, data %d", s, b.data[0])
				}
				if (a.r.State(0).Conn == state.StandAlone) != (c.source > 0) || (b.r.State(0).Conn == state.StandAlone) != (c.target > 0) {
					t.Errorf("a is %v, b is %v", a.r.State(0), b.r.State(0))
				}
				a.exit, b.exit = 0, 0
				for _, n := range p.nodes {
					n.admin(Admin{Kind: AdminConnect})
				}
				p.tick(3)
				p.resynced(t)
			}
			if got := b.asked(HandlerAfterResyncTarget); got != 1 {
				t.Errorf("after-resync-target ran %d times", got)
			}
		})
	}
}

func TestInvalidateAsksTheHandlers(t *testing.T) {
	p := newPair(fastResync(), fastResync())
	a, b := establish(t, p)
	b.admin(Admin{Kind: AdminInvalidate})
	p.tick(3)
	p.resynced(t)
	if a.asked(HandlerBeforeResyncSource) != 1 || b.asked(HandlerBeforeResyncTarget) != 1 {
		t.Errorf("asked %d and %d times", a.asked(HandlerBeforeResyncSource), b.asked(HandlerBeforeResyncTarget))
	}
}

// TestLateVeto: the handlers of a resync that was cut off end in the middle of the next
// one. That waits for them and for its own.
func TestLateVeto(t *testing.T) {
	for _, slow := range []int{0, 1} {
		for _, exit := range []int{0, 1} {
			p, _, b := outdated(t)
			n := p.nodes[slow]
			n.silent = true
			p.tick(3)
			p.cut()
			p.tick(15)
			kind := [...]Handler{HandlerBeforeResyncSource, HandlerBeforeResyncTarget}[slow]
			if got := n.asked(kind); got != 2 || b.data[0] != 0 {
				t.Fatalf("asked %d times, data %d\n%s", got, b.data[0], p.take())
			}
			n.post(Event{Kind: EvHandler, IO: ioFor(classVeto, 0), Exit: exit})
			p.tick(2)
			if b.data[0] != 0 {
				t.Error("one of two handlers is enough")
			}
			n.silent = false
			n.post(Event{Kind: EvHandler, IO: ioFor(classVeto, 0)})
			p.tick(3)
			if exit > 0 {
				if c := n.r.State(0).Conn; c != state.StandAlone {
					t.Errorf("vetoed: %v", c)
				}
				continue
			}
			p.resynced(t)
		}
	}
}

// TestDiskFailsUnderHandler: the disk with the new space is gone when the handler allows to
// copy it (seed 1052 with more growth).
func TestDiskFailsUnderHandler(t *testing.T) {
	p := newPair(fastResync(), fastResync())
	a, b := establish(t, p)
	for _, n := range p.nodes {
		n.grow(20000)
	}
	a.silent = true
	a.admin(Admin{Kind: AdminResize})
	p.settle()
	if a.asked(HandlerBeforeResyncSource) != 1 {
		t.Fatal("the handler does not run")
	}
	io := a.handlers[len(a.handlers)-1].IO
	a.admin(Admin{Kind: AdminDetach, Force: true})
	p.tick(3)
	a.post(Event{Kind: EvHandler, IO: io})
	p.tick(3)
	if s := a.r.State(0); s.Disk != state.Diskless || s.Conn < state.Connected {
		t.Errorf("a is %v, b is %v", s, b.r.State(0))
	}
}

// TestVetoedInvalidateIsMadeUpFor: an invalidate that a handler on either side prevents leaves
// bits, and two copies of one generation, for which no rule of DRBD's copies anything. The next
// connection does what the operator has asked for.
func TestVetoedInvalidateIsMadeUpFor(t *testing.T) {
	for _, c := range []struct {
		name           string
		kind           AdminKind
		source, target int
	}{
		{"invalidate, by the source", AdminInvalidate, 1, 0},
		{"invalidate, by the target", AdminInvalidate, 0, 1},
		{"invalidate-remote, by the source", AdminInvalidateRemote, 1, 0},
		{"invalidate-remote, by the target", AdminInvalidateRemote, 0, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newPair(fastResync(), fastResync())
			a, b := establish(t, p)
			a.exit, b.exit = c.source, c.target
			if c.kind == AdminInvalidate {
				b.admin(Admin{Kind: c.kind})
			} else {
				a.admin(Admin{Kind: c.kind})
			}
			p.tick(3)
			if s := b.r.State(0); s.Disk != state.Inconsistent || s.Conn >= state.Connected {
				t.Fatalf("b is %v after the veto", s)
			}
			a.exit, b.exit = 0, 0
			for _, n := range p.nodes {
				n.admin(Admin{Kind: AdminConnect})
			}
			p.tick(3)
			p.resynced(t)
		})
	}
}

// TestVetoedInvalidateThatWasNotAgreed: the handler of the source prevents the resync, and with
// the connection the answer is lost: for the target nothing has happened, so there must be no
// bits left at the source that nobody would ever copy (seed 20833).
func TestVetoedInvalidateThatWasNotAgreed(t *testing.T) {
	p := newPair(fastResync(), fastResync())
	a, b := establish(t, p)
	p.command(t, a, Admin{Kind: AdminSecondary}) // a Primary would begin a generation of its own
	a.exit = 1
	token := b.admin(Admin{Kind: AdminInvalidate})
	b.alone()
	a.alone()
	b.inbox = dropped(b.inbox, func(ev *Event) bool { return ev.Kind == EvPacket })
	p.tick(3)
	if r := b.replies[token]; r.OK() || b.r.State(0).Disk != state.UpToDate {
		t.Fatalf("%v, b is %v\n%s", r, b.r.State(0), p.take())
	}
	a.exit = 0
	for _, n := range p.nodes {
		n.admin(Admin{Kind: AdminConnect})
	}
	p.tick(30)
	p.states(t, "Connected Secondary/Secondary UpToDate/UpToDate", "Connected Secondary/Secondary UpToDate/UpToDate")
	p.equal(t)
}
