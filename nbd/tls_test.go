package nbd

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"net"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/replblk/replblk/block/mem"
	"github.com/replblk/replblk/internal/tlstest"
	"github.com/replblk/replblk/nbd/wire"
)

// secured serves exports with TLS on offer, and returns what a good client uses.
func secured(t *testing.T, exports ...Export) (*Server, *tls.Config) {
	t.Helper()
	ca := tlstest.NewAuthority(t)
	valid := time.Now().Add(time.Hour)
	s := NewServer(Options{TLS: &tls.Config{
		Certificates: []tls.Certificate{ca.Issue("server", valid)}, ClientCAs: ca.Pool(), ClientAuth: tls.RequireAndVerifyClientCert,
	}})
	for _, e := range exports {
		if err := s.Add(e); err != nil {
			t.Fatal(err)
		}
	}
	return s, &tls.Config{RootCAs: ca.Pool(), ServerName: "localhost", Certificates: []tls.Certificate{ca.Issue("client", valid)}}
}

// upgrade asks for TLS and enters it.
func (c *client) upgrade(conf *tls.Config) {
	c.t.Helper()
	if r, _ := c.option(wire.OptStartTLS, nil); r != wire.RepAck {
		c.t.Fatalf("starttls: %x", r)
	}
	tc := tls.Client(c.c, conf)
	if err := tc.Handshake(); err != nil {
		c.t.Fatal(err)
	}
	c.c = tc
}

func TestTLSRequired(t *testing.T) {
	s, conf := secured(t, Export{Name: "r0", Device: mem.NewVolatile(64), RequireTLS: true})
	c := sockClient(t, s)
	c.hello(3)
	for opt, data := range map[uint32][]byte{
		wire.OptList: nil, wire.OptStructuredReply: nil, wire.OptInfo: goData("r0"), wire.OptGo: goData("r0"), 99: nil,
		wire.OptSetMetaContext: append(str("r0"), 0, 0, 0, 0),
	} {
		if r, info := c.option(opt, data); r != wire.RepErrTLSReqd || len(info) > 0 {
			t.Errorf("option %d before TLS: reply %x, %d lines of information", opt, r, len(info))
		}
	}
	c.upgrade(conf)
	if r, _ := c.option(wire.OptStartTLS, nil); r != wire.RepErrInvalid {
		t.Errorf("TLS inside TLS: %x", r)
	}
	if r, _ := c.option(wire.OptGo, goData("r0")); r != wire.RepAck {
		t.Fatalf("go inside TLS: %x", r)
	}
	want := bytes.Repeat([]byte{7}, 4096)
	if _, errno := c.do(wire.CmdWrite, wire.CmdFlagFUA, 0, 4096, want); errno != 0 {
		t.Errorf("write: %d", errno)
	}
	if got, errno := c.do(wire.CmdRead, 0, 0, 4096, nil); errno != 0 || !bytes.Equal(got, want) {
		t.Errorf("read: %d", errno)
	}
	c.write(requestBytes(wire.CmdDisc, 0, 1, 0, 0))
	c.dropped()

	c = sockClient(t, s)
	c.hello(3)
	c.write(optionBytes(wire.OptExportName, []byte("r0")))
	c.dropped()
	c = sockClient(t, s)
	c.hello(3)
	if r, _ := c.option(wire.OptAbort, nil); r != wire.RepAck {
		t.Errorf("abort before TLS: %x", r)
	}
}

