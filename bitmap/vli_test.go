package bitmap

import (
	"fmt"
	"testing"
)

// The single codes of specification 8.3.
func TestVLICodes(t *testing.T) {
	for _, s := range []struct {
		n, code uint64
		length  uint
	}{
		{1, 0x0, 2},
		{2, 0x2, 2},
		{3, 0x1, 3},
		{4, 0x5, 3},
		{5, 0x03, 5},
		{9, 0x07, 7},
		{17, 0x0f, 10},
		{49, 0x1f, 14},
		{305, 0x3f, 21},
		{8497, 0x7f, 29},
		{2105649, 0xbf, 42},
		{17181974833, 0xff, 64},
		{vliMax, ^uint64(0), 64},
	} {
		if code, length := vliEncode(s.n); code != s.code || length != s.length {
			t.Errorf("vliEncode(%d) = %#x, %d bits, want %#x, %d bits", s.n, code, length, s.code, s.length)
		}
		if n, length := vliDecode(s.code); n != s.n || length != s.length {
			t.Errorf("vliDecode(%#x) = %d, %d bits, want %d, %d bits", s.code, n, length, s.n, s.length)
		}
	}
}

// Both ends of every level, at every position in a byte.
func TestVLILevels(t *testing.T) {
	for i, l := range vliLevels {
		top := l.base + 1<<(l.bits-l.prefixBits) - 1
		if i+1 < len(vliLevels) && vliLevels[i+1].base != top+1 {
			t.Errorf("level %d ends at %d, the next begins at %d", i+1, top, vliLevels[i+1].base)
		}
		for lead := range 9 {
			var values []uint64
			for range lead {
				values = append(values, 3) // three bits each
			}
			checkVLIRoundTrip(t, append(values, l.base, top, 1, l.base))
		}
	}
}

func checkVLIRoundTrip(t *testing.T, values []uint64) {
	t.Helper()
	var w bitWriter
	var total uint
	for _, n := range values {
		code, length := vliEncode(n)
		w.put(code, length)
		total += length
	}
	if got := uint(len(w.buf))*8 - w.padding(); got != total {
		t.Fatalf("%d bits written, want %d", got, total)
	}
	r := bitReader{buf: w.buf, end: total}
	for i, want := range values {
		if n, ok := r.next(); !ok || n != want {
			t.Fatalf("value %d of %v: got %d, %v", i, values, n, ok)
		}
	}
	if n, ok := r.next(); ok {
		t.Fatalf("value %d behind the end", n)
	}
}

func TestVLICutOff(t *testing.T) {
	for _, l := range vliLevels {
		for _, n := range []uint64{l.base, l.base + 1<<(l.bits-l.prefixBits) - 1} {
			var w bitWriter
			w.put(vliEncode(n))
			for end := range l.bits {
				r := bitReader{buf: w.buf, end: end}
				if got, ok := r.next(); ok {
					t.Errorf("%d of the %d bits of %d decode to %d", end, l.bits, n, got)
				}
			}
		}
	}
}

func FuzzVLIRoundTrip(f *testing.F) {
	f.Add(uint64(1), uint64(2), uint64(3), uint8(0))
	f.Add(uint64(8496), uint64(8497), uint64(2105648), uint8(5))
	f.Add(uint64(17181974832), uint64(17181974833), uint64(vliMax), uint8(7))
	f.Fuzz(func(t *testing.T, x, y, z uint64, shift uint8) {
		values := []uint64{1}
		for _, v := range []uint64{x, y, z} {
			values = append(values, v%vliMax+1, v>>(shift%64)%vliMax+1)
		}
		checkVLIRoundTrip(t, values)
	})
}

func BenchmarkVLIEncode(b *testing.B) {
	for _, n := range []uint64{1, 100, 1 << 30} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			for b.Loop() {
				vliEncode(n)
			}
		})
	}
}

func BenchmarkVLIDecode(b *testing.B) {
	var w bitWriter
	for n := range uint64(4000) {
		w.put(vliEncode(n%60 + 1))
	}
	end := uint(len(w.buf))*8 - w.padding()
	for b.Loop() {
		for r := (bitReader{buf: w.buf, end: end}); r.at < r.end; {
			r.next()
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/4000, "ns/code")
}
