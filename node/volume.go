package node

import (
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/replblk/replblk/block"
	"github.com/replblk/replblk/replication"
	"github.com/replblk/replblk/replication/state"
)

const (
	// maxDataSectors is the largest read or write that the protocol carries.
	maxDataSectors = 1 << 20 / block.SectorSize

	// discardSectors is the unit into which discards and zeroes are cut, at its
	// multiples: 4 MiB, one extent of the activity log, and the most that a peer
	// without the newer features accepts.
	discardSectors = 4 << 20 / block.SectorSize
)

// Volume is a replicated volume as frontends see it. It exists as long as its
// resource; a backing device comes and goes.
type Volume struct {
	res    *Resource
	number uint16

	primary atomic.Bool
	reads   atomic.Bool // reads may go to the backing device directly
	sectors atomic.Uint64
	disk    atomic.Pointer[backing] // nil: none

	guarded atomic.Bool // with disk-timeout: what the disk works with is memory of its own

	ops readOps

	hanging atomic.Int32 // disks that were given up and have not returned

	usersMu sync.Mutex
	users   uint32 // guarded by usersMu: clients that have the volume open
}

// Open counts a client that uses the volume. A Primary in use does not give its role up by
// itself when a split brain is decided against it (call-pri-lost-after-sb).
func (v *Volume) Open() { v.countUsers(1) }

// Release ends what Open began.
func (v *Volume) Release() { v.countUsers(^uint32(0)) }

func (v *Volume) countUsers(delta uint32) {
	v.usersMu.Lock()
	v.users += delta
	v.res.loop.put(&replication.Event{Kind: replication.EvUsers, Vol: v.number, Size: v.users})
	v.usersMu.Unlock()
	v.res.loop.kick()
}

var _ block.Device = (*Volume)(nil)

// Number returns the volume's number in the resource.
func (v *Volume) Number() uint16 { return v.number }

// Geometry implements block.Device. While the node is not Primary the volume is
// read-only, as far as a geometry can say it: it cannot even be read.
func (v *Volume) Geometry() block.Geometry {
	g := block.Geometry{Sectors: v.sectors.Load(), LogicalBlock: block.SectorSize, PhysicalBlock: 4096, Discard: true, ReadOnly: !v.primary.Load()}
	if b := v.disk.Load(); b != nil {
		d := b.data.Geometry()
		g.LogicalBlock, g.PhysicalBlock, g.Discard, g.Rotational = max(d.LogicalBlock, block.SectorSize), d.PhysicalBlock, d.Discard, d.Rotational
	}
	return g
}

// Allocation says that the first n of the sectors starting at sector are a hole of
// the local disk, which reads as zeroes, or that they are not known to be one. Only a
// disk that answers reads by itself is asked.
func (v *Volume) Allocation(sector, sectors uint64) (n uint64, zero bool) {
	b := v.disk.Load()
	if b == nil || !b.enter() {
		return sectors, false
	}
	defer b.leave()
	a, ok := b.data.(allocator)
	if !ok || !v.reads.Load() {
		return sectors, false
	}
	return a.Allocation(sector, sectors)
}

// Submit implements block.Device. It waits while the resource has as many requests
// in flight as it may.
func (v *Volume) Submit(r *block.Request) {
	switch {
	case !v.primary.Load() && r.Op != block.Flush:
		r.Complete(r.Fail(syscall.EROFS))
		return
	case r.Op < block.Read || r.Op > block.WriteZeroes:
		r.Complete(r.Fail(syscall.EINVAL))
		return
	}
	if err := r.Check(block.Geometry{Sectors: v.sectors.Load()}); err != nil {
		r.Complete(err)
		return
	}
	if r.Op != block.Flush && r.Sectors == 0 {
		r.Complete(nil)
		return
	}
	if limit := pieceLimit(r); limit < uint64(r.Sectors) || limit == discardSectors && crosses(r) {
		v.split(r)
		return
	}
	if r.Op == block.Read && v.readDirect(r) {
		return
	}
	v.submit(r)
}

// submit hands r to the core.
func (v *Volume) submit(r *block.Request) {
	id, ok := v.res.slots.take(r, v.res.loop.kick)
	if !ok {
		r.Complete(r.Fail(syscall.ESHUTDOWN))
		return
	}
	ev := replication.Event{
		Kind: replication.EvRequest, Vol: v.number, Req: id, Op: blockToDisk[r.Op],
		Sector: r.Sector, Size: r.Sectors * block.SectorSize,
		FUA: r.Flags&block.FUA != 0, NoHole: r.Flags&block.NoHole != 0,
	}
	if r.Flags&block.More != 0 {
		// More come at once and all of them leave in one packet train. If they do
		// not, the next tick finds this one.
		v.res.loop.put(&ev)
		return
	}
	v.res.loop.post(&ev)
}

