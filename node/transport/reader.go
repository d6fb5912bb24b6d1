package transport

import (
	"io"

	"github.com/replblk/replblk/replication/wire"
)

const (
	// readBuffer is how much one read(2) can pick up.
	readBuffer = 256 << 10

	// MaxBody bounds a packet without bulk data: the largest is P_BITMAP.
	MaxBody = 4096

	// MaxBulk bounds bulk data: the largest request.
	MaxBulk = wire.MaxRequest100

	// direct is the size from which the missing part of bulk data is read
	// straight to where it belongs instead of through the buffer.
	direct = 16 << 10
)

// Packet is one packet as it came from the peer, split but not interpreted.
type Packet struct {
	Command wire.Command
	Volume  uint16
	Body    []byte // valid until the next call of Next
	Bulk    []byte // from the alloc function of Next; nil if there is none
}

// Reader cuts a stream into packets. It understands all three header formats at
// any time: which of them may come is agreed upon by packets that the Reader does
// not interpret.
//
// Every length is checked before anything is allocated or read for it.
type Reader struct {
	// DigestSize is the length of the digest that precedes bulk data and belongs to
	// the body; it changes when the peer says so.
	DigestSize int

	src  io.Reader
	buf  []byte
	r, w int // buf[r:w] is read but not delivered
}

// NewReader returns a Reader of src.
func NewReader(src io.Reader) *Reader { return &Reader{src: src, buf: make([]byte, readBuffer)} }

// Next returns the next packet, waiting for it. Memory for bulk data, of exactly n
// bytes, comes from alloc. An error of type *wire.PacketError means that the peer
// broke the protocol; any other comes from the socket. If alloc was called and
// Next fails, the caller gets its memory back in Packet.Bulk.
func (r *Reader) Next(alloc func(n int) []byte) (Packet, error) {
	h, size, err := r.header()
	if err != nil {
		return Packet{}, err
	}
	body, bulk, err := r.split(h)
	if err != nil {
		return Packet{}, err
	}
	if err := r.fill(size + body); err != nil {
		return Packet{}, err
	}
	p := Packet{Command: h.Command, Volume: h.Volume, Body: r.buf[r.r+size : r.r+size+body : r.r+size+body]}
	r.r += size + body
	if bulk > 0 {
		p.Bulk = alloc(bulk)
		err = r.bulk(&p)
	}
	return p, err
}

// Buffered says whether Next would return a packet (or an error) without reading
// from the socket.
func (r *Reader) Buffered() bool {
	h, size, err := parse(r.buf[r.r:r.w])
	if size == 0 {
		return false
	}
	if err != nil {
		return true
	}
	return uint64(r.w-r.r-size) >= uint64(h.Length)
}

// split says how much of a packet is body and how much bulk data.
func (r *Reader) split(h wire.Header) (body, bulk int, err error) {
	body = wire.DataSize + r.DigestSize
	if h.Command.CarriesData() && int64(h.Length) > int64(body) {
		if int64(h.Length) > int64(body+MaxBulk) {
			return 0, 0, &wire.PacketError{Command: h.Command, Size: int(min(h.Length, 1<<31-1)), Want: "at most 1 MiB of data"}
		}
		return body, int(h.Length) - body, nil
	}
	if h.Length > MaxBody {
		return 0, 0, &wire.PacketError{Command: h.Command, Size: int(min(h.Length, 1<<31-1)), Want: "a body of at most 4096 bytes"}
	}
	return int(h.Length), 0, nil
}

// header returns the next header and its size, and leaves it in the buffer.
func (r *Reader) header() (wire.Header, int, error) {
	for need := 8; ; need = wire.MaxHeaderSize {
		if err := r.fill(need); err != nil {
			return wire.Header{}, 0, err
		}
		if h, size, err := parse(r.buf[r.r:r.w]); size > 0 {
			return h, size, err
		}
	}
}

// parse decodes the header at the start of b, whatever its format. The size is
// zero if there is not enough of it, and not zero with an error.
func parse(b []byte) (wire.Header, int, error) {
	version := wire.VersionOf(b)
	size := wire.HeaderSize(version)
	if len(b) < size {
		return wire.Header{}, 0, nil
	}
	h, _, err := wire.ParseHeader(b, version)
	return h, size, err
}

// fill makes at least n bytes available in the buffer. End of file in the middle of
// a packet is io.ErrUnexpectedEOF.
func (r *Reader) fill(n int) error {
	if r.w-r.r >= n {
		return nil
	}
	if r.r == r.w {
		r.r, r.w = 0, 0
	} else if len(r.buf)-r.r < n {
		r.w = copy(r.buf, r.buf[r.r:r.w])
		r.r = 0
	}
	for r.w-r.r < n {
		k, err := r.src.Read(r.buf[r.w:])
		r.w += k
		if err != nil && r.w-r.r < n {
			if err == io.EOF && r.w > r.r {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
	}
	return nil
}

// bulk fills p.Bulk. p.Body is at the end of what was delivered; a refill of the
// buffer would overwrite it, so it is moved to the front of the buffer first.
func (r *Reader) bulk(p *Packet) error {
	n := copy(p.Bulk, r.buf[r.r:r.w])
	r.r += n
	rest := p.Bulk[n:]
	if len(rest) == 0 {
		return nil
	}
	// The buffer is empty now except for the body.
	copy(r.buf, p.Body)
	p.Body = r.buf[:len(p.Body):len(p.Body)]
	r.r, r.w = len(p.Body), len(p.Body)
	for len(rest) > 0 {
		var k int
		var err error
		if len(rest) >= direct {
			k, err = r.src.Read(rest)
		} else {
			k, err = r.src.Read(r.buf[r.w:])
			r.w += k
			k = copy(rest, r.buf[r.r:r.w])
			r.r += k
		}
		rest = rest[k:]
		if err != nil && len(rest) > 0 {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
	}
	return nil
}
