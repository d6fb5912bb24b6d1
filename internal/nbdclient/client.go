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
)

const (
	magic       = 0x4e42444d41474943 // "NBDMAGIC"
	optionMagic = 0x49484156454f5054 // "IHAVEOPT"
	replyMagic  = 0x0003e889045565a9
	request     = 0x25609513
	simpleReply = 0x67446698

	optGo      = 7
	repAck     = 1
	repInfo    = 3
	repErrBit  = 1 << 31
	infoExport = 0

	cmdRead  = 0
	cmdWrite = 1
	cmdDisc  = 2
	cmdFlush = 3

	flagFUA = 1

	maxOptionReply = 64 << 10
	dialTimeout    = time.Minute // a server that only gets no processor is slow, not gone
)

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
	if err := c.negotiate(export); err != nil {
		stop()
		c.Abort()
		return nil, fmt.Errorf("nbd %s: export %q: %w", where, export, errors.Join(err, ctx.Err()))
	}
	if !stop() {
		return nil, fmt.Errorf("nbd %s: export %q: %w", where, export, ctx.Err())
	}
	return c, nil
}

// negotiate is the handshake: greeting, flags, NBD_OPT_GO.
func (c *Client) negotiate(export string) error {
	var hello [18]byte
	if _, err := io.ReadFull(c.conn, hello[:]); err != nil {
		return err
	}
	if binary.BigEndian.Uint64(hello[:]) != magic || binary.BigEndian.Uint64(hello[8:]) != optionMagic {
		return fmt.Errorf("greeting %x is not that of a fixed newstyle server", hello)
	}
	msg := binary.BigEndian.AppendUint32(nil, 3) // fixed newstyle, no zeroes
	msg = binary.BigEndian.AppendUint64(msg, optionMagic)
	msg = binary.BigEndian.AppendUint32(msg, optGo)
	msg = binary.BigEndian.AppendUint32(msg, uint32(4+len(export)+2))
	msg = binary.BigEndian.AppendUint32(msg, uint32(len(export)))
	msg = append(msg, export...)
	msg = binary.BigEndian.AppendUint16(msg, 0)
	if _, err := c.conn.Write(msg); err != nil {
		return err
	}
	for {
		kind, data, err := c.optionReply()
		switch {
		case err != nil:
			return err
		case kind == repAck:
			return nil
		case kind&repErrBit != 0:
			return fmt.Errorf("refused (%#x): %s", kind, data)
		case kind == repInfo && len(data) >= 12 && binary.BigEndian.Uint16(data) == infoExport:
			c.size = binary.BigEndian.Uint64(data[2:])
		}
	}
}

func (c *Client) optionReply() (uint32, []byte, error) {
	var head [20]byte
	if _, err := io.ReadFull(c.conn, head[:]); err != nil {
		return 0, nil, err
	}
	n := binary.BigEndian.Uint32(head[16:])
	if binary.BigEndian.Uint64(head[:]) != replyMagic || n > maxOptionReply {
		return 0, nil, fmt.Errorf("option reply %x", head)
	}
	data := make([]byte, n)
	_, err := io.ReadFull(c.conn, data)
	return binary.BigEndian.Uint32(head[12:]), data, err
}

// Size returns the size of the export in bytes.
func (c *Client) Size() uint64 { return c.size }

// Write writes p at off, durably with fua.
func (c *Client) Write(p []byte, off uint64, fua bool) error {
	flags := uint16(0)
	if fua {
		flags = flagFUA
	}
	return c.do(cmdWrite, flags, off, len(p), p, nil)
}

// Read reads p at off.
func (c *Client) Read(p []byte, off uint64) error { return c.do(cmdRead, 0, off, len(p), nil, p) }

// Flush makes everything acknowledged so far durable.
func (c *Client) Flush() error { return c.do(cmdFlush, 0, 0, 0, nil, nil) }

// do sends a request and waits for its reply.
func (c *Client) do(cmd, flags uint16, off uint64, n int, out, in []byte) error {
	c.cookie++
	var head [28]byte
	binary.BigEndian.PutUint32(head[:], request)
	binary.BigEndian.PutUint16(head[4:], flags)
	binary.BigEndian.PutUint16(head[6:], cmd)
	binary.BigEndian.PutUint64(head[8:], c.cookie)
	binary.BigEndian.PutUint64(head[16:], off)
	binary.BigEndian.PutUint32(head[24:], uint32(n))
	bufs := net.Buffers{head[:], out}
	if _, err := bufs.WriteTo(c.conn); err != nil {
		return err
	}
	var reply [16]byte
	if _, err := io.ReadFull(c.conn, reply[:]); err != nil {
		return err
	}
	if binary.BigEndian.Uint32(reply[:]) != simpleReply || binary.BigEndian.Uint64(reply[8:]) != c.cookie {
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
	var head [28]byte
	binary.BigEndian.PutUint32(head[:], request)
	binary.BigEndian.PutUint16(head[6:], cmdDisc)
	_, _ = c.conn.Write(head[:]) // the server may have gone
	return c.conn.Close()
}

// Abort drops the connection without a word, and makes a call in progress fail. It may
// be called from any goroutine.
func (c *Client) Abort() { _ = c.conn.Close() }
