package transport

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"github.com/replblk/replblk/replication/wire"
)

// tcpPair returns both ends of a loopback connection.
func tcpPair(t testing.TB) (Socket, Socket) {
	t.Helper()
	n := &TCP{Options: Options{UserTimeout: time.Minute}}
	l, err := n.Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	a, err := n.Dial(context.Background(), "127.0.0.1", l.Addr())
	if err != nil {
		t.Fatal(err)
	}
	b, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	return a, b
}

func memoryPair(testing.TB) (Socket, Socket) { return newMemoryPair(&Memory{}, "a", "b") }

func dataPacket(version int, seq uint64, payload int) []byte {
	p := wire.Header{Command: wire.CmdData, Volume: 3, Length: uint32(24 + payload)}.AppendTo(nil, version)
	if version < 100 {
		p = wire.Header{Command: wire.CmdData, Length: uint32(24 + payload)}.AppendTo(nil, version)
	}
	p = binary.BigEndian.AppendUint64(p, seq)
	return append(p, make([]byte, 16)...)
}

// TestWriterOrder pushes packets of all sizes through a slow reader and checks
// order, contents and that every tag is reported exactly once.
func TestWriterOrder(t *testing.T) {
	for name, pair := range map[string]func(testing.TB) (Socket, Socket){"tcp": tcpPair, "memory": memoryPair} {
		t.Run(name, func(t *testing.T) {
			a, b := pair(t)
			var mu sync.Mutex
			seen := map[uint32]int{}
			w := NewWriter(a, func(tag Tag, ok bool) {
				mu.Lock()
				defer mu.Unlock()
				if !ok {
					t.Errorf("packet %d dropped", tag.Buf)
				}
				seen[tag.Buf]++
			}, func(err error) { t.Errorf("writer: %v", err) })
			const packets = 3000
			sizes := rand.New(rand.NewPCG(1, 2))
			payloads := make([][]byte, packets)
			for i := range payloads {
				if i%3 > 0 {
					payloads[i] = bytes.Repeat([]byte{byte(i)}, sizes.IntN(16<<10)+1)
				}
			}
			go func() {
				for i, p := range payloads {
					w.Queue(dataPacket(101, uint64(i), len(p)), p, Tag{Buf: uint32(i + 1)})
					if i%5 == 0 {
						w.Flush()
					}
				}
				w.Flush()
			}()
			r := NewReader(b)
			for i, want := range payloads {
				p, err := r.Next(func(n int) []byte { return make([]byte, n) })
				if err != nil {
					t.Fatalf("packet %d: %v", i, err)
				}
				if got := binary.BigEndian.Uint64(p.Body); got != uint64(i) || p.Volume != 3 {
					t.Fatalf("packet %d has sequence %d, volume %d", i, got, p.Volume)
				}
				if !bytes.Equal(p.Bulk, want) {
					t.Fatalf("packet %d: bulk data differs", i)
				}
			}
			for w.Pending() > 0 {
				time.Sleep(time.Millisecond)
			}
			a.Close()
			w.Close()
			for i := range payloads {
				if n := seen[uint32(i+1)]; n != 1 {
					t.Fatalf("packet %d reported %d times", i, n)
				}
			}
		})
	}
}

// TestWriterDrop breaks a socket whose peer does not read: every tag must come back
// once, and nothing may be queued afterwards.
func TestWriterDrop(t *testing.T) {
	a, _ := tcpPair(t)
	var mu sync.Mutex
	dropped, sent, failed := 0, 0, 0
	w := NewWriter(a, func(_ Tag, ok bool) {
		mu.Lock()
		defer mu.Unlock()
		if ok {
			sent++
		} else {
			dropped++
		}
	}, func(error) { mu.Lock(); failed++; mu.Unlock() })
	big := make([]byte, 1<<20)
	for range 50 {
		w.Queue([]byte("12345678"), big, Tag{Notify: true})
		w.Flush()
	}
	a.Close()
	w.Close()
	w.Queue([]byte("12345678"), big, Tag{Notify: true})
	if sent+dropped != 51 || dropped < 2 {
		t.Errorf("%d sent and %d dropped of 51", sent, dropped)
	}
	if failed > 1 {
		t.Errorf("%d failures reported, want at most 1", failed)
	}
}

func TestWriterFlushAllocations(t *testing.T) {
	a, b := tcpPair(t)
	go io.Copy(io.Discard, b)
	w := NewWriter(a, func(Tag, bool) {}, func(error) {})
	head, payload := make([]byte, 40), make([]byte, 4096)
	if n := testing.AllocsPerRun(200, func() {
		w.Queue(head, payload, Tag{Notify: true})
		w.Queue(head, nil, Tag{Buf: 1})
		w.Flush()
	}); n > 0 {
		t.Errorf("%v allocations per flush, want 0", n)
	}
	a.Close()
	w.Close()
}

