package nbd

import (
	"errors"
	"io"
	"net"

	"github.com/replblk/replblk/nbd/wire"
)

// reader buffers a connection. Headers are decoded in place; payload goes
// through the buffer only as far as it was read together with a header.
type reader struct {
	c    net.Conn
	buf  []byte
	r, w int // buf[r:w] is unread
	// limit is how much to read ahead. After a large payload the next header
	// is probably followed by another. Not a byte of that is read with the
	// header: the kernel copies measurably slower to the odd address that would
	// be left over.
	limit int
}

const largePayload = 64 << 10

func newReader(c net.Conn) *reader {
	return &reader{c: c, buf: make([]byte, handshakeBuffer), limit: handshakeBuffer}
}

// buffered returns the number of bytes at hand.
func (b *reader) buffered() int { return b.w - b.r }

// transmission ends the frugality of negotiation, where nobody has proven to be
// a client yet.
func (b *reader) transmission() {
	b.grow(readBuffer)
	b.limit = readBuffer
}

func (b *reader) grow(n int) {
	buf := make([]byte, n)
	b.w = copy(buf, b.buf[b.r:b.w])
	b.buf, b.r = buf, 0
}

// next returns the next n bytes, valid until the next call. The caller bounds n.
func (b *reader) next(n int) ([]byte, error) {
	if b.w-b.r < n {
		if err := b.fill(n); err != nil {
			return nil, err
		}
	}
	p := b.buf[b.r : b.r+n]
	b.r += n
	return p, nil
}

// fill reads until n bytes are at hand. It returns io.EOF only if there were none.
func (b *reader) fill(n int) error {
	if b.r == b.w {
		b.r, b.w = 0, 0
	}
	if len(b.buf) < n {
		b.grow(n)
	} else if len(b.buf)-b.r < n {
		b.w = copy(b.buf, b.buf[b.r:b.w])
		b.r = 0
	}
	for b.w-b.r < n {
		end := min(len(b.buf), max(b.w+b.limit, b.r+n))
		got, err := b.c.Read(b.buf[b.w:end])
		b.w += got
		if b.w-b.r >= n {
			break
		}
		if errors.Is(err, io.EOF) && b.w > b.r {
			return io.ErrUnexpectedEOF
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// full reads len(p) bytes of payload.
func (b *reader) full(p []byte) error {
	b.limit = readBuffer
	if len(p) >= largePayload {
		b.limit = wire.RequestSize
	}
	n := copy(p, b.buf[b.r:b.w])
	b.r += n
	if n == len(p) {
		return nil
	}
	// Waiting for the rest in poll(2) instead of the runtime's poller was tried
	// for large payloads and did not help.
	_, err := io.ReadFull(b.c, p[n:])
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return err
}

// skip discards n bytes.
func (b *reader) skip(n int64) error {
	for n > 0 {
		if b.r == b.w {
			if err := b.fill(1); err != nil {
				return err
			}
		}
		k := min(n, int64(b.w-b.r))
		b.r += int(k)
		n -= k
	}
	return nil
}
