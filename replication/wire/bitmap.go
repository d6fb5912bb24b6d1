package wire

import "strconv"

// bitmapPacketSize bounds a bitmap packet, header included.
const bitmapPacketSize = 4096

// BitmapWord is the unit of plain bitmap transfers, in bytes.
const BitmapWord = 8

// BitmapPayload returns the most bytes that a bitmap packet carries.
func BitmapPayload(version int) int { return bitmapPacketSize - HeaderSize(version) }

// BitmapChunk returns the length that a P_BITMAP must have when wordsLeft
// 64-bit words of the bitmap have not been sent yet: as many as fit, no fewer.
// 0, once there are none left, ends the transfer. The payload is the bitmap as
// on disk, bit 0 first.
func BitmapChunk(version int, wordsLeft uint64) int {
	return int(min(uint64(BitmapPayload(version)/BitmapWord), wordsLeft)) * BitmapWord
}

// codeRLE is the only encoding of a compressed bitmap that exists.
const codeRLE = 2

const (
	bitmapCodeMask  = 0x0f
	bitmapPadShift  = 4
	bitmapPadMask   = 0x07
	bitmapFirstSet  = 0x80
	compressedMin   = 2 // the encoding byte and some code
	compressedExtra = 1 // the encoding byte
)

// CompressedBitmap is a piece of a bitmap as alternating runs of clear and set
// bits (P_COMPRESSED_BITMAP).
//
//	offset  size  field
//	     0     1  encoding  bits 0-3: 2, run lengths; 4-6: unused bits at the end of the code; 7: the first run is of set bits
//	     1     n  code      see package bitmap
type CompressedBitmap struct {
	FirstSet bool
	PadBits  uint8 // 0 to 7
	Code     []byte
}

// AppendTo appends the encoded packet.
func (p *CompressedBitmap) AppendTo(dst []byte) []byte {
	encoding := byte(codeRLE) | p.PadBits&bitmapPadMask<<bitmapPadShift
	if p.FirstSet {
		encoding |= bitmapFirstSet
	}
	return append(append(dst, encoding), p.Code...)
}

// DecodeFrom reads the packet. Code aliases the payload.
func (p *CompressedBitmap) DecodeFrom(r *Reader) {
	if r.Remaining() < compressedMin {
		r.fail("a code")
		return
	}
	encoding := r.Uint8()
	if code := encoding & bitmapCodeMask; code != codeRLE {
		r.fail("encoding 2, not " + strconv.Itoa(int(code)) + ", before")
		return
	}
	p.PadBits = encoding >> bitmapPadShift & bitmapPadMask
	p.FirstSet = encoding&bitmapFirstSet != 0
	p.Code = r.Rest()
}

// MaxBitmapCode returns how many code bytes fit into a CompressedBitmap.
func MaxBitmapCode(version int) int { return BitmapPayload(version) - compressedExtra }