func TestReaderFormats(t *testing.T) {
	var in []byte
	in = append(in, dataPacket(100, 1, 512)...)
	in = append(in, make([]byte, 512)...)
	in = wire.Header{Command: wire.CmdPing}.AppendTo(in, 80)
	in = append(in, dataPacket(96, 2, 65536)...)
	in = append(in, make([]byte, 65536)...)
	in = wire.Header{Command: wire.CmdState, Length: 4}.AppendTo(in, 80)
	in = append(in, 1, 2, 3, 4)
	in = append(in, dataPacket(101, 3, 1<<20)...)
	in = append(in, bytes.Repeat([]byte{7}, 1<<20)...)
	for name, src := range map[string]io.Reader{
		"whole": bytes.NewReader(in), "bytewise": iotest.OneByteReader(bytes.NewReader(in)), "halves": iotest.HalfReader(bytes.NewReader(in)),
		"with error": iotest.DataErrReader(bytes.NewReader(in)),
	} {
		t.Run(name, func(t *testing.T) {
			r := NewReader(src)
			want := []struct {
				cmd  wire.Command
				body int
				bulk int
			}{{wire.CmdData, 24, 512}, {wire.CmdPing, 0, 0}, {wire.CmdData, 24, 65536}, {wire.CmdState, 4, 0}, {wire.CmdData, 24, 1 << 20}}
			seq := uint64(0)
			for i, x := range want {
				p, err := r.Next(func(n int) []byte { return make([]byte, n) })
				if err != nil {
					t.Fatalf("packet %d: %v", i, err)
				}
				if p.Command != x.cmd || len(p.Body) != x.body || len(p.Bulk) != x.bulk {
					t.Fatalf("packet %d is %v with %d+%d bytes, want %v with %d+%d", i, p.Command, len(p.Body), len(p.Bulk), x.cmd, x.body, x.bulk)
				}
				if x.bulk > 0 {
					seq++
					if got := binary.BigEndian.Uint64(p.Body); got != seq {
						t.Errorf("packet %d: body was overwritten: sequence %d, want %d", i, got, seq)
					}
				}
				if i == 4 && p.Bulk[1<<20-1] != 7 {
					t.Error("end of bulk data is wrong")
				}
			}
			if _, err := r.Next(nil); !errors.Is(err, io.EOF) {
				t.Errorf("after the last packet: %v, want EOF", err)
			}
		})
	}
}

func TestReaderBounds(t *testing.T) {
	for name, in := range map[string][]byte{
		"huge body":     wire.Header{Command: wire.CmdUUIDs, Length: 4097}.AppendTo(nil, 101),
		"4 GiB body":    wire.Header{Command: wire.CmdBitmap, Length: 1<<32 - 1}.AppendTo(nil, 101),
		"huge data":     wire.Header{Command: wire.CmdData, Length: 24 + MaxBulk + 1}.AppendTo(nil, 101),
		"4 GiB data":    wire.Header{Command: wire.CmdData, Length: 1<<32 - 1}.AppendTo(nil, 95),
		"bad magic":     []byte("GET / HTTP/1.1\r\n"),
		"header filler": append(wire.Header{Command: wire.CmdPing}.AppendTo(nil, 101)[:12], 0, 0, 0, 1),
	} {
		_, err := NewReader(bytes.NewReader(in)).Next(func(n int) []byte { t.Errorf("%s: allocated %d bytes", name, n); return make([]byte, n) })
		if _, ok := errors.AsType[*wire.PacketError](err); !ok {
			t.Errorf("%s: %v, want a PacketError", name, err)
		}
	}
	_, err := NewReader(bytes.NewReader(dataPacket(101, 1, 512))).Next(func(n int) []byte { return make([]byte, n) })
	if !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("torn packet: %v, want unexpected EOF", err)
	}
}

func FuzzReader(f *testing.F) {
	f.Add(dataPacket(101, 1, 512), uint8(3))
	f.Add(wire.Header{Command: wire.CmdBitmap, Length: 4080}.AppendTo(nil, 101), uint8(0))
	f.Add(append(wire.Header{Command: wire.CmdPing}.AppendTo(nil, 80), dataPacket(96, 1, 8)...), uint8(1))
	f.Fuzz(func(t *testing.T, in []byte, chunk uint8) {
		r := NewReader(&chunked{in, int(chunk) + 1})
		total := 0
		for {
			buffered := r.Buffered()
			p, err := r.Next(func(n int) []byte {
				if n > MaxBulk {
					t.Fatalf("allocated %d bytes", n)
				}
				return make([]byte, n)
			})
			if err != nil {
				return
			}
			_ = buffered
			total += len(p.Body) + len(p.Bulk)
			if total > len(in) {
				t.Fatalf("%d bytes out of %d", total, len(in))
			}
		}
	})
}

type chunked struct {
	rest []byte
	n    int
}

func (c *chunked) Read(p []byte) (int, error) {
	if len(c.rest) == 0 {
		return 0, io.EOF
	}
	n := copy(p[:min(len(p), c.n)], c.rest)
	c.rest = c.rest[n:]
	return n, nil
}
