package bitmap

import "testing"

func TestSectorsOut(t *testing.T) {
	for _, s := range []struct{ sector, sectors, first, last uint64 }{
		{0, 8, 0, 1},
		{0, 0, 0, 0},
		{9, 0, 1, 1},
		{7, 1, 0, 1},
		{7, 2, 0, 2},
		{8, 8, 1, 2},
		{15, 10, 1, 4},
		{^uint64(0) - 1, 10, 1<<61 - 1, 1 << 61},
	} {
		if first, last := SectorsOut(s.sector, s.sectors); first != s.first || last != s.last {
			t.Errorf("SectorsOut(%d, %d) = %d, %d, want %d, %d", s.sector, s.sectors, first, last, s.first, s.last)
		}
	}
}

func TestSectorsIn(t *testing.T) {
	for _, s := range []struct {
		name                          string
		sector, sectors, device, a, z uint64
	}{
		{"a whole block", 8, 8, 100, 1, 2},
		{"nothing", 8, 0, 100, 1, 1},
		{"less than a block", 8, 7, 100, 1, 1},
		{"parts of two blocks", 12, 8, 100, 2, 2},
		{"parts at both ends", 4, 24, 100, 1, 3},
		{"up to the end, last block short", 88, 12, 100, 11, 13},
		{"the short last block alone", 96, 4, 100, 12, 13},
		{"one sector less than the end", 88, 11, 100, 11, 12},
		{"the end of the last block, not its beginning", 98, 2, 100, 13, 13},
		{"beyond the end", 88, 500, 100, 11, 13},
		{"behind the end", 200, 8, 100, 25, 25},
		{"an overflow", 96, ^uint64(0), 100, 12, 13},
		{"the last block of a device of whole blocks", 96, 8, 104, 12, 13},
		{"no device", 0, 8, 0, 0, 0},
	} {
		if a, z := SectorsIn(s.sector, s.sectors, s.device); a != s.a || z != s.z {
			t.Errorf("%s: SectorsIn(%d, %d, %d) = %d, %d, want %d, %d", s.name, s.sector, s.sectors, s.device, a, z, s.a, s.z)
		}
	}
}

// Clearing what a write covers never clears a bit that setting would not set.
func TestSectorsInIsInsideSectorsOut(t *testing.T) {
	const device = 61
	for sector := range uint64(device) {
		for n := uint64(1); sector+n <= device; n++ {
			a, z := SectorsIn(sector, n, device)
			first, last := SectorsOut(sector, n)
			if a < z && (a < first || z > last) {
				t.Errorf("sectors %d+%d: in %d-%d, out %d-%d", sector, n, a, z, first, last)
			}
			for bit := range uint64(8) {
				lo, hi := bit*SectorsPerBit, min((bit+1)*SectorsPerBit, device)
				if in := sector <= lo && hi <= sector+n; in != (a <= bit && bit < z) {
					t.Errorf("sectors %d+%d, bit %d: covered %v, in %d-%d", sector, n, bit, in, a, z)
				}
				if out := sector < hi && lo < sector+n; out != (first <= bit && bit < last) {
					t.Errorf("sectors %d+%d, bit %d: touched %v, out %d-%d", sector, n, bit, out, first, last)
				}
			}
		}
	}
}

func TestBitsFor(t *testing.T) {
	for sectors, want := range map[uint64]uint64{0: 0, 1: 1, 7: 1, 8: 1, 9: 2, 16: 2, 1 << 41: MaxBits, ^uint64(0): 1 << 61} {
		if got := BitsFor(sectors); got != want {
			t.Errorf("BitsFor(%d) = %d, want %d", sectors, got, want)
		}
	}
}

func TestExtents(t *testing.T) {
	b := New(10*ExtentBits + 5)
	if b.Extents() != 11 || ExtentOf(ExtentBits) != 1 || ExtentOf(ExtentBits-1) != 0 {
		t.Errorf("%d extents", b.Extents())
	}
	b.SetRange(3, 7)
	b.SetRange(7*ExtentBits, 9*ExtentBits+2) // across a page boundary
	b.SetRange(10*ExtentBits, b.Bits())
	for e, want := range []uint32{4, 0, 0, 0, 0, 0, 0, ExtentBits, ExtentBits, 2, 5, 0, 0} {
		if got := b.ExtentWeight(uint32(e)); got != want {
			t.Errorf("ExtentWeight(%d) = %d, want %d", e, got, want)
		}
	}
	if first, last := b.ExtentRange(10); first != 10*ExtentBits || last != b.Bits() {
		t.Errorf("last extent is %d-%d", first, last)
	}
	if first, last := b.ExtentRange(11); first != last {
		t.Errorf("extent behind the last is %d-%d", first, last)
	}
}
