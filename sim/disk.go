package sim

import (
	"slices"

	"github.com/replblk/replblk/replication"
	"github.com/replblk/replblk/replication/state"
)

// area is a kind of operation that a fault can be armed for.
type area uint8

const (
	faultRead area = iota
	faultWrite
	faultFlush
	faultMetaWrite
	faultMetaFlush
	numFaults
)

// device is the disk of a node: an area of data, which holds a tag per sector, and
// one of metadata, which holds bytes.
type device struct {
	w        *world
	n        *node
	data     media[uint64]
	meta     media[rawSector]
	inflight []*diskIO
	queue    []metaOp // metadata effects, carried out one at a time, in order
	busy     *metaOp  // of queue, what is being carried out
	metaErr  replication.DiskError
	given    bool            // the core does not wait for it any more
	late     []*metaOp       // metadata effects that it is still busy with then
	armed    [numFaults]bool // the next operation of the kind fails
	logDirty bool            // a block of the activity log may be in the cache
	broken   bool            // a fault has hit since the last attach
	noSpace  bool            // a failing write fails for lack of space

	hungUntil replication.Time
	kept      replication.Time // what was answered before is on stable storage
	lies      *window          // what it says that it writes there is lost, or goes elsewhere
	latent    map[uint64]bool  // sectors that cannot be read until they are written
}

// diskIO is a data operation in progress. mem is the memory of the request or buffer.
type diskIO struct {
	fx   replication.Effect
	mem  []uint64
	mark [2]uint64                                     // of a flush: what had completed at its start, data and metadata
	own  func(mem []uint64, err replication.DiskError) // a direct read of the driver
	late bool                                          // the core has its answer
	at   replication.Time                              // of a flush: when it was submitted
}

type metaOp struct {
	kind   replication.EffectKind
	data   bool
	sector uint64
	block  []rawSector
	io     replication.IOID
	mark   [2]uint64
}

func (d *device) latency() replication.Time {
	r := d.w.rng
	t := d.w.opt.DiskLatency/4 + replication.Time(r.Int64N(int64(d.w.opt.DiskLatency)))
	if r.IntN(30) == 0 {
		t *= replication.Time(2 + r.IntN(15))
	}
	if d.w.opt.DiskTimeout != 0 {
		return t // and the hang: see awake
	}
	return t + max(0, d.hungUntil-d.w.now)
}

// awake does something when the disk does not hang any more, which may be before the time
// that was meant.
func (d *device) awake(do func()) {
	if d.w.opt.DiskTimeout == 0 || d.hungUntil <= d.w.now {
		do()
		return
	}
	d.n.schedule(min(5*replication.Millisecond, d.hungUntil-d.w.now), func() { d.awake(do) })
}

// failing says whether the operation is hit by an armed fault.
func (d *device) failing(a area) bool {
	if !d.armed[a] {
		return false
	}
	if d.alone() {
		return false // one thing at a time
	}
	d.armed[a], d.broken, d.w.op.troubled = false, true, true
	d.w.hit("disk")
	d.w.trace("eio", d.n.id, uint64(a), 0)
	return true
}

// alone says whether no other disk has all data, or will have when it hears what is decided.
func (d *device) alone() bool {
	other := d.w.nodes[1-d.n.id].state()
	return d.n.state().Conn == state.StartingSyncS || d.w.check.lacks(1-d.n.id) != nil || other.Disk != state.UpToDate || other.Conn < state.Connected || !d.w.net.good()
}

// submit starts a data operation.
func (d *device) submit(io *diskIO) {
	if io.fx.Op == replication.OpFlush {
		io.mark, io.at = [2]uint64{d.data.mark(), d.meta.mark()}, d.w.now
	}
	d.inflight = append(d.inflight, io)
	if d.w.mutant == EarlyDiskDone && io.fx.Op == replication.OpWrite && d.w.rng.IntN(2) == 0 {
		io.own = func([]uint64, replication.DiskError) {}
		d.n.schedule(1, func() {
			d.n.step(&replication.Event{Kind: replication.EvDisk, IO: io.fx.IO, Err: replication.DiskOK})
		})
	}
	d.n.schedule(d.latency(), func() { d.awake(func() { d.complete(io) }) })
}

