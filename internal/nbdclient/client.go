// Package nbdclient is a small NBD client for tests and the demo: fixed newstyle,
// simple replies, one request at a time. What it is for is honesty about
// acknowledgements: Write returns nil exactly if the server has answered so.
package nbdclient

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"time"

	"github.com/replblk/replblk/nbd/wire"
)

const dialTimeout = time.Minute // a server that only gets no processor is slow, not gone

// Client is a connection to an export. It is not safe for concurrent use.
type Client struct {
	conn   net.Conn
	size   uint64
	cookie uint64
}

// Dial connects to an export. Where is "unix:/path" or "tcp:host:port".
func Dial(ctx context.Context, where, export string) (*Client, error) {
	network, addr, _ := strings.Cut(where, ":")
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	c := &Client{conn: conn}
	stop := context.AfterFunc(ctx, c.Abort)
	e, err := wire.Negotiate(conn, export)
	if err != nil {
		stop()
		c.Abort()
		return nil, fmt.Errorf("nbd %s: export %q: %w", where, export, errors.Join(err, ctx.Err()))
	}
	if !stop() {
		return nil, fmt.Errorf("nbd %s: export %q: %w", where, export, ctx.Err())
	}
	c.size = e.Size
	return c, nil
}

// Size returns the size of the export in bytes.
func (c *Client) Size() uint64 { return c.size }

// Write writes p at off, durably with fua.
func (c *Client) Write(p []byte, off uint64, fua bool) error {
	flags := uint16(0)
	if fua {
		flags = wire.CmdFlagFUA
	}
	return c.do(wire.CmdWrite, flags, off, len(p), p, nil)
}

// Read reads p at off.
func (c *Client) Read(p []byte, off uint64) error { return c.do(wire.CmdRead, 0, off, len(p), nil, p) }

// Flush makes everything acknowledged so far durable.
func (c *Client) Flush() error { return c.do(wire.CmdFlush, 0, 0, 0, nil, nil) }

// do sends a request and waits for its reply.
func (c *Client) do(cmd, flags uint16, off uint64, n int, out, in []byte) error {
	c.cookie++
	var head [wire.RequestSize]byte
	wire.Request{Flags: flags, Type: cmd, Cookie: c.cookie, Offset: off, Length: uint32(n)}.Put(head[:])
	bufs := net.Buffers{head[:], out}
	if _, err := bufs.WriteTo(c.conn); err != nil {
		return err
	}
	var reply [wire.SimpleReplySize]byte
	if _, err := io.ReadFull(c.conn, reply[:]); err != nil {
		return err
	}
	if binary.BigEndian.Uint32(reply[:]) != wire.MagicSimpleReply || binary.BigEndian.Uint64(reply[8:]) != c.cookie {
		return fmt.Errorf("reply %x to request %d", reply, c.cookie)
	}
	if code := binary.BigEndian.Uint32(reply[4:]); code != 0 {
		return syscall.Errno(code)
	}
	if in == nil {
		return nil
	}
	_, err := io.ReadFull(c.conn, in)
	return err
}

// Close leaves in order.
func (c *Client) Close() error {
	var head [wire.RequestSize]byte
	wire.Request{Type: wire.CmdDisc}.Put(head[:])
	_, _ = c.conn.Write(head[:]) // the server may have gone
	return c.conn.Close()
}

// Abort drops the connection without a word, and makes a call in progress fail. It may
// be called from any goroutine.
func (c *Client) Abort() { _ = c.conn.Close() }
