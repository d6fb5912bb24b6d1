package bitmap

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"os"
	"testing"

	"pgregory.net/rapid"
)

const header100 = 16

// A packet is what an encoder made or a golden stream holds.
type packet struct {
	compressed bool
	payload    []byte
}

func encodeAll(t rapid.TB, b *Bitmap, headerSize int, rle bool) (out []packet) {
	t.Helper()
	e := NewEncoder(b, headerSize, rle)
	for !e.Done() {
		payload, compressed, done := e.Next(nil)
		if len(payload) > MaxPacket-headerSize || done != e.Done() {
			t.Fatalf("payload of %d bytes, done %v", len(payload), done)
		}
		out = append(out, packet{compressed, payload})
	}
	return out
}

func decodeAll(t rapid.TB, b *Bitmap, headerSize int, in []packet) {
	t.Helper()
	d := NewDecoder(b, headerSize)
	for i, p := range in {
		if d.Done() {
			t.Fatalf("done after %d of %d packets", i, len(in))
		}
		if err := d.packet(p); err != nil {
			t.Fatalf("packet %d: %v", i, err)
		}
	}
	if !d.Done() {
		t.Fatalf("not done after %d packets", len(in))
	}
}

func (d *Decoder) packet(p packet) error {
	if p.compressed {
		return d.Compressed(p.payload)
	}
	return d.Plain(p.payload)
}

func content(b *Bitmap) (out []byte) {
	for p := range b.Pages() {
		out = b.AppendPage(out, p)
	}
	return out
}

func samePackets(t rapid.TB, got, want []packet) {
	t.Helper()
	for i := range max(len(got), len(want)) {
		switch {
		case i >= len(got) || i >= len(want):
			t.Fatalf("%d packets, want %d", len(got), len(want))
		case got[i].compressed != want[i].compressed || !bytes.Equal(got[i].payload, want[i].payload):
			t.Fatalf("packet %d: compressed %v, %d bytes, want compressed %v, %d bytes\n% x\n% x", i,
				got[i].compressed, len(got[i].payload), want[i].compressed, len(want[i].payload), got[i].payload, want[i].payload)
		}
	}
}

// The vectors of specification 8.3, computed ones and a live kernel's, and the
// exchange of the golden stream 08-verify-detach-attach.
func TestCompressedVectors(t *testing.T) {
	for _, s := range []struct {
		name    string
		set     bool // the first run
		runs    []uint64
		payload string
	}{
		{"mixed", false, []uint64{10, 5, 113}, "62 97f10101"},
		{"clear 131072", false, []uint64{131072}, "32 7fcfde01"},
		{"set 131072", true, []uint64{131072}, "b2 7fcfde01"},
		{"set 262144", true, []uint64{262144}, "b2 7fcfde03"},
		{"kernel, all set", true, []uint64{16374}, "b2 7fc51e00"},
		{"kernel, 14 runs", false, []uint64{5, 1, 1, 1, 92, 3, 4897, 1, 119, 256, 4864, 256, 5877, 1}, "72 03f856f2031ff98cbee79fe7f83dff105700"},
		{"kernel, 9 runs", false, []uint64{10, 10, 380, 2, 1, 1, 9595, 1, 6374}, "32 97cbcf1210fe9408003fb517"},
		{"kernel, 7 runs", false, []uint64{5, 1, 1, 1, 92, 1, 16273}, "02 03f856f803f300"},
		{"late attach, to the kernel", true, []uint64{2, 16372}, "92 fe0d7b00"},
		{"late attach, from the kernel", true, []uint64{2, 15358, 1014}, "c2 fe356b809f6201"},
	} {
		t.Run(s.name, func(t *testing.T) {
			var n uint64
			for _, run := range s.runs {
				n += run
			}
			b := New(n)
			at, set := uint64(0), s.set
			for _, run := range s.runs {
				if set {
					b.SetRange(at, at+run)
				}
				at, set = at+run, !set
			}
			payload, err := hex.DecodeString(s.payload[:2] + s.payload[3:])
			if err != nil {
				t.Fatal(err)
			}
			want := []packet{{true, payload}}
			samePackets(t, encodeAll(t, b, header100, true), want)
			c := New(n)
			decodeAll(t, c, header100, want)
			if !bytes.Equal(content(b), content(c)) {
				t.Error("decoded to another bitmap")
			}
		})
	}
}

