package sim

import (
	"fmt"
	"slices"

	"github.com/replblk/replblk/activitylog"
	"github.com/replblk/replblk/bitmap"
	"github.com/replblk/replblk/metadata"
	"github.com/replblk/replblk/replication"
)

const forever = replication.Time(1<<63 - 1)

// write is a write of a client: a register write of every sector of its range.
type write struct {
	tag    uint64 // 0: discard
	id     uint64
	sector uint64
	n      uint64
	inv    replication.Time
	resp   replication.Time
	end    replication.Time // until when it may take effect
	acked  bool
	copies uint8 // nodes that must have it, a bit each; 0: nobody
	stable uint8 // of these, the nodes where it must be on stable storage

	seen      replication.Time // first read that returned it although it was not answered
	seenEpoch uint64
	parts     []*write // sectors of it that have entries of their own
}

// checker holds, for every sector, the writes whose values a read may return.
type checker struct {
	w       *world
	sectors map[uint64][]*write
	touched []uint64 // keys of sectors, in the order of the first write
	ids     uint64
	open    []*write // not answered
	unsafe  []*write // answered, and not on stable storage of both nodes
	epoch   uint64   // counts recovery points
}

func (c *checker) init(w *world) {
	c.w = w
	c.sectors = map[uint64][]*write{}
}

// invoke records a write that is about to be submitted. Its tag is the value of
// its sectors.
func (c *checker) invoke(sector, n uint64, zero bool) *write {
	c.ids++
	x := &write{id: c.ids, tag: c.ids, sector: sector, n: n, inv: c.w.now, end: forever}
	if zero {
		x.tag = 0
	}
	c.open = append(c.open, x)
	for s := sector; s < sector+n; s++ {
		list, ok := c.sectors[s]
		if !ok {
			c.touched = append(c.touched, s)
		}
		if len(list) >= 6 {
			list = prune(list, c.w.client.oldestRead())
		}
		c.sectors[s] = append(list, x)
	}
	return x
}

// prune forgets what can never be returned again: what is older than a write that
// nothing can take away. A read that began before that was answered may still return it.
func prune(list []*write, oldestRead replication.Time) []*write {
	var floor *write
	for _, x := range list {
		if x.acked && x.stable == 3 && x.resp < oldestRead && (floor == nil || x.inv > floor.inv) {
			floor = x
		}
	}
	if floor == nil {
		return list
	}
	return slices.DeleteFunc(list, func(x *write) bool { return x != floor && x.end < floor.inv })
}

// answered records that a write was answered OK; copies are the nodes that have it.
func (c *checker) answered(x *write, copies uint8) {
	x.resp, x.end, x.acked, x.copies = c.w.now, c.w.now, true, copies
	c.open = slices.DeleteFunc(c.open, func(o *write) bool { return o == x })
	c.unsafe = append(c.unsafe, x)
	for _, y := range x.parts {
		if !y.acked {
			y.resp, y.end, y.acked, y.copies = c.w.now, c.w.now, true, copies
			c.unsafe = append(c.unsafe, y)
		}
	}
}

// refused records that a write was answered with an error: what a read has seen of it
// may vanish again.
func (c *checker) refused(x *write) {
	x.seen = 0
	for _, y := range x.parts {
		y.seen = 0
	}
}

// flushed records that everything answered before inv is on stable storage of nodes.
func (c *checker) flushed(inv replication.Time, nodes uint8) {
	for _, x := range c.unsafe {
		if x.resp < inv {
			x.stable |= x.copies & nodes
		}
	}
	c.trim()
}

// replicated records that both nodes have everything answered before inv that one of
// them has.
func (c *checker) replicated(inv replication.Time) {
	for _, x := range c.unsafe {
		if x.resp < inv && x.copies != 0 {
			x.copies = 3
		}
	}
}

func (c *checker) trim() {
	c.unsafe = slices.DeleteFunc(c.unsafe, func(x *write) bool { return x.stable == 3 })
}

// lost takes away the copies that node had in its cache only. It says whether the
// node lacks something that the other one has.
func (c *checker) lost(node int) (behind bool) {
	bit := uint8(1) << node
	for _, x := range c.unsafe {
		if x.stable&bit != 0 {
			continue
		}
		x.copies &^= bit
		behind = behind || x.copies != 0
		if x.copies == 0 {
			x.acked = false
			c.refused(x) // what a read has seen of it is gone too
		}
	}
	c.dropUnacked()
	return behind
}

