package nbd

import (
	"encoding/binary"
	"io"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/replblk/replblk/block/mem"
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
	f.Add(hello(optionBytes(optExportName, []byte("a")), requestBytes(cmdDisc, 0, 0, 0, 0)))
	f.Add(hello(optionBytes(optList, nil), optionBytes(optAbort, nil)))
	f.Add(hello(optionBytes(optStructuredReply, nil), optionBytes(optSetMetaContext, append(str("a"), 0, 0, 0, 1, 0, 0, 0, 5, 'b', 'a', 's', 'e', ':')),
		optionBytes(optGo, goData("a", 0, 1, 2, 3)), requestBytes(cmdBlockStatus, 0, 1, 0, 4096)))
	f.Add(hello(optionBytes(99, make([]byte, 70000)), optionBytes(optInfo, goData("", 3))))
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
	f.Add(cat(requestBytes(cmdWrite, cmdFlagFUA, 1, 0, 512), payload(1, 512), requestBytes(cmdRead, 0, 2, 0, 512), requestBytes(cmdDisc, 0, 0, 0, 0)))
	f.Add(cat(requestBytes(cmdFlush, 0, 1, 0, 0), requestBytes(cmdTrim, 0, 2, 0, 1<<20), requestBytes(cmdWriteZeroes, 18, 3, 512, 512)))
	f.Add(cat(requestBytes(cmdWrite, 0, 1, 1<<63, 600), payload(1, 600), requestBytes(cmdBlockStatus, 8, 2, 1, 4000)))
	f.Add(requestBytes(cmdWrite, 0, 1, 0, 1<<31))
	f.Add(cat(requestBytes(cmdRead, 0, 1, 511, 2), requestBytes(cmdRead, 0, 1, 0, 1<<26+1), []byte("garbage that is not a request")))
	enter := append(append([]byte{0, 0, 0, 3}, optionBytes(optStructuredReply, nil)...),
		optionBytes(optSetMetaContext, append(binary.BigEndian.AppendUint32(str(""), 1), str(contextAllocation)...))...)
	enter = append(enter, optionBytes(optGo, goData(""))...)
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
