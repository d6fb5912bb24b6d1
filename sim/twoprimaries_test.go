package sim

import (
	"strings"
	"testing"

	"github.com/replblk/replblk/replication"
	"github.com/replblk/replblk/replication/state"
)

// contest is what two applications write to the same blocks, one on each node.
type contest struct {
	t       *testing.T
	w       *world
	writes  []*contestWrite
	busy    int
	stopped bool
}

type contestWrite struct {
	tag, sector, n uint64
	inv, resp      replication.Time
}

const contestSectors = 96

// start lets an application on n write until it is stopped.
func (c *contest) start(n *node) {
	n.schedule(between(c.w.rng, 1, replication.Millisecond), func() {
		if c.stopped {
			return
		}
		if c.busy < 12 {
			c.write(n)
		}
		c.start(n)
	})
}

func (c *contest) write(n *node) {
	r := c.w.rng
	x := &contestWrite{tag: uint64(len(c.writes)) + 1, sector: r.Uint64N(contestSectors), inv: c.w.now}
	x.n = 1 + r.Uint64N(min(32, contestSectors-x.sector))
	ev := replication.Event{Op: replication.OpWrite, Sector: x.sector, Size: uint32(x.n << 9), FUA: r.IntN(8) == 0}
	if r.IntN(16) == 0 {
		ev.Op, x.tag = replication.OpZeroes, 0
	}
	c.writes = append(c.writes, x)
	mem := make([]uint64, x.n)
	for i := range mem {
		mem[i] = x.tag
	}
	c.busy++
	n.ask(ev, mem, func(o replication.Outcome) {
		c.busy--
		x.resp = c.w.now
		if o != replication.OK {
			c.t.Errorf("node %s: write %d: outcome %d", nodeName(n.id), x.tag, o)
		}
	})
}

// check compares the disks, and every sector with the writes that may have been the last: those
// after whose answer no other one began.
func (c *contest) check() {
	for s := range uint64(contestSectors) {
		a, b := c.w.nodes[0].dev.data.cur.get(s), c.w.nodes[1].dev.data.cur.get(s)
		if a != b {
			c.t.Errorf("sector %d: the disks have %d and %d", s, a, b)
			return
		}
		allowed, written := false, false
		for _, x := range c.writes {
			if s < x.sector || s >= x.sector+x.n {
				continue
			}
			written = true
			allowed = allowed || x.tag == a && !c.replaced(x, s)
		}
		if written && !allowed {
			c.t.Errorf("sector %d has %d, which was replaced or never written there", s, a)
			return
		}
	}
}

func (c *contest) replaced(x *contestWrite, s uint64) bool {
	for _, y := range c.writes {
		if s >= y.sector && s < y.sector+y.n && y.inv > x.resp {
			return true
		}
	}
	return false
}

// TestTwoPrimaries has an application on each node write to the same blocks, over sockets and
// disks of all latencies, while roles change. The copies are equal whenever it is quiet, and hold
// one of the writes that may have been the last.
func TestTwoPrimaries(t *testing.T) {
	writes := 0
	for seed := uint64(1); seed <= 150; seed++ {
		w := calm(seed)
		w.opt.TwoPrimaries, w.opt.Integrity, w.opt.Version = true, false, 0
		w.opt.MetaSkew = replication.Time(w.rng.IntN(3)) * replication.Millisecond
		w.op.waiting = map[uint64]command{}
		for _, n := range w.nodes {
			n.boot()
		}
		w.until(t, "in sync", func() bool { return w.oracle.inSync && w.op.idle() })
		for round := range 3 {
			for _, n := range w.nodes {
				if r := w.command(t, n, replication.Admin{Kind: replication.AdminPrimary}); !r.OK() {
					t.Fatalf("seed %d: promotion of %s: %v", seed, nodeName(n.id), r)
				}
			}
			c := &contest{t: t, w: w}
			for _, n := range w.nodes {
				c.start(n)
			}
			w.run(w.now+between(w.rng, 20*replication.Millisecond, 150*replication.Millisecond), func() bool { return false })
			c.stopped = true
			w.until(t, "writes are answered", func() bool { return c.busy == 0 })
			w.run(w.now+replication.Second/2, func() bool { return false })
			for _, n := range w.nodes {
				if st := n.state(); st.Role != primary || st.Peer != primary || st.Conn != state.Connected {
					t.Fatalf("seed %d round %d: node %s is %v\n%s", seed, round, nodeName(n.id), st, strings.Join(w.lines, "\n"))
				}
			}
			writes += len(c.writes)
			if c.check(); t.Failed() {
				t.Fatalf("seed %d round %d", seed, round)
			}
			if r := w.command(t, w.nodes[round%2], replication.Admin{Kind: replication.AdminSecondary}); !r.OK() {
				t.Fatalf("seed %d: demotion: %v", seed, r)
			}
		}
		if w.err != nil {
			t.Fatalf("seed %d: %v", seed, w.err)
		}
	}
	t.Logf("%d writes", writes)
}
