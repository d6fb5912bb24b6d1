package activitylog

// Pending returns how many slot changes are not yet durable.
func (s *Set) Pending() int { return len(s.queue) + len(s.flight) }

// Queued returns how many slot changes wait to be built into a transaction.
func (s *Set) Queued() int { return len(s.queue) }

// Number returns the number of the transaction in flight, or of the next one.
func (s *Set) Number() uint32 { return s.number }

// BuildTransaction fills t with all queued changes and returns their number,
// which may be 0: then t only repeats its part of the table. One transaction is
// in flight at a time; building a second one is a bug of the caller and panics.
//
// t goes to block Ring().Block(t.Number) of the log. Should the write fail, the
// disk is to be given up: what reached it is not known.
func (s *Set) BuildTransaction(t *Transaction) int {
	if s.inAir {
		panic("activitylog: a transaction is in flight already")
	}
	s.inAir = true
	s.queue, s.flight = s.flight[:0], s.queue
	t.reset()
	t.Number = s.number
	t.Slots = uint16(s.Slots())
	t.ContextStart = uint16(s.cursor)
	t.NumUpdates = uint16(len(s.flight))
	for i, n := range s.flight {
		s.slots[n].phase = flying
		t.UpdateSlot[i] = n
		t.UpdateExtent[i] = s.slots[n].want
	}
	for i := range min(ContextSize, s.Slots()-s.cursor) {
		t.Context[i] = s.slots[s.cursor+i].extent
	}
	if s.cursor += ContextSize; s.cursor >= s.Slots() {
		s.cursor = 0
	}
	return len(s.flight)
}

// Evicted appends to dst the extents that the transaction in flight removes from
// the log. The bits of their blocks must be durable before the transaction is
// written: after it, nothing else tells of them.
func (s *Set) Evicted(dst []Extent) []Extent {
	for _, n := range s.flight {
		if e := s.slots[n].extent; e != Free {
			dst = append(dst, e)
		}
	}
	return dst
}

// Commit records that the transaction in flight is durable. Every request that
// is Ready now may start.
func (s *Set) Commit() {
	if !s.inAir {
		panic("activitylog: commit without a transaction in flight")
	}
	s.inAir = false
	for _, n := range s.flight {
		sl := &s.slots[n]
		sl.extent, sl.want, sl.phase = sl.want, Free, settled
		if sl.refs == 0 {
			s.pushIdle(int32(n))
			s.starved = false
		}
	}
	s.flight = s.flight[:0]
	s.number++
}
