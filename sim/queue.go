package sim

import "github.com/replblk/replblk/replication"

// event is a thing that happens at a time. Events of one time happen in the order
// in which they were scheduled.
type event struct {
	at  replication.Time
	seq uint64
	do  func()

	// With a node it happens only if the process that runs there now still does, and waits
	// while that is stopped.
	n   *node
	inc uint32
}

func (e *event) before(o *event) bool {
	return e.at < o.at || e.at == o.at && e.seq < o.seq
}

// eventQueue is a heap of four children: a run is a few ten thousand pushes and pops, and
// half of the levels of a binary heap are misses of the cache.
type eventQueue []event

const fanOut = 4

func (q *eventQueue) push(e event) {
	*q = append(*q, e)
	h := *q
	i := len(h) - 1
	for i > 0 {
		up := (i - 1) / fanOut
		if h[up].before(&e) {
			break
		}
		h[i] = h[up]
		i = up
	}
	h[i] = e
}

// pop takes the first event out of a queue that is not empty.
func (q *eventQueue) pop() event {
	h := *q
	first, e := h[0], h[len(h)-1]
	h[len(h)-1] = event{} // for the garbage collector
	h = h[:len(h)-1]
	*q = h
	if len(h) > 0 {
		h.sink(e)
	}
	return first
}

// sink puts e in the place of the first event, and that where it belongs.
func (q eventQueue) sink(e event) {
	i := 0
	for {
		least := 0
		for c := fanOut*i + 1; c <= fanOut*(i+1) && c < len(q); c++ {
			if least == 0 || q[c].before(&q[least]) {
				least = c
			}
		}
		if least == 0 || e.before(&q[least]) {
			break
		}
		q[i] = q[least]
		i = least
	}
	q[i] = e
}

// at schedules what happens in the world.
func (w *world) at(t replication.Time, do func()) { w.push(event{at: t, do: do}) }

func (w *world) after(d replication.Time, do func()) { w.at(w.now+d, do) }

func (w *world) push(e event) {
	w.seq++
	e.at, e.seq = max(e.at, w.now), w.seq
	w.queue.push(e)
}

// schedule does something later unless the process ends before.
func (n *node) schedule(d replication.Time, do func()) {
	n.w.push(event{at: n.w.now + d, do: do, n: n, inc: n.inc})
}

// run carries out events until the time limit, until stop says so, or until
// something is wrong.
func (w *world) run(limit replication.Time, stop func() bool) {
	for w.err == nil && len(w.queue) > 0 && !stop() {
		if w.queue[0].at > limit {
			w.now = limit
			return
		}
		e := w.queue.pop()
		w.now = e.at
		w.steps++
		switch {
		case e.n != nil && e.n.inc != e.inc:
		case e.n != nil && e.n.pausedUntil > w.now:
			e.at = e.n.pausedUntil // with its number: what waits keeps its order
			w.queue.push(e)
		default:
			e.do()
		}
	}
}
