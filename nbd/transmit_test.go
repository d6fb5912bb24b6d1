package nbd

import (
	"bytes"
	"encoding/binary"
	"net"
	"syscall"
	"testing"

	"github.com/replblk/replblk/block"
	"github.com/replblk/replblk/block/faulty"
	"github.com/replblk/replblk/block/mem"
	"github.com/replblk/replblk/nbd/wire"
)

const testSize = 1 << 20

func payload(v byte, n int) []byte { return bytes.Repeat([]byte{v}, n) }

// The error table of the specification: what is refused, how, and that the
// connection stays in step.
func TestErrorTable(t *testing.T) {
	d := mem.NewVolatile(testSize / 512)
	s := serverOf(t, Export{Name: "rw", Device: d}, Export{Name: "ro", Device: d, ReadOnly: true})
	for _, connect := range []func(testing.TB, *Server) *client{pipeClient, sockClient} {
		rw, ro := connect(t, s), connect(t, s)
		rw.enter("rw", false)
		ro.enter("ro", false)
		for _, r := range []struct {
			what       string
			c          *client
			typ, flags uint16
			offset     uint64
			length     uint32
			want       uint32
		}{
			{"read", rw, wire.CmdRead, 0, 0, 4096, 0},
			{"read to the end", rw, wire.CmdRead, 0, testSize - 512, 512, 0},
			{"read at odd bytes", rw, wire.CmdRead, 0, 513, 3, 0},
			{"read past the end", rw, wire.CmdRead, 0, testSize - 512, 1024, wire.EINVAL},
			{"read at 2^63", rw, wire.CmdRead, 0, 1 << 63, 512, wire.EINVAL},
			{"read that wraps", rw, wire.CmdRead, 0, 1<<64 - 512, 1024, wire.EINVAL},
			{"read of 4 GiB", rw, wire.CmdRead, 0, 0, 1<<32 - 512, wire.EINVAL},
			{"read of nothing", rw, wire.CmdRead, 0, 0, 0, 0},
			{"write of nothing", rw, wire.CmdWrite, 0, 0, 0, 0},
			{"trim of nothing", rw, wire.CmdTrim, 0, 0, 0, 0},
			{"write", rw, wire.CmdWrite, 0, 0, 4096, 0},
			{"write with FUA", rw, wire.CmdWrite, wire.CmdFlagFUA, 0, 512, 0},
			{"write past the end", rw, wire.CmdWrite, 0, testSize, 512, wire.ENOSPC},
			{"write of half a sector", rw, wire.CmdWrite, 0, 0, 256, wire.EINVAL},
			{"zeroes", rw, wire.CmdWriteZeroes, wire.CmdFlagNoHole, 0, 4096, 0},
			{"zeroes past the end", rw, wire.CmdWriteZeroes, 0, testSize - 512, 1 << 31, wire.ENOSPC},
			{"fast zeroes without support", rw, wire.CmdWriteZeroes, wire.CmdFlagFastZero, 0, 512, wire.ENOTSUP},
			{"trim", rw, wire.CmdTrim, wire.CmdFlagFUA, 0, 4096, 0},
			{"trim of less than a sector", rw, wire.CmdTrim, 0, 1, 510, 0},
			{"trim past the end", rw, wire.CmdTrim, 0, testSize, 512, wire.EINVAL},
			{"cache", rw, wire.CmdCache, 0, 0, 4096, 0},
			{"cache past the end", rw, wire.CmdCache, 0, testSize, 4096, wire.EINVAL},
			{"flush", rw, wire.CmdFlush, 0, 0, 0, 0},
			{"flush with FUA", rw, wire.CmdFlush, wire.CmdFlagFUA, 0, 0, 0},
			{"flush with length", rw, wire.CmdFlush, 0, 0, 512, wire.EINVAL},
			{"read with FUA", rw, wire.CmdRead, wire.CmdFlagFUA, 0, 512, 0},
			{"unknown command", rw, 33, 0, 0, 512, wire.EINVAL},
			{"resize", rw, 8, 0, 0, 512, wire.EINVAL},
			{"unknown flag", rw, wire.CmdRead, 0x100, 0, 512, wire.EINVAL},
			{"DF without structured replies", rw, wire.CmdRead, wire.CmdFlagDF, 0, 512, wire.EINVAL},
			{"block status without context", rw, wire.CmdBlockStatus, 0, 0, 512, wire.EINVAL},
			{"read, read-only", ro, wire.CmdRead, 0, 0, 512, 0},
			{"write, read-only", ro, wire.CmdWrite, 0, 0, 512, wire.EPERM},
			{"zeroes, read-only", ro, wire.CmdWriteZeroes, 0, 0, 512, wire.EPERM},
			{"trim, read-only", ro, wire.CmdTrim, 0, 0, 512, wire.EPERM},
			{"flush, read-only", ro, wire.CmdFlush, 0, 0, 0, 0},
		} {
			var data []byte
			if r.typ == wire.CmdWrite {
				data = payload(1, int(r.length))
			}
			if _, errno := r.c.do(r.typ, r.flags, r.offset, r.length, data); errno != r.want {
				t.Errorf("%s: error %d, want %d", r.what, errno, r.want)
			}
		}
	}
}

