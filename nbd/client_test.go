package nbd

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"github.com/replblk/replblk/block"
	"github.com/replblk/replblk/nbd/wire"
)

// client speaks the protocol by hand, one thing at a time, so that tests can
// also say what no library would.
type client struct {
	t testing.TB
	c net.Conn
}

// timeout bounds every exchange of the tests.
const timeout = time.Minute

func (c *client) write(p []byte) {
	c.t.Helper()
	if _, err := c.c.Write(p); err != nil {
		c.t.Fatalf("client write: %v", err)
	}
}

func (c *client) read(n int) []byte {
	c.t.Helper()
	p := make([]byte, n)
	if _, err := io.ReadFull(c.c, p); err != nil {
		c.t.Fatalf("client read of %d bytes: %v", n, err)
	}
	return p
}

// dropped checks that the server closes the connection without another byte, in time.
func (c *client) dropped() {
	c.t.Helper()
	if n, err := c.c.Read(make([]byte, 1)); n != 0 || err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		c.t.Errorf("connection is still alive: read %d bytes, %v", n, err)
	}
}

// hello exchanges greetings.
func (c *client) hello(flags uint32) {
	c.t.Helper()
	p := c.read(18)
	if string(p[:16]) != "NBDMAGICIHAVEOPT" || binary.BigEndian.Uint16(p[16:]) != 3 {
		c.t.Fatalf("greeting %x", p)
	}
	c.write(binary.BigEndian.AppendUint32(nil, flags))
}

func optionBytes(opt uint32, data []byte) []byte {
	p := []byte("IHAVEOPT")
	p = binary.BigEndian.AppendUint32(p, opt)
	p = binary.BigEndian.AppendUint32(p, uint32(len(data)))
	return append(p, data...)
}

// option sends an option and returns its replies, up to the ACK or error.
func (c *client) option(opt uint32, data []byte) (last uint32, info [][]byte) {
	c.t.Helper()
	c.write(optionBytes(opt, data))
	for {
		p := c.read(wire.OptionReplySize)
		if binary.BigEndian.Uint64(p) != wire.MagicOptionReply || binary.BigEndian.Uint32(p[8:]) != opt {
			c.t.Fatalf("option reply %x", p)
		}
		typ := binary.BigEndian.Uint32(p[12:])
		body := c.read(int(binary.BigEndian.Uint32(p[16:])))
		if typ == wire.RepAck || typ >= wire.RepError {
			return typ, info
		}
		info = append(info, body)
	}
}

func str(s string) []byte { return append(binary.BigEndian.AppendUint32(nil, uint32(len(s))), s...) }

func goData(name string, infos ...uint16) []byte {
	p := binary.BigEndian.AppendUint16(str(name), uint16(len(infos)))
	for _, i := range infos {
		p = binary.BigEndian.AppendUint16(p, i)
	}
	return p
}

// enter negotiates the export and returns size and transmission flags.
func (c *client) enter(name string, structured bool) (size uint64, flags uint16) {
	c.t.Helper()
	c.hello(3)
	if structured {
		if r, _ := c.option(wire.OptStructuredReply, nil); r != wire.RepAck {
			c.t.Fatalf("structured reply: %x", r)
		}
	}
	r, info := c.option(wire.OptGo, goData(name))
	if r != wire.RepAck {
		c.t.Fatalf("go: %x", r)
	}
	for _, p := range info {
		if binary.BigEndian.Uint16(p) == wire.InfoExport {
			size, flags = binary.BigEndian.Uint64(p[2:]), binary.BigEndian.Uint16(p[10:])
		}
	}
	return size, flags
}

func requestBytes(typ, flags uint16, cookie, offset uint64, length uint32) []byte {
	p := make([]byte, wire.RequestSize)
	wire.Request{Flags: flags, Type: typ, Cookie: cookie, Offset: offset, Length: length}.Put(p)
	return p
}

// simple reads a simple reply.
func (c *client) simple() (cookie uint64, errno uint32) {
	c.t.Helper()
	p := c.read(wire.SimpleReplySize)
	if binary.BigEndian.Uint32(p) != wire.MagicSimpleReply {
		c.t.Fatalf("simple reply %x", p)
	}
	return binary.BigEndian.Uint64(p[8:]), binary.BigEndian.Uint32(p[4:])
}

// do sends a request and reads its simple reply, with data if it is a read.
func (c *client) do(typ, flags uint16, offset uint64, length uint32, payload []byte) (data []byte, errno uint32) {
	c.t.Helper()
	c.write(append(requestBytes(typ, flags, 77, offset, length), payload...))
	cookie, errno := c.simple()
	if cookie != 77 {
		c.t.Fatalf("cookie %d", cookie)
	}
	if typ == wire.CmdRead && errno == 0 {
		data = c.read(int(length))
	}
	return data, errno
}

// chunk reads one structured chunk, which must be the last of its reply.
func (c *client) chunk() (typ uint16, cookie uint64, body []byte) {
	c.t.Helper()
	p := c.read(wire.ChunkSize)
	if binary.BigEndian.Uint32(p) != wire.MagicStructuredReply || binary.BigEndian.Uint16(p[4:]) != wire.ChunkDone {
		c.t.Fatalf("chunk %x", p)
	}
	return binary.BigEndian.Uint16(p[6:]), binary.BigEndian.Uint64(p[8:]), c.read(int(binary.BigEndian.Uint32(p[16:])))
}

// pipeClient connects over net.Pipe, where every byte is handed over one by one
// and the server has no descriptor to be clever with.
func pipeClient(t testing.TB, s *Server) *client {
	a, b := net.Pipe()
	return connected(t, s, a, b)
}

// sockClient connects over a unix socket, as in production.
func sockClient(t testing.TB, s *Server) *client {
	t.Helper()
	l, err := net.Listen("unix", t.TempDir()+"/s")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	a, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	b, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	return connected(t, s, a, b)
}

func connected(t testing.TB, s *Server, a, b net.Conn) *client {
	go s.ServeConn(b)
	_ = a.SetDeadline(time.Now().Add(timeout))
	t.Cleanup(func() { a.Close() })
	return &client{t: t, c: a}
}

func serverOf(t testing.TB, exports ...Export) *Server {
	t.Helper()
	s := NewServer(Options{})
	for _, e := range exports {
		if err := s.Add(e); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(timeout); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}

// null completes everything at once; reads keep what the buffer had.
type null struct{ sectors uint64 }

func (n null) Submit(r *block.Request) { r.Complete(nil) }
func (n null) Geometry() block.Geometry {
	return block.Geometry{Sectors: n.sectors, LogicalBlock: 512, PhysicalBlock: 4096}
}