// Where some exports may be used in the clear, the others are not shown.
func TestTLSPerExport(t *testing.T) {
	s, conf := secured(t, Export{Name: "open", Device: mem.NewVolatile(8), Default: true}, Export{Name: "shut", Device: mem.NewVolatile(8), RequireTLS: true})
	c := sockClient(t, s)
	c.hello(3)
	if _, info := c.option(wire.OptList, nil); len(info) != 1 || string(info[0][4:]) != "open" {
		t.Errorf("list in the clear: %q", info)
	}
	if r, _ := c.option(wire.OptInfo, goData("shut")); r != wire.RepErrTLSReqd {
		t.Errorf("info: %x", r)
	}
	if r, _ := c.option(wire.OptStructuredReply, nil); r != wire.RepAck {
		t.Errorf("structured reply: %x", r)
	}
	if r, _ := c.option(wire.OptListMetaContext, append(str("shut"), 0, 0, 0, 0)); r != wire.RepErrTLSReqd {
		t.Errorf("meta context: %x", r)
	}
	if r, _ := c.option(wire.OptGo, goData("shut")); r != wire.RepErrTLSReqd {
		t.Errorf("go: %x", r)
	}
	if r, _ := c.option(wire.OptGo, goData("")); r != wire.RepAck {
		t.Errorf("go to the open one: %x", r)
	}
	c = sockClient(t, s)
	c.hello(3)
	c.upgrade(conf)
	if _, info := c.option(wire.OptList, nil); len(info) != 2 {
		t.Errorf("list inside TLS: %q", info)
	}
	if r, _ := c.option(wire.OptGo, goData("shut")); r != wire.RepAck {
		t.Errorf("go inside TLS: %x", r)
	}
	if err := NewServer(Options{}).Add(Export{Name: "x", Device: mem.NewVolatile(8), RequireTLS: true}); err == nil {
		t.Error("a server without TLS took an export that requires it")
	}
}

// What was agreed on in the clear may have been agreed with anybody.
func TestTLSForgetsWhatWasNegotiated(t *testing.T) {
	s, conf := secured(t, Export{Name: "r0", Device: mem.NewVolatile(8)})
	c := sockClient(t, s)
	c.hello(3)
	c.option(wire.OptStructuredReply, nil)
	query := append(append(str("r0"), 0, 0, 0, 1), str(wire.ContextAllocation)...)
	if r, info := c.option(wire.OptSetMetaContext, query); r != wire.RepAck || len(info) != 1 {
		t.Fatalf("meta context: %x %q", r, info)
	}
	c.upgrade(conf)
	if r, _ := c.option(wire.OptSetMetaContext, query); r != wire.RepErrInvalid {
		t.Errorf("structured replies survived STARTTLS: %x", r)
	}
	r, info := c.option(wire.OptGo, goData("r0"))
	if r != wire.RepAck || binary.BigEndian.Uint16(info[0][10:])&wire.FlagDF != 0 {
		t.Errorf("go: %x, %x", r, info)
	}
	if _, errno := c.do(wire.CmdBlockStatus, 0, 0, 4096, nil); errno != wire.EINVAL {
		t.Errorf("the context survived STARTTLS: %d", errno)
	}
	if _, errno := c.do(wire.CmdRead, 0, 0, 512, nil); errno != 0 { // a simple reply, or do fails
		t.Errorf("read: %d", errno)
	}
}

// Bytes sent behind STARTTLS in the clear are never taken for options of the
// client that later enters TLS, whether they are read with it or wait in the socket.
func TestTLSInjection(t *testing.T) {
	d := mem.NewVolatile(64)
	s, _ := secured(t, Export{Name: "r0", Device: d})
	for name, extra := range map[string][]byte{
		"an option": optionBytes(wire.OptGo, goData("r0")), "a byte": {0}, "a write": append(requestBytes(wire.CmdWrite, 0, 1, 0, 512), make([]byte, 512)...),
	} {
		c := sockClient(t, s)
		c.hello(3)
		c.write(append(optionBytes(wire.OptStartTLS, nil), extra...))
		if n, err := c.c.Read(make([]byte, 1)); n != 0 || err == nil {
			t.Errorf("%s behind STARTTLS: an answer", name)
		}
		c = sockClient(t, s) // after the ACK it is the handshake that it breaks
		c.hello(3)
		if r, _ := c.option(wire.OptStartTLS, nil); r != wire.RepAck {
			t.Fatalf("starttls: %x", r)
		}
		c.write(append(extra, make([]byte, 1024)...))
		p := make([]byte, 64)
		n, _ := c.c.Read(p)
		if n > 0 && p[0] != 21 { // an alert may be told
			t.Errorf("%s before the handshake: answer %x", name, p[:n])
		}
	}
	eventually(t, "all connections end", func() bool { return s.Stats().HandshakeFailed == 6 })
	st, _ := s.ExportStats("r0")
	if st.Connections != 0 {
		t.Errorf("%d connections were served", st.Connections)
	}
}

