package nbd

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"

	"github.com/replblk/replblk/block"
	"github.com/replblk/replblk/block/mem"
	"github.com/replblk/replblk/nbd/wire"
)

func TestGoDescribesTheExport(t *testing.T) {
	d := mem.NewVolatile(2048)
	s := serverOf(t, Export{Name: "r0", Description: "first", Device: d}, Export{Name: "r1", Device: d, ReadOnly: true})
	c := pipeClient(t, s)
	c.hello(3)
	r, info := c.option(wire.OptGo, goData("r0", wire.InfoName, wire.InfoDescription, wire.InfoBlockSize))
	if r != wire.RepAck {
		t.Fatalf("reply %x", r)
	}
	want := [][]byte{
		{0, 0, 0, 0, 0, 0, 0, 0x10, 0, 0, 0x05, 0x6d}, // size 1 MiB, flags without DF and FAST_ZERO
		{0, 3, 0, 0, 2, 0, 0, 0, 0x10, 0, 2, 0, 0, 0}, // 512, 4096, 32 MiB
		append([]byte{0, 1}, "r0"...), append([]byte{0, 2}, "first"...),
	}
	for i, p := range want {
		if i >= len(info) || !bytes.Equal(info[i], p) {
			t.Errorf("info %d is %x, want %x", i, info, p)
		}
	}
	if _, flags := pipeClient(t, s).enter("r1", true); flags&wire.FlagReadOnly == 0 || flags&wire.FlagDF == 0 {
		t.Errorf("flags %x: want READ_ONLY and DF", flags)
	}
}

func TestExportName(t *testing.T) {
	s := serverOf(t, Export{Name: "r0", Device: mem.NewVolatile(8)})
	for _, flags := range []uint32{1, 3} {
		c := pipeClient(t, s)
		c.hello(flags)
		c.write(optionBytes(wire.OptExportName, []byte("r0")))
		if p := c.read(10); binary.BigEndian.Uint64(p) != 4096 || p[9]&wire.FlagHasFlags == 0 {
			t.Errorf("answer %x", p)
		}
		if flags&wire.HandshakeNoZeroes == 0 && !bytes.Equal(c.read(124), make([]byte, 124)) {
			t.Error("the 124 bytes are not zero")
		}
		if _, errno := c.do(wire.CmdFlush, 0, 0, 0, nil); errno != 0 {
			t.Errorf("flush: %d", errno)
		}
	}
	c := pipeClient(t, s)
	c.hello(3)
	c.write(optionBytes(wire.OptExportName, []byte("other")))
	c.dropped()
}

func TestDefaultExport(t *testing.T) {
	small, large := mem.NewVolatile(8), mem.NewVolatile(16)
	if size, _ := pipeClient(t, serverOf(t, Export{Name: "only", Device: small})).enter("", false); size != 4096 {
		t.Errorf("the only export: size %d", size)
	}
	s := serverOf(t, Export{Name: "a", Device: small}, Export{Name: "b", Device: large, Default: true})
	if size, _ := pipeClient(t, s).enter("", false); size != 8192 {
		t.Errorf("the marked export: size %d", size)
	}
	if err := s.Add(Export{Name: "c", Device: small, Default: true}); err == nil {
		t.Error("two defaults")
	}
	if err := s.Add(Export{Name: "a", Device: small}); err == nil {
		t.Error("two exports of one name")
	}
}

