package bitmap

import (
	"bytes"
	"encoding/binary"
	"math/bits"
	"runtime"
	"testing"

	"pgregory.net/rapid"
)

const bits16TiB = 16 << 40 / BlockSize

// checkInvariants recounts everything that is kept.
func checkInvariants(t interface {
	Helper()
	Fatalf(string, ...any)
}, b *Bitmap,
) {
	t.Helper()
	var total uint64
	own := 0
	for p := range b.Pages() {
		var n uint64
		w := b.table[p]
		if w != nil {
			for i, v := range w {
				n += uint64(bits.OnesCount64(v))
				if v&^wordMask(uint32(i), 0, uint32(b.pageLen(p))) != 0 {
					t.Fatalf("page %d has bits beyond the end", p)
				}
			}
		}
		if w != nil && w != ones {
			own++
		}
		if n != uint64(b.weights[p]) {
			t.Fatalf("page %d: weight %d kept, %d counted", p, b.weights[p], n)
		}
		if (n == 0) != (w == nil) || (n == PageBits) != (w == ones) {
			t.Fatalf("page %d of weight %d has the wrong entry", p, n)
		}
		if b.some.has(p) != (n != 0) || b.full.has(p) != (n == b.pageLen(p)) {
			t.Fatalf("page %d of weight %d: summary some=%v full=%v", p, n, b.some.has(p), b.full.has(p))
		}
		if b.sets.has(p) && !b.dirty.has(p) {
			t.Fatalf("page %d has sets to write but is not dirty", p)
		}
		total += n
	}
	if total != b.weight || own != b.own {
		t.Fatalf("weight %d and %d own pages kept, %d and %d counted", b.weight, b.own, total, own)
	}
	for _, v := range ones {
		if v != ^uint64(0) {
			t.Fatalf("the shared page was written to")
		}
	}
}

func TestTest(t *testing.T) {
	b := New(100)
	b.SetRange(3, 5)
	for bit, want := range map[uint64]bool{0: false, 2: false, 3: true, 4: true, 5: false, 99: false, 100: false, ^uint64(0): false} {
		if got := b.Test(bit); got != want {
			t.Errorf("Test(%d) = %v", bit, got)
		}
	}
}

func TestSetRangeCountsChanges(t *testing.T) {
	b := New(2*PageBits + 100)
	for _, s := range []struct {
		first, last, want uint64
	}{
		{10, 10, 0},
		{20, 10, 0},
		{10, 20, 10},
		{15, 25, 5},
		{PageBits - 1, PageBits + 1, 2},
		{0, PageBits, PageBits - 16},
		{PageBits, 2 * PageBits, PageBits - 1},
		{2 * PageBits, ^uint64(0), 100}, // what is beyond the end is ignored
		{0, 2*PageBits + 100, 0},
	} {
		if got := b.SetRange(s.first, s.last); got != s.want {
			t.Errorf("SetRange(%d, %d) = %d, want %d", s.first, s.last, got, s.want)
		}
		checkInvariants(t, b)
	}
	if b.Weight() != b.Bits() {
		t.Errorf("weight %d, want all %d", b.Weight(), b.Bits())
	}
	if got := b.ClearRange(5, PageBits+5); got != PageBits {
		t.Errorf("ClearRange = %d", got)
	}
	if got := b.ClearAll(); got != PageBits+100 {
		t.Errorf("ClearAll = %d", got)
	}
	if b.own != 0 {
		t.Errorf("a clear bitmap has %d pages of its own", b.own)
	}
	checkInvariants(t, b)
}

// B04: sizes where an off-by-one would show.
func TestSizes(t *testing.T) {
	for _, n := range []uint64{0, 1, 63, 64, 65, ExtentBits, PageBits - 1, PageBits, PageBits + 1, 3 * PageBits, bits16TiB, bits16TiB + 1} {
		b := New(n)
		if got := b.SetAll(); got != n {
			t.Errorf("%d bits: SetAll = %d", n, got)
		}
		if bit, ok := b.NextClear(0); ok || bit != n {
			t.Errorf("%d bits, all set: NextClear = %d, %v", n, bit, ok)
		}
		if bit, ok := b.Next(0); ok != (n > 0) || bit != 0 {
			t.Errorf("%d bits, all set: Next = %d, %v", n, bit, ok)
		}
		if got := b.CountRange(0, n+10); got != n {
			t.Errorf("%d bits: CountRange = %d", n, got)
		}
		if n > 0 {
			if got := b.ClearRange(n-1, n); got != 1 {
				t.Errorf("%d bits: clear of the last = %d", n, got)
			}
			if bit, ok := b.NextClear(0); !ok || bit != n-1 {
				t.Errorf("%d bits: NextClear = %d, %v, want the last", n, bit, ok)
			}
		}
		if n < bits16TiB {
			checkInvariants(t, b)
		}
	}
}