// completed ends a request with the core's verdict.
func completed(r *block.Request, o replication.Outcome) {
	switch o {
	case replication.OK:
		r.Complete(nil)
	case replication.NoSpace:
		r.Complete(r.Fail(syscall.ENOSPC))
	case replication.ReadOnly:
		r.Complete(r.Fail(syscall.EROFS))
	default:
		r.Complete(r.Fail(syscall.EIO))
	}
}

// pieceLimit is the largest piece of r that may be submitted at once.
func pieceLimit(r *block.Request) uint64 {
	switch r.Op {
	case block.Read, block.Write:
		return maxDataSectors
	case block.Flush:
		return 0xffffffff
	default:
		return discardSectors
	}
}

func crosses(r *block.Request) bool {
	return r.Sector/discardSectors != (r.Sector+uint64(r.Sectors)-1)/discardSectors
}

// split submits r in pieces and completes it with the last of them.
func (v *Volume) split(r *block.Request) {
	var left atomic.Int64
	var first atomic.Pointer[error]
	left.Store(1)
	done := func(p *block.Request) {
		if p != nil && p.Err != nil {
			first.CompareAndSwap(nil, &p.Err)
		}
		if left.Add(-1) == 0 {
			if e := first.Load(); e != nil {
				r.Complete(r.Fail(block.Errno(*e)))
				return
			}
			r.Complete(nil)
		}
	}
	limit := pieceLimit(r)
	for off := uint64(0); off < uint64(r.Sectors); {
		n := min(uint64(r.Sectors)-off, limit)
		if limit == discardSectors {
			n = min(n, discardSectors-(r.Sector+off)%discardSectors)
		}
		p := &block.Request{Op: r.Op, Flags: r.Flags, Sector: r.Sector + off, Sectors: uint32(n), Done: done}
		if len(r.Data) > 0 {
			p.Data = r.Data[off*block.SectorSize : (off+n)*block.SectorSize]
		}
		left.Add(1)
		v.Submit(p)
		off += n
	}
	done(nil)
}

// readOp is a read that went to the backing device without asking the core.
type readOp struct {
	req  block.Request
	v    *Volume
	disk *backing
	orig *block.Request
	next *readOp
}

type readOps struct {
	mu   sync.Mutex
	idle *readOp // guarded by mu
}

// readDirect sends r to the backing device if the core allows reads there, and says
// whether it did.
func (v *Volume) readDirect(r *block.Request) bool {
	if !v.reads.Load() || v.res.loop.late(v.res.lease) {
		return false
	}
	b := v.disk.Load()
	if b == nil || !b.enter() {
		return false
	}
	if !v.reads.Load() { // withdrawn before the count could be seen
		b.leave()
		return false
	}
	v.ops.mu.Lock()
	o := v.ops.idle
	if o != nil {
		v.ops.idle = o.next
	}
	v.ops.mu.Unlock()
	if o == nil {
		o = &readOp{v: v}
		o.req.Done = o.done
	}
	o.disk, o.orig = b, r
	o.req.Op, o.req.Flags, o.req.Sector, o.req.Sectors, o.req.Data = block.Read, r.Flags, r.Sector, r.Sectors, r.Data
	last := r.Flags&block.More == 0 // r is its owner's again when it is done
	b.data.Submit(&o.req)
	if last {
		v.res.loop.kick() // a write that came before with More may wait for it
	}
	return true
}

func (o *readOp) done(*block.Request) {
	v, b, r, err := o.v, o.disk, o.orig, o.req.Err
	o.disk, o.orig, o.req.Data, o.req.Err, o.req.Next = nil, nil, nil, nil, nil
	v.ops.mu.Lock()
	o.next = v.ops.idle
	v.ops.idle = o
	v.ops.mu.Unlock()
	b.leave()
	if err == nil {
		r.Complete(nil)
		return
	}
	// Only the core knows what a failed disk means and whether the peer can
	// serve the read, so it reads again. Not from here: this may be a worker of
	// the very device, and taking a slot may wait.
	r.Flags &^= block.More
	go v.submit(r)
}

// changed follows a state change. Runner only.
func (v *Volume) changed(s state.State) { v.primary.Store(s.Role == state.Primary) }