// Streams of a kernel, see testdata/README.md: they are understood, and the
// same bitmap gives the same packets.
func TestKernelStreams(t *testing.T) {
	const nbits = 262127
	for _, s := range []struct {
		file    string
		rle     bool
		lengths string
	}{
		{"testdata/kernel-mixed.bin", true, "[4080 4080 2624]"},
		{"testdata/kernel-plain.bin", false, "[4080 4080 4080 4080 4080 4080 4080 4080 128 0]"},
	} {
		t.Run(s.file, func(t *testing.T) {
			stream, err := os.ReadFile(s.file)
			if err != nil {
				t.Fatal(err)
			}
			kernel := splitStream(t, stream)
			var lengths []int
			for _, p := range kernel {
				lengths = append(lengths, len(p.payload))
			}
			if got := fmt.Sprint(lengths); got != s.lengths {
				t.Fatalf("packets of %s bytes, want %s", got, s.lengths)
			}
			b := New(nbits)
			decodeAll(t, b, header100, kernel)
			checkInvariants(t, b)
			if b.Weight() == 0 {
				t.Error("nothing was set")
			}
			samePackets(t, encodeAll(t, b, header100, s.rle), kernel)
		})
	}
}

// splitStream takes packets with the header of protocol 100 apart: magic u32,
// volume u16, command u16, length u32, padding u32.
func splitStream(t *testing.T, stream []byte) (out []packet) {
	for len(stream) > 0 {
		if len(stream) < header100 || binary.BigEndian.Uint32(stream) != 0x8620ec20 {
			t.Fatalf("no header at %d from the end", len(stream))
		}
		command, n := binary.BigEndian.Uint16(stream[6:]), binary.BigEndian.Uint32(stream[8:])
		out = append(out, packet{command == 0x24, stream[header100 : header100+n]})
		stream = stream[header100+n:]
	}
	return out
}

func TestPlainPackets(t *testing.T) {
	for _, s := range []struct {
		bits       uint64
		headerSize int
		want       string
	}{
		{0, 16, "[0]"},
		{1, 16, "[8 0]"},
		{64, 8, "[8 0]"},
		{65, 16, "[16 0]"},
		{4080 * 8, 16, "[4080 0]"},
		{4080 * 8, 8, "[4080 0]"},
		{4080*8 + 1, 16, "[4080 8 0]"},
		{4080*8 + 1, 8, "[4088 0]"},
		{2 * 4088 * 8, 8, "[4088 4088 0]"},
	} {
		b := New(s.bits)
		b.SetAll()
		packets := encodeAll(t, b, s.headerSize, false)
		var lengths []int
		for _, p := range packets {
			lengths = append(lengths, len(p.payload))
		}
		if got := fmt.Sprint(lengths); got != s.want {
			t.Errorf("%d bits, header %d: %s, want %s", s.bits, s.headerSize, got, s.want)
		}
		c := New(s.bits)
		decodeAll(t, c, s.headerSize, packets)
		if c.Weight() != s.bits {
			t.Errorf("%d bits, header %d: %d arrived", s.bits, s.headerSize, c.Weight())
		}
	}
}

// A transfer that ends with a plain packet needs the empty one, also if run
// lengths are allowed; one that ends with runs does not have it.
func TestEndOfTransfer(t *testing.T) {
	b := New(4080*8 + 200)
	for i := range uint64(4080 * 4) {
		b.SetRange(2*i+i%2, 2*i+i%2+1) // runs of 1 and 2
	}
	got := encodeAll(t, b, header100, true)
	last := got[len(got)-1]
	if !last.compressed || len(last.payload) == 0 {
		t.Errorf("a clear tail is not sent as a run: %d packets", len(got))
	}
	b.Resize(4080*8, false)
	b.SetRange(0, 64) // the rest alternates too fast to be compressed
	b.ClearAll()
	for i := range b.Bits() / 2 {
		b.SetRange(2*i, 2*i+1)
	}
	got = encodeAll(t, b, header100, true)
	samePackets(t, got, []packet{{false, bytes.Repeat([]byte{0x55}, 4080)}, {false, nil}})
}