func (d *device) complete(io *diskIO) {
	i := slices.Index(d.inflight, io)
	d.inflight = slices.Delete(d.inflight, i, i+1)
	sector, n := io.fx.Sector, uint64(io.fx.Size)>>9
	err := replication.DiskOK
	switch io.fx.Op {
	case replication.OpRead:
		if d.failing(faultRead) || d.unreadable(sector, n) {
			err = replication.DiskIOError
			break
		}
		if io.mem == nil {
			io.mem = make([]uint64, n)
		}
		d.data.read(sector, io.mem)
	case replication.OpFlush:
		if err = d.flushed(io.mark, true, faultFlush); err == replication.DiskOK {
			d.kept = max(d.kept, io.at)
		}
	default:
		if d.failing(faultWrite) {
			err = replication.DiskIOError
			if d.noSpace {
				err = replication.DiskNoSpace
			}
			d.partial(io)
			break
		}
		d.repair(sector, n)
		if to, lost := d.astray(sector, n); !lost {
			d.data.write(to, d.contents(io), io.fx.FUA)
		}
	}
	switch {
	case io.own != nil:
		io.own(io.mem, err)
	case !io.late:
		d.n.diskDone(io, err)
	}
}

// abort answers for the disk what it has not answered. It carries all of it out later, as it
// likes, with memory of its own.
func (d *device) abort() {
	d.given, d.broken, d.w.op.troubled = true, true, true
	answer := func(ev replication.Event) { d.n.schedule(1, func() { d.n.step(&ev) }) }
	for _, io := range d.inflight {
		if io.own == nil && !io.late {
			io.late, io.mem = true, slices.Clone(io.mem)
			answer(replication.Event{Kind: replication.EvDisk, IO: io.fx.IO, Err: replication.DiskAborted})
		}
	}
	for i := range d.queue {
		if op := &d.queue[i]; op.kind == replication.FxMetaNotify {
			answer(replication.Event{Kind: replication.EvMeta, IO: op.io, Err: replication.DiskAborted})
		}
	}
	if d.busy != nil {
		d.late = append(d.late, d.busy)
	}
	d.queue, d.busy, d.metaErr = nil, nil, replication.DiskOK
}

// returned says whether a disk that was given up has nothing left to carry out.
func (d *device) returned() bool { return !d.given || len(d.inflight) == 0 && len(d.late) == 0 }

// unreadable says whether a read touches a latent error.
func (d *device) unreadable(sector, n uint64) bool {
	for s := sector; len(d.latent) > 0 && s < sector+n && !d.alone(); s++ {
		if d.latent[s] {
			d.broken, d.w.op.troubled = true, true
			d.w.hit("latent")
			d.w.trace("latent eio", d.n.id, s, 0)
			return true
		}
	}
	return false
}

// repair: what is written can be read again.
func (d *device) repair(sector, n uint64) {
	for s := sector; len(d.latent) > 0 && s < sector+n; s++ {
		delete(d.latent, s)
	}
}

// contents is what a write leaves on the disk.
func (d *device) contents(io *diskIO) []uint64 {
	if io.fx.Op == replication.OpWrite {
		return io.mem
	}
	return make([]uint64, io.fx.Size>>9)
}

// partial writes any subset of the sectors of a write.
func (d *device) partial(io *diskIO) {
	for i, v := range d.contents(io) {
		if d.w.rng.IntN(2) == 0 {
			d.data.write(io.fx.Sector+uint64(i), []uint64{v}, false)
		}
	}
}

// flushed ends a flush that began at mark.
func (d *device) flushed(mark [2]uint64, data bool, a area) replication.DiskError {
	if d.failing(a) {
		// The kernel forgets what it could not write.
		d.loseCache(0.5)
		if d.w.mutant == FlushErrorIgnored {
			return replication.DiskOK
		}
		d.w.oracle.lostCache(d.n.id)
		return replication.DiskIOError
	}
	if d.w.mutant == PeerNoFlush && d.n.role() != primary && a == faultFlush {
		return replication.DiskOK
	}
	both := !d.w.opt.Separate
	if data || both {
		d.data.destage(mark[0])
	}
	if !data || both {
		d.meta.destage(mark[1])
		if d.logDirty {
			d.n.metaChanged()
			d.logDirty = len(d.meta.pending) > 0
		}
	}
	return replication.DiskOK
}

