package node

import (
	"bytes"
	"errors"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/replblk/replblk/block"
	"github.com/replblk/replblk/internal/buffer"
	"github.com/replblk/replblk/replication"
	"github.com/replblk/replblk/replication/wire"
)

// diskOp is an FxDisk in progress: the request to the backing device and what the
// core must be told at its end. It is reused, so a request allocates nothing.
type diskOp struct {
	req  block.Request
	pool *diskOps
	io   replication.IOID
	buf  replication.BufID // allocated for a read; reported at the end
	next *diskOp

	disk       *backing          // in whose list of operations it is; nil: there is no disk
	prev, more *diskOp           // its neighbours there, guarded by disk.live.mu
	listed     bool              // guarded by disk.live.mu
	counted    bool              // given up, and the device stays open for it
	held       replication.BufID // whose memory it has, 0: none
	asked      replication.ReqID // whose memory it has, if ofRequest
	ofRequest  bool
	bounce     *buffer.Buffer // memory of its own in place of the request's
	request    []byte         // with bounce: that of the request

	sum     wire.Algorithm // digest to report of what was read
	sumOnly bool           // and nothing else
	zero    bool           // report whether all of it is zero
}

// diskOps keeps idle diskOps and turns completions into events. A sync.Pool would
// lose them at every garbage collection, and the core bounds how many there are.
type diskOps struct {
	loop  *loop
	bufs  *buffers
	slots *slots
	sums  digests

	mu   sync.Mutex
	idle *diskOp // guarded by mu
}

func (p *diskOps) get() *diskOp {
	p.mu.Lock()
	o := p.idle
	if o != nil {
		p.idle = o.next
	}
	p.mu.Unlock()
	if o == nil {
		o = &diskOp{pool: p}
		o.req.Done = o.done // allocates a method value; once
	}
	return o
}

func (p *diskOps) put(o *diskOp) {
	o.req.Data, o.req.Err, o.req.Next, o.buf, o.sum, o.sumOnly, o.zero = nil, nil, nil, 0, 0, false, false
	o.disk, o.held, o.ofRequest = nil, 0, false
	p.mu.Lock()
	o.next = p.idle
	p.idle = o
	p.mu.Unlock()
}

// done is called by the backing device, on any goroutine, the runner's included: then
// the event is only appended and the runner finds it when it looks again.
func (o *diskOp) done(r *block.Request) {
	if o.disk != nil && !o.disk.live.remove(o) {
		o.returned()
		return
	}
	o.giveBounce()
	ev := replication.Event{Kind: replication.EvDisk, IO: o.io, Err: diskError(r.Err), Buf: o.buf}
	if o.sum != 0 {
		o.summed(&ev)
		return
	}
	ev.Zero = o.zero && allZero(r.Data)
	o.pool.put(o)
	o.pool.loop.post(&ev)
}

// allZero says whether b has no other bytes: if the first is zero and each equals the one
// before it. The runtime compares as fast as memory can be read.
func allZero(b []byte) bool {
	return len(b) == 0 || b[0] == 0 && bytes.Equal(b[1:], b[:len(b)-1])
}

// summed adds the digest of what was read to the report. It is computed here, on the
// goroutine that has the data in its cache and is often not the runner's.
func (o *diskOp) summed(ev *replication.Event) {
	var sum [wire.MaxDigestSize]byte
	if ev.Err == replication.DiskOK {
		ev.Body = o.pool.sums.sum(sum[:0], o.sum, o.req.Data)
	}
	if o.sumOnly && o.buf != 0 {
		o.pool.bufs.release(o.buf)
		ev.Buf = 0
	}
	o.pool.put(o)
	o.pool.loop.post(ev)
}

var diskToBlock = [...]block.Op{
	replication.OpRead: block.Read, replication.OpWrite: block.Write, replication.OpFlush: block.Flush,
	replication.OpDiscard: block.Discard, replication.OpZeroes: block.WriteZeroes,
}

var blockToDisk = [...]replication.Op{
	block.Read: replication.OpRead, block.Write: replication.OpWrite, block.Flush: replication.OpFlush,
	block.Discard: replication.OpDiscard, block.WriteZeroes: replication.OpZeroes,
}

// submit starts e on d. data is the memory of a read or write.
func (o *diskOp) submit(d block.Device, e *replication.Effect, data []byte, more bool) {
	r := &o.req
	o.sum, o.sumOnly, o.zero = e.Sum, e.SumOnly, e.TestZero
	r.Op, r.Sector, r.Sectors, r.Data, r.Flags = diskToBlock[e.Op], e.Sector, e.Size/block.SectorSize, data, 0
	if e.FUA {
		r.Flags |= block.FUA
	}
	if e.NoHole {
		r.Flags |= block.NoHole
	}
	if more {
		r.Flags |= block.More
	}
	if o.disk != nil {
		o.disk.live.add(o)
	}
	d.Submit(r)
}

// diskError is what the core needs to know of an error.
func diskError(err error) replication.DiskError {
	switch {
	case err == nil:
		return replication.DiskOK
	case errors.Is(err, unix.ENOSPC):
		return replication.DiskNoSpace
	default:
		return replication.DiskIOError
	}
}
