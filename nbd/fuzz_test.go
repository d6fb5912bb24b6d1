package nbd

import (
	"encoding/binary"
	"io"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/replblk/replblk/block/mem"
	"github.com/replblk/replblk/nbd/wire"
)

// feed runs a server connection on input and returns when both ends are done.
// Whatever the input, the server must neither panic, nor hang, nor leave a
// request behind.
func feed(t *testing.T, s *Server, input []byte) {
	a, b := net.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.ServeConn(b)
	}()
	go func() { _, _ = io.Copy(io.Discard, a) }()
	_ = a.SetWriteDeadline(time.Now().Add(timeout))
	_, _ = a.Write(input)
	_ = a.Close()
	select {
	case <-done:
	case <-time.After(timeout):
		t.Fatal("the server hangs")
	}
}

func FuzzHandshake(f *testing.F) {
	hello := func(opts ...[]byte) []byte {
		p := []byte{0, 0, 0, 3}
		for _, o := range opts {
			p = append(p, o...)
		}
		return p
	}
	f.Add(hello())
	f.Add(hello(optionBytes(wire.OptExportName, []byte("a")), requestBytes(wire.CmdDisc, 0, 0, 0, 0)))
	f.Add(hello(optionBytes(wire.OptList, nil), optionBytes(wire.OptAbort, nil)))
	f.Add(hello(optionBytes(wire.OptStructuredReply, nil), optionBytes(wire.OptSetMetaContext, append(str("a"), 0, 0, 0, 1, 0, 0, 0, 5, 'b', 'a', 's', 'e', ':')),
		optionBytes(wire.OptGo, goData("a", 0, 1, 2, 3)), requestBytes(wire.CmdBlockStatus, 0, 1, 0, 4096)))
	f.Add(hello(optionBytes(99, make([]byte, 70000)), optionBytes(wire.OptInfo, goData("", 3))))
	f.Add([]byte{0, 0, 0, 4})
	s := NewServer(Options{})
	if err := s.Add(Export{Name: "a", Device: mem.NewVolatile(64)}); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, input []byte) { feed(t, s, input) })
}

func FuzzRequests(f *testing.F) {
	cat := func(parts ...[]byte) []byte {
		var p []byte
		for _, q := range parts {
			p = append(p, q...)
		}
		return p
	}
	f.Add(cat(requestBytes(wire.CmdWrite, wire.CmdFlagFUA, 1, 0, 512), payload(1, 512), requestBytes(wire.CmdRead, 0, 2, 0, 512), requestBytes(wire.CmdDisc, 0, 0, 0, 0)))
	f.Add(cat(requestBytes(wire.CmdFlush, 0, 1, 0, 0), requestBytes(wire.CmdTrim, 0, 2, 0, 1<<20), requestBytes(wire.CmdWriteZeroes, 18, 3, 512, 512)))
	f.Add(cat(requestBytes(wire.CmdWrite, 0, 1, 1<<63, 600), payload(1, 600), requestBytes(wire.CmdBlockStatus, 8, 2, 1, 4000)))
	f.Add(requestBytes(wire.CmdWrite, 0, 1, 0, 1<<31))
	f.Add(cat(requestBytes(wire.CmdRead, 0, 1, 511, 2), requestBytes(wire.CmdRead, 0, 1, 0, 1<<26+1), []byte("garbage that is not a request")))
	enter := append(append([]byte{0, 0, 0, 3}, optionBytes(wire.OptStructuredReply, nil)...),
		optionBytes(wire.OptSetMetaContext, append(binary.BigEndian.AppendUint32(str(""), 1), str(wire.ContextAllocation)...))...)
	enter = append(enter, optionBytes(wire.OptGo, goData(""))...)
	m := mem.NewVolatile(64)
	s := NewServer(Options{})
	if err := s.Add(Export{Device: m}); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, input []byte) {
		feed(t, s, append(slices.Clip(enter), input...))
		if st, _ := s.ExportStats(""); st.Active != 0 {
			t.Fatalf("%d connections left", st.Active)
		}
	})
}
