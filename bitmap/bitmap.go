package bitmap

import "fmt"

// Units of the bitmap, specification 1 and 2.4.
const (
	// BlockSize is the storage covered by one bit, in bytes.
	BlockSize = 4096
	// SectorsPerBit is the storage covered by one bit, in 512-byte sectors.
	SectorsPerBit = 8

	// PageSize is the size of a bitmap page in bytes, the unit of writing.
	PageSize = 4096
	// PageBits is the number of bits of a page, 128 MiB of storage.
	PageBits = PageSize * 8

	// MaxBits is the largest bitmap, that of 1 PiB of storage: the largest
	// device for which DRBD's tools create metadata. Its page table takes
	// about 85 MiB.
	MaxBits = 1 << 38
)

const (
	wordBits  = 64
	pageWords = PageBits / wordBits
)

// A Bitmap is an out-of-sync bitmap of a fixed number of bits, sparse in
// memory. It has one owner; no method may run beside another. Ranges are half
// open: first is in the range, last is not. The part of a range at or beyond
// [Bitmap.Bits] is ignored.
type Bitmap struct {
	bits   uint64
	weight uint64 // set bits

	table   []*words // one entry a page; nil: all clear, &ones: all set
	weights []uint16 // set bits of each page, at most PageBits
	some    bitset   // pages with at least one bit set
	full    bitset   // pages with every bit set

	dirty   bitset // pages changed since they were last taken for writing
	sets    bitset // dirty pages among whose changes may be a set bit
	writing bitset // pages whose write is under way
	setsOut bitset // pages whose write under way carries set bits

	own    int      // pages with words of their own
	spares []*words // words of former own pages, see maxSpares
}

// New returns a bitmap of n bits, all clear, no page dirty. It panics if n is
// more than [MaxBits]: callers check sizes that come from a disk or a peer.
func New(n uint64) *Bitmap {
	b := &Bitmap{}
	b.reshape(n)
	return b
}

// Bits returns the number of bits.
func (b *Bitmap) Bits() uint64 { return b.bits }

// Words returns the number of 64-bit words, the measure of the exchange.
func (b *Bitmap) Words() uint64 { return (b.bits + wordBits - 1) / wordBits }

// Pages returns the number of pages; the last may be partly used.
func (b *Bitmap) Pages() uint32 { return uint32(len(b.table)) }

// Weight returns the number of set bits. It is kept, not counted.
func (b *Bitmap) Weight() uint64 { return b.weight }

// Test reports whether bit is set. Bits beyond the end are not.
func (b *Bitmap) Test(bit uint64) bool {
	if bit >= b.bits {
		return false
	}
	w := b.table[bit/PageBits]
	return w != nil && w[bit/wordBits%pageWords]>>(bit%wordBits)&1 != 0
}

// SetRange sets the bits [first, last) and returns how many were clear.
func (b *Bitmap) SetRange(first, last uint64) (changed uint64) {
	for r := b.pagesOf(first, last); r.next(); {
		if n := b.setInPage(r.page, r.lo, r.hi); n != 0 {
			b.touch(r.page, true)
			changed += uint64(n)
		}
	}
	return changed
}

// ClearRange clears the bits [first, last) and returns how many were set.
func (b *Bitmap) ClearRange(first, last uint64) (changed uint64) {
	for r := b.pagesOf(first, last); r.next(); {
		if n := b.clearInPage(r.page, r.lo, r.hi); n != 0 {
			b.touch(r.page, false)
			changed += uint64(n)
		}
	}
	return changed
}

// CountRange returns the number of set bits in [first, last).
func (b *Bitmap) CountRange(first, last uint64) (n uint64) {
	for r := b.pagesOf(first, last); r.next(); {
		w := b.table[r.page]
		switch {
		case w == nil:
		case r.lo == 0 && uint64(r.hi) == b.pageLen(r.page):
			n += uint64(b.weights[r.page])
		default:
			n += uint64(w.count(r.lo, r.hi))
		}
	}
	return n
}

// SetAll sets every bit and returns how many were clear.
func (b *Bitmap) SetAll() (changed uint64) { return b.SetRange(0, b.bits) }

// ClearAll clears every bit and returns how many were set.
func (b *Bitmap) ClearAll() (changed uint64) { return b.ClearRange(0, b.bits) }

// Resize makes the bitmap n bits long. Bits beyond n are forgotten; new bits
// are set if setNew is, else clear. Every page becomes dirty, because the
// bitmap moves with the size of the device (specification 2.4, "on size
// change"). It panics if n is more than [MaxBits].
//
// It must not run during an exchange.
func (b *Bitmap) Resize(n uint64, setNew bool) {
	old := b.bits
	b.ClearRange(n, old)
	b.reshape(n)
	// What was the end of the bitmap is not any more, or is now: whether the
	// page there is full depends on it.
	for _, bit := range [...]uint64{old, n} {
		if p := bit / PageBits; bit%PageBits != 0 && p < uint64(len(b.table)) {
			b.settle(uint32(p), b.weights[p])
		}
	}
	if setNew {
		b.SetRange(old, n)
	}
	b.MarkAllDirty()
}

// Memory returns the bytes of memory the bitmap holds.
func (b *Bitmap) Memory() uint64 {
	const header = 512 // the structure itself, rounded up
	n := header + uint64(cap(b.table)+cap(b.spares))*8 + uint64(cap(b.weights))*2
	for _, s := range [...]bitset{b.some, b.full, b.dirty, b.sets, b.writing, b.setsOut} {
		n += uint64(cap(s)) * 8
	}
	return n + uint64(b.own+len(b.spares))*PageSize
}

// reshape gives the tables the size for n bits and keeps what is in them.
func (b *Bitmap) reshape(n uint64) {
	if n > MaxBits {
		panic(fmt.Sprintf("bitmap: %d bits, more than %d", n, uint64(MaxBits)))
	}
	pages := uint32((n + PageBits - 1) / PageBits)
	table, weights := make([]*words, pages), make([]uint16, pages)
	copy(table, b.table)
	copy(weights, b.weights)
	b.bits, b.table, b.weights = n, table, weights
	for _, s := range [...]*bitset{&b.some, &b.full, &b.dirty, &b.sets, &b.writing, &b.setsOut} {
		*s = s.resized(pages)
	}
}

// pageLen returns the number of bits of page p, less than PageBits only for
// the last page.
func (b *Bitmap) pageLen(p uint32) uint64 {
	return min(PageBits, b.bits-uint64(p)*PageBits)
}

// pagesOf cuts [first, last) at page boundaries.
func (b *Bitmap) pagesOf(first, last uint64) pageRange {
	return pageRange{at: first, last: min(last, b.bits)}
}

// A pageRange walks a range of bits page by page.
type pageRange struct {
	at, last uint64
	page     uint32
	lo, hi   uint32 // the bits [lo, hi) of page
}

func (r *pageRange) next() bool {
	if r.at >= r.last {
		return false
	}
	r.page = uint32(r.at / PageBits)
	r.lo = uint32(r.at % PageBits)
	n := min(PageBits-uint64(r.lo), r.last-r.at)
	r.hi = r.lo + uint32(n)
	r.at += n
	return true
}