func TestDeviceErrorsAreMapped(t *testing.T) {
	f := faulty.New(mem.NewVolatile(64))
	c := sockClient(t, serverOf(t, Export{Device: f}))
	c.enter("", false)
	for errno, want := range map[syscall.Errno]uint32{
		syscall.EIO: wire.EIO, syscall.ENOSPC: wire.ENOSPC, syscall.EDQUOT: wire.ENOSPC, syscall.EFBIG: wire.ENOSPC, syscall.EROFS: wire.EPERM,
		syscall.EPERM: wire.EPERM, syscall.EACCES: wire.EPERM, syscall.EINVAL: wire.EINVAL, syscall.ENOMEM: wire.EIO, syscall.ESHUTDOWN: wire.EIO,
		syscall.ETIMEDOUT: wire.EIO,
	} {
		f.Set(faulty.Rule{Err: errno})
		if _, got := c.do(wire.CmdRead, 0, 0, 512, nil); got != want {
			t.Errorf("read with %v: %d, want %d", errno, got, want)
		}
		if _, got := c.do(wire.CmdFlush, 0, 0, 0, nil); got != want {
			t.Errorf("flush with %v: %d, want %d", errno, got, want)
		}
	}
}

func TestReadWhatWasWritten(t *testing.T) {
	for name, connect := range map[string]func(testing.TB, *Server) *client{"pipe": pipeClient, "unix": sockClient} {
		t.Run(name, func(t *testing.T) {
			d := mem.NewVolatile(64 << 20 / 512)
			c := connect(t, serverOf(t, Export{Device: d}))
			c.enter("", false)
			for i, n := range []int{512, 4096, 65536, 256 << 10, 1 << 20, 33 << 20} {
				if _, errno := c.do(wire.CmdWrite, 0, 512, uint32(n), payload(byte(i+1), n)); errno != 0 {
					t.Fatalf("write of %d: %d", n, errno)
				}
				got, errno := c.do(wire.CmdRead, 0, 0, uint32(n+1024), nil)
				want := append(make([]byte, 512), payload(byte(i+1), n)...)
				if errno != 0 || !bytes.Equal(got[:n+512], want) || got[n+512] != 0 {
					t.Fatalf("read of %d: %d", n, errno)
				}
			}
		})
	}
}

