package activitylog

import (
	"encoding/binary"
	"errors"
	"slices"
	"testing"
)

func emptyRing(r Ring) []byte {
	var area []byte
	for range r.Blocks() {
		area = AppendInitialized(area)
	}
	return area
}

// put writes transaction n, which sets slot to e, with what the slots hold as context.
func put(area []byte, n uint32, slots int, context []Extent, slot int, e Extent) {
	var tr Transaction
	tr.reset()
	tr.Number, tr.Slots, tr.NumUpdates = n, uint16(slots), 1
	tr.UpdateSlot[0], tr.UpdateExtent[0] = uint16(slot), e
	copy(tr.Context[:], context)
	copy(area[DefaultRing.Block(n)*BlockSize:], tr.AppendTo(nil))
}

func damage(area []byte, blocks ...int) {
	for _, b := range blocks {
		area[b*BlockSize+100] ^= 1
	}
}

func TestReplayEmpty(t *testing.T) {
	cases := []struct {
		damaged []int
		err     error
		reinit  bool
	}{
		{nil, nil, false},
		{[]int{0}, nil, false},
		{[]int{1}, ErrDamaged, true},
		{[]int{0, 1}, ErrDamaged, true},
		{[]int{0, 1, 2, 3, 4, 5, 6, 7}, ErrNoLog, true},
	}
	for _, c := range cases {
		area := emptyRing(DefaultRing)
		damage(area, c.damaged...)
		res, err := Replay(DefaultRing, area)
		if !errors.Is(err, c.err) || res.Reinit != c.reinit || len(res.Extents) != 0 {
			t.Errorf("damaged %v: %v, reinit %v, extents %v", c.damaged, err, res.Reinit, res.Extents)
		}
	}
	if _, err := Replay(DefaultRing, make([]byte, 100)); err == nil {
		t.Error("short area accepted")
	}
	if _, err := Replay(Ring{}, nil); err == nil {
		t.Error("empty ring accepted")
	}
}

// TestReplayOrder: context before updates, old before new, also where the numbers
// wrap or change sign (A06), and free entries of the context erase.
func TestReplayOrder(t *testing.T) {
	for _, base := range []uint32{0, 0xfffffffc, 0x7ffffffc} {
		area := emptyRing(DefaultRing)
		put(area, base, 3, []Extent{10, 11, Free}, 0, 20)
		put(area, base+1, 3, []Extent{20, 11, Free}, 1, 21)
		put(area, base+2, 3, []Extent{20, 21, Free}, 0, 30)
		put(area, base+3, 3, []Extent{30, 21, Free}, 2, 31)
		put(area, base+4, 3, []Extent{30, Free, 31}, 0, 40)
		res, err := Replay(DefaultRing, area)
		if err != nil || !slices.Equal(res.Extents, []Extent{31, 40}) {
			t.Errorf("base %#x: %v, %v", base, res.Extents, err)
		}
		if !slices.Equal(res.Union, []Extent{10, 11, 20, 21, 30, 31, 40}) || res.Gap || res.Incomplete || res.Oldest != base || res.Newest != base+4 {
			t.Errorf("base %#x: %+v", base, res)
		}
	}
}

// TestReplayGap: a transaction that was acknowledged is gone (A05).
func TestReplayGap(t *testing.T) {
	area := emptyRing(DefaultRing)
	put(area, 0, 3, nil, 0, 20)
	put(area, 1, 3, []Extent{20, Free, Free}, 1, 21)
	put(area, 2, 3, []Extent{20, 21, Free}, 2, 22)
	damage(area, 1)
	res, err := Replay(DefaultRing, area)
	if err != nil || !res.Gap || res.Incomplete || !slices.Equal(res.Extents, []Extent{20, 21, 22}) {
		t.Errorf("gap that a later context covers: %+v, %v", res, err)
	}
	// With more slots than one context names, what was lost may be anything.
	area = emptyRing(DefaultRing)
	put(area, 0, 1237, nil, 0, 20)
	put(area, 2, 1237, nil, 1, 22)
	if res, _ := Replay(DefaultRing, area); !res.Gap || !res.Incomplete {
		t.Errorf("gap with half of the slots unknown: %+v", res)
	}
}

func TestReplayBadSlots(t *testing.T) {
	area := emptyRing(DefaultRing)
	put(area, 0, 3, nil, 65534, 20)
	if res, err := Replay(DefaultRing, area); err != nil || res.BadSlots != 1 || len(res.Extents) != 0 {
		t.Errorf("slot 65534: %+v, %v", res, err)
	}
}

// FuzzReplay changes an empty ring by patches of 7 bytes: block, offset, value.
// That keeps the inputs small, and the checksums are put right afterwards unless
// the fuzzer says otherwise.
func FuzzReplay(f *testing.F) {
	f.Add([]byte{0, 0, 12, 0, 0, 0, 1, 0, 0, 16, 0, 3, 0, 0, 0, 1, 164, 0, 0, 0, 9}, uint8(0x80))
	f.Add([]byte{1, 0, 12, 0, 0, 0, 1, 2, 0, 12, 0, 0, 0, 1, 2, 0, 4, 0x80, 0, 0, 0}, uint8(0x81))
	f.Add([]byte{5, 1, 0, 0, 0, 0, 1}, uint8(2))
	f.Fuzz(func(t *testing.T, b []byte, shape uint8) {
		r := []Ring{DefaultRing, {2, 4}, {3, 3}}[shape&0x7f%3]
		area := emptyRing(r)
		for ; len(b) >= 7; b = b[7:] {
			blk := area[uint32(b[0])%r.Blocks()*BlockSize:][:BlockSize]
			copy(blk[(int(b[1])<<8|int(b[2]))%(BlockSize-3):], b[3:7])
			if shape&0x80 != 0 {
				binary.BigEndian.PutUint32(blk, Magic)
				binary.BigEndian.PutUint32(blk[8:], checksum(blk))
			}
		}
		res, _ := Replay(r, area)
		if !slices.IsSorted(res.Extents) || !slices.IsSorted(res.Union) {
			t.Error("extents are not sorted")
		}
		for _, e := range res.Extents {
			if _, ok := slices.BinarySearch(res.Union, e); !ok {
				t.Errorf("extent %d is not in the union", e)
			}
		}
	})
}
