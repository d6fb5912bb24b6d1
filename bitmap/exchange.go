package bitmap

import (
	"errors"
	"fmt"
)

// The exchange of a bitmap, specification 8.2. Each direction is a sequence of
// packets, P_BITMAP (plain words) or P_COMPRESSED_BITMAP (run lengths), which
// both sides follow with an offset in bits and one in words. Payloads:
//
//	P_BITMAP              P_COMPRESSED_BITMAP
//	offset size           offset size
//	0      8n   words     0      1    encoding, bits:
//	                                    0-3 code, always 2
//	                                    4-6 unused bits in the last byte
//	                                    7   first run is of set bits
//	                      1      1-   runs, vli codes
const (
	// MaxPacket is the largest size of a bitmap packet, header included.
	MaxPacket = 4096

	rleCode     = 2
	rleCodeMask = 0x0f
	rlePadShift = 4
	rlePadMask  = 0x07
	rleSetFirst = 0x80
)

// A position says how far a transfer has come.
type position struct {
	bits uint64 // length of the bitmap when the transfer began
	bit  uint64
	word uint64 // 64-bit words; bit/64 rounded down, or up at the end
	room uint64 // bytes of payload a packet can have
	done bool
}

func startOf(b *Bitmap, headerSize int) position {
	return position{bits: b.bits, room: uint64(MaxPacket - headerSize)}
}

// plainWords returns the number of words the next plain packet must have.
func (p *position) plainWords() uint64 {
	return min(p.room/8, (p.bits+wordBits-1)/wordBits-p.word)
}

// plain moves on by n words. An empty packet ends the transfer.
func (p *position) plain(n uint64) {
	p.word += n
	p.bit = min(p.word*wordBits, p.bits)
	p.done = n == 0
}

// runs moves on by n bits. Runs up to the last bit end the transfer.
func (p *position) runs(n uint64) {
	p.bit += n
	p.word = p.bit / wordBits
	p.done = p.bit == p.bits
}

// An Encoder turns a bitmap into the payloads of bitmap packets, the same ones
// that the kernel would send. The bitmap may change during the transfer, and
// then a change is sent if it is ahead of the position, but not its size.
type Encoder struct {
	b   *Bitmap
	at  position
	rle bool
}

// NewEncoder returns an encoder for one transfer of b. headerSize is the size
// of the packet header, 16 bytes from protocol version 100 on and 8 before.
// With useRLE false, as under "use-rle no" or a protocol version below 90,
// all packets are plain.
func NewEncoder(b *Bitmap, headerSize int, useRLE bool) *Encoder {
	return &Encoder{b: b, at: startOf(b, headerSize), rle: useRLE}
}

// Done reports whether the last payload was made.
func (e *Encoder) Done() bool { return e.at.done }

// Offset returns the number of bits sent, for progress.
func (e *Encoder) Offset() uint64 { return e.at.bit }

// Next appends the payload of the next packet to dst, which may be empty: a
// transfer that ends with a plain packet is finished by one without payload.
// compressed says whether the packet is a P_COMPRESSED_BITMAP, done whether it
// is the last. Next must not be called after that one.
//
// The work is bounded by the size of a packet plus a look at the summary of
// the pages, however long the runs are.
func (e *Encoder) Next(dst []byte) (_ []byte, compressed, done bool) {
	if e.at.done || e.b.bits != e.at.bits {
		panic("bitmap: encoder used after its end or after a resize")
	}
	if e.rle {
		if out, ok := e.appendRuns(dst); ok {
			return out, true, e.at.done
		}
	}
	n := e.at.plainWords()
	dst = e.b.appendWords(dst, e.at.word, n)
	e.at.plain(n)
	return dst, false, e.at.done
}

