package file

import (
	"sync"

	"github.com/replblk/replblk/block"
)

// list is a chain of requests, the zero value an empty one.
type list struct{ head, tail *block.Request }

func (l *list) push(r *block.Request) {
	r.Next = nil
	if l.head == nil {
		l.head = r
	} else {
		l.tail.Next = r
	}
	l.tail = r
}

// pop returns the first request, or nil.
func (l *list) pop() *block.Request {
	r := l.head
	if r != nil {
		l.head, r.Next = r.Next, nil
	}
	return r
}

// queue feeds the workers. It is not bounded: submitters bound what they have
// in flight, and requests are linked, not copied. Workers start when they are
// first needed and stay until Close.
type queue struct {
	f   *File
	max int

	mu      sync.Mutex
	cond    sync.Cond
	rest    list
	writes  list // those that go one by one
	writing bool // a worker is at one of them
	workers int
	idle    int // workers in Wait that no push has woken yet
	closed  bool
}

func (q *queue) init(f *File, workers int) {
	q.f, q.max = f, workers
	q.cond.L = &q.mu
}

// oneByOne says whether r is a write that the kernel does not do beside another one: to a file
// in the page cache. A second worker would only spin for the file's lock, look slow for it,
// and so keep its successors with the workers.
func (f *File) oneByOne(r *block.Request) bool {
	return r.Op == block.Write && !f.direct && !f.blockDev && !f.opt.WriteThrough && r.Flags&block.FUA == 0
}

func (q *queue) push(r *block.Request) {
	spawn := false
	q.mu.Lock()
	if q.f.oneByOne(r) {
		q.writes.push(r)
		if q.writing { // who is at it takes the next one
			q.mu.Unlock()
			return
		}
	} else {
		q.rest.push(r)
	}
	if q.idle > 0 {
		q.idle--
		q.cond.Signal()
	} else if q.workers < q.max {
		q.workers++
		spawn = true
	}
	q.mu.Unlock()
	if spawn {
		go q.work()
	}
}

// pop waits for a request, and says whether it is one of writes; nil means closed. wrote says
// that the last one of this worker was.
func (q *queue) pop(wrote bool) (r *block.Request, write bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if wrote {
		q.writing = false
	}
	for {
		if !q.writing {
			if r = q.writes.pop(); r != nil {
				q.writing = true
				return r, true
			}
		}
		if r = q.rest.pop(); r != nil || q.closed {
			return r, false
		}
		q.idle++
		q.cond.Wait()
	}
}

func (q *queue) work() {
	for r, write := q.pop(false); r != nil; r, write = q.pop(write) {
		if r == &q.f.flush.job {
			q.f.flushAll()
		} else {
			var c stopwatch
			q.f.serve(r, &c)
		}
	}
}

// close ends the workers. The queue is empty: Close has drained the device.
func (q *queue) close() {
	q.mu.Lock()
	q.closed = true
	q.mu.Unlock()
	q.cond.Broadcast()
}
