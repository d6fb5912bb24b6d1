package activitylog

import (
	"fmt"
	"slices"
)

// Outcome is what Set.Get decided. The zero value is invalid.
type Outcome uint8

// Outcomes of Get.
const (
	// Hot: references are taken, the log on disk names every extent. Write.
	Hot Outcome = iota + 1
	// NeedsTransaction: references are taken, but a transaction must become
	// durable before the write may start. Ready says when.
	NeedsTransaction
	// Wait: nothing was taken. Try again, in order of arrival, after the next
	// Release, Commit or Unblock.
	Wait
	// TooLarge: nothing was taken, and never will be: the range has more extents
	// than the set has slots or a transaction has room for. Split the request.
	TooLarge
)

var outcomeNames = [...]string{"invalid", "hot", "needs transaction", "wait", "too large"}

// String returns the outcome in words.
func (o Outcome) String() string {
	if int(o) < len(outcomeNames) {
		return outcomeNames[o]
	}
	return outcomeNames[0]
}

// MinSlots is the smallest number of slots the kernel uses; smaller configured
// values are raised to it.
const MinSlots = 67

// ClampSlots fits a configured al-extents to what the kernel would use with the ring.
func ClampSlots(configured int, r Ring) int { return min(max(configured, MinSlots), r.MaxSlots()) }

// MaxBlocked is how many resync extents can be blocked at once, DRBD's limit.
const MaxBlocked = 61

// phase says how far a slot's change is on its way to disk.
type phase uint8

const (
	settled phase = iota // the disk says what extent says
	queued               // want waits for the next transaction
	flying               // want is in the transaction being written
)

type slot struct {
	extent     Extent // on disk, as of the last Commit
	want       Extent // to become extent, if phase is not settled
	refs       uint32
	prev, next int32 // in the list of idle slots, if settled without references
	phase      phase
}

// Set is the set of hot extents: a table of slots with use counts, whose idle
// slots are reused in the order in which they fell idle. Owned by one goroutine.
//
// Set decides and writes nothing. The owner's duty is to write what
// BuildTransaction fills, to call Commit when it is durable, and to write the
// bitmap pages of Evicted before it.
type Set struct {
	ring    Ring
	slots   []slot            // one more than there are slots: the last is the head of the idle list
	index   map[Extent]uint16 // where an extent is or will be; lookup only
	idle    int               // length of the idle list
	active  int               // slots with references
	queue   []uint16          // slots in phase queued, at most MaxUpdates
	flight  []uint16          // slots in phase flying
	inAir   bool              // a transaction is built and not committed
	starved bool              // somebody found no slot and none has fallen idle since
	blocked []uint32          // resync extents, at most MaxBlocked
	number  uint32            // of the next transaction
	cursor  int               // where its context starts
}

// New returns a set of n empty slots. The first transaction will have number 0,
// which is right for a ring that was initialised.
func New(n int, r Ring) (*Set, error) {
	if err := r.check(); err != nil {
		return nil, err
	}
	if n < 1 || n > r.MaxSlots() {
		return nil, fmt.Errorf("activity log of %d slots: a ring of %d blocks can keep 1 to %d", n, r.Blocks(), r.MaxSlots())
	}
	s := &Set{
		ring:    r,
		slots:   make([]slot, n+1),
		index:   make(map[Extent]uint16, n),
		queue:   make([]uint16, 0, MaxUpdates),
		flight:  make([]uint16, 0, MaxUpdates),
		blocked: make([]uint32, 0, MaxBlocked),
	}
	s.Reset(0)
	return s, nil
}

// Reset forgets everything but the blocked resync extents: after a detach, when
// all requests are gone. number is what the next transaction gets: 0 after the
// ring was initialised, else a number newer than any in the ring.
func (s *Set) Reset(number uint32) {
	clear(s.index)
	head := s.head()
	s.slots[head] = slot{prev: head, next: head}
	s.idle, s.active, s.cursor = 0, 0, 0
	s.queue, s.flight = s.queue[:0], s.flight[:0]
	s.inAir, s.starved = false, false
	s.number = number
	for i := range head {
		s.slots[i] = slot{extent: Free, want: Free}
		s.pushIdle(i)
	}
}

// Resize changes the number of slots and, perhaps, the ring. It is possible only
// while nothing is referenced or on its way to disk. The set is empty afterwards,
// so the ring on disk must be initialised before the next transaction.
func (s *Set) Resize(n int, r Ring) error {
	if s.active > 0 || s.inAir || len(s.queue) > 0 {
		return fmt.Errorf("activity log is in use: %d active extents, %d changes pending", s.active, s.Pending())
	}
	t, err := New(n, r)
	if err != nil {
		return err
	}
	t.blocked = append(t.blocked, s.blocked...)
	*s = *t
	return nil
}

// Use is Get for a single extent.
func (s *Set) Use(e Extent) Outcome { return s.Get(e, e) }