// appendRuns encodes as many whole runs as fit. It is not ok, and nothing is
// appended, if they cover less than the same bytes would as plain words, or if
// there is nothing left to encode.
func (e *Encoder) appendRuns(dst []byte) ([]byte, bool) {
	if e.at.bit >= e.at.bits {
		return dst, false
	}
	set := e.b.Test(e.at.bit)
	head := len(dst)
	w := bitWriter{buf: append(dst, rleCode)}
	if set {
		w.buf[head] |= rleSetFirst
	}
	free := uint(e.at.room-1) * 8
	at := e.at.bit
	for at < e.at.bits {
		stop, _ := e.b.find(at, e.at.bits, set)
		code, length := vliEncode(stop - at)
		if length > free {
			break
		}
		w.put(code, length)
		free -= length
		at, set = stop, !set
	}
	covered := at - e.at.bit
	if covered < uint64(len(w.buf)-head-1)*8 {
		return dst, false
	}
	w.buf[head] |= byte(w.padding() << rlePadShift)
	e.at.runs(covered)
	return w.buf, true
}

// errDone refuses packets behind the last one.
var errDone = errors.New("bitmap: packet after the end of the transfer")

// A Decoder merges the packets of one transfer into a bitmap: received bits
// are only ever added. After an error nothing of that packet was applied and
// the transfer cannot go on; what earlier packets added stays, which is safe.
type Decoder struct {
	b  *Bitmap
	at position
}

// NewDecoder returns a decoder for one transfer into b. headerSize is as in
// [NewEncoder]; the lengths of packets depend on it.
func NewDecoder(b *Bitmap, headerSize int) *Decoder {
	return &Decoder{b: b, at: startOf(b, headerSize)}
}

// Done reports whether the last packet of the transfer was applied.
func (d *Decoder) Done() bool { return d.at.done }

// Offset returns the number of bits received, for progress.
func (d *Decoder) Offset() uint64 { return d.at.bit }

// Plain applies the payload of a P_BITMAP. Its length is given by the position:
// as many words as fit into a packet, less only at the end of the bitmap.
func (d *Decoder) Plain(payload []byte) error {
	if err := d.check(); err != nil {
		return err
	}
	n := d.at.plainWords()
	if uint64(len(payload)) != n*8 {
		return fmt.Errorf("bitmap: plain packet of %d bytes at word %d, want %d", len(payload), d.at.word, n*8)
	}
	if _, err := d.b.OrWords(d.at.word, payload); err != nil {
		return err
	}
	d.at.plain(n)
	return nil
}

// Compressed applies the payload of a P_COMPRESSED_BITMAP. A run may be as
// long as the bitmap; applying one costs steps per page, not per bit.
func (d *Decoder) Compressed(payload []byte) error {
	if err := d.check(); err != nil {
		return err
	}
	if len(payload) < 2 || uint64(len(payload)) > d.at.room {
		return fmt.Errorf("bitmap: compressed packet of %d bytes, want 2 to %d", len(payload), d.at.room)
	}
	if code := payload[0] & rleCodeMask; code != rleCode {
		return fmt.Errorf("bitmap: compressed packet with code %d, want %d", code, rleCode)
	}
	pad := uint(payload[0] >> rlePadShift & rlePadMask)
	r := bitReader{buf: payload[1:], end: uint(len(payload)-1)*8 - pad}
	total, err := checkRuns(r, d.at.bits-d.at.bit)
	if err != nil {
		return fmt.Errorf("bitmap: compressed packet at bit %d: %w", d.at.bit, err)
	}
	d.apply(r, payload[0]&rleSetFirst != 0)
	d.at.runs(total)
	return nil
}

// check refuses what is not a packet of this transfer.
func (d *Decoder) check() error {
	if d.at.done {
		return errDone
	}
	if d.b.bits != d.at.bits {
		return fmt.Errorf("bitmap: resized from %d to %d bits during the transfer", d.at.bits, d.b.bits)
	}
	return nil
}

// checkRuns returns the sum of the run lengths in r, which must be whole codes
// and cover at most left bits.
func checkRuns(r bitReader, left uint64) (total uint64, err error) {
	for r.at < r.end {
		n, ok := r.next()
		if !ok {
			return 0, fmt.Errorf("code cut off at bit %d of %d", r.at, r.end)
		}
		if n > left-total {
			return 0, fmt.Errorf("run of %d bits, %d left", n, left-total)
		}
		total += n
	}
	return total, nil
}

// apply sets the set runs of r, which was checked.
func (d *Decoder) apply(r bitReader, set bool) {
	for at := d.at.bit; r.at < r.end; set = !set {
		n, _ := r.next()
		if set {
			d.b.SetRange(at, at+n)
		}
		at += n
	}
}
