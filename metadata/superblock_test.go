package metadata

import (
	"encoding/binary"
	"errors"
	"testing"
)

func validSuperblock(t testing.TB, p Placement, md uint64) (Superblock, Layout) {
	t.Helper()
	backing := md
	if !p.IsInternal() {
		backing = 0
	}
	l, err := NewLayout(p, backing, md, Striping{})
	if err != nil {
		t.Fatal(err)
	}
	return NewSuperblock(l), l
}

// TestValidateRules breaks each acceptance rule of the kernel alone.
func TestValidateRules(t *testing.T) {
	const md = 1 << 20
	cases := []struct {
		p      Placement
		offset int
		field  string
		damage func(*Superblock)
	}{
		{Internal, 80, "bm_bytes_per_bit", func(s *Superblock) { s.BytesPerBit = 8192 }},
		{Internal, 88, "al_stripes", func(s *Superblock) { s.ALStripes = 0 }},
		{Internal, 92, "al_stripe_size_4k", func(s *Superblock) { s.ALStripeSize4K = 0 }},
		{Internal, 92, "al_stripe_size_4k", func(s *Superblock) { s.ALStripes = 1 << 30 }},
		{Internal, 68, "al_offset", func(s *Superblock) { s.ALStripeSize4K = 16 }},
		{Internal, 68, "al_offset", func(s *Superblock) { s.ALOffset = 8 }},
		{Internal, 76, "bm_offset", func(s *Superblock) { s.BMOffset = s.ALOffset }},
		{Internal, 76, "bm_offset", func(s *Superblock) { s.BMOffset-- }},
		{Internal, 76, "bm_offset", func(s *Superblock) { s.BMOffset = -1 << 31 }},
		{Internal, 64, "md_size_sect", func(s *Superblock) { s.MDSizeSectors++ }},
		{Internal, 64, "md_size_sect", func(s *Superblock) { s.MDSizeSectors = 1<<32 - 1 }},
		{Internal, 0, "la_size_sect", func(s *Superblock) { s.LASizeSectors = 1 << 21 }},
		{Internal, 0, "la_size_sect", func(s *Superblock) { s.LASizeSectors = 1<<64 - 1 }},
		{FlexExternal, 68, "al_offset", func(s *Superblock) { s.ALOffset = -64 }},
		{FlexExternal, 76, "bm_offset", func(s *Superblock) { s.BMOffset += 8 }},
		{FlexExternal, 64, "md_size_sect", func(s *Superblock) { s.MDSizeSectors = 72 }},
		{FlexExternal, 64, "md_size_sect", func(s *Superblock) { s.MDSizeSectors++ }},
		{Indexed(2), 64, "md_size_sect", func(s *Superblock) { s.MDSizeSectors-- }},
		{Indexed(2), 68, "al_offset", func(s *Superblock) { s.ALOffset = 16 }},
		{Indexed(2), 76, "bm_offset", func(s *Superblock) { s.BMOffset = 80 }},
		{Indexed(2), 88, "al_stripes", func(s *Superblock) { s.ALStripes, s.ALStripeSize4K = 2, 4 }},
	}
	for i, c := range cases {
		sb, want := validSuperblock(t, c.p, md)
		backing := uint64(0)
		if c.p.IsInternal() {
			backing = md
		}
		if l, err := sb.Validate(c.p, backing, md); err != nil || l != want {
			t.Fatalf("%v, unbroken: %v", c.p, err)
		}
		c.damage(&sb)
		_, err := sb.Validate(c.p, backing, md)
		var ce *CorruptError
		if !errors.As(err, &ce) || ce.Offset != c.offset || ce.Field != c.field {
			t.Errorf("case %d, %v: %v, want a complaint about %s", i, c.p, err, c.field)
		}
	}
}

func TestValidateUnclean(t *testing.T) {
	sb, want := validSuperblock(t, Internal, 1<<20)
	for _, change := range []func(){
		func() { sb.Unclean = true },
		func() { sb.Unclean, sb.Flags = false, 0 },
	} {
		change()
		if l, err := sb.Validate(Internal, 1<<20, 0); !errors.Is(err, ErrUnclean) || l != want {
			t.Errorf("unclean: %v, %+v", err, l)
		}
	}
	sb.Flags = ALClean
	sb.ALStripes, sb.ALStripeSize4K = 0, 0
	if l, err := sb.Validate(Internal, 1<<20, 0); err != nil || l != want {
		t.Errorf("stripes 0 and 0 mean 1 and 8: %v", err)
	}
}