func TestStructuredReplies(t *testing.T) {
	f := faulty.New(mem.NewVolatile(64))
	c := sockClient(t, serverOf(t, Export{Device: f}))
	c.enter("", true)
	if err := block.WriteAt(f, payload(9, 512), 1); err != nil {
		t.Fatal(err)
	}
	c.write(requestBytes(wire.CmdRead, wire.CmdFlagDF, 1, 512, 512))
	typ, cookie, body := c.chunk()
	if typ != wire.ChunkOffsetData || cookie != 1 || binary.BigEndian.Uint64(body) != 512 || !bytes.Equal(body[8:], payload(9, 512)) {
		t.Errorf("read: chunk %d, cookie %d, %x", typ, cookie, body)
	}
	c.write(requestBytes(wire.CmdRead, 0, 2, 0, 0))
	if typ, cookie, body := c.chunk(); typ != 0 || cookie != 2 || len(body) != 0 {
		t.Errorf("empty read: chunk %d, cookie %d, %x", typ, cookie, body)
	}
	f.Set(faulty.Rule{Err: syscall.EIO})
	c.write(requestBytes(wire.CmdRead, 0, 3, 0, 512))
	if typ, cookie, body := c.chunk(); typ != wire.ChunkError || cookie != 3 || !bytes.Equal(body, []byte{0, 0, 0, wire.EIO, 0, 0}) {
		t.Errorf("failed read: chunk %d, cookie %d, %x", typ, cookie, body)
	}
	if _, errno := c.do(wire.CmdFlush, 0, 0, 0, nil); errno != wire.EIO {
		t.Errorf("flush: %d", errno)
	}
}

func TestPipelinedRequestsAreAllAnswered(t *testing.T) {
	d := mem.NewVolatile(testSize / 512)
	c := sockClient(t, serverOf(t, Export{Device: d}))
	c.enter("", false)
	const n = 3000
	go func() {
		var p []byte
		for i := range uint64(n) {
			p = append(p, requestBytes(wire.CmdWrite, 0, i, i%1024*512, 512)...)
			p = append(p, payload(byte(i), 512)...)
		}
		for len(p) > 0 { // in pieces that respect nothing
			k := min(len(p), 7777)
			_, _ = c.c.Write(p[:k])
			p = p[k:]
		}
	}()
	seen := make(map[uint64]bool)
	for range n {
		cookie, errno := c.simple()
		if errno != 0 || seen[cookie] || cookie >= n {
			t.Fatalf("cookie %d, error %d, seen %v", cookie, errno, seen[cookie])
		}
		seen[cookie] = true
	}
	for i, v := range d.Contents()[:1024*512] {
		// This device serves requests in the order of submission.
		last := uint64(i/512) + 1024*((n-1-uint64(i/512))/1024)
		if v != byte(last) {
			t.Fatalf("byte %d is %d, want %d", i, v, byte(last))
		}
	}
}

// More must be set exactly for requests with another one behind them.
func TestMoreHint(t *testing.T) {
	flags := make(chan block.Flags, 3)
	d := watch{mem.NewVolatile(64), func(r *block.Request) { flags <- r.Flags }}
	c := sockClient(t, serverOf(t, Export{Device: d}))
	c.enter("", false)
	p := requestBytes(wire.CmdRead, 0, 1, 0, 512)
	c.write(bytes.Join([][]byte{p, p, p}, nil))
	for range 3 {
		c.simple()
		c.read(512)
	}
	for i, want := range []block.Flags{block.More, block.More, 0} {
		if got := <-flags; got != want {
			t.Errorf("request %d: flags %x, want %x", i, got, want)
		}
	}
}

// watch shows every request to a function before it is served.
type watch struct {
	block.Device
	see func(*block.Request)
}

func (w watch) Submit(r *block.Request) { w.see(r); w.Device.Submit(r) }

func TestHalfReceivedWriteIsNotExecuted(t *testing.T) {
	d := mem.NewVolatile(testSize / 512)
	c := sockClient(t, serverOf(t, Export{Device: d}))
	c.enter("", false)
	c.write(append(requestBytes(wire.CmdWrite, 0, 1, 0, 8192), payload(1, 8191)...))
	c.c.(*net.UnixConn).CloseWrite()
	c.dropped()
	if !bytes.Equal(d.Contents(), make([]byte, testSize)) {
		t.Error("a write was executed that had not arrived")
	}
}

func TestBadMagicDrops(t *testing.T) {
	s := serverOf(t, Export{Device: mem.NewVolatile(64)})
	c := sockClient(t, s)
	c.enter("", false)
	c.write(append(requestBytes(wire.CmdRead, 0, 1, 0, 512), make([]byte, wire.RequestSize)...))
	c.simple()
	c.read(512)
	c.dropped()
	eventually(t, "counted", func() bool { return s.Stats().ProtocolErrors == 1 })
}

