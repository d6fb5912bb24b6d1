package file

import (
	"sync"

	"github.com/replblk/replblk/block"
)

// queue feeds the workers. It is not bounded: submitters bound what they have
// in flight, and requests are linked, not copied. Workers start when they are
// first needed and stay until Close.
type queue struct {
	f   *File
	max int

	mu         sync.Mutex
	cond       sync.Cond
	head, tail *block.Request
	workers    int
	idle       int // workers in Wait that no push has woken yet
	closed     bool
}

func (q *queue) init(f *File, workers int) {
	q.f, q.max = f, workers
	q.cond.L = &q.mu
}

func (q *queue) push(r *block.Request) {
	r.Next = nil
	q.mu.Lock()
	if q.head == nil {
		q.head = r
	} else {
		q.tail.Next = r
	}
	q.tail = r
	spawn := false
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

// pop waits for a request; nil means closed.
func (q *queue) pop() *block.Request {
	q.mu.Lock()
	defer q.mu.Unlock()
	for q.head == nil {
		if q.closed {
			return nil
		}
		q.idle++
		q.cond.Wait()
	}
	r := q.head
	q.head = r.Next
	r.Next = nil
	return r
}

func (q *queue) work() {
	for r := q.pop(); r != nil; r = q.pop() {
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
