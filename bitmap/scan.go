package bitmap

import (
	"math"
	"math/bits"
)

// Next returns the first set bit at or after from. If there is none, ok is
// false and bit is [Bitmap.Bits].
//
// Pages without a set bit are skipped 64 at a time: a scan over 16 TiB without
// one takes about two microseconds. It looks into one page only.
func (b *Bitmap) Next(from uint64) (bit uint64, ok bool) {
	return b.find(from, b.bits, false)
}

// NextClear returns the first clear bit at or after from. If there is none, ok
// is false and bit is [Bitmap.Bits].
func (b *Bitmap) NextClear(from uint64) (bit uint64, ok bool) {
	return b.find(from, b.bits, true)
}

// NextBounded is [Bitmap.Next] for callers with a budget: it covers the page
// of from and the pages after it, maxPages in all. If ok is false, no bit in
// [from, bit) is set and the scan goes on at bit, unless that is
// [Bitmap.Bits].
func (b *Bitmap) NextBounded(from uint64, maxPages uint32) (bit uint64, ok bool) {
	return b.find(from, b.limit(from, maxPages), false)
}

// limit returns the end of the pages a bounded scan may cover.
func (b *Bitmap) limit(from uint64, maxPages uint32) uint64 {
	if from >= b.bits {
		return b.bits
	}
	return min(b.bits, max(from, (from/PageBits+uint64(maxPages))*PageBits))
}

// find returns the first bit in [from, limit) that is set, or clear if invert.
// limit is at most b.bits; if there is no such bit it is returned.
func (b *Bitmap) find(from, limit uint64, invert bool) (uint64, bool) {
	if from >= limit {
		return limit, false
	}
	p, lo := uint32(from/PageBits), uint32(from%PageBits)
	if i, ok := b.findInPage(p, lo, invert); ok {
		return bounded(uint64(p)*PageBits+uint64(i), limit)
	}
	// The page of from is done; any later candidate holds such a bit for sure.
	candidates := b.some
	if invert {
		candidates = b.full
	}
	end := uint32((limit + PageBits - 1) / PageBits)
	p, ok := candidates.next(p+1, end, invert, nil)
	if !ok {
		return limit, false
	}
	i, _ := b.findInPage(p, 0, invert)
	return bounded(uint64(p)*PageBits+uint64(i), limit)
}

// bounded drops what was found at or beyond the limit. In the last page the
// unused bits are clear and may be what was found.
func bounded(bit, limit uint64) (uint64, bool) {
	return min(bit, limit), bit < limit
}

// findInPage returns the first bit from lo on that is set, or clear if invert.
func (b *Bitmap) findInPage(p, lo uint32, invert bool) (uint32, bool) {
	w := b.table[p]
	switch w {
	case nil:
		return lo, invert
	case ones:
		return lo, !invert
	}
	var flip uint64
	if invert {
		flip = math.MaxUint64
	}
	i := lo / wordBits
	v := (w[i] ^ flip) & (math.MaxUint64 << (lo % wordBits))
	for v == 0 {
		if i++; i == pageWords {
			return 0, false
		}
		v = w[i] ^ flip
	}
	return i*wordBits + uint32(bits.TrailingZeros64(v)), true
}
