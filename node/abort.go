package node

import (
	"sync"

	"github.com/replblk/replblk/block"
	"github.com/replblk/replblk/internal/buffer"
	"github.com/replblk/replblk/replication"
)

// When the core does not wait for a disk any more (FxAbort), the operations that the disk has
// not answered are answered for it. The disk may still carry them out, whenever it likes:
//
//   - its answer reaches nobody;
//   - the memory that it works with has no other owner before: payload buffers are not used
//     again, and a request whose memory the disk has is answered when the disk gives it back,
//     unless the disk was given other memory in the first place, which it is where
//     disk-timeout is set;
//   - the device stays open, and locked against another attachment, until all of it has
//     returned.

// liveOps lists the data operations that a disk has not answered.
type liveOps struct {
	mu    sync.Mutex
	first *diskOp // guarded by mu
}

func (l *liveOps) add(o *diskOp) {
	l.mu.Lock()
	o.prev, o.more, o.listed = nil, l.first, true
	if l.first != nil {
		l.first.prev = o
	}
	l.first = o
	l.mu.Unlock()
}

// remove takes o out; false if take has done so before.
func (l *liveOps) remove(o *diskOp) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !o.listed {
		return false
	}
	if o.prev == nil {
		l.first = o.more
	} else {
		o.prev.more = o.more
	}
	if o.more != nil {
		o.more.prev = o.prev
	}
	o.prev, o.more, o.listed = nil, nil, false
	return true
}

// take empties the list and calls fn for what was in it.
func (l *liveOps) take(fn func(*diskOp)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for o := l.first; o != nil; {
		next := o.more
		fn(o)
		o.prev, o.more, o.listed = nil, nil, false
		o = next
	}
	l.first = nil
}

// abort answers for the disk of a volume. Runner only.
func (r *Resource) abort(vol uint16) {
	b := r.backing(vol)
	if b == nil {
		return
	}
	n := 0
	b.live.take(func(o *diskOp) {
		n++
		o.counted = b.enter() // until it returns
		switch {
		case o.held != 0:
			r.bufs.forsake(o.held)
		case o.ofRequest:
			r.slots.hang(o.asked)
		}
		if o.buf != 0 { // nobody else knows of it
			r.bufs.release(o.buf)
		}
		r.loop.put(&replication.Event{Kind: replication.EvDisk, IO: o.io, Err: replication.DiskAborted})
	})
	b.queue.abort()
	b.gaveUp.Store(true)
	r.volumes[vol].hanging.Add(1)
	r.log.Warn("disk does not answer and is not waited for; it stays open until it does", "volume", vol, "operations", n)
}

// returned is called when the disk has answered an operation that was given up. It is not
// used again, and neither is the memory.
func (o *diskOp) returned() {
	if o.ofRequest {
		o.pool.slots.unhang(o.asked, o.pool.bufs)
	}
	if o.counted {
		o.disk.leave()
	}
}

// ofMemory notes whose memory a data operation works with, and gives it other memory if it
// must be possible to take the request away from the disk.
func (o *diskOp) ofMemory(e *replication.Effect, data []byte, guarded bool) []byte {
	if !guarded {
		o.ofRequest, o.asked = true, e.Req
		return data
	}
	o.bounce, o.request = buffer.Get(len(data)), data
	if e.Op == replication.OpWrite {
		copy(o.bounce.B, data)
	}
	return o.bounce.B
}

// giveBounce puts what was read where it belongs.
func (o *diskOp) giveBounce() {
	if o.bounce == nil {
		return
	}
	if o.req.Op == block.Read && o.req.Err == nil {
		copy(o.request, o.bounce.B)
	}
	buffer.Put(o.bounce)
	o.bounce, o.request = nil, nil
}

// Hanging says whether a disk of the volume was given up and has not returned everything
// yet. No other can be attached before.
func (v *Volume) Hanging() bool { return v.hanging.Load() > 0 }

// hungRequest is an application's request whose memory a disk has that was given up.
type hungRequest struct {
	ops     int                  // that have not returned
	effects []replication.Effect // what was to be done with the memory
}

// hang notes that a disk has the memory of a request.
func (s *slots) hang(id replication.ReqID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.hung[id]
	if h == nil {
		if s.hung == nil {
			s.hung = make(map[replication.ReqID]*hungRequest)
		}
		h = &hungRequest{}
		s.hung[id] = h
	}
	h.ops++
}

// postpone keeps an FxFill or FxComplete for a request until the disk has returned its
// memory. It returns false if there is nothing to wait for.
func (s *slots) postpone(e *replication.Effect) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.hung[e.Req]
	if h == nil {
		return false
	}
	h.effects = append(h.effects, *e)
	return true
}

// unhang notes that the disk has returned the memory of a request, and does what was
// postponed when no other operation has it.
func (s *slots) unhang(id replication.ReqID, bufs *buffers) {
	if e := s.settle(id, bufs); e != nil {
		completed(s.release(id), e.Outcome)
	}
}

// settle fills the memory of a request that the disk has returned. It returns the
// completion that was postponed, nil if there is none yet.
func (s *slots) settle(id replication.ReqID, bufs *buffers) (complete *replication.Effect) {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.hung[id]
	if h.ops--; h.ops > 0 {
		return nil
	}
	delete(s.hung, id)
	for i := range h.effects {
		e := &h.effects[i]
		if e.Kind == replication.FxComplete {
			complete = e
		}
		bufs.fill(s.reqs[id], e)
	}
	return complete
}