func TestDecodeRejects(t *testing.T) {
	sb, _ := validSuperblock(t, Internal, 1<<20)
	b := sb.AppendTo(nil)
	var got Superblock
	if err := got.Decode(b[:4095]); err == nil {
		t.Error("short block accepted")
	}
	for _, magic := range []uint32{0, MagicV07, MagicV09, 0x83740267} {
		binary.BigEndian.PutUint32(b[60:], magic)
		var ce *CorruptError
		if err := got.Decode(b); !errors.As(err, &ce) || ce.Offset != 60 || ce.Got != int64(magic) {
			t.Errorf("magic %#x: %v", magic, err)
		}
	}
	if got != (Superblock{}) {
		t.Error("a refused block changed the result")
	}
}

func TestAttachState(t *testing.T) {
	cases := []struct {
		f    Flags
		c    AttachContext
		want AttachState
	}{
		{0, AttachContext{}, AttachState{Disk: DiskInconsistent}},
		{WasUpToDate, AttachContext{FencingDontCare: true}, AttachState{Disk: DiskInconsistent}},
		{Consistent, AttachContext{FencingDontCare: true}, AttachState{Disk: DiskOutdated}},
		{Consistent | WasUpToDate, AttachContext{}, AttachState{Disk: DiskConsistent}},
		{Consistent | WasUpToDate, AttachContext{FencingDontCare: true}, AttachState{Disk: DiskUpToDate}},
		{Consistent | WasUpToDate | PeerOutDated, AttachContext{}, AttachState{Disk: DiskUpToDate, PeerOutdated: true}},
		{PrimaryInd, AttachContext{}, AttachState{Disk: DiskInconsistent, CrashedPrimary: true, Degraded: true}},
		{PrimaryInd | ConnectedInd, AttachContext{}, AttachState{Disk: DiskInconsistent, CrashedPrimary: true}},
		{PrimaryInd | ConnectedInd | ALDisabled, AttachContext{}, AttachState{Disk: DiskInconsistent, CrashedPrimary: true, SetAllBits: true}},
		{PrimaryInd | ConnectedInd | ALDisabled, AttachContext{SuspendedPrimary: true}, AttachState{Disk: DiskInconsistent}},
		{CrashedPrimary, AttachContext{SuspendedPrimary: true}, AttachState{Disk: DiskInconsistent, CrashedPrimary: true}},
		{FullSync | ALDisabled, AttachContext{}, AttachState{Disk: DiskInconsistent, SetAllBits: true}},
		{ALDisabled, AttachContext{}, AttachState{Disk: DiskInconsistent}},
	}
	for _, c := range cases {
		sb := Superblock{Flags: c.f}
		if got := sb.AttachState(c.c); got != c.want {
			t.Errorf("%v %+v: %+v, want %+v", c.f, c.c, got, c.want)
		}
	}
}

func TestUUIDs(t *testing.T) {
	u := UUIDs{10, 0, 7, 6}
	if u.NewCurrent(101, false) || u != (UUIDs{100, 10, 7, 6}) {
		t.Errorf("new current: %v", u)
	}
	if !u.NewCurrent(200, true) || u != (UUIDs{201, 100, 7, 6}) {
		t.Errorf("new current over a bitmap UUID: %v", u)
	}
	u.ClearBitmap()
	if u != (UUIDs{201, 0, 100, 7}) {
		t.Errorf("clear: %v", u)
	}
	u.ClearBitmap()
	u.RotateSet(SlotBitmap, 55, true)
	if u != (UUIDs{201, 55, 100, 7}) {
		t.Errorf("rotate into an empty slot: %v", u)
	}
	u.RotateSet(SlotBitmap, 56, true)
	u.RotateSet(SlotCurrent, 301, false)
	if u != (UUIDs{300, 56, 201, 55}) {
		t.Errorf("rotate: %v", u)
	}
	u.SetRole(true)
	v := UUIDs{300, 57, 200, 54}
	if !u.Same(&v) || !WasPrimary(u.Current()) {
		t.Errorf("%v and %v are the same generations", u, v)
	}
	if v[3] = 52; u.Same(&v) {
		t.Error("another history is not the same")
	}
	for _, c := range []struct{ b, want uint64 }{{0, 9}, {JustCreated, 9}, {16, 16 + SyncIncrement}} {
		u[SlotBitmap] = c.b
		if got := u.SyncUUID(9); got != c.want {
			t.Errorf("sync UUID from %d: %d", c.b, got)
		}
	}
}

