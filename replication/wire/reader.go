package wire

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"strconv"
)

// PacketError says how a packet breaks the protocol. The connection must be
// dropped: what follows in the stream cannot be trusted.
type PacketError struct {
	Command Command // 0 (Data) also if the header itself is broken
	Header  bool    // the header is broken; Offset and Size refer to it
	Offset  int     // where in the payload decoding stopped
	Size    int     // bytes that there are, or that the peer announced
	Want    string  // what was expected
}

// Error implements error.
func (e *PacketError) Error() string {
	what := e.Command.String()
	if e.Header {
		what = "header"
	}
	return what + ": " + strconv.Itoa(e.Size) + " bytes, at offset " + strconv.Itoa(e.Offset) + " want " + e.Want
}

// headerError describes a broken header with its bytes, for they often tell
// who is speaking instead.
func headerError(header []byte, offset int, want string) error {
	return &PacketError{Header: true, Offset: offset, Size: len(header), Want: want + ", have " + hex.EncodeToString(header)}
}

// Reader takes a payload apart. Its first error sticks and every read after it
// returns zero, so a decoder needs no error handling and is as flat as the
// table of its fields. Ask Finish at the end.
type Reader struct {
	payload []byte
	offset  int
	command Command
	err     *PacketError
}

// NewReader returns a Reader for the payload of a packet. Results of Bytes and
// Rest alias payload.
func NewReader(cmd Command, payload []byte) Reader {
	return Reader{payload: payload, command: cmd}
}

// Remaining returns how many bytes have not been read.
func (r *Reader) Remaining() int { return len(r.payload) - r.offset }

// Err returns the first error, a *PacketError.
func (r *Reader) Err() error {
	if r.err == nil {
		return nil // not a nil *PacketError in an interface
	}
	return r.err
}

// Finish returns the first error. Bytes that are left over are an error too.
func (r *Reader) Finish() error {
	if r.err == nil && r.Remaining() != 0 {
		r.fail("the end")
	}
	return r.Err()
}

// fail records an error unless there is one already.
func (r *Reader) fail(want string) {
	if r.err == nil {
		r.err = &PacketError{Command: r.command, Offset: r.offset, Size: len(r.payload), Want: want}
	}
	r.offset = len(r.payload)
}

// Bytes returns the next n bytes without copying them, nil after an error.
func (r *Reader) Bytes(n int) []byte {
	if r.err != nil || n < 0 || n > r.Remaining() {
		r.short(n)
		return nil
	}
	b := r.payload[r.offset : r.offset+n : r.offset+n]
	r.offset += n
	return b
}

func (r *Reader) short(n int) {
	if r.err == nil {
		r.fail(strconv.Itoa(n) + " more bytes")
	}
}

// Rest returns everything that has not been read, without copying it.
func (r *Reader) Rest() []byte { return r.Bytes(r.Remaining()) }

// Skip passes over n bytes that have no meaning.
func (r *Reader) Skip(n int) { r.Bytes(n) }

// Uint8 reads one byte.
func (r *Reader) Uint8() uint8 {
	if b := r.Bytes(1); b != nil {
		return b[0]
	}
	return 0
}

// Uint16 reads a big endian number.
func (r *Reader) Uint16() uint16 {
	if b := r.Bytes(2); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

// Uint32 reads a big endian number.
func (r *Reader) Uint32() uint32 {
	if b := r.Bytes(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

// Uint64 reads a big endian number.
func (r *Reader) Uint64() uint64 {
	if b := r.Bytes(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

// NameSize is the size of a field for the name of an algorithm, NUL included.
const NameSize = 64

// Name reads a field of n bytes that holds a NUL-terminated name. What follows
// the NUL has no meaning.
func (r *Reader) Name(n int) string {
	b := r.Bytes(n)
	if r.err != nil {
		return ""
	}
	before, _, ok := bytes.Cut(b, []byte{0})
	if !ok {
		r.fail("a NUL in the name before")
		return ""
	}
	return string(before)
}

// appendName appends name and NULs to make n bytes. The configuration allows no
// name that is longer than a field; one is cut off so that the layout holds.
func appendName(dst []byte, name string, n int) []byte {
	name = name[:min(len(name), n-1)]
	dst = append(dst, name...)
	return append(dst, zeroes[:n-len(name)]...)
}

// zeroes is a source of padding, as long as the longest field.
var zeroes [NameSize]byte

func flag8(set bool) uint8 {
	if set {
		return 1
	}
	return 0
}

func flag32(set bool) uint32 { return uint32(flag8(set)) }
