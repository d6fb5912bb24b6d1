package bitmap

import "math/bits"

// A bitset is a plain set of page numbers, 64 to a word.
type bitset []uint64

func newBitset(n uint32) bitset { return make(bitset, (uint64(n)+63)/64) }

func (s bitset) has(i uint32) bool { return s[i>>6]>>(i&63)&1 != 0 }

func (s bitset) add(i uint32) { s[i>>6] |= 1 << (i & 63) }

func (s bitset) remove(i uint32) { s[i>>6] &^= 1 << (i & 63) }

func (s bitset) put(i uint32, in bool) {
	if in {
		s.add(i)
	} else {
		s.remove(i)
	}
}

// count returns the number of members.
func (s bitset) count() (n int) {
	for _, w := range s {
		n += bits.OnesCount64(w)
	}
	return n
}

// resized returns a copy of s that holds the numbers below n only.
func (s bitset) resized(n uint32) bitset {
	c := newBitset(n)
	copy(c, s)
	if tail := n & 63; tail != 0 {
		c[len(c)-1] &= 1<<tail - 1
	}
	return c
}

// next returns the first number in [from, limit) that is in s and not in
// except, or, if invert is set, the first that is not in s. Except may be nil.
func (s bitset) next(from, limit uint32, invert bool, except bitset) (uint32, bool) {
	if from >= limit {
		return limit, false
	}
	mask := ^uint64(0) << (from & 63)
	for i := from >> 6; i <= (limit-1)>>6; i++ {
		w := s[i]
		if invert {
			w = ^w
		}
		if except != nil {
			w &^= except[i]
		}
		if w &= mask; w != 0 {
			found := i<<6 | uint32(bits.TrailingZeros64(w))
			return min(found, limit), found < limit
		}
		mask = ^uint64(0)
	}
	return limit, false
}
