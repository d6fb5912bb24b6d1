package bitmap

import (
	"encoding/binary"
	"math/bits"
)

// A vliLevel is one row of the table of the variable length integers that code
// the lengths of runs, specification 8.3. A code is, from its least significant
// bit, which is transmitted first: the prefix, then n - base.
type vliLevel struct {
	base       uint64 // smallest value of the level
	bits       uint   // length of the code
	prefixBits uint
	prefix     uint64
}

// The level of a code is the number of ones it begins with, up to five; of six
// ones, the two bits behind them select among the last four levels.
var vliLevels = [...]vliLevel{
	{base: 1, bits: 2, prefixBits: 1, prefix: 0x00},
	{base: 3, bits: 3, prefixBits: 2, prefix: 0x01},
	{base: 5, bits: 5, prefixBits: 3, prefix: 0x03},
	{base: 9, bits: 7, prefixBits: 4, prefix: 0x07},
	{base: 17, bits: 10, prefixBits: 5, prefix: 0x0f},
	{base: 49, bits: 14, prefixBits: 6, prefix: 0x1f},
	{base: 305, bits: 21, prefixBits: 8, prefix: 0x3f},
	{base: 8497, bits: 29, prefixBits: 8, prefix: 0x7f},
	{base: 2105649, bits: 42, prefixBits: 8, prefix: 0xbf},
	{base: 17181974833, bits: 64, prefixBits: 8, prefix: 0xff},
}

// vliMax is the largest length that has a code.
const vliMax = 17181974832 + 1<<56

// vliEncode returns the code of n, which is in [1, vliMax], and its length.
func vliEncode(n uint64) (code uint64, length uint) {
	i := 0
	for i+1 < len(vliLevels) && n >= vliLevels[i+1].base {
		i++
	}
	l := &vliLevels[i]
	return (n-l.base)<<l.prefixBits | l.prefix, l.bits
}

// vliDecode returns the value at the start of window and the length of its
// code. The caller checks that so many bits were there.
func vliDecode(window uint64) (n uint64, length uint) {
	i := uint64(bits.TrailingZeros64(^window))
	if i >= 6 {
		i = 6 + window>>6&3
	}
	l := &vliLevels[i]
	return l.base + window<<(64-l.bits)>>(64-l.bits)>>l.prefixBits, l.bits
}

// A bitWriter appends codes to buf, first bit in the least significant place.
type bitWriter struct {
	buf  []byte
	used uint // bits used of the last byte, 0 if all are
}

func (w *bitWriter) put(code uint64, length uint) {
	if w.used != 0 {
		w.buf[len(w.buf)-1] |= byte(code << w.used)
		free := 8 - w.used
		if length < free {
			w.used += length
			return
		}
		code >>= free
		length -= free
	}
	for ; length >= 8; length -= 8 {
		w.buf = append(w.buf, byte(code))
		code >>= 8
	}
	if w.used = length; length > 0 {
		w.buf = append(w.buf, byte(code))
	}
}

// padding returns the number of unused bits of the last byte.
func (w *bitWriter) padding() uint { return -w.used & 7 }

// A bitReader reads codes from buf up to the bit at end.
type bitReader struct {
	buf     []byte
	at, end uint
}

// next returns the value of the next code. It is not ok if the code is cut off.
func (r *bitReader) next() (n uint64, ok bool) {
	n, length := vliDecode(r.window())
	if length > r.end-r.at {
		return 0, false
	}
	r.at += length
	return n, true
}

// window returns the 64 bits from the current one on, zeroes beyond buf.
func (r *bitReader) window() (w uint64) {
	data, shift := r.buf[r.at/8:], r.at%8
	if len(data) > 8 {
		return binary.LittleEndian.Uint64(data)>>shift | uint64(data[8])<<(64-shift)
	}
	return loadWord(data) >> shift
}