// Runs are sent if they cover at least as many bits as their code bytes have,
// the rule by which the kernel mixes the two kinds.
func TestRunsMustBeWorthIt(t *testing.T) {
	for _, s := range []struct {
		bits       uint64
		compressed bool
	}{{7, false}, {8, true}, {9, true}} { // one code byte each
		if got := encodeAll(t, New(s.bits), header100, true); got[0].compressed != s.compressed {
			t.Errorf("%d clear bits: compressed %v", s.bits, got[0].compressed)
		}
	}
}

// A plain packet after runs begins at the word, not at the bit: bits are sent
// twice, and that is harmless.
func TestPlainAfterRunsRewinds(t *testing.T) {
	b := New(1 << 20)
	b.SetRange(0, 1000*64+13)
	for i := uint64(1000*64 + 14); i < b.Bits(); i += 2 {
		b.SetRange(i, i+1)
	}
	e := NewEncoder(b, header100, true)
	runs, compressed, _ := e.Next(nil)
	if !compressed || e.Offset()%64 == 0 {
		t.Fatalf("first packet compressed %v, up to bit %d: the case does not occur", compressed, e.Offset())
	}
	word := e.Offset() / 64
	plain, compressed, _ := e.Next(nil)
	if compressed || !bytes.Equal(plain, content(b)[word*8:][:4080]) {
		t.Errorf("second packet compressed %v, or not from word %d", compressed, word)
	}
	c := New(b.Bits())
	d := NewDecoder(c, header100)
	if err := d.Compressed(runs); err != nil {
		t.Error(err)
	}
	if err := d.Plain(plain); err != nil {
		t.Error(err)
	}
	if d.Offset() != e.Offset() || c.Weight() != b.CountRange(0, e.Offset()) {
		t.Errorf("decoder at %d with %d bits, encoder at %d", d.Offset(), c.Weight(), e.Offset())
	}
}

func TestExchangeRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := New(rapid.Uint64Range(0, 3*PageBits).Draw(t, "bits"))
		for range rapid.IntRange(0, 60).Draw(t, "ranges") {
			first := rapid.Uint64Range(0, b.Bits()).Draw(t, "first")
			n := rapid.OneOf(rapid.Uint64Range(1, 200), rapid.Uint64Range(1, PageBits)).Draw(t, "n")
			step := rapid.Uint64Range(1, 5).Draw(t, "step")
			for i := uint64(0); i < n; i += step {
				b.SetRange(first+i, first+i+1)
			}
		}
		headerSize := rapid.SampledFrom([]int{8, 16}).Draw(t, "header")
		packets := encodeAll(t, b, headerSize, rapid.Bool().Draw(t, "rle"))
		c := New(b.Bits())
		decodeAll(t, c, headerSize, packets)
		if !bytes.Equal(content(b), content(c)) {
			t.Fatal("another bitmap arrived")
		}
		checkInvariants(t, c)
	})
}

func TestDecoderOrs(t *testing.T) {
	b, c := New(1000), New(1000)
	b.SetRange(10, 20)
	c.SetRange(15, 30)
	for _, rle := range []bool{true, false} {
		decodeAll(t, c, header100, encodeAll(t, b, header100, rle))
		if c.Weight() != 20 || c.CountRange(10, 30) != 20 {
			t.Errorf("rle %v: weight %d, want the union", rle, c.Weight())
		}
	}
}