func TestHugeRefusedWriteDrops(t *testing.T) {
	c := sockClient(t, serverOf(t, Export{Device: mem.NewVolatile(64)}))
	c.enter("", false)
	c.write(requestBytes(wire.CmdWrite, 0, 1, 0, 1<<31))
	c.dropped()
}

func TestDiscAnswersEverythingFirst(t *testing.T) {
	f := faulty.New(mem.NewVolatile(64), faulty.Rule{Hold: true})
	c := sockClient(t, serverOf(t, Export{Device: f}))
	c.enter("", false)
	for i := range uint64(64) {
		c.write(requestBytes(wire.CmdFlush, 0, i, 0, 0))
	}
	c.write(requestBytes(wire.CmdDisc, 0, 99, 0, 0))
	c.write(requestBytes(wire.CmdFlush, 0, 100, 0, 0)) // must be ignored
	eventually(t, "all submitted", func() bool { return f.Held() == 64 })
	f.Release()
	for i := range uint64(64) {
		if cookie, errno := c.simple(); cookie != i || errno != 0 {
			t.Fatalf("reply %d: cookie %d, error %d", i, cookie, errno)
		}
	}
	c.dropped()
}

func TestInFlightIsBounded(t *testing.T) {
	f := faulty.New(mem.NewVolatile(64), faulty.Rule{Hold: true})
	c := sockClient(t, serverOf(t, Export{Device: f}))
	c.enter("", false)
	for i := range uint64(2 * maxInflight) {
		c.write(requestBytes(wire.CmdRead, 0, i, 0, 512))
	}
	eventually(t, "limit reached", func() bool { return f.Held() == maxInflight })
	f.Set()
	f.Release()
	for range 2 * maxInflight {
		c.simple()
		c.read(512)
	}
}

// A client that never reads must not hold up a device or another client.
func TestClientThatDoesNotRead(t *testing.T) {
	d := mem.NewVolatile(16 << 20 / 512)
	s := serverOf(t, Export{Device: d})
	deaf := sockClient(t, s)
	deaf.enter("", false)
	for i := range uint64(64) {
		deaf.write(requestBytes(wire.CmdRead, 0, i, 0, 1<<20))
	}
	c := sockClient(t, s)
	c.enter("", false)
	for range 100 {
		if _, errno := c.do(wire.CmdWrite, 0, 0, 4096, payload(1, 4096)); errno != 0 {
			t.Fatal(errno)
		}
	}
	for range 64 { // and it gets everything when it does read
		if _, errno := deaf.simple(); errno != 0 {
			t.Fatal(errno)
		}
		deaf.read(1 << 20)
	}
}

func TestRequestsDoNotAllocate(t *testing.T) {
	c := sockClient(t, serverOf(t, Export{Device: null{1 << 20}}))
	c.enter("", false)
	for _, r := range []struct {
		what    string
		request []byte
		reply   int
	}{
		{"read", requestBytes(wire.CmdRead, 0, 1, 0, 4096), wire.SimpleReplySize + 4096},
		{"write", append(requestBytes(wire.CmdWrite, 0, 1, 0, 4096), payload(1, 4096)...), wire.SimpleReplySize},
		{"large write", append(requestBytes(wire.CmdWrite, 0, 1, 0, 1<<20), payload(1, 1<<20)...), wire.SimpleReplySize},
		{"flush", requestBytes(wire.CmdFlush, 0, 1, 0, 0), wire.SimpleReplySize},
		{"refused", requestBytes(wire.CmdRead, 0, 1, 1<<62, 1), wire.SimpleReplySize},
	} {
		reply := make([]byte, r.reply)
		exchange := func() {
			c.write(r.request)
			for got := 0; got < len(reply); {
				n, err := c.c.Read(reply[got:])
				if err != nil {
					t.Fatal(err)
				}
				got += n
			}
		}
		exchange()
		if n := testing.AllocsPerRun(300, exchange); n > 0.1 {
			t.Errorf("%s: %v allocations", r.what, n)
		}
	}
}