func TestTLSRefusedOptions(t *testing.T) {
	s, conf := secured(t, Export{Name: "r0", Device: mem.NewVolatile(8), RequireTLS: true})
	c := sockClient(t, s)
	c.hello(3)
	if r, _ := c.option(wire.OptStartTLS, []byte{1}); r != wire.RepErrInvalid {
		t.Errorf("starttls with data: %x", r)
	}
	c.upgrade(conf) // still in step
}

func TestTLSClientsCertificate(t *testing.T) {
	s, good := secured(t, Export{Name: "r0", Device: mem.NewVolatile(8), RequireTLS: true})
	other := tlstest.NewAuthority(t)
	for name, certs := range map[string][]tls.Certificate{
		"none": nil, "of another CA": {other.Issue("client", time.Now().Add(time.Hour))},
	} {
		c := sockClient(t, s)
		c.hello(3)
		c.option(wire.OptStartTLS, nil)
		conf := good.Clone()
		conf.Certificates = certs
		tc := tls.Client(c.c, conf)
		// TLS 1.3 tells the client only when it reads.
		if _, err := tc.Write(optionBytes(wire.OptGo, goData("r0"))); err == nil {
			if n, err := tc.Read(make([]byte, 1)); n > 0 || err == nil {
				t.Errorf("certificate %s: served", name)
			}
		}
	}
}

// A client that stops in the middle of the handshake costs little, and not for long.
func TestTLSHalfAHandshake(t *testing.T) {
	s, _ := secured(t, Export{Name: "r0", Device: mem.NewVolatile(8)})
	s.opt.HandshakeTimeout = 2 * time.Second
	const clients = 100
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	list := make([]*client, clients)
	for i := range list {
		c := sockClient(t, s)
		c.hello(3)
		c.option(wire.OptStartTLS, nil)
		// A record of 16 KiB, of a handshake message that would be 16 MiB long.
		hello := append([]byte{22, 3, 1, 0x40, 0}, 1, 0xff, 0xff, 0xff)
		c.write(append(hello, make([]byte, 8<<10)...))
		list[i] = c
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if perClient := (int64(after.HeapInuse) - int64(before.HeapInuse)) / clients; perClient > 64<<10 {
		t.Errorf("%d bytes of memory per client", perClient)
	}
	for _, c := range list {
		c.dropped()
	}
}

// Stopping works through TLS: what was submitted is answered, and the end is in order.
func TestTLSShutdown(t *testing.T) {
	s, conf := secured(t, Export{Name: "r0", Device: mem.NewVolatile(2048), RequireTLS: true})
	c := sockClient(t, s)
	c.hello(3)
	c.upgrade(conf)
	c.option(wire.OptGo, goData("r0"))
	payload := make([]byte, 1<<20)
	for range 4 {
		c.write(append(requestBytes(wire.CmdWrite, 0, 77, 0, 1<<20), payload...))
	}
	for range 4 {
		if _, errno := c.simple(); errno != 0 {
			t.Errorf("write: %d", errno)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	if err := s.Shutdown(ctx); err != nil {
		t.Fatal(err)
	}
	c.dropped()
}

// A client that does not read cannot hold up a stop by its full socket.
func TestTLSKillFullSocket(t *testing.T) {
	s, conf := secured(t, Export{Name: "r0", Device: mem.NewVolatile(1 << 16)})
	c := sockClient(t, s)
	c.hello(3)
	c.upgrade(conf)
	c.option(wire.OptGo, goData("r0"))
	for i := range uint64(32) {
		c.write(requestBytes(wire.CmdRead, 0, i, 0, 1<<20))
	}
	eventually(t, "reads are in flight", func() bool { st, _ := s.ExportStats("r0"); return st.Reads >= 16 })
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := s.Disconnect(ctx, "r0"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("disconnect: %v", err)
	}
	eventually(t, "the connection ends", func() bool { st, _ := s.ExportStats("r0"); return st.Active == 0 })
	_ = c.c.(*tls.Conn).NetConn().SetReadDeadline(time.Now().Add(timeout))
	if _, err := c.c.(*tls.Conn).NetConn().(*net.UnixConn).Read(make([]byte, 1)); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("the socket is still open")
	}
}
