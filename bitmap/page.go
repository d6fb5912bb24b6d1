package bitmap

import (
	"encoding/binary"
	"fmt"
	"math/bits"
)

// words is the content of a page: bit n is bit n%64 of word n/64, which is the
// little-endian byte and bit order of disk and wire.
type words [pageWords]uint64

// ones is the content of every page that is all set. It is never written to.
var ones = func() *words {
	w := new(words)
	w.fill()
	return w
}()

// maxSpares bounds the words kept for reuse. A bit that is set and cleared
// again and again in an otherwise uniform page then costs no allocation.
const maxSpares = 16

// LoadPage replaces page p by what was read from the disk, at attach: data
// begins at byte p*[PageSize] of the bitmap, and is at least as long as the
// bits of the page, at most [PageSize]. Bits beyond the end of the bitmap are
// ignored. The page is then clean: memory and disk agree.
func (b *Bitmap) LoadPage(p uint32, data []byte) error {
	if p >= b.Pages() {
		return fmt.Errorf("bitmap: load page %d of %d", p, b.Pages())
	}
	need := int(b.pageLen(p)+7) / 8
	if len(data) < need || len(data) > PageSize {
		return fmt.Errorf("bitmap: load page %d: %d bytes, want %d to %d", p, len(data), need, PageSize)
	}
	var w words
	for i := range (need + 7) / 8 {
		w[i] = loadWord(data[i*8:])
	}
	w.truncate(uint32(b.pageLen(p)))
	n := w.count(0, PageBits)
	if n != 0 && n != PageBits {
		*b.writable(p) = w
	}
	b.settle(p, uint16(n))
	b.dirty.remove(p)
	b.sets.remove(p)
	return nil
}

// loadWord reads a word of which bytes at the end may be missing.
func loadWord(data []byte) (w uint64) {
	if len(data) >= 8 {
		return binary.LittleEndian.Uint64(data)
	}
	for i, v := range data {
		w |= uint64(v) << (8 * i)
	}
	return w
}

// AppendPage appends the [PageSize] bytes of page p to dst, as they belong on
// the disk; what lies beyond the end of the bitmap is zero. It leaves the
// dirty marks alone: see [Bitmap.Snapshot].
func (b *Bitmap) AppendPage(dst []byte, p uint32) []byte {
	w := b.table[p]
	if w == nil {
		return append(dst, make([]byte, PageSize)...)
	}
	for _, v := range w {
		dst = binary.LittleEndian.AppendUint64(dst, v)
	}
	return dst
}

// appendWords appends n words from word offset on, in wire order.
func (b *Bitmap) appendWords(dst []byte, offset, n uint64) []byte {
	for end := offset + n; offset < end; {
		lo := offset % pageWords
		hi := min(pageWords, lo+end-offset)
		if w := b.table[offset/pageWords]; w == nil {
			dst = append(dst, make([]byte, (hi-lo)*8)...)
		} else {
			for _, v := range w[lo:hi] {
				dst = binary.LittleEndian.AppendUint64(dst, v)
			}
		}
		offset += hi - lo
	}
	return dst
}

// OrWords sets the bits that are set in data, which is whole little-endian
// words beginning at word offset, and returns how many were clear. Bits beyond
// the end of the bitmap are ignored; words beyond it are an error, and then
// nothing is applied.
func (b *Bitmap) OrWords(offset uint64, data []byte) (changed uint64, err error) {
	n := uint64(len(data)) / 8
	if len(data)%8 != 0 {
		return 0, fmt.Errorf("bitmap: %d bytes are not whole words", len(data))
	}
	if offset > b.Words() || n > b.Words()-offset {
		return 0, fmt.Errorf("bitmap: %d words at word %d, beyond the end at %d", n, offset, b.Words())
	}
	for len(data) > 0 {
		p := uint32(offset / pageWords)
		lo := offset % pageWords
		part := data[:min(uint64(len(data)), (pageWords-lo)*8)]
		if c := b.orInPage(p, uint32(lo), part); c != 0 {
			b.touch(p, true)
			changed += uint64(c)
		}
		offset += uint64(len(part)) / 8
		data = data[len(part):]
	}
	return changed, nil
}