func (c *checker) dropUnacked() {
	c.unsafe = slices.DeleteFunc(c.unsafe, func(x *write) bool {
		if !x.acked {
			c.open = append(c.open, x)
		}
		return !x.acked
	})
}

// lacks returns a write that the node should have and has not.
func (c *checker) lacks(node int) *write {
	for _, x := range c.unsafe {
		if x.copies != 0 && x.copies&(1<<node) == 0 {
			return x
		}
	}
	return nil
}

// giveUp withdraws the promise for everything that node does not have: it has been
// chosen, and that was permitted.
func (c *checker) giveUp(node int) {
	for _, x := range c.open {
		c.refused(x)
	}
	for _, x := range c.unsafe {
		if x.copies&(1<<node) == 0 {
			x.copies, x.stable, x.acked = 0, 0, false
			c.refused(x) // what a read has seen of it may vanish too
		} else {
			x.copies, x.stable = 1<<node, x.stable&(1<<node)
		}
	}
	c.dropUnacked()
}

// only records that from now on node has the only copy that counts.
func (c *checker) only(node int) {
	for _, x := range c.unsafe {
		if x.copies&(1<<node) != 0 {
			x.copies, x.stable = 1<<node, x.stable&(1<<node)
		}
	}
}

// equal records that both nodes have what any of them has. durable: what the
// source had on stable storage, the other one has there as well.
func (c *checker) equal(durable bool) {
	if c.w.opt.Protocol != replication.ProtocolC {
		return // what was answered last may still be on its way
	}
	for _, x := range c.unsafe {
		if x.copies != 0 {
			x.copies = 3
		}
		if x.stable != 0 && durable {
			x.stable = 3
		}
	}
	c.trim()
}

// received records that node has what the other one has, and on stable storage what that has
// there.
func (c *checker) received(node int) {
	if c.w.opt.Protocol != replication.ProtocolC {
		return // as equal
	}
	for _, x := range c.unsafe {
		x.copies |= x.copies >> (1 - node) & 1 << node
		x.stable |= x.stable >> (1 - node) & 1 << node
	}
	c.trim()
}

// recovered marks a recovery point: what was never answered has happened by now or
// never will.
func (c *checker) recovered() {
	c.epoch++
	for _, x := range c.open {
		x.end = min(x.end, c.w.now)
		for _, y := range x.parts {
			y.end = min(y.end, c.w.now)
		}
	}
	c.open = c.open[:0]
}

// read checks the values of a read that began at inv.
func (c *checker) read(what string, sector uint64, values []uint64, inv replication.Time, copies uint8) {
	for i, v := range values {
		if err := c.readSector(sector+uint64(i), v, inv, copies); err != nil {
			c.w.fail("%s: %v", what, err)
			return
		}
	}
}

func (c *checker) readSector(s, v uint64, inv replication.Time, copies uint8) error {
	list := c.sectors[s]
	if v != poisoned && v >= freshTag { // what was on a disk before it belonged to the volume
		v = 0
	}
	reason := "no write to it, or one that was replaced long ago"
	for i, x := range list {
		if x.tag != v {
			continue
		}
		f := c.superseded(list, x, x.end, inv)
		if f == nil {
			c.saw(list, i, s, copies)
			return nil
		}
		reason = fmt.Sprintf("write %d, but the newer write %d was answered before", x.id, f.id)
	}
	switch v {
	case 0:
		f := c.superseded(list, nil, -1, inv)
		if f == nil {
			return nil
		}
		reason += fmt.Sprintf("; or the first contents, but write %d was answered", f.id)
	case poisoned:
		reason = "memory that was given back"
	}
	return fmt.Errorf("sector %d holds %d: %s; candidates %s", s, v, reason, describe(list))
}

// superseded returns a write that makes it impossible to read x at inv, if there is one.
func (c *checker) superseded(list []*write, x *write, end, inv replication.Time) *write {
	for _, f := range list {
		if f == x || end >= f.inv {
			continue
		}
		if f.acked && f.copies != 0 && f.resp < inv {
			return f
		}
		if f.seen != 0 && f.seenEpoch == c.epoch && f.seen < inv {
			return f
		}
	}
	return nil
}