func TestNewRefusesTooLarge(t *testing.T) {
	New(MaxBits) // 1 PiB is fine
	defer func() {
		if recover() == nil {
			t.Error("no panic")
		}
	}()
	New(MaxBits + 1)
}

func TestNextBounded(t *testing.T) {
	b := New(10 * PageBits)
	b.SetRange(5*PageBits+7, 5*PageBits+8)
	for _, s := range []struct {
		from  uint64
		pages uint32
		bit   uint64
		ok    bool
	}{
		{3, 0, 3, false},
		{0, 1, PageBits, false},
		{PageBits - 1, 1, PageBits, false},
		{3, 5, 5 * PageBits, false},
		{3, 6, 5*PageBits + 7, true},
		{5*PageBits + 7, 1, 5*PageBits + 7, true},
		{5*PageBits + 8, 1, 6 * PageBits, false},
		{5*PageBits + 8, 100, 10 * PageBits, false},
		{10 * PageBits, 1, 10 * PageBits, false},
		{^uint64(0), ^uint32(0), 10 * PageBits, false},
	} {
		bit, ok := b.NextBounded(s.from, s.pages)
		if ok != s.ok || bit != s.bit {
			t.Errorf("NextBounded(%d, %d) = %d, %v, want %d, %v", s.from, s.pages, bit, ok, s.bit, s.ok)
		}
	}
}

func TestMemoryFollowsDirtyPart(t *testing.T) {
	const limit = 16 << 20
	b := New(bits16TiB)
	clean := b.Memory()
	b.SetAll()
	full := b.Memory()
	if clean > limit || full > limit {
		t.Errorf("16 TiB clean: %d bytes, full: %d bytes, limit %d", clean, full, limit)
	}
	for i := range uint64(1000) { // 1000 pages with words of their own
		b.ClearRange(i*PageBits, i*PageBits+1)
	}
	if got := b.Memory() - full; got < 1000*PageSize || got > 1100*PageSize {
		t.Errorf("1000 mixed pages take %d bytes", got)
	}
	b.SetAll()
	if got := b.Memory() - full; got > (maxSpares+1)*PageSize {
		t.Errorf("full again with %d bytes more", got)
	}
	t.Logf("16 TiB: %d bytes", clean)
}

// Memory must not believe itself only.
func TestMemoryIsTrue(t *testing.T) {
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	b := New(bits16TiB)
	b.SetAll()
	b.ClearRange(77, 78)
	runtime.GC()
	runtime.ReadMemStats(&after)
	got, said := int64(after.HeapAlloc)-int64(before.HeapAlloc), int64(b.Memory())
	if got > said+64<<10 || got > 16<<20 {
		t.Errorf("heap grew by %d bytes, Memory says %d", got, said)
	}
	runtime.KeepAlive(b)
}

func TestSetClearDoNotAllocate(t *testing.T) {
	b := New(bits16TiB)
	b.SetRange(0, 1)
	at := uint64(0)
	n := testing.AllocsPerRun(1000, func() {
		b.SetRange(100+at, 200+at) // a page that has words
		b.ClearRange(100+at, 200+at)
		b.SetRange(PageBits+at, PageBits+at+1) // a page that gets and loses them
		b.ClearRange(PageBits+at, PageBits+at+1)
		at++
	})
	if n != 0 {
		t.Errorf("%v allocations per run", n)
	}
}

