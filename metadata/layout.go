package metadata

import (
	"fmt"
	"strconv"
)

// Sizes of the format, in the unit named.
const (
	SuperblockSize    = 4096    // bytes, one 4 KiB block
	SuperblockSectors = 8       // sectors
	SlotSectors       = 262144  // sectors of one indexed slot: 128 MiB
	BytesPerBit       = 4096    // bytes of storage for which one bitmap bit stands
	MaxSectors        = 1 << 41 // largest device, 1 PiB; drbdmeta refuses more
	MinMetaSectors    = 136     // smallest metadata device create-md accepts, 68 KiB
	MaxStripeBlocks   = 1 << 22 // most 4 KiB blocks of an activity log the kernel accepts, 16 GiB
	MinStripeBlocks   = 8       // fewest, 32 KiB

	// One sector of bitmap covers 512*8 bits of 4 KiB: 16 MiB of storage.
	sectorsPerBitmapSector = 32768

	fixedALSectors = 64 // indexed slots have no striping
)

type placementKind uint8

const (
	kindInternal placementKind = iota + 1
	kindFlexExternal
	kindIndexed
)

// Placement says where the metadata of a volume lives. The zero value is invalid.
type Placement struct {
	kind  placementKind
	index uint8
}

// The placements without a parameter.
var (
	// Internal is "meta-disk internal": the last blocks of the data device.
	Internal = Placement{kind: kindInternal}
	// FlexExternal is "meta-disk DEVICE": a device of its own, used whole.
	FlexExternal = Placement{kind: kindFlexExternal}
)

// Indexed is "meta-disk DEVICE[n]": the n-th 128 MiB of a shared device.
func Indexed(n uint8) Placement { return Placement{kind: kindIndexed, index: n} }

// ParsePlacement reads drbdmeta's words: internal, flex-internal, flexible,
// flex-external, or a slot number 0 to 255.
func ParsePlacement(s string) (Placement, error) {
	switch s {
	case "internal", "flex-internal":
		return Internal, nil
	case "flexible", "flex-external":
		return FlexExternal, nil
	}
	n, err := strconv.ParseUint(s, 10, 8)
	if err != nil {
		return Placement{}, fmt.Errorf("metadata placement %q: want internal, flex-external or an index 0..255", s)
	}
	return Indexed(uint8(n)), nil
}

// String returns the word drbdmeta uses.
func (p Placement) String() string {
	switch p.kind {
	case kindInternal:
		return "internal"
	case kindFlexExternal:
		return "flex-external"
	case kindIndexed:
		return strconv.Itoa(int(p.index))
	}
	return "invalid"
}

// IsInternal says whether data and metadata share a device.
func (p Placement) IsInternal() bool { return p.kind == kindInternal }

// Valid says whether p was made by one of the constructors.
func (p Placement) Valid() bool { return p.kind >= kindInternal && p.kind <= kindIndexed }

// SuperblockSector returns the sector at which the superblock starts on a
// metadata device of mdSectors. It is the one thing that must be known before
// anything has been read.
func (p Placement) SuperblockSector(mdSectors uint64) (uint64, error) {
	need := uint64(MinMetaSectors)
	if p.kind == kindIndexed {
		need = SlotSectors * (uint64(p.index) + 1)
	}
	switch {
	case !p.Valid():
		return 0, fmt.Errorf("metadata placement is not set")
	case mdSectors < need:
		return 0, fmt.Errorf("metadata device has %d sectors, %s metadata needs %d", mdSectors, p, need)
	case mdSectors > MaxSectors:
		return 0, fmt.Errorf("metadata device has %d sectors, the limit is %d", mdSectors, uint64(MaxSectors))
	}
	switch p.kind {
	case kindInternal:
		return mdSectors&^7 - SuperblockSectors, nil
	case kindIndexed:
		return SlotSectors * uint64(p.index), nil
	default:
		return 0, nil
	}
}

// Striping is the shape of the activity log ring: Stripes times StripeSize4K
// blocks of 4 KiB. The zero value means the default, 1 times 8.
type Striping struct {
	Stripes      uint32
	StripeSize4K uint32
}

// DefaultStriping is a ring of 32 KiB in one stripe.
var DefaultStriping = Striping{Stripes: 1, StripeSize4K: 8}

func (s Striping) orDefault() Striping {
	if s == (Striping{}) {
		return DefaultStriping
	}
	return s
}

// Blocks returns the number of 4 KiB blocks of the ring.
func (s Striping) Blocks() uint64 {
	s = s.orDefault()
	return uint64(s.Stripes) * uint64(s.StripeSize4K)
}

// Sectors returns the size of the ring in sectors.
func (s Striping) Sectors() uint64 { return s.Blocks() * SuperblockSectors }

// Layout says where everything lies. All positions are absolute sectors on the
// metadata device; all lengths are sectors.
//
//	internal   [data][bitmap][activity log][superblock][0..7 unused]
//	external   [superblock][activity log][bitmap]
type Layout struct {
	Placement          Placement
	Striping           Striping
	Superblock         uint64 // where the superblock starts
	ActivityLog        uint64 // where the ring starts
	ActivityLogSectors uint64
	Bitmap             uint64 // where the bitmap starts
	BitmapSectors      uint64 // room for the bitmap, a multiple of 8 for internal placement
	MetaSectors        uint64 // size of the metadata, the superblock's md_size_sect
	DataSectors        uint64 // sectors usable for data, the most this node can offer its peer
}