// TestResyncFinish goes through the end of a clean resync on both sides
// (section 7.2): they end equal.
func TestResyncFinish(t *testing.T) {
	const x, b, h, s = 0x1000, 0x2000, 0x3000, 0x4445
	source := UUIDs{x, b, h, 0}
	known := source // by the target, since the handshake
	source.RotateSet(SlotBitmap, s, false)
	target := UUIDs{b, 0, 0, 0}
	target.SetCurrent(s, false)
	target[SlotBitmap] = 0

	synced := target.Current()
	copy(target[SlotBitmap:], known[SlotBitmap:])
	target.RotateSet(SlotBitmap, synced, false)
	target.SetCurrent(known.Current(), false)
	target.ClearBitmap()
	source.ClearBitmap()
	if !source.Same(&target) || target != (UUIDs{x, 0, s &^ 1, b}) {
		t.Errorf("source %x, target %x", source, target)
	}
}

func TestGI(t *testing.T) {
	sb := Superblock{UUIDs: UUIDs{0xAB, 2, 0, 1<<64 - 1}, Flags: Consistent | PrimaryInd | FullSync | CrashedPrimary | ALClean}
	const want = "00000000000000AB:0000000000000002:0000000000000000:FFFFFFFFFFFFFFFF:1:0:1:0:1:0:1"
	if got := sb.GI(); got != want {
		t.Errorf("%s, want %s", got, want)
	}
	var other Superblock
	if err := other.SetGI(want); err != nil || other.UUIDs != sb.UUIDs || other.Flags != sb.Flags&^ALClean {
		t.Errorf("set: %v, %+v", err, other)
	}
	if err := other.SetGI("5::::0"); err != nil || other.UUIDs != (UUIDs{5, 2, 0, 1<<64 - 1}) || other.Flags.Has(Consistent) || !other.Flags.Has(PrimaryInd) {
		t.Errorf("partial set: %v, %+v", err, other)
	}
	before := other
	for _, bad := range []string{"x", "1:2:3:4:2", "11112222333344445", "1:2:3:4:0:0:0:0:0:0:0:0", "9:9:9:z"} {
		if err := other.SetGI(bad); err == nil || other != before {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestFlagsString(t *testing.T) {
	if got := (Consistent | ALDisabled | 1<<20).String(); got != "CONSISTENT|AL_DISABLED|0x100000" {
		t.Error(got)
	}
	if got := Flags(0).String(); got != "none" {
		t.Error(got)
	}
}

func FuzzSuperblockDecode(f *testing.F) {
	for _, p := range []Placement{Internal, FlexExternal, Indexed(1)} {
		sb, _ := validSuperblock(f, p, 1<<20)
		f.Add(sb.AppendTo(nil), uint64(1<<20))
	}
	f.Add([]byte{}, uint64(0))
	f.Fuzz(func(t *testing.T, head []byte, md uint64) {
		b := make([]byte, SuperblockSize)
		copy(b, head)
		binary.BigEndian.PutUint32(b[60:], MagicClean)
		var sb, again Superblock
		if err := sb.Decode(b); err != nil {
			t.Fatal(err)
		}
		if err := again.Decode(sb.AppendTo(nil)); err != nil || again != sb {
			t.Fatalf("round trip: %v", err)
		}
		for _, p := range []Placement{Internal, FlexExternal, Indexed(1)} {
			l, err := sb.Validate(p, md, md)
			if err != nil && !errors.Is(err, ErrUnclean) {
				continue
			}
			// Whatever is accepted lies on the device, in pieces that do not overlap.
			end := max(l.Superblock+8, l.ActivityLog+l.ActivityLogSectors, l.Bitmap+l.BitmapSectors)
			ordered := l.Superblock+8 <= l.ActivityLog && l.ActivityLog+l.ActivityLogSectors <= l.Bitmap
			if p.IsInternal() {
				ordered = l.DataSectors <= l.Bitmap && l.Bitmap+l.BitmapSectors <= l.ActivityLog && l.ActivityLog+l.ActivityLogSectors <= l.Superblock
			}
			if end > md || !ordered || l.ActivityLogSectors == 0 || l.BitmapSectors == 0 {
				t.Fatalf("accepted on %d sectors: %+v", md, l)
			}
		}
	})
}