func (d *device) loseCache(p float64) {
	d.data.loseCache(d.w.rng, p, d.w.opt.SurviveShuffle)
	if !d.w.opt.Separate {
		d.meta.loseCache(d.w.rng, p, d.w.opt.SurviveShuffle)
		d.n.metaChanged()
	}
}

// put queues a metadata effect.
func (d *device) put(op metaOp) {
	d.queue = append(d.queue, op)
	d.next()
}

// next starts the first of the queue.
func (d *device) next() {
	if d.busy != nil || len(d.queue) == 0 {
		return
	}
	op := &d.queue[0]
	if op.kind == replication.FxMetaNotify || d.metaErr != replication.DiskOK || d.w.mutant == EarlyNotify && d.w.rng.IntN(8) == 0 {
		d.finish()
		return
	}
	d.busy = op
	op.mark = [2]uint64{d.data.mark(), d.meta.mark()}
	d.n.schedule(d.latency(), func() { d.awake(func() { d.performed(op) }) })
}

func (d *device) performed(op *metaOp) {
	d.perform(op)
	if i := slices.Index(d.late, op); i >= 0 {
		d.late = slices.Delete(d.late, i, i+1)
		d.metaErr = replication.DiskOK
		return
	}
	d.busy = nil
	d.finish()
}

// perform carries a metadata effect out.
func (d *device) perform(op *metaOp) {
	if op.kind == replication.FxMetaWrite {
		if d.failing(faultMetaWrite) {
			d.partialMeta(op)
			d.metaErr = replication.DiskIOError
			return
		}
		if d.w.mutant == NoBitmapWrites && op.sector >= d.n.layout.Bitmap {
			return
		}
		d.meta.write(op.sector, op.block, false)
		d.logDirty = d.logDirty || op.sector >= d.n.layout.ActivityLog && op.sector < d.n.layout.Bitmap
		return
	}
	if op.data {
		d.metaErr = d.flushed(op.mark, true, faultMetaFlush)
	}
	if d.metaErr == replication.DiskOK {
		d.metaErr = d.flushed(op.mark, false, faultMetaFlush)
	}
}

func (d *device) partialMeta(op *metaOp) {
	d.logDirty = true
	for i, v := range op.block {
		if d.w.rng.IntN(2) == 0 {
			d.meta.write(op.sector+uint64(i), []rawSector{v}, false)
		}
	}
}

// finish takes the first of the queue out, and tells the core of a notify.
func (d *device) finish() {
	op := d.queue[0]
	d.queue = d.queue[1:]
	if op.kind == replication.FxMetaNotify {
		err := d.metaErr
		d.metaErr = replication.DiskOK
		d.n.schedule(1, func() {
			d.n.step(&replication.Event{Kind: replication.EvMeta, IO: op.io, Err: err})
		})
	}
	d.next()
}

// stop ends everything in progress as a crash of the process does: any subset of it
// is carried out.
func (d *device) stop() {
	for _, io := range d.inflight {
		switch io.fx.Op {
		case replication.OpWrite, replication.OpDiscard, replication.OpZeroes:
			d.partial(io)
		default:
		}
	}
	if d.busy != nil && d.busy.kind == replication.FxMetaWrite {
		d.partialMeta(d.busy)
	}
	for _, op := range d.late {
		if op.kind == replication.FxMetaWrite {
			d.partialMeta(op)
		}
	}
	d.inflight, d.queue, d.late, d.busy, d.metaErr, d.given = nil, nil, nil, nil, replication.DiskOK, false
}

// losePower loses the caches.
func (d *device) losePower() {
	p := pick(d.w.rng, 0, 0.1, 0.5, 0.9, 1)
	if k := d.w.survive; k > 0 {
		p = float64(k-1) / 2
	}
	d.data.loseCache(d.w.rng, p, d.w.opt.SurviveShuffle)
	d.meta.loseCache(d.w.rng, p, d.w.opt.SurviveShuffle)
	d.n.metaChanged()
}
