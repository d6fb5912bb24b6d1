package metadata

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"testing"
)

// M01: a superblock that replaces another one may be torn in all 256 ways: everything that
// has a meaning lies in the first sector, so what is read is the old one or the new one.
func TestEveryTornSuperblockIsOldOrNew(t *testing.T) {
	old, _ := validSuperblock(t, Internal, 1<<20)
	old.UUIDs, old.Flags = UUIDs{2, 4, 6, 8}, Consistent|ALClean
	fresh := old
	fresh.UUIDs, fresh.Flags, fresh.Unclean = UUIDs{10, 2, 4, 6}, Consistent|PrimaryInd|FullSync, true
	fresh.LASizeSectors, fresh.ALExtents, fresh.PeerMaxBIOBytes = 4096, 67, 1<<20
	before, after := old.AppendTo(nil), fresh.AppendTo(nil)
	for subset := range 256 {
		torn := bytes.Clone(before)
		for sector := range SuperblockSize / 512 {
			if subset&(1<<sector) != 0 {
				copy(torn[sector*512:][:512], after[sector*512:])
			}
		}
		want := old
		if subset&1 != 0 {
			want = fresh
		}
		var got Superblock
		if err := got.Decode(torn); err != nil || got != want {
			t.Errorf("sectors %08b are new: %+v, %v", subset, got, err)
		}
	}
}

// undetected are the fields of which the v08 format cannot tell that a bit of them has
// flipped, with the number of their bits that go unnoticed. What that leads to is shown in
// package replication (TestEveryFlippedBitOfASuperblock). Of those that are listed for all
// placements, the sizes depend on how much room is left on the device.
type undetected map[string]int

// fields are the live parts of a superblock: name and bytes.
var fields = []struct {
	name     string
	from, to int
}{
	{"la_size_sect", 0, 8},
	{"uuids", 8, 40},
	{"device_uuid", 40, 48},
	{"reserved", 48, 56},
	{"flags", 56, 60},
	{"magic", 60, 64},
	{"md_size_sect", 64, 68},
	{"al_offset", 68, 72},
	{"al_nr_extents", 72, 76},
	{"bm_offset", 76, 80},
	{"bm_bytes_per_bit", 80, 84},
	{"la_peer_max_bio_size", 84, 88},
	{"al_stripes", 88, 92},
	{"al_stripe_size_4k", 92, 96},
	{"rest", 96, SuperblockSize},
}

// M08: every single bit of a superblock, flipped, is refused with the name of a field, or has
// no meaning at all, or is in a field that any value is possible in. None of the last moves
// anything: a flipped bit never makes a node read its log or bitmap at another place.
func TestEveryFlippedBit(t *testing.T) {
	cases := []struct {
		p    Placement
		want undetected
	}{
		{Internal, undetected{"la_size_sect": 21}},
		{FlexExternal, undetected{"la_size_sect": 36, "md_size_sect": 12}},
		{Indexed(1), undetected{"la_size_sect": 33}},
	}
	const device = 0x1abcd8 // a value with bits to clear
	for _, c := range cases {
		sb, layout := validSuperblock(t, c.p, device)
		sb.LASizeSectors, sb.UUIDs, sb.Flags = 8192, UUIDs{0x123456, 0, 0x345678, 0x567890}, ALClean|Consistent
		backing := uint64(0)
		if c.p.IsInternal() {
			backing = device
		}
		unnoticed := undetected{}
		for _, f := range fields {
			for bit := f.from * 8; bit < f.to*8; bit++ {
				if err := flipped(sb, bit, c.p, backing, device, layout); err == nil {
					unnoticed[f.name]++
				} else if !errors.Is(err, errRefused) && !errors.Is(err, errNoMeaning) {
					t.Errorf("%v: bit %d of %s: %v", c.p, bit-f.from*8, f.name, err)
				}
			}
		}
		// Any value is a possible one in these.
		want := undetected{"uuids": 256, "device_uuid": 64, "flags": 31, "al_nr_extents": 32, "la_peer_max_bio_size": 32}
		maps.Copy(want, c.want)
		if !maps.Equal(unnoticed, want) {
			t.Errorf("%v: bits that go unnoticed: %v, want %v", c.p, unnoticed, want)
		}
	}
}

var (
	errRefused   = errors.New("refused")
	errNoMeaning = errors.New("no meaning")
)

// flipped says what becomes of a superblock of which a bit has flipped: errRefused,
// errNoMeaning, nil if it is accepted with another meaning, or what must not be.
func flipped(sb Superblock, bit int, p Placement, backing, device uint64, layout Layout) error {
	b := sb.AppendTo(nil)
	b[bit/8] ^= 1 << (bit % 8)
	var got Superblock
	err := got.Decode(b)
	if err == nil && got == sb {
		return errNoMeaning
	}
	var l Layout
	if err == nil {
		l, err = got.Validate(p, backing, device)
	}
	var corrupt *CorruptError
	switch {
	case errors.Is(err, ErrUnclean), errors.As(err, &corrupt) && corrupt.Field != "":
		return errRefused
	case err != nil:
		return fmt.Errorf("refused without a field: %w", err)
	case l.Superblock != layout.Superblock || l.ActivityLog != layout.ActivityLog || l.Bitmap != layout.Bitmap ||
		l.ActivityLogSectors != layout.ActivityLogSectors:
		return fmt.Errorf("accepted, and something has moved: %+v", l)
	}
	return nil
}