// B05, F05: whatever is wrong with a packet, it is refused and nothing of it
// is applied.
func TestDecoderRefuses(t *testing.T) {
	runs := func(encoding byte, lengths ...uint64) packet {
		w := bitWriter{buf: nil}
		for _, n := range lengths {
			w.put(vliEncode(n))
		}
		return packet{true, append([]byte{encoding | byte(w.padding()<<4)}, w.buf...)}
	}
	plain := func(n int) packet { return packet{false, bytes.Repeat([]byte{0xff}, n)} }
	for _, s := range []struct {
		name   string
		before []packet
		bad    packet
	}{
		{"plain too short", nil, plain(0)},
		{"plain not whole words", nil, plain(1004)},
		{"plain one word short", nil, plain(992)},
		{"plain one word long", nil, plain(1008)},
		{"plain again after the last word", []packet{plain(1000)}, plain(8)},
		{"runs after the last plain word", []packet{plain(1000)}, runs(0x82, 1)},
		{"plain after the end", []packet{plain(1000), plain(0)}, plain(0)},
		{"runs after the end", []packet{runs(0x02, 7990)}, runs(0x82, 1)},
		{"empty plain after the end", []packet{runs(0x02, 7990)}, plain(0)},
		{"no code bytes", nil, packet{true, []byte{0x82}}},
		{"empty", nil, packet{true, nil}},
		{"too long", nil, packet{true, append([]byte{0x82}, make([]byte, 4080)...)}},
		{"code 0", nil, runs(0x80, 5)},
		{"code 3", nil, runs(0x83, 5)},
		{"set run beyond the end", nil, runs(0x82, 7991)},
		{"clear run beyond the end", nil, runs(0x02, 7991)},
		{"second run beyond the end", nil, runs(0x82, 7990, 1)},
		{"huge run", nil, runs(0x82, 100, vliMax)},
		{"huge runs", nil, runs(0x82, vliMax, vliMax, vliMax)},
		{"run beyond the end from the offset", []packet{runs(0x02, 7000)}, runs(0x82, 991)},
		{"code cut off", nil, packet{true, []byte{0x82, 0x00, 0xff}}},
		{"padding cuts the code", nil, packet{true, []byte{0x82 | 7<<4, 0x00}}},
	} {
		t.Run(s.name, func(t *testing.T) {
			b := New(7990) // 125 words
			d := NewDecoder(b, header100)
			for _, p := range s.before {
				if err := d.packet(p); err != nil {
					t.Fatal(err)
				}
			}
			weight, offset := b.Weight(), d.Offset()
			if err := d.packet(s.bad); err == nil {
				t.Fatal("accepted")
			} else {
				t.Log(err)
			}
			if b.Weight() != weight || d.Offset() != offset {
				t.Errorf("weight %d became %d, offset %d became %d", weight, b.Weight(), offset, d.Offset())
			}
			checkInvariants(t, b)
		})
	}
}

func TestDecoderRefusesResizedBitmap(t *testing.T) {
	b := New(100)
	d := NewDecoder(b, header100)
	b.Resize(50, false)
	if d.Plain(make([]byte, 16)) == nil {
		t.Error("accepted")
	}
}

// A run as long as the largest bitmap is one packet, and cheap.
func TestHugeRuns(t *testing.T) {
	b := New(bits16TiB)
	b.SetRange(5, bits16TiB-7)
	packets := encodeAll(t, b, header100, true)
	if len(packets) != 1 || len(packets[0].payload) > 20 {
		t.Fatalf("%d packets, the first of %d bytes", len(packets), len(packets[0].payload))
	}
	c := New(bits16TiB)
	decodeAll(t, c, header100, packets)
	if c.Weight() != bits16TiB-12 || c.Memory() > 16<<20 {
		t.Errorf("weight %d in %d bytes", c.Weight(), c.Memory())
	}
}

