package sim

import (
	"testing"

	"github.com/replblk/replblk/replication"
	"github.com/replblk/replblk/replication/state"
)

// calm makes a world in which nothing breaks by itself.
func calm(seed uint64) *world {
	s := Draw(seed)
	s.Faults = nil
	s.Options.Protocol, s.Options.BlankPeer = replication.ProtocolC, false
	s.Options.Fencing, s.Options.Suspend = state.DontCare, false
	w := newWorld(s, NoMutant, true)
	w.healing = true // no handler refuses, nobody crashes in a replay
	return w
}

// until runs the world until cond holds.
func (w *world) until(t *testing.T, what string, cond func() bool) {
	t.Helper()
	w.run(w.now+30*replication.Second, cond)
	if w.err != nil {
		t.Fatalf("waiting until %s: %v", what, w.err)
	}
	if !cond() {
		t.Fatalf("not reached: %s; %s", what, w.describe())
	}
}

func (w *world) command(t *testing.T, n *node, a replication.Admin) state.Result {
	t.Helper()
	var result state.Result
	done := false
	n.admin(a, func(r state.Result) { result, done = r, true })
	w.until(t, "command is answered", func() bool { return done })
	return result
}

// writeOn writes one block of a value on a node, outside of the history.
func (w *world) writeOn(t *testing.T, n *node, sector, value uint64) {
	t.Helper()
	mem := make([]uint64, 8)
	for i := range mem {
		mem[i] = value
	}
	done := false
	n.ask(replication.Event{Op: replication.OpWrite, Sector: sector, Size: 4096}, mem, func(o replication.Outcome) {
		if o != replication.OK {
			t.Errorf("write on %s: outcome %d", nodeName(n.id), o)
		}
		done = true
	})
	w.until(t, "write is answered", func() bool { return done })
}

// TestSplitBrainKeepsBothUntilToldWhich: both nodes are promoted while they do not see
// each other, and write. They refuse to connect and keep their data, until the
// operator says whose to discard.
func TestSplitBrainKeepsBothUntilToldWhich(t *testing.T) {
	for seed := uint64(1); seed <= 20; seed++ {
		w := calm(seed)
		a, b := w.nodes[0], w.nodes[1]
		w.op.waiting, w.op.splitBrainPlanned = map[uint64]command{}, true
		a.boot()
		b.boot()
		both := func(c state.Conn) func() bool {
			return func() bool { return a.state().Conn == c && b.state().Conn == c && w.op.idle() }
		}
		w.until(t, "connected", func() bool { return w.oracle.inSync })
		w.until(t, "commands are answered", w.op.idle)

		w.net.partitioned = true
		w.net.cut(true)
		w.until(t, "both wait", both(state.WFConnection))
		for i, n := range w.nodes {
			if r := w.command(t, n, replication.Admin{Kind: replication.AdminPrimary}); !r.OK() {
				t.Fatalf("seed %d: promotion of %s: %v", seed, nodeName(i), r)
			}
			w.writeOn(t, n, 80, uint64(1000+i))
			w.writeOn(t, n, uint64(160+80*i), uint64(2000+i))
		}
		w.net.partitioned = false
		w.net.try()
		w.until(t, "one refuses", func() bool { return a.state().Conn == state.StandAlone || b.state().Conn == state.StandAlone })
		if w.op.splitBrains == 0 {
			t.Fatalf("seed %d: split brain not reported", seed)
		}
		for i, n := range w.nodes {
			if got := n.dev.data.cur.get(80); got != uint64(1000+i) || n.state().Disk != state.UpToDate {
				t.Fatalf("seed %d: node %s lost its data: %d, %v", seed, nodeName(i), got, n.state())
			}
		}

		victim, winner := w.nodes[seed%2], w.nodes[1-seed%2]
		w.command(t, victim, replication.Admin{Kind: replication.AdminSecondary})
		w.command(t, victim, replication.Admin{Kind: replication.AdminDisconnect, Force: true})
		w.command(t, victim, replication.Admin{Kind: replication.AdminConnect, DiscardMyData: true})
		if winner.state().Conn == state.StandAlone {
			w.command(t, winner, replication.Admin{Kind: replication.AdminConnect})
		}
		w.until(t, "in sync", func() bool { return w.oracle.inSync })
		for _, s := range []uint64{80, 160, 240} {
			x, y := a.dev.data.cur.get(s), b.dev.data.cur.get(s)
			want := uint64(0)
			switch {
			case s == 80:
				want = uint64(1000 + winner.id)
			case s == uint64(160+80*winner.id):
				want = uint64(2000 + winner.id)
			}
			if x != want || y != want {
				t.Errorf("seed %d: sector %d is %d and %d, want %d from %s", seed, s, x, y, want, nodeName(winner.id))
			}
		}
	}
}
