package aoe

import "time"

// historyLen is how many writes a target remembers. Beyond it a late copy is
// dropped on suspicion.
const historyLen = 2048

// history is which writes have begun, and when their frames arrived (rule R6). A
// frame can come to its turn later than a newer one that it overlaps: over another
// interface, or handed over by the other end. Executed then, it would undo the
// newer one.
type history struct {
	ring   [historyLen]past
	next   int       // place of the next entry
	newest time.Time // latest arrival in the ring
	lost   time.Time // latest arrival that has left the ring
}

// past is a write that has begun.
type past struct {
	extent
	received time.Time
}

// superseded says whether a newer write to a part of x may have begun.
func (h *history) superseded(x extent, received time.Time) bool {
	if !received.Before(h.newest) {
		return false // the usual case: frames come in order
	}
	if received.Before(h.lost) {
		return true
	}
	for i := range h.ring {
		p := &h.ring[i]
		if received.Before(p.received) && x.start < p.end && p.start < x.end {
			return true
		}
	}
	return false
}

// add records a write that begins now.
func (h *history) add(x extent, received time.Time) {
	p := &h.ring[h.next]
	if p.received.After(h.lost) {
		h.lost = p.received
	}
	p.extent, p.received = x, received
	if received.After(h.newest) {
		h.newest = received
	}
	h.next = (h.next + 1) % historyLen
}