func TestResize(t *testing.T) {
	for _, s := range []struct {
		name     string
		old, new uint64
		setNew   bool
		want     uint64 // set bits, of a bitmap that was all set
	}{
		{"grow inside a page, new clear", 100, 200, false, 100},
		{"grow inside a page, new set", 100, 200, true, 200},
		{"grow to the end of the page", 100, PageBits, true, PageBits},
		{"grow from a page boundary", PageBits, PageBits + 5, false, PageBits},
		{"grow by pages, new set", 100, 5*PageBits + 1, true, 5*PageBits + 1},
		{"shrink inside a page", PageBits, PageBits - 1, false, PageBits - 1},
		{"shrink to a page boundary", 3*PageBits + 9, PageBits, true, PageBits},
		{"shrink to nothing", PageBits + 9, 0, true, 0},
		{"from nothing", 0, 65, true, 65},
		{"no change", 70, 70, true, 70},
	} {
		t.Run(s.name, func(t *testing.T) {
			b := New(s.old)
			b.SetAll()
			b.Resize(s.new, s.setNew)
			checkInvariants(t, b)
			if b.Bits() != s.new || b.Weight() != s.want {
				t.Errorf("%d bits, weight %d, want %d", b.Bits(), b.Weight(), s.want)
			}
			if b.DirtyPages() != int(b.Pages()) {
				t.Errorf("%d of %d pages dirty", b.DirtyPages(), b.Pages())
			}
			b.Resize(s.old, false) // bits that were cut off must not come back
			checkInvariants(t, b)
			if got := b.Weight(); got != min(s.want, s.old) {
				t.Errorf("back at the old size: weight %d", got)
			}
		})
	}
}

// twin is the naive bitmap.
type twin struct {
	n   uint64
	set map[uint64]bool
}

func (w *twin) do(first, last uint64, set bool) (changed uint64) {
	for i := first; i < min(last, w.n); i++ {
		if w.set[i] != set {
			changed++
		}
		if set {
			w.set[i] = true
		} else {
			delete(w.set, i)
		}
	}
	return changed
}

func (w *twin) next(from uint64, set bool) (uint64, bool) {
	for i := from; i < w.n; i++ {
		if w.set[i] == set {
			return i, true
		}
	}
	return w.n, false
}

func TestAgainstTwin(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.OneOf(
			rapid.Uint64Range(0, 2*PageBits),
			rapid.SampledFrom([]uint64{0, 1, 64, PageBits - 1, PageBits, PageBits + 1, 2 * PageBits}))
		w := &twin{n: size.Draw(t, "size"), set: map[uint64]bool{}}
		b := New(w.n)
		bit := func(name string) uint64 {
			return rapid.OneOf(
				rapid.Uint64Range(0, w.n+10),
				rapid.SampledFrom([]uint64{0, 63, 64, 65, ExtentBits, PageBits - 1, PageBits, PageBits + 1, w.n})).Draw(t, name)
		}
		same := func(what string, got, want uint64) {
			if got != want {
				t.Fatalf("%s = %d, want %d", what, got, want)
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"set": func(*rapid.T) {
				first, last := bit("first"), bit("last")
				same("SetRange", b.SetRange(first, last), w.do(first, last, true))
			},
			"clear": func(*rapid.T) {
				first, last := bit("first"), bit("last")
				same("ClearRange", b.ClearRange(first, last), w.do(first, last, false))
			},
			"short": func(t *rapid.T) {
				first := bit("first")
				last := first + rapid.Uint64Range(1, 300).Draw(t, "n")
				same("SetRange", b.SetRange(first, last), w.do(first, last, true))
			},
			"or": func(t *rapid.T) {
				if b.Words() == 0 {
					return
				}
				data := rapid.SliceOfN(rapid.Uint64(), 1, 10).Draw(t, "data")
				offset := rapid.Uint64Range(0, b.Words()-1).Draw(t, "offset")
				data = data[:min(uint64(len(data)), b.Words()-offset)]
				var want uint64
				for i, v := range data {
					for k := range uint64(64) {
						if v>>k&1 != 0 {
							at := (offset+uint64(i))*64 + k
							want += w.do(at, at+1, true)
						}
					}
				}
				var raw []byte
				for _, v := range data {
					raw = binary.LittleEndian.AppendUint64(raw, v)
				}
				got, err := b.OrWords(offset, raw)
				if err != nil {
					t.Fatal(err)
				}
				same("OrWords", got, want)
			},
			"resize": func(t *rapid.T) {
				n, setNew := size.Draw(t, "size"), rapid.Bool().Draw(t, "setNew")
				old := w.n
				w.do(n, old, false)
				w.n = n
				if setNew {
					w.do(old, n, true)
				}
				b.Resize(n, setNew)
			},
			"reload": func(t *rapid.T) {
				c := New(b.Bits())
				for p := range b.Pages() {
					if err := c.LoadPage(p, b.AppendPage(nil, p)); err != nil {
						t.Fatal(err)
					}
				}
				b = c
			},
			"": func(t *rapid.T) {
				checkInvariants(t, b)
				same("Weight", b.Weight(), uint64(len(w.set)))
				from := bit("from")
				gotBit, got := b.Next(from)
				wantBit, want := w.next(from, true)
				if gotBit != wantBit || got != want {
					t.Fatalf("Next(%d) = %d, %v, want %d, %v", from, gotBit, got, wantBit, want)
				}
				gotBit, got = b.NextClear(from)
				wantBit, want = w.next(from, false)
				if gotBit != wantBit || got != want {
					t.Fatalf("NextClear(%d) = %d, %v, want %d, %v", from, gotBit, got, wantBit, want)
				}
				to := bit("to")
				var n uint64
				for i := from; i < to; i++ {
					if w.set[i] {
						n++
					}
				}
				same("CountRange", b.CountRange(from, to), n)
				if b.Test(from) != w.set[from] {
					t.Fatalf("Test(%d) = %v", from, b.Test(from))
				}
				var sum uint64
				for e := range b.Extents() {
					first, last := b.ExtentRange(e)
					same("ExtentWeight", uint64(b.ExtentWeight(e)), b.CountRange(first, last))
					sum += uint64(b.ExtentWeight(e))
				}
				same("sum of the extents", sum, b.Weight())
			},
		})
	})
}

