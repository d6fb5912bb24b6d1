package aoe

import (
	"sync"
	"time"

	"github.com/replblk/replblk/block"
)

// burst gathers what a receiver's frames ask of the devices, so that a device gets
// adjacent requests together; and what the devices have done when that returns, so that
// the target's lock is taken once. One goroutine uses it, but for put.
type burst struct {
	calls []*call
	reqs  []*block.Request
	tally tally
	spare []*call // of the last target, which finish has ended

	mu   sync.Mutex // guards what follows
	open bool
	done []*call
}

func (b *burst) add(c *call) { b.calls = append(b.calls, c) }

// call returns a call of t that is not in use.
func (b *burst) call(t *Target) *call {
	last := len(b.spare) - 1
	if last < 0 || b.spare[last].target != t {
		return t.calls.Get().(*call)
	}
	c := b.spare[last]
	b.spare = b.spare[:last]
	return c
}

// keep takes c back for call, if it is finish that ends it.
func (b *burst) keep(c *call) bool {
	if c.tally != &b.tally || len(b.spare) >= batch {
		return false
	}
	b.spare = append(b.spare, c)
	return true
}

// submit submits what was gathered, in order, and answers what is done at once.
func (b *burst) submit() {
	b.begin()
	now := time.Now() // both clocks: see late
	for i := 0; i < len(b.calls); {
		t := b.calls[i].target
		for ; i < len(b.calls) && b.calls[i].target == t; i++ {
			c := b.calls[i]
			b.calls[i] = nil
			if t.timely(c, now) {
				b.reqs = append(b.reqs, &c.req)
			}
		}
		block.SubmitAll(t.device, b.reqs)
		clear(b.reqs)
		b.reqs = b.reqs[:0]
	}
	b.calls = b.calls[:0]
	b.finish(now)
}

func (b *burst) begin() {
	b.mu.Lock()
	b.open = true
	b.mu.Unlock()
}

// put takes a call that the device is finished with, if the receiver is about to look for it
// and not held up by the device.
func (b *burst) put(c *call) bool {
	b.mu.Lock()
	ok := b.open && len(b.done) < corkLimit
	if ok {
		b.done = append(b.done, c)
	}
	b.mu.Unlock()
	return ok
}

// finish ends the calls that the devices are finished with, which have been submitted after
// began.
func (b *burst) finish(began time.Time) {
	b.mu.Lock()
	b.open = false
	b.mu.Unlock()
	if len(b.done) == 0 {
		return
	}
	b.tally.now = began.Add(time.Since(began)) // cheaper than time.Now
	for i := 0; i < len(b.done); {
		first := i
		for t := b.done[i].target; i < len(b.done) && b.done[i].target == t; i++ {
			b.done[i].tally = &b.tally
		}
		b.done[first].target.finish(b.done[first:i])
	}
	b.tally.flush()
	b.tally = tally{}
	clear(b.done)
	b.done = b.done[:0]
}