// orInPage merges data into page p from its word lo on.
func (b *Bitmap) orInPage(p, lo uint32, data []byte) (changed uint32) {
	if b.full.has(p) {
		return 0
	}
	length := uint32(b.pageLen(p))
	w := b.table[p]
	for i := lo; len(data) > 0; i, data = i+1, data[8:] {
		v := binary.LittleEndian.Uint64(data) & wordMask(i, 0, length)
		if v == 0 {
			continue
		}
		if w == nil { // only now is it certain that the page needs words
			w = b.writable(p)
		}
		changed += uint32(bits.OnesCount64(v &^ w[i]))
		w[i] |= v
	}
	if changed != 0 {
		b.settle(p, b.weights[p]+uint16(changed))
	}
	return changed
}

// setInPage sets the bits [lo, hi) of page p.
func (b *Bitmap) setInPage(p, lo, hi uint32) (changed uint32) {
	old := uint32(b.weights[p])
	switch {
	case b.full.has(p):
		return 0
	case hi-lo == PageBits:
		changed = PageBits - old
	default:
		w := b.writable(p)
		for i := lo / wordBits; i <= (hi-1)/wordBits; i++ {
			m := wordMask(i, lo, hi)
			changed += uint32(bits.OnesCount64(m &^ w[i]))
			w[i] |= m
		}
	}
	if changed != 0 {
		b.settle(p, uint16(old+changed))
	}
	return changed
}

// clearInPage clears the bits [lo, hi) of page p.
func (b *Bitmap) clearInPage(p, lo, hi uint32) (changed uint32) {
	old := uint32(b.weights[p])
	switch {
	case old == 0:
		return 0
	case lo == 0 && uint64(hi) == b.pageLen(p):
		changed = old
	default:
		w := b.writable(p)
		for i := lo / wordBits; i <= (hi-1)/wordBits; i++ {
			m := wordMask(i, lo, hi)
			changed += uint32(bits.OnesCount64(m & w[i]))
			w[i] &^= m
		}
	}
	if changed != 0 {
		b.settle(p, uint16(old-changed))
	}
	return changed
}

// settle records n as the weight of page p, whose words, if the page is not
// becoming uniform, hold that many bits already.
func (b *Bitmap) settle(p uint32, n uint16) {
	b.weight += uint64(n) - uint64(b.weights[p])
	b.weights[p] = n
	b.some.put(p, n != 0)
	b.full.put(p, uint64(n) == b.pageLen(p))
	switch n {
	case 0:
		b.share(p, nil)
	case PageBits:
		b.share(p, ones)
	}
}

// share gives page p a uniform content and keeps its words, if it had any.
func (b *Bitmap) share(p uint32, uniform *words) {
	w := b.table[p]
	b.table[p] = uniform
	if w == nil || w == ones {
		return
	}
	b.own--
	if len(b.spares) < maxSpares {
		b.spares = append(b.spares, w)
	}
}

// writable returns the words of page p after making sure that they are its own.
func (b *Bitmap) writable(p uint32) *words {
	w := b.table[p]
	if w != nil && w != ones {
		return w
	}
	var fresh *words
	if last := len(b.spares) - 1; last >= 0 {
		fresh, b.spares = b.spares[last], b.spares[:last]
		clear(fresh[:])
	} else {
		fresh = new(words)
	}
	if w == ones {
		*fresh = *ones
	}
	b.own++
	b.table[p] = fresh
	return fresh
}

// wordMask returns the bits of word i of a page that lie in [lo, hi).
func wordMask(i, lo, hi uint32) uint64 {
	first := i * wordBits
	m := ^uint64(0)
	if lo > first {
		m <<= min(lo-first, wordBits)
	}
	if hi < first+wordBits {
		m &= 1<<(max(hi, first)-first) - 1
	}
	return m
}

// count returns the number of bits set in [lo, hi).
func (w *words) count(lo, hi uint32) (n uint32) {
	if lo >= hi {
		return 0
	}
	i, last := lo/wordBits, (hi-1)/wordBits
	if i == last {
		return uint32(bits.OnesCount64(w[i] & wordMask(i, lo, hi)))
	}
	n = uint32(bits.OnesCount64(w[i] & wordMask(i, lo, hi)))
	n += uint32(bits.OnesCount64(w[last] & wordMask(last, lo, hi)))
	for _, v := range w[i+1 : last] {
		n += uint32(bits.OnesCount64(v))
	}
	return n
}

// truncate clears the bits from n on.
func (w *words) truncate(n uint32) {
	for i := n / wordBits; i < pageWords; i++ {
		w[i] &= wordMask(i, 0, n)
	}
}

// fill sets every bit.
func (w *words) fill() {
	for i := range w {
		w[i] = ^uint64(0)
	}
}