// saw records that a read has returned element i of the list of sector s, a write
// without an answer. What is observed after a recovery point is as good as
// answered, but only in this sector: the write has an entry of its own from now on.
func (c *checker) saw(list []*write, i int, s uint64, copies uint8) {
	x := list[i]
	if x.acked || x.tag == 0 || copies == 0 {
		return
	}
	if x.end == forever || x.copies != 0 { // in progress, it must not vanish while this Primary lives
		if x.seen == 0 || x.seenEpoch != c.epoch {
			list[i] = c.alone(x, s)
			list[i].seen, list[i].seenEpoch = c.w.now, c.epoch
		}
		return
	}
	y := c.alone(x, s)
	y.resp, y.acked, y.copies, y.stable = c.w.now, true, copies, 0
	c.unsafe = append(c.unsafe, y)
	list[i] = y
}

// alone returns a copy of x for one sector. It shares the fate of x as long as x
// has no answer.
func (c *checker) alone(x *write, s uint64) *write {
	if x.n == 1 {
		return x
	}
	y := *x
	y.sector, y.n = s, 1
	y.parts = nil
	x.parts = append(x.parts, &y)
	return &y
}

// String names a write for a report.
func (x *write) String() string {
	return fmt.Sprintf("%d[%d+%d inv %.6f resp %.6f end %.6f acked %v copies %b stable %b]", x.id, x.sector, x.n,
		float64(x.inv)/1e9, float64(x.resp)/1e9, float64(x.end)/1e9, x.acked, x.copies, x.stable)
}

func describe(list []*write) string { return fmt.Sprint(list) }

// logCovers is I3: a write is submitted only to extents in the log on stable storage.
func (c *checker) logCovers(n *node, e *replication.Effect) {
	log := n.durableLog()
	first, last := activitylog.Extents(e.Sector, uint64(e.Size>>9))
	for x := first; x <= last; x++ {
		if !log[x] && c.w.mutant == NoMutant {
			c.w.fail("node %s: write to sector %d is submitted, extent %d is not in the activity log on disk", nodeName(n.id), e.Sector, x)
		}
	}
}

// covered is I2: every block that differs between the stable images of the two disks is
// named by metadata on stable storage of one of them.
func (c *checker) covered() {
	a, b := c.w.nodes[0], c.w.nodes[1]
	var marks [2]func(sector uint64) bool
	for i, n := range c.w.nodes {
		sb := n.durableSuperblock()
		if sb.Flags.Has(metadata.FullSync) || !sb.Flags.Has(metadata.Consistent) {
			return
		}
		bits := bytesOf(n.dev.meta.dur, nil, n.layout.Bitmap, bitmapSectors(n.sectors))
		log, size := n.durableLog(), sb.LASizeSectors
		marks[i] = func(s uint64) bool {
			if s >= size { // when it grows the bits of all new space are set
				return true
			}
			bit := s / bitmap.SectorsPerBit
			return bits[bit/8]&(1<<(bit%8)) != 0 || log[activitylog.Extent(s/activitylog.SectorsPerExtent)]
		}
	}
	for _, s := range c.touched {
		x, y := a.dev.data.dur.get(s), b.dev.data.dur.get(s)
		if x != y && !marks[0](s) && !marks[1](s) {
			c.w.fail("sector %d differs on stable storage (%d and %d), and neither bitmap nor activity log on disk names it", s, x, y)
			return
		}
	}
}

func bitmapSectors(size uint64) uint64 { return metadata.BitmapBytes(size) / 512 }

// quiescent is Q1 to Q3: the copies are equal, hold what they must, and no bit is set.
func (w *world) quiescent() {
	if w.err != nil {
		return
	}
	a, b := w.nodes[0], w.nodes[1]
	if a.size != b.size || a.size < w.opt.Sectors || a.size > min(a.sectors, b.sectors) {
		w.fail("both connected, sizes are %d and %d, the disks have %d and %d sectors", a.size, b.size, a.sectors, b.sectors)
		return
	}
	if s, found := differ(a.dev.data.cur, b.dev.data.cur, a.size); found {
		w.fail("both UpToDate and connected, but sector %d differs: %d and %d; %s", s, a.dev.data.cur.get(s), b.dev.data.cur.get(s), describe(w.check.sectors[s]))
		return
	}
	for _, n := range w.nodes {
		st := n.core.Status().Volumes[0]
		if st.OutOfSync != 0 {
			w.fail("node %s: %d bits set at rest", nodeName(n.id), st.OutOfSync)
		}
		if st.Application != 0 {
			w.fail("node %s: %d requests in progress at rest", nodeName(n.id), st.Application)
		}
	}
	for _, s := range w.check.touched {
		w.check.read("at rest", s, []uint64{a.dev.data.cur.get(s)}, w.now, 3)
	}
	w.check.covered()
}
