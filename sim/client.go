package sim

import (
	"slices"

	"github.com/replblk/replblk/replication"
	"github.com/replblk/replblk/replication/state"
)

// client is an application on the Primary: reads, writes, flushes and discards, several
// at once, sometimes overlapping.
type client struct {
	w     *world
	hot   []uint64           // sectors around which requests go
	node  *node              // where requests go, nil: nowhere
	epoch uint64             // counts changes of node
	reads []replication.Time // when those in progress that count began
	busy  [2]int             // requests in progress at each node
	idle  bool               // stop submitting
}

func (c *client) init() {
	r := c.w.rng
	for i := range c.w.opt.HotBlocks {
		s := r.Uint64N(c.w.opt.Sectors)
		if c.w.opt.HotBlocks >= 75 { // one to an extent
			s = min(uint64(i%75)*8192+r.Uint64N(8192), c.w.opt.Sectors-1)
		}
		c.hot = append(c.hot, s)
	}
}

func (c *client) start() {
	c.w.after(between(c.w.rng, 1, 2*c.w.opt.Think), func() {
		c.submit()
		c.start()
	})
}

func (c *client) outstanding() int { return c.busy[0] + c.busy[1] }

// use sends requests to n from now on; nil stops them.
func (c *client) use(n *node) {
	c.node = n
	c.epoch++
	c.reads = nil
}

// crashed: the requests at n will never be answered.
func (c *client) crashed(n *node) {
	if c.node == n {
		c.use(nil)
	}
	c.busy[n.id] = 0
}

// submit makes one request.
func (c *client) submit() {
	n := c.node
	if n == nil || c.idle || c.busy[n.id] >= c.w.opt.Depth || !n.up {
		return
	}
	r, o := c.w.rng, &c.w.opt
	sector := c.hot[r.IntN(len(c.hot))]
	if n.size > o.Sectors && r.IntN(4) == 0 { // what the volume has grown by, and what lies before it
		sector = o.Sectors - 64 + r.Uint64N(n.size-o.Sectors+64)
	}
	sector = min(sector+r.Uint64N(uint64(o.HotSpan)), n.size-1)
	sectors := min(1+r.Uint64N(uint64(o.MaxSectors)), n.size-sector)
	if r.IntN(3) == 0 { // aligned to blocks
		sector &^= 7
		sectors = min((sectors+7)&^7, n.size-sector)
	}
	ev := replication.Event{Sector: sector, Size: uint32(sectors << 9)}
	switch x := r.Float64(); {
	case x < o.ReadPart:
		c.read(n, ev)
	case x < o.ReadPart+o.FlushPart:
		c.flush(n)
	case x < o.ReadPart+o.FlushPart+o.TrimPart:
		ev.Op = replication.OpDiscard
		if r.IntN(2) == 0 {
			ev.Op = replication.OpZeroes
		}
		c.write(n, ev)
	default:
		ev.Op = replication.OpWrite
		ev.FUA = r.Float64() < o.FUAPart
		c.write(n, ev)
	}
}

// done wraps the answer of a request: it counts only if the node has not died since.
func (c *client) done(n *node, f func(o replication.Outcome)) func(replication.Outcome) {
	inc, gen, served := n.inc, n.gen, c.served(n)
	c.busy[n.id]++
	return func(o replication.Outcome) {
		if n.inc != inc {
			return
		}
		c.busy[n.id]--
		if o == replication.IOError && n.gen == gen && served && c.served(n) {
			c.w.fail("node %s answers with an I/O error, the disk that counts has never failed: %v", nodeName(n.id), n.state())
		}
		if o == replication.IOError && c.w.opt.Suspend && !c.w.op.hurried {
			c.w.fail("node %s answers with an I/O error, and should wait for data: %v", nodeName(n.id), n.state())
		}
		f(o)
	}
}

// served says whether there is a disk that has never failed, here or over the connection, and
// counts: if it does from the request to the answer, that must not be an error.
func (c *client) served(n *node) bool {
	st, faults := n.state(), &c.w.op.diskFaults
	return faults[n.id] == 0 && st.Disk == state.UpToDate || faults[1-n.id] == 0 && c.w.oracle.replicating(st)
}