func TestExchangeDoesNotAllocate(t *testing.T) {
	b, c := New(20*PageBits), New(20*PageBits)
	for i := uint64(0); i < b.Bits(); i += 60 {
		b.SetRange(i, i+i%13+1)
	}
	c.SetRange(0, 1)
	decodeAll(t, c, header100, encodeAll(t, b, header100, true))
	buf := make([]byte, 0, 2*MaxPacket)
	for _, rle := range []bool{true, false} {
		e, d := NewEncoder(b, header100, rle), NewDecoder(c, header100)
		n := testing.AllocsPerRun(3, func() {
			payload, compressed, _ := e.Next(buf)
			if err := d.packet(packet{compressed, payload}); err != nil {
				t.Fatal(err)
			}
		})
		if n != 0 {
			t.Errorf("rle %v: %v allocations per packet", rle, n)
		}
	}
}

// FuzzDecode feeds three packets, a hostile peer's. Refused ones change
// nothing, bits are only added, and what came of it survives a round trip.
func FuzzDecode(f *testing.F) {
	f.Add(uint32(16374), []byte{0x01, 0xb2, 0x7f, 0xc5, 0x1e, 0x00}, []byte{0x00}, []byte{})
	f.Add(uint32(128), []byte{0x01, 0x62, 0x97, 0xf1, 0x01, 0x01}, []byte{0x00}, []byte{0x01})
	f.Add(uint32(64), []byte{0x00, 1, 2, 3, 4, 5, 6, 7, 8}, []byte{0x00}, []byte{0x00})
	f.Add(uint32(100000), []byte{0x01, 0x02, 0x00}, []byte{0x01, 0x82, 0xff, 0xff, 0xff, 0xff}, []byte{0x01, 0x82, 0x10})
	f.Fuzz(func(t *testing.T, nbits uint32, x, y, z []byte) {
		b := New(uint64(nbits) % (4 * PageBits))
		b.SetRange(30, 40)
		d := NewDecoder(b, header100)
		for _, raw := range [][]byte{x, y, z} {
			if len(raw) == 0 {
				continue
			}
			before, offset, done := content(b), d.Offset(), d.Done()
			if err := d.packet(packet{raw[0]&1 != 0, raw[1:]}); err != nil {
				if !bytes.Equal(before, content(b)) || d.Offset() != offset || d.Done() != done {
					t.Fatalf("refused (%v), but applied", err)
				}
				continue
			}
			if done || d.Offset() < offset || d.Offset() > b.Bits() {
				t.Fatalf("accepted after the end, or offset %d became %d", offset, d.Offset())
			}
			for i, v := range content(b) {
				if before[i]&^v != 0 {
					t.Fatalf("byte %d lost bits", i)
				}
			}
		}
		checkInvariants(t, b)
		for _, rle := range []bool{false, true} {
			c := New(b.Bits())
			decodeAll(t, c, header100, encodeAll(t, b, header100, rle))
			if !bytes.Equal(content(b), content(c)) {
				t.Fatal("another bitmap after a round trip")
			}
		}
	})
}

// FuzzExchangeRoundTrip sends any bitmap.
func FuzzExchangeRoundTrip(f *testing.F) {
	f.Add([]byte{0x55, 0xaa, 0, 0, 0, 0, 0, 0xff}, uint16(3), uint16(60000), true)
	f.Add(bytes.Repeat([]byte{0xff, 0xfe}, 100), uint16(0), uint16(0), true)
	f.Add([]byte{}, uint16(1), uint16(9), false)
	f.Fuzz(func(t *testing.T, data []byte, gap, tail uint16, small bool) {
		n := uint64(len(data))*8 + uint64(gap) + uint64(tail)
		b := New(n)
		for i, v := range data {
			for k := range uint64(8) {
				if at := uint64(gap) + uint64(i)*8 + k; v>>k&1 != 0 {
					b.SetRange(at, at+1)
				}
			}
		}
		headerSize := header100
		if small {
			headerSize = 8
		}
		for _, rle := range []bool{false, true} {
			c := New(n)
			decodeAll(t, c, headerSize, encodeAll(t, b, headerSize, rle))
			if !bytes.Equal(content(b), content(c)) {
				t.Fatal("another bitmap arrived")
			}
		}
	})
}