// Get takes a reference to every extent from first to last, or to none of them.
// Only Hot and NeedsTransaction take references; each extent must be released
// once for each.
//
// After somebody has found no slot, nobody gets one, not even one that is hot,
// until a slot falls idle: otherwise the stream of hits would keep a request for
// a cold extent waiting for ever.
func (s *Set) Get(first, last Extent) Outcome {
	n := int64(last) - int64(first) + 1
	if n < 1 || last == Free || n > int64(min(s.Slots(), MaxUpdates)) {
		return TooLarge
	}
	if s.starved || s.isBlocked(first, last) {
		return Wait
	}
	miss, idleHits := s.survey(first, last)
	if miss > 0 {
		if miss > s.idle-idleHits {
			s.starved = true
			return Wait
		}
		if len(s.queue)+miss > MaxUpdates {
			return Wait
		}
	}
	return s.take(first, last, miss)
}

// survey counts the extents that have no slot, and those that have an idle one,
// which is therefore not to be reused.
func (s *Set) survey(first, last Extent) (miss, idleHits int) {
	for e := first; e <= last; e++ {
		i, ok := s.index[e]
		switch {
		case !ok:
			miss++
		case s.slots[i].refs == 0 && s.slots[i].phase == settled:
			idleHits++
		}
	}
	return miss, idleHits
}

// take takes the references. Extents that have a slot come first, or a miss in
// front of them might reuse it.
func (s *Set) take(first, last Extent, miss int) Outcome {
	out := Hot
	for e := first; e <= last; e++ {
		i, ok := s.index[e]
		if !ok {
			continue
		}
		if s.ref(int32(i)); s.slots[i].phase != settled {
			out = NeedsTransaction
		}
	}
	if miss == 0 {
		return out
	}
	for e := first; e <= last; e++ {
		if _, ok := s.index[e]; !ok {
			s.assign(e)
		}
	}
	return NeedsTransaction
}

// assign gives the slot that has been idle longest to e.
func (s *Set) assign(e Extent) {
	i := s.slots[s.head()].next
	s.ref(i)
	sl := &s.slots[i]
	if sl.extent != Free {
		delete(s.index, sl.extent)
	}
	sl.want, sl.phase = e, queued
	s.index[e] = uint16(i)
	s.queue = append(s.queue, uint16(i))
}

func (s *Set) ref(i int32) {
	sl := &s.slots[i]
	if sl.refs == 0 {
		s.active++
		if sl.phase == settled {
			s.removeIdle(i)
		}
	}
	sl.refs++
}

// Release gives back one reference to an extent. It panics if there is none: the
// use counts are wrong then, and a wrong count means data that is not replayed.
func (s *Set) Release(e Extent) {
	i, ok := s.index[e]
	if !ok || s.slots[i].refs == 0 {
		panic(fmt.Sprintf("activitylog: release of extent %d, which has no reference", e))
	}
	sl := &s.slots[i]
	sl.refs--
	if sl.refs > 0 {
		return
	}
	s.active--
	if sl.phase == settled {
		s.pushIdle(int32(i))
		s.starved = false
	}
}

// Ready says whether every extent from first to last is recorded on disk: a
// request that was told NeedsTransaction may start.
func (s *Set) Ready(first, last Extent) bool {
	for e := first; ; e++ {
		if i, ok := s.index[e]; !ok || s.slots[i].phase != settled {
			return false
		}
		if e >= last {
			return true
		}
	}
}

// Slots returns the number of slots, DRBD's al-extents.
func (s *Set) Slots() int { return len(s.slots) - 1 }

// Active returns how many extents have references.
func (s *Set) Active() int { return s.active }

// Ring returns the shape of the log on disk.
func (s *Set) Ring() Ring { return s.ring }

// IsActive says whether the extent has references.
func (s *Set) IsActive(e Extent) bool {
	i, ok := s.index[e]
	return ok && s.slots[i].refs > 0
}

// IsActiveInResyncExtent says whether one of the AL extents of a resync extent
// has references.
func (s *Set) IsActiveInResyncExtent(re uint32) bool {
	for i := range uint32(ExtentsPerResyncExtent) {
		if s.IsActive(re*ExtentsPerResyncExtent + i) {
			return true
		}
	}
	return false
}

// Block keeps new references out of a resync extent, so that a resync can have it
// once IsActiveInResyncExtent says no. It returns false if too many are blocked.
// Blocking twice is blocking once.
func (s *Set) Block(re uint32) bool {
	if slices.Contains(s.blocked, re) {
		return true
	}
	if len(s.blocked) == MaxBlocked {
		return false
	}
	s.blocked = append(s.blocked, re)
	return true
}

// Unblock admits references to a resync extent again.
func (s *Set) Unblock(re uint32) {
	for i, b := range s.blocked {
		if b == re {
			last := len(s.blocked) - 1
			s.blocked[i] = s.blocked[last]
			s.blocked = s.blocked[:last]
			return
		}
	}
}

func (s *Set) isBlocked(first, last Extent) bool {
	for _, b := range s.blocked {
		if b >= first/ExtentsPerResyncExtent && b <= last/ExtentsPerResyncExtent {
			return true
		}
	}
	return false
}

func (s *Set) head() int32 { return int32(len(s.slots) - 1) }

func (s *Set) pushIdle(i int32) {
	h := s.head()
	p := s.slots[h].prev
	s.slots[i].prev, s.slots[i].next = p, h
	s.slots[p].next, s.slots[h].prev = i, i
	s.idle++
}

func (s *Set) removeIdle(i int32) {
	p, n := s.slots[i].prev, s.slots[i].next
	s.slots[p].next, s.slots[n].prev = n, p
	s.idle--
}
