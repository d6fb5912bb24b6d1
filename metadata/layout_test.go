package metadata

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"fmt"
	"os"
	"testing"
)

// created is a line of testdata/create.txt: what drbdmeta wrote.
type created struct {
	striping  Striping
	placement Placement
	bytes     uint64
	head      []byte
}

func (c created) sectors() uint64 { return c.bytes / 512 }

func (c created) backing() uint64 {
	if c.placement.IsInternal() {
		return c.sectors()
	}
	return 0
}

func loadCreated(t testing.TB) []created {
	t.Helper()
	f, err := os.Open("testdata/create.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var all []created
	for s := bufio.NewScanner(f); s.Scan(); {
		if s.Text()[0] == '#' {
			continue
		}
		var c created
		var place, head string
		if _, err := fmt.Sscanf(s.Text(), "%d/%d %s %d %s", &c.striping.Stripes, &c.striping.StripeSize4K, &place, &c.bytes, &head); err != nil {
			t.Fatal(err)
		}
		if c.placement, err = ParsePlacement(place); err != nil {
			t.Fatal(err)
		}
		if c.head, err = hex.DecodeString(head); err != nil {
			t.Fatal(err)
		}
		all = append(all, c)
	}
	if len(all) < 10 {
		t.Fatalf("%d golden superblocks", len(all))
	}
	return all
}

// TestGoldenCreate compares new superblocks with those of drbdmeta, and lets
// Validate find the same layout in them.
func TestGoldenCreate(t *testing.T) {
	for _, c := range loadCreated(t) {
		l, err := NewLayout(c.placement, c.backing(), c.sectors(), c.striping)
		if err != nil {
			t.Errorf("%v of %d bytes: %v", c.placement, c.bytes, err)
			continue
		}
		sb := NewSuperblock(l)
		b := sb.AppendTo([]byte{1})[1:]
		want := append(bytes.Clone(c.head), make([]byte, SuperblockSize-len(c.head))...)
		if !bytes.Equal(b, want) {
			t.Errorf("%v of %d bytes:\n got %x\nwant %x", c.placement, c.bytes, b[:96], c.head)
		}
		var back Superblock
		if err := back.Decode(want); err != nil || back != sb {
			t.Errorf("%v of %d bytes: decode %v: %+v", c.placement, c.bytes, err, back)
		}
		if got, err := back.Validate(c.placement, c.backing(), c.sectors()); err != nil || got != l {
			t.Errorf("%v of %d bytes: validate %v:\n got %+v\nwant %+v", c.placement, c.bytes, err, got, l)
		}
	}
}

func TestLayoutPositions(t *testing.T) {
	cases := []struct {
		p             Placement
		backing, md   uint64
		sb, al, bm, d uint64
	}{
		{Internal, 32768, 0, 32760, 32696, 32688, 32688},
		{Internal, 32775, 0, 32760, 32696, 32688, 32688},
		{Internal, 614403, 0, 614392, 614328, 614304, 614304},
		{FlexExternal, 1 << 30, 2048, 0, 8, 72, 1976 * 32768},
		{FlexExternal, 1000003, 2048, 0, 8, 72, 1000003},
		{Indexed(3), 1 << 40, 1 << 20, 786432, 786440, 786504, 8587575296},
	}
	for _, c := range cases {
		l, err := NewLayout(c.p, c.backing, c.md, Striping{})
		if err != nil || l.Superblock != c.sb || l.ActivityLog != c.al || l.Bitmap != c.bm || l.DataSectors != c.d {
			t.Errorf("%v %d/%d: %v: %+v", c.p, c.backing, c.md, err, l)
		}
	}
}

func TestLayoutRefuses(t *testing.T) {
	cases := []struct {
		p           Placement
		backing, md uint64
		s           Striping
	}{
		{Placement{}, 1 << 20, 1 << 20, Striping{}},
		{Internal, 135, 0, Striping{}},
		{Internal, 0, 1 << 20, Striping{}},
		{Internal, 1<<41 + 1, 0, Striping{}},
		{Internal, 2048, 0, Striping{Stripes: 1, StripeSize4K: 1024}},
		{Internal, 1 << 20, 0, Striping{Stripes: 1, StripeSize4K: 7}},
		{Internal, 1 << 20, 0, Striping{Stripes: 0, StripeSize4K: 8}},
		{Internal, 1 << 20, 0, Striping{Stripes: 1 << 31, StripeSize4K: 1 << 31}},
		{FlexExternal, 0, 1 << 32, Striping{}},
		{FlexExternal, 0, 136, Striping{Stripes: 2, StripeSize4K: 8}},
		{Indexed(1), 0, 2*SlotSectors - 1, Striping{}},
		{Indexed(0), 0, SlotSectors, Striping{Stripes: 2, StripeSize4K: 4}},
	}
	for _, c := range cases {
		if l, err := NewLayout(c.p, c.backing, c.md, c.s); err == nil {
			t.Errorf("%v %d/%d %v: accepted: %+v", c.p, c.backing, c.md, c.s, l)
		}
	}
	for _, s := range []string{"", "256", "-1", "flex"} {
		if p, err := ParsePlacement(s); err == nil {
			t.Errorf("placement %q: %v", s, p)
		}
	}
}
