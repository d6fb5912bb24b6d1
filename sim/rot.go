package sim

import (
	"github.com/replblk/replblk/bitmap"
	"github.com/replblk/replblk/replication"
	"github.com/replblk/replblk/replication/state"
)

// What a disk does behind everybody's back: data decay at rest, a write is reported and lost,
// or lands elsewhere. Nothing can notice that but a comparison of both copies, which must find
// exactly these blocks, and whose repair must mend them.

// window is a part of the device.
type window struct{ start, stop uint64 }

// windowSectors is how much of the device is spoiled and compared, a matter of time only.
const windowSectors = 2048

// decayed is no write's tag.
const decayed = poisoned - 1

// rot spoils one copy, compares the copies, and has what differs repaired.
func (w *world) rot() {
	if s := w.opt.session(); w.err != nil || !w.opt.Rot || !s.StopsVerify() {
		return
	}
	w.trace("rot", -1, 0, 0)
	good := w.nodes[w.rng.IntN(2)]
	for _, n := range w.nodes {
		if n.role() == primary {
			good = n // the Primary's copy is what counts
		}
	}
	bad := w.nodes[1-good.id]
	size := good.core.Status().Volumes[0].Size
	hot := w.client.hot[w.rng.IntN(len(w.client.hot))]
	part := window{start: hot - min(hot, w.rng.Uint64N(windowSectors))}
	part.stop = min(part.start+windowSectors, size)
	if w.client.node == good && w.rng.IntN(2) == 0 {
		w.lie(bad, part)
	}
	if w.op.rotten = w.apart(part); w.op.rotten == 0 {
		bad.dev.decay(1+w.rng.IntN(20), part)
		w.op.rotten = w.apart(part)
	}
	if w.err == nil && w.verifyFinds(part) {
		w.repair(good)
	}
}

// lie lets the application write while a disk loses writes, or puts them elsewhere.
func (w *world) lie(bad *node, part window) {
	bad.dev.lies = &part
	w.client.idle = false
	w.run(w.now+between(w.rng, 1, 300*replication.Millisecond), func() bool { return false })
	w.client.idle = true
	w.run(w.now+30*replication.Second, w.settled)
	bad.dev.lies = nil
	w.trace("lied", bad.id, w.apart(part), 0)
	if w.err == nil && !w.settled() {
		w.fail("not in sync 30 s after the last request: %s", w.describe())
	}
}

// astray says where a write goes: to its place, to another one, or nowhere.
func (d *device) astray(sector, n uint64) (to uint64, lost bool) {
	if d.lies == nil || sector < d.lies.start || sector+n > d.lies.stop {
		return sector, false
	}
	switch d.w.rng.IntN(4) {
	case 0:
		return sector, true
	case 1:
		return d.lies.start + d.w.rng.Uint64N(d.lies.stop-d.lies.start-n+1), false
	default:
		return sector, false
	}
}

// decay changes up to n sectors without anybody noticing.
func (d *device) decay(n int, part window) {
	for range n {
		d.data.preset(part.start+d.w.rng.Uint64N(part.stop-part.start), decayed)
	}
}

// apart counts the blocks of which the copies differ.
func (w *world) apart(part window) (blocks uint64) {
	a, b := w.nodes[0].dev.data.cur, w.nodes[1].dev.data.cur
	last := ^uint64(0)
	for s := part.start; s < part.stop; s++ {
		if bit := s / bitmap.SectorsPerBit; bit != last && a.get(s) != b.get(s) {
			last = bit
			blocks++
		}
	}
	return blocks
}

// verifyFinds runs an online verify, which must find what is known to differ: see noted.
func (w *world) verifyFinds(part window) bool {
	before := w.op.verified
	w.nodes[w.rng.IntN(2)].admin(replication.Admin{Kind: replication.AdminVerify, Start: part.start, Stop: part.stop}, nil)
	w.run(w.now+60*replication.Second, func() bool { return w.op.verified == before+2 })
	if w.err == nil && w.op.verified != before+2 {
		w.fail("online verify did not end in 60 s: %s", w.describe())
	}
	for _, n := range w.nodes {
		if st := n.core.Status().Volumes[0]; w.err == nil && st.OutOfSync != w.op.rotten {
			w.fail("node %s: %d bits set after a verify that found %d blocks", nodeName(n.id), st.OutOfSync, w.op.rotten)
		}
	}
	w.op.rotten = 0
	return w.err == nil
}

// repair has the blocks copied that a verify has found.
func (w *world) repair(good *node) {
	from := w.nodes[w.rng.IntN(2)]
	if good.role() != primary {
		from = good
	}
	repaired := false
	from.admin(replication.Admin{Kind: replication.AdminRepair}, func(r state.Result) { repaired = r == state.Success })
	w.run(w.now+20*replication.Second, func() bool { return repaired })
	if w.err == nil && !repaired {
		w.fail("repair is not answered: %s", w.describe())
	}
	w.heal()
}