func TestLoadPageMasksBeyondTheEnd(t *testing.T) {
	b := New(PageBits + 70)
	all := bytes.Repeat([]byte{0xff}, PageSize)
	for p := range b.Pages() {
		if err := b.LoadPage(p, all); err != nil {
			t.Fatal(err)
		}
	}
	checkInvariants(t, b)
	if b.Weight() != PageBits+70 || b.DirtyPages() != 0 {
		t.Errorf("weight %d, %d dirty pages", b.Weight(), b.DirtyPages())
	}
	got := b.AppendPage(nil, 1)
	want := append(bytes.Repeat([]byte{0xff}, 8), 0x3f)
	if len(got) != PageSize || !bytes.Equal(got[:9], want) || len(bytes.Trim(got[9:], "\x00")) != 0 {
		t.Errorf("last page % x", got[:16])
	}
	if err := b.LoadPage(1, want); err != nil { // as much as there are bits
		t.Error(err)
	}
	if b.Weight() != PageBits+70 {
		t.Errorf("weight %d after a short last page", b.Weight())
	}
	for _, bad := range []struct {
		page uint32
		data []byte
	}{{2, all}, {0, all[:PageSize-1]}, {1, all[:8]}, {0, append(all, 0)}} {
		if b.LoadPage(bad.page, bad.data) == nil {
			t.Errorf("page %d of %d bytes accepted", bad.page, len(bad.data))
		}
	}
}

func TestOrWordsRefusesBounds(t *testing.T) {
	b := New(130) // three words
	for _, s := range []struct {
		offset uint64
		length int
	}{{0, 32}, {3, 8}, {4, 0}, {^uint64(0), 8}, {0, 7}} {
		if _, err := b.OrWords(s.offset, bytes.Repeat([]byte{0xff}, s.length)); err == nil {
			t.Errorf("%d bytes at word %d accepted", s.length, s.offset)
		}
	}
	if b.Weight() != 0 {
		t.Errorf("refused words were applied: weight %d", b.Weight())
	}
	if n, err := b.OrWords(1, bytes.Repeat([]byte{0xff}, 16)); n != 66 || err != nil {
		t.Errorf("OrWords = %d, %v, want what is inside the bitmap", n, err)
	}
	checkInvariants(t, b)
}
