package aoe

import (
	"syscall"
	"time"

	"github.com/replblk/replblk/block"
)

// queue orders a target's requests. It is guarded by Target.mu.
//
// A request that overlaps an earlier one of which it or the other writes waits
// for it; the edges are made on arrival, so the order is that of arrival. All
// other requests go to the device at once.
type queue struct {
	running []*call // reads and writes that arrived and are not finished, in no order
	ranges  []extent
	ready   []*call // waited, may go to the device now
	written []*call // finished writes that wait for a flush
	flushed []*call // those that the flush in flight covers
	spare   []*call
	flush   block.Request
	history history
}

// extent is the range of a call, apart from it so that the search for overlaps
// reads one short array.
type extent struct {
	start, end uint64
	write      bool
}

// start sends a request to the device when its turn comes.
func (t *Target) start(c *call, a *ATA, kind ataKind, r block.Request) {
	c.ata, c.kind, c.req = *a, kind, r
	c.req.Done = c.done
	c.left, c.next = r.Sectors, r.Sector
	c.nextPart()
	if r.Op == block.Flush {
		t.goOn(c)
		return
	}
	x := extent{r.Sector, r.Sector + uint64(r.Sectors), r.Op == block.Write}
	switch ready, superseded := t.enqueue(c, x); {
	case superseded:
		c.drop(DropSuperseded)
	case ready:
		t.goOn(c)
	}
}

// goOn submits c, at once or with what its receiver has gathered.
func (t *Target) goOn(c *call) {
	if c.burst != nil {
		c.burst.add(c)
		return
	}
	t.submit(c)
}

// nextPart points the request at the frame's data. A verification may be longer
// than the frame; it goes in parts. The position is not taken from the request:
// a device may be a filter that has moved it.
func (c *call) nextPart() {
	n := min(c.left, uint32(len(c.frame.buf)-DataOffset)/block.SectorSize)
	c.req.Sector, c.req.Sectors = c.next, n
	c.req.Data = c.frame.buf[DataOffset : DataOffset+int(n)*block.SectorSize]
	c.next += uint64(n)
	c.left -= n
}

// enqueue gives c a place and returns whether it need not wait; or none, if it is a
// write that a newer one has superseded.
func (t *Target) enqueue(c *call, x extent) (ready, superseded bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if x.write {
		if t.history.superseded(x, c.frame.Received) {
			return false, true
		}
		t.history.add(x, c.frame.Received)
	}
	for i := range t.ranges {
		r := &t.ranges[i]
		if x.start >= r.end || r.start >= x.end {
			continue
		}
		earlier := t.running[i]
		if *r == x && earlier.initiator == c.initiator {
			t.counters.Duplicates.Add(1)
			c.initiator.Counters.Duplicates.Add(1)
		}
		if x.write || r.write {
			earlier.after = append(earlier.after, c)
			c.waits++
		}
	}
	c.at, c.inQueue = len(t.running), true
	t.running = append(t.running, c)
	t.ranges = append(t.ranges, x)
	if c.waits > 0 {
		t.counters.Delayed.Add(1)
		c.initiator.Counters.Delayed.Add(1)
	}
	return c.waits == 0, false
}

// dequeueLocked gives up the place of c, and says whether others became ready.
func (t *Target) dequeueLocked(c *call) (woken bool) {
	if !c.inQueue {
		return false
	}
	last := len(t.running) - 1
	t.running[c.at], t.ranges[c.at] = t.running[last], t.ranges[last]
	t.running[c.at].at = c.at
	t.running[last] = nil
	t.running, t.ranges = t.running[:last], t.ranges[:last]
	c.inQueue = false
	for i, w := range c.after {
		c.after[i] = nil
		if w.waits--; w.waits == 0 {
			t.ready = append(t.ready, w)
			woken = true
		}
	}
	c.after = c.after[:0]
	return woken
}

// submit hands c to the device, unless its time has passed. It may block when
// the device does, so it is called by receivers and by run, never by Done.
func (t *Target) submit(c *call) {
	if t.timely(c, time.Now()) {
		t.device.Submit(&c.req)
	}
}

// timely says whether c may still be begun. If not, c is dropped.
func (t *Target) timely(c *call, now time.Time) bool {
	switch {
	case t.period.Load() != c.period:
		t.abandon(c, DropNotServing)
	case t.late(c.frame.Received, now):
		t.abandon(c, DropStale)
	default:
		return true
	}
	return false
}

// abandon drops a call that was not started.
func (t *Target) abandon(c *call, r DropReason) {
	t.release(c)
	c.drop(r)
}

func (t *Target) release(c *call) {
	t.mu.Lock()
	woken := t.dequeueLocked(c)
	t.mu.Unlock()
	if woken {
		t.signal()
	}
}

// completed is the device's Done. It does not block.
func (t *Target) completed(c *call) {
	if c.req.Err == nil && c.left > 0 {
		c.nextPart()
		t.mu.Lock()
		t.ready = append(t.ready, c) // keeps its place in the queue
		t.mu.Unlock()
		t.signal()
		return
	}
	if b := c.burst; b != nil && b.put(c) {
		return
	}
	t.finish([]*call{c})
}

// finish ends calls that the device is finished with, or has them wait for a flush.
func (t *Target) finish(calls []*call) {
	var woken, commit bool
	t.mu.Lock()
	for i, c := range calls {
		woken = t.dequeueLocked(c) || woken
		if c.req.Err == nil && c.req.Op == block.Write && c.req.Flags&block.FUA == 0 && t.commit == CommitGroup {
			c.tally = nil // the answer comes with others
			t.written = append(t.written, c)
			calls[i], commit = nil, true
		}
	}
	t.mu.Unlock()
	if woken || commit {
		t.signal()
	}
	for _, c := range calls {
		if c != nil {
			t.answer(c, c.req.Err)
		}
	}
}

// answer ends a call that the device has served.
func (t *Target) answer(c *call, err error) {
	if err == nil {
		n := 0
		if c.kind == ataRead {
			n = len(c.req.Data)
		}
		c.replyATAData(&c.ata, n)
		return
	}
	bits, ok := errorBits(c.req.Op, err)
	if !ok || t.moves && block.Errno(err) == syscall.EROFS {
		c.drop(DropUnavailable)
		return
	}
	c.replyATA(&c.ata, bits)
}

func (t *Target) signal() {
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

// run submits what had to wait, and the flushes of the group commit.
func (t *Target) run() {
	t.flush.Done = t.flushDone
	for {
		select {
		case <-t.stop:
			return
		case <-t.wake:
			t.advance()
		}
	}
}

func (t *Target) advance() {
	t.mu.Lock()
	ready := t.ready
	t.ready = t.spare[:0]
	commit := len(t.flushed) == 0 && len(t.written) > 0
	if commit {
		t.flushed, t.written = t.written, t.flushed
	}
	t.mu.Unlock()
	for i, c := range ready {
		ready[i] = nil
		t.submit(c)
	}
	t.spare = ready // only advance uses it
	if commit {
		t.flush = block.Request{Op: block.Flush, Done: t.flush.Done}
		t.device.Submit(&t.flush)
	}
}

// flushDone answers the writes that the flush covered, and lets the next flush
// go for those that completed meanwhile.
func (t *Target) flushDone(r *block.Request) {
	err := r.Err
	t.mu.Lock()
	batch := t.flushed
	t.flushed = nil
	again := len(t.written) > 0
	t.mu.Unlock()
	if again {
		t.signal()
	}
	n := tally{now: time.Now()}
	for _, c := range batch {
		c.tally = &n
		t.answer(c, err)
	}
	n.flush()
}