// A refused option leaves the connection usable and in step.
func TestRefusalsStayInStep(t *testing.T) {
	s := serverOf(t, Export{Name: "r0", Device: mem.NewVolatile(8)},
		Export{Name: "secondary", Open: func() (block.Device, error) { return nil, errors.New("r0 is Secondary") }},
		Export{Name: "gone", Open: func() (block.Device, error) { return nil, ErrUnknownExport }})
	c := pipeClient(t, s)
	c.hello(3)
	for _, o := range []struct {
		what string
		opt  uint32
		data []byte
		want uint32
	}{
		{"unknown option", 99, []byte("data"), wire.RepErrUnsup},
		{"extended headers", 11, nil, wire.RepErrUnsup},
		{"TLS", wire.OptStartTLS, nil, wire.RepErrPolicy},
		{"list with data", wire.OptList, []byte{1}, wire.RepErrInvalid},
		{"structured reply with data", wire.OptStructuredReply, []byte{1}, wire.RepErrInvalid},
		{"go to an unknown name", wire.OptGo, goData("nope"), wire.RepErrUnknown},
		{"go to a refusing export", wire.OptGo, goData("secondary"), wire.RepErrPolicy},
		{"go to an absent device", wire.OptGo, goData("gone"), wire.RepErrUnknown},
		{"go without data", wire.OptGo, nil, wire.RepErrInvalid},
		{"go with a long name length", wire.OptGo, []byte{0xff, 0xff, 0xff, 0xff, 0, 0}, wire.RepErrInvalid},
		{"go with missing requests", wire.OptGo, append(str("r0"), 0, 5), wire.RepErrInvalid},
		{"meta context before structured", wire.OptSetMetaContext, append(str("r0"), 0, 0, 0, 0), wire.RepErrInvalid},
		{"option of 100 KiB", wire.OptGo, make([]byte, 100<<10), wire.RepErrTooBig},
		{"info", wire.OptInfo, goData("r0"), wire.RepAck},
		{"structured reply", wire.OptStructuredReply, nil, wire.RepAck},
		{"meta context of an unknown export", wire.OptSetMetaContext, append(str("nope"), 0, 0, 0, 0), wire.RepErrUnknown},
		{"meta context with too many queries", wire.OptSetMetaContext, append(str("r0"), 0xff, 0xff, 0xff, 0xff), wire.RepErrInvalid},
		{"abort", wire.OptAbort, nil, wire.RepAck},
	} {
		if got, _ := c.option(o.opt, o.data); got != o.want {
			t.Errorf("%s: reply %x, want %x", o.what, got, o.want)
		}
	}
	c.dropped()
}

func TestViolationsDrop(t *testing.T) {
	s := serverOf(t, Export{Name: "r0", Device: mem.NewVolatile(8)})
	c := pipeClient(t, s)
	c.hello(4)
	c.dropped()

	c = pipeClient(t, s)
	c.hello(3)
	c.write(append([]byte("IHAVEOPX"), make([]byte, 8)...))
	c.dropped()

	c = pipeClient(t, s)
	c.hello(3)
	c.write(append([]byte("IHAVEOPT"), 0, 0, 0, 7, 0xff, 0xff, 0xff, 0xff))
	c.dropped()
	eventually(t, "violations are counted", func() bool { return s.Stats().ProtocolErrors == 3 })
}

func TestList(t *testing.T) {
	d := mem.NewVolatile(8)
	c := pipeClient(t, serverOf(t, Export{Name: "b", Device: d, Description: "x"}, Export{Name: "a", Device: d}))
	c.hello(3)
	r, got := c.option(wire.OptList, nil)
	if r != wire.RepAck || len(got) != 2 || !bytes.Equal(got[0], str("a")) || !bytes.Equal(got[1], append(str("b"), 'x')) {
		t.Errorf("reply %x, %x", r, got)
	}
}

func TestMetaContext(t *testing.T) {
	c := pipeClient(t, serverOf(t, Export{Name: "a", Device: mem.NewVolatile(64)}))
	c.hello(3)
	c.option(wire.OptStructuredReply, nil)
	query := func(q ...string) []byte {
		p := binary.BigEndian.AppendUint32(str("a"), uint32(len(q)))
		for _, s := range q {
			p = append(p, str(s)...)
		}
		return p
	}
	for _, o := range []struct {
		opt  uint32
		q    []string
		want int
	}{
		{wire.OptListMetaContext, nil, 1},
		{wire.OptListMetaContext, []string{"base:"}, 1},
		{wire.OptListMetaContext, []string{"qemu:"}, 0},
		{wire.OptSetMetaContext, []string{"base:"}, 0},
		{wire.OptSetMetaContext, []string{"x:y", "base:allocation"}, 1},
	} {
		r, got := c.option(o.opt, query(o.q...))
		if r != wire.RepAck || len(got) != o.want {
			t.Errorf("option %d %q: %x, %q", o.opt, o.q, r, got)
		}
	}
	if r, _ := c.option(wire.OptGo, goData("a")); r != wire.RepAck {
		t.Fatalf("go: %x", r)
	}
	c.write(requestBytes(wire.CmdBlockStatus, 0, 5, 0, 32768))
	typ, cookie, body := c.chunk()
	want := []byte{0, 0, 0, 1, 0, 0, 0x80, 0, 0, 0, 0, 3}
	if typ != wire.ChunkBlockStatus || cookie != 5 || !bytes.Equal(body, want) {
		t.Errorf("chunk %d, cookie %d, %x, want %x", typ, cookie, body, want)
	}
}