// NewLayout computes the layout that create-md gives new metadata (section 2.1).
//
// mdSectors is the size of the device which holds the metadata, backingSectors
// that of the one which holds the data; for internal metadata they are the same
// device and mdSectors is ignored. For external metadata backingSectors may be 0
// when it is not known: then DataSectors is what the bitmap has room for.
func NewLayout(p Placement, backingSectors, mdSectors uint64, s Striping) (Layout, error) {
	s = s.orDefault()
	if err := s.check(); err != nil {
		return Layout{}, err
	}
	if p.kind == kindInternal {
		mdSectors = backingSectors
	}
	sb, err := p.SuperblockSector(mdSectors)
	if err != nil {
		return Layout{}, err
	}
	l := Layout{Placement: p, Striping: s, Superblock: sb, ActivityLogSectors: s.Sectors()}
	if p.kind == kindInternal {
		return l.internal(backingSectors)
	}
	return l.external(backingSectors, mdSectors)
}

func (s Striping) check() error {
	if n := s.Blocks(); n < MinStripeBlocks || n > MaxStripeBlocks {
		return fmt.Errorf("activity log of %d stripes of %d blocks: want %d to %d blocks of 4 KiB in all",
			s.Stripes, s.StripeSize4K, MinStripeBlocks, MaxStripeBlocks)
	}
	return nil
}

func (l Layout) internal(backingSectors uint64) (Layout, error) {
	// The whole device is counted, metadata included: a little more than needed,
	// and what every existing volume has.
	l.BitmapSectors = roundUp(ceilDiv(backingSectors, sectorsPerBitmapSector), 8)
	l.MetaSectors = SuperblockSectors + l.ActivityLogSectors + l.BitmapSectors
	if l.MetaSectors-SuperblockSectors >= l.Superblock {
		return Layout{}, fmt.Errorf("device has %d sectors, internal metadata alone needs %d", backingSectors, l.MetaSectors)
	}
	l.ActivityLog = l.Superblock - l.ActivityLogSectors
	l.Bitmap = l.ActivityLog - l.BitmapSectors
	l.DataSectors = l.Bitmap
	return l, nil
}

func (l Layout) external(backingSectors, mdSectors uint64) (Layout, error) {
	l.MetaSectors = mdSectors
	if l.Placement.kind == kindIndexed {
		l.MetaSectors = SlotSectors
		if l.ActivityLogSectors != fixedALSectors || l.Striping != DefaultStriping {
			return Layout{}, fmt.Errorf("indexed metadata has no room for %d stripes of %d blocks", l.Striping.Stripes, l.Striping.StripeSize4K)
		}
	}
	if l.MetaSectors > 1<<32-1 {
		return Layout{}, fmt.Errorf("metadata device has %d sectors, the superblock can name %d", mdSectors, uint64(1<<32-1))
	}
	head := SuperblockSectors + l.ActivityLogSectors
	if head+SuperblockSectors > l.MetaSectors {
		return Layout{}, fmt.Errorf("metadata device has %d sectors, superblock and activity log need %d and the bitmap at least 8", mdSectors, head)
	}
	l.ActivityLog = l.Superblock + SuperblockSectors
	l.Bitmap = l.Superblock + head
	l.BitmapSectors = l.MetaSectors - head
	l.DataSectors = l.capacity(backingSectors)
	return l, nil
}

// capacity limits the data to what bits and the format have room for.
func (l Layout) capacity(backingSectors uint64) uint64 {
	c := min(l.BitmapSectors*sectorsPerBitmapSector, 1<<51)
	if backingSectors != 0 {
		c = min(c, backingSectors)
	}
	return c
}

// Grown returns where the metadata belongs after the data device has got another size.
// Internal metadata moves with the end of the device; external metadata stays, and only
// the room for data follows. It fails if the metadata would leave no room.
func (l Layout) Grown(backingSectors uint64) (Layout, error) {
	if l.Placement.kind == kindInternal {
		return NewLayout(l.Placement, backingSectors, 0, l.Striping)
	}
	l.DataSectors = l.capacity(backingSectors)
	return l, nil
}

// Moved says whether metadata that lies as l says must move to lie as n says.
func (l Layout) Moved(n Layout) bool {
	return l.Superblock != n.Superblock || l.ActivityLog != n.ActivityLog || l.Bitmap != n.Bitmap
}

// First returns the first sector that belongs to the metadata.
func (l Layout) First() uint64 { return min(l.Superblock, l.Bitmap) }

// ALOffset returns the ring's position relative to the superblock, as stored in it.
func (l Layout) ALOffset() int32 { return int32(int64(l.ActivityLog) - int64(l.Superblock)) }

// BMOffset returns the bitmap's position relative to the superblock, as stored in it.
func (l Layout) BMOffset() int32 { return int32(int64(l.Bitmap) - int64(l.Superblock)) }

// BitmapBytes returns the length of the bitmap of a device of dataSectors in
// whole 4 KiB pages: the part of the bitmap area that has a meaning (or will be
// read by drbdmeta, which knows only pages).
func BitmapBytes(dataSectors uint64) uint64 {
	return roundUp(BitmapWords(dataSectors)*8, 4096)
}

// BitmapWords returns the number of 64-bit words of the bitmap of a device of
// dataSectors (section 2.4).
func BitmapWords(dataSectors uint64) uint64 { return ceilDiv(ceilDiv(dataSectors, 8), 64) }

func ceilDiv(a, b uint64) uint64 { return a/b + min(a%b, 1) }

func roundUp(a, b uint64) uint64 { return ceilDiv(a, b) * b }
