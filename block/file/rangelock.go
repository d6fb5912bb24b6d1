package file

import (
	"math/bits"
	"sync"
)

// rangeLock excludes overlapping byte ranges from each other. It is needed only
// for direct I/O, where writing part of a block means writing all of it: an
// acknowledged write to the other part must not be undone.
//
// Ranges live in a fixed array, so nothing is allocated; with all 64 taken the
// next one waits, as it does for an overlap.
type rangeLock struct {
	mu   sync.Mutex
	cond sync.Cond
	used uint64 // bit i: spans[i] is held
	span [64]struct{ start, end int64 }
	wait int
}

func (l *rangeLock) init() { l.cond.L = &l.mu }

// lock waits until nobody holds a part of [start, end) and returns the slot to unlock.
func (l *rangeLock) lock(start, end int64) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.used == ^uint64(0) || l.overlaps(start, end) {
		l.wait++
		l.cond.Wait()
		l.wait--
	}
	slot := bits.TrailingZeros64(^l.used)
	l.used |= 1 << slot
	l.span[slot].start, l.span[slot].end = start, end
	return slot
}

func (l *rangeLock) unlock(slot int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.used &^= 1 << slot
	if l.wait > 0 {
		l.cond.Broadcast()
	}
}

func (l *rangeLock) overlaps(start, end int64) bool {
	for u := l.used; u != 0; u &= u - 1 {
		s := &l.span[bits.TrailingZeros64(u)]
		if start < s.end && s.start < end {
			return true
		}
	}
	return false
}
