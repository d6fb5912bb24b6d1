package node

import (
	"sync"

	"github.com/replblk/replblk/block"
	"github.com/replblk/replblk/internal/buffer"
	"github.com/replblk/replblk/replication"
)

const (
	metaBlock        = 4096 // bytes of one FxMetaWrite
	metaBlockSectors = metaBlock / block.SectorSize

	// maxRun bounds the blocks that are written in one request.
	maxRun = 256
)

// metaQueue carries out the metadata effects of one attached volume, strictly in
// order, on one goroutine. That is what makes them simple to reason about: an
// activity log transaction is durable when its notify is reached, and so is
// everything that was queued before it. Writes to adjacent blocks become one.
//
// After an error everything up to and including the next notify is skipped, and
// the notify reports the error: what follows in such a group relies on what failed.
type metaQueue struct {
	meta, data block.Device // equal if the metadata is internal
	notify     func(replication.IOID, replication.DiskError)

	mu    sync.Mutex
	wake  *sync.Cond         // on mu: something was queued
	ops   []metaOp           // guarded by mu
	arena []byte             // guarded by mu: blocks of ops, in order
	owed  []replication.IOID // guarded by mu: notifies that were not answered
	given bool               // guarded by mu: the disk is not waited for, see abort
	shut  bool               // guarded by mu: end when ops is empty

	done chan struct{} // closed when the goroutine has ended

	// Owned by the goroutine.
	work  []metaOp
	bytes []byte
	err   replication.DiskError
	ended chan *block.Request
	req   block.Request
}

type metaOp struct {
	kind   replication.EffectKind
	data   bool   // FxMetaFlush: flush the data device too
	sector uint64 // FxMetaWrite
	io     replication.IOID
}

func newMetaQueue(data, meta block.Device, notify func(replication.IOID, replication.DiskError)) *metaQueue {
	q := &metaQueue{meta: meta, data: data, notify: notify, done: make(chan struct{}), ended: make(chan *block.Request, 1)}
	q.wake = sync.NewCond(&q.mu)
	go q.run()
	return q
}

// put queues a metadata effect. blk is the block of an FxMetaWrite; it is copied.
func (q *metaQueue) put(op metaOp, blk []byte) {
	q.mu.Lock()
	q.ops = append(q.ops, op)
	if op.kind == replication.FxMetaNotify {
		q.owed = append(q.owed, op.io)
	}
	if op.kind == replication.FxMetaWrite {
		q.arena = append(q.arena, blk[:metaBlock]...)
	}
	if len(q.ops) == 1 {
		q.wake.Signal()
	}
	q.mu.Unlock()
}

// close lets the goroutine end when everything queued is done. It does not wait:
// see done.
func (q *metaQueue) close() {
	q.mu.Lock()
	q.shut = true
	q.wake.Signal()
	q.mu.Unlock()
}

func (q *metaQueue) run() {
	defer close(q.done)
	for {
		q.mu.Lock()
		for len(q.ops) == 0 && !q.shut {
			q.wake.Wait()
		}
		if len(q.ops) == 0 {
			q.mu.Unlock()
			return
		}
		q.work, q.ops = q.ops, q.work[:0]
		q.bytes, q.arena = q.arena, q.bytes[:0]
		q.mu.Unlock()
		q.batch()
	}
}

// batch carries out q.work.
func (q *metaQueue) batch() {
	blocks := q.bytes
	for i := 0; i < len(q.work); {
		op := q.work[i]
		switch op.kind {
		case replication.FxMetaWrite:
			n := run(q.work[i:])
			if q.aborted() {
				return
			}
			q.write(op.sector, blocks[:n*metaBlock])
			blocks = blocks[n*metaBlock:]
			i += n
			continue
		case replication.FxMetaFlush:
			q.flush(op.data)
		default:
			err := q.err
			q.err = replication.DiskOK
			if !q.answer() {
				return
			}
			q.notify(op.io, err)
		}
		i++
	}
}

// abort answers every notify and does nothing more. What the disk is busy with stays with
// it: the goroutine ends when that returns.
func (q *metaQueue) abort() {
	q.mu.Lock()
	owed := q.owed
	q.given, q.owed, q.ops, q.arena = true, nil, nil, nil
	q.mu.Unlock()
	for _, io := range owed {
		q.notify(io, replication.DiskAborted)
	}
}

func (q *metaQueue) aborted() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.given
}

// answer takes the oldest notify off what is owed; false if the queue was aborted.
func (q *metaQueue) answer() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.given {
		return false
	}
	q.owed = append(q.owed[:0], q.owed[1:]...)
	return true
}

// run returns how many operations at the start of ops write adjacent blocks.
func run(ops []metaOp) int {
	n := 1
	for n < len(ops) && n < maxRun && ops[n].kind == replication.FxMetaWrite &&
		ops[n].sector == ops[0].sector+uint64(n)*metaBlockSectors {
		n++
	}
	return n
}

func (q *metaQueue) write(sector uint64, p []byte) {
	if q.err != replication.DiskOK {
		return
	}
	b := buffer.Get(len(p)) // direct I/O needs it aligned, which the arena is not
	copy(b.B, p)
	q.do(q.meta, block.Write, sector, b.B)
	buffer.Put(b)
}

func (q *metaQueue) flush(data bool) {
	if q.aborted() {
		return
	}
	if data && q.data != q.meta && q.err == replication.DiskOK {
		q.do(q.data, block.Flush, 0, nil)
	}
	if q.err == replication.DiskOK {
		q.do(q.meta, block.Flush, 0, nil)
	}
}

func (q *metaQueue) do(d block.Device, op block.Op, sector uint64, p []byte) {
	q.req = block.Request{Op: op, Sector: sector, Sectors: uint32(len(p) / block.SectorSize), Data: p, Done: func(r *block.Request) { q.ended <- r }}
	d.Submit(&q.req)
	<-q.ended
	q.err = diskError(q.req.Err)
}