func (c *client) write(n *node, ev replication.Event) {
	x := c.w.check.invoke(ev.Sector, uint64(ev.Size>>9), ev.Op != replication.OpWrite)
	mem := make([]uint64, ev.Size>>9)
	for i := range mem {
		mem[i] = x.tag
	}
	gen := n.gen
	c.w.trace("write", n.id, ev.Sector<<16|x.n, x.id)
	n.ask(ev, mem, c.done(n, func(o replication.Outcome) {
		if o != replication.OK {
			c.w.check.refused(x)
			return
		}
		holders := c.w.oracle.holders(n, gen)
		c.w.trace("written", n.id, x.id, uint64(holders))
		if c.frozen(n, x) {
			holders = 3 // it has become a copy of both before the connection was lost
		}
		c.w.check.answered(x, holders)
	}))
}

// frozen: with resource-and-stonith nothing is answered that only one node has got, unless the
// other one is out of the way. Under protocols A and B it need not have written what it has got, so
// that may be gone with its process or its disk, and the node that answers cannot know. It says
// whether both nodes have it, although the state of the one that answers does not say so any more.
func (c *client) frozen(n *node, x *write) (both bool) {
	st, other := n.state(), c.w.nodes[1-n.id]
	if c.w.opt.Fencing != state.ResourceAndStonith || st.Conn >= state.Connected || st.PeerDisk <= state.Outdated {
		return false
	}
	has, all := false, true
	for s := x.sector; s < x.sector+x.n; s++ {
		it := other.dev.data.cur.get(s) >= x.tag // or something newer
		has, all = has || it, all && it
	}
	lost := other.dark >= x.inv || c.w.opt.Protocol != replication.ProtocolC && other.forgot >= x.inv // maybe it had
	if !has && !lost {
		c.w.fail("node %s answers write %v, and its peer is not fenced: %v", nodeName(n.id), x, st)
	}
	return all && !lost && x.tag != 0 && c.w.opt.Protocol == replication.ProtocolC
}

// oldestRead returns when the oldest read in progress that counts began.
func (c *client) oldestRead() replication.Time {
	if len(c.reads) == 0 {
		return forever
	}
	return c.reads[0]
}

func (c *client) flush(n *node) {
	inv, gen := c.w.now, n.gen
	c.w.trace("flush", n.id, 0, 0)
	n.ask(replication.Event{Op: replication.OpFlush}, nil, c.done(n, func(o replication.Outcome) {
		if o == replication.OK {
			c.settled(n, inv, gen)
		}
	}))
}

// settled: everything answered before inv is on stable storage.
func (c *client) settled(n *node, inv replication.Time, gen uint32) {
	nodes := c.w.oracle.holders(n, gen)
	if c.w.opt.Protocol != replication.ProtocolC && c.w.oracle.inSync && n.gen == gen {
		nodes = 3
		c.w.check.replicated(inv)
	}
	c.w.trace("flushed", n.id, uint64(nodes), 0)
	c.w.check.flushed(inv, nodes)
}

func (c *client) read(n *node, ev replication.Event) {
	ev.Op = replication.OpRead
	inv, mem, epoch := c.w.now, make([]uint64, ev.Size>>9), c.epoch
	c.reads = append(c.reads, inv)
	verify := func(mem []uint64) {
		if c.epoch == epoch {
			i := slices.Index(c.reads, inv)
			c.reads = slices.Delete(c.reads, i, i+1)
			c.w.check.read("read from node "+nodeName(n.id), ev.Sector, mem, inv, c.w.oracle.witnesses(n))
		}
	}
	ask := func() {
		n.ask(ev, mem, c.done(n, func(o replication.Outcome) {
			if o == replication.OK {
				verify(mem)
			}
		}))
	}
	if !n.reads || c.w.rng.IntN(2) == 0 {
		ask()
		return
	}
	io := &diskIO{fx: replication.Effect{Op: replication.OpRead, Sector: ev.Sector, Size: ev.Size}, mem: mem}
	io.own = func(mem []uint64, err replication.DiskError) {
		if err != replication.DiskOK || !n.reads { // the disk may have failed under the read
			ask()
			return
		}
		verify(mem)
	}
	n.dev.submit(io)
}
