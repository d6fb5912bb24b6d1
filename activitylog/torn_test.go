package activitylog

import (
	"errors"
	"slices"
	"testing"
)

// covered says whether a replay of area is sure to treat every extent of want as possibly
// different: by naming it, by admitting that something is missing, or by refusing.
func covered(r Ring, area []byte, want []Extent) bool {
	res, err := Replay(r, area)
	switch {
	case errors.Is(err, ErrNoLog), errors.Is(err, ErrDamaged), err == nil && res.Incomplete:
		return true // the whole device
	case err != nil:
		return false
	}
	named := res.Extents
	if res.Gap {
		named = res.Union
	}
	for _, e := range want {
		if !slices.Contains(named, e) {
			return false
		}
	}
	return true
}

// history fills a ring with transactions as a node makes them, and returns it with the
// extents of its table before and after the last of them, and the block that holds it.
func history(t *testing.T, transactions int) (area []byte, before, after []Extent, last uint32) {
	t.Helper()
	r := Ring{Stripes: 1, StripeSize4K: 8}
	s, err := New(7, r)
	if err != nil {
		t.Fatal(err)
	}
	area = emptyRing(r)
	var held []Extent
	for i := range transactions {
		if len(held) == 7 {
			s.Release(held[0])
			held = held[1:]
		}
		before = slices.Clone(held)
		e := Extent(100 + 3*i)
		expect(t, "a new extent", s.Use(e), NeedsTransaction)
		held = append(held, e)
		var tr Transaction
		s.BuildTransaction(&tr)
		last = r.Block(tr.Number)
		copy(area[uint64(last)*BlockSize:], tr.AppendTo(nil))
		s.Commit()
	}
	return area, before, held, last
}

// A04: a torn transaction, whatever subset of its eight sectors is new, hides nothing that
// was active before it. With all of them it hides nothing that is active now.
func TestEveryTornTransactionIsCovered(t *testing.T) {
	r := Ring{Stripes: 1, StripeSize4K: 8}
	step := 1
	if testing.Short() { // under the race detector
		step = 13
	}
	for n := 1; n <= 40; n += step {
		old, _, _, _ := history(t, n-1)
		area, before, after, last := history(t, n)
		from := uint64(last) * BlockSize
		for subset := range 256 {
			torn := slices.Clone(old)
			for sector := range uint64(8) {
				if subset&(1<<sector) != 0 {
					copy(torn[from+sector*512:from+(sector+1)*512], area[from+sector*512:])
				}
			}
			want := before
			if subset == 255 {
				want = after
			}
			if !covered(r, torn, want) {
				t.Fatalf("transaction %d torn, sectors %08b new: %v is not covered", n, subset, want)
			}
		}
	}
}

// M08: one flipped bit in a ring that has wrapped hides nothing: every bit of the newest
// block and every 61st of the others. A newest block that is damaged cannot be told from
// one that was never finished: what was active before it counts.
func TestEveryFlippedBitIsCovered(t *testing.T) {
	r := Ring{Stripes: 1, StripeSize4K: 8}
	area, before, after, last := history(t, 37)
	for bit := range len(area) * 8 {
		block, want := uint32(bit/8/BlockSize), after
		if block == last {
			want = before
		}
		if bit%61 != 0 && (block != last || testing.Short()) {
			continue
		}
		area[bit/8] ^= 1 << (bit % 8)
		if !covered(r, area, want) {
			t.Fatalf("bit %d of block %d flipped: %v is not covered", bit%(BlockSize*8), block, want)
		}
		area[bit/8] ^= 1 << (bit % 8)
	}
}
