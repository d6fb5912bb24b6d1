package metadata

import (
	"encoding/binary"
	"fmt"
)

// Magic numbers of superblocks.
const (
	MagicClean   uint32 = 0x8374026b // v08, the activity log need not be replayed
	MagicUnclean uint32 = 0x8374026c // v08 while attached and after a crash
	MagicV07     uint32 = 0x8374026a // predecessor, not supported
	MagicV09     uint32 = 0x8374026d // DRBD 9, not supported
)

// DefaultALExtents is the number of activity log slots that create-md writes. The
// kernel replaces it by its configured al-extents at attach.
const DefaultALExtents = 257

// Superblock is the 4 KiB block that describes a volume (section 2.2).
//
//	offset  size  field
//	     0     8  laSizeSectors   last agreed size of the replicated device
//	     8    32  uuids           current, bitmap, history 1, history 2
//	    40     8  deviceUUID      random, made by drbdadm create-md
//	    48     8  reserved        0
//	    56     4  flags
//	    60     4  magic           0x8374026b clean, 0x8374026c unclean
//	    64     4  mdSizeSectors   size of all metadata
//	    68     4  alOffset        signed, sectors relative to the superblock
//	    72     4  alExtents       number of activity log slots
//	    76     4  bmOffset        signed, sectors relative to the superblock
//	    80     4  bytesPerBit     4096
//	    84     4  peerMaxBIOBytes largest request the peer took, 0 if never met
//	    88     4  alStripes       0 together with the next means 1 and 8
//	    92     4  alStripeSize4K  in 4 KiB blocks
//	    96  4000  reserved        0
//
// There is no checksum. The block must therefore be written at once, and a reader
// must check every field (Validate) before it follows an offset.
type Superblock struct {
	LASizeSectors   uint64
	UUIDs           UUIDs
	DeviceUUID      uint64
	Flags           Flags
	Unclean         bool // magic says that the activity log must be replayed first
	MDSizeSectors   uint32
	ALOffset        int32
	ALExtents       uint32
	BMOffset        int32
	BytesPerBit     uint32
	PeerMaxBIOBytes uint32
	ALStripes       uint32
	ALStripeSize4K  uint32
}

// NewSuperblock returns what create-md writes for the layout (section 2.8).
func NewSuperblock(l Layout) Superblock {
	sb := Superblock{UUIDs: UUIDs{SlotCurrent: JustCreated}, Flags: ALClean, ALExtents: DefaultALExtents, BytesPerBit: BytesPerBit}
	sb.SetLayout(l)
	return sb
}

// SetLayout makes the superblock name the places of l.
func (sb *Superblock) SetLayout(l Layout) {
	sb.MDSizeSectors = uint32(l.MetaSectors)
	sb.ALOffset, sb.BMOffset = l.ALOffset(), l.BMOffset()
	sb.ALStripes, sb.ALStripeSize4K = l.Striping.Stripes, l.Striping.StripeSize4K
}

// AppendTo appends the 4096 bytes of the superblock to b.
func (sb *Superblock) AppendTo(b []byte) []byte {
	start := len(b)
	be := binary.BigEndian
	b = be.AppendUint64(b, sb.LASizeSectors)
	for _, u := range sb.UUIDs {
		b = be.AppendUint64(b, u)
	}
	b = be.AppendUint64(b, sb.DeviceUUID)
	b = be.AppendUint64(b, 0)
	b = be.AppendUint32(b, uint32(sb.Flags))
	b = be.AppendUint32(b, sb.magic())
	b = be.AppendUint32(b, sb.MDSizeSectors)
	b = be.AppendUint32(b, uint32(sb.ALOffset))
	b = be.AppendUint32(b, sb.ALExtents)
	b = be.AppendUint32(b, uint32(sb.BMOffset))
	b = be.AppendUint32(b, sb.BytesPerBit)
	b = be.AppendUint32(b, sb.PeerMaxBIOBytes)
	b = be.AppendUint32(b, sb.ALStripes)
	b = be.AppendUint32(b, sb.ALStripeSize4K)
	var reserved [SuperblockSize]byte
	return append(b, reserved[:SuperblockSize-(len(b)-start)]...)
}

func (sb *Superblock) magic() uint32 {
	if sb.Unclean {
		return MagicUnclean
	}
	return MagicClean
}

// Decode reads a superblock. It fails only on a foreign magic or a short block;
// what the fields say is for Validate to judge. On failure sb is unchanged.
func (sb *Superblock) Decode(b []byte) error {
	if len(b) < SuperblockSize {
		return fmt.Errorf("superblock has %d bytes, want %d", len(b), SuperblockSize)
	}
	be := binary.BigEndian
	magic := be.Uint32(b[60:])
	if magic != MagicClean && magic != MagicUnclean {
		return &CorruptError{Field: "magic", Offset: 60, Got: int64(magic), Want: fmt.Sprintf("0x%x or 0x%x", MagicClean, MagicUnclean)}
	}
	*sb = Superblock{
		LASizeSectors:   be.Uint64(b),
		DeviceUUID:      be.Uint64(b[40:]),
		Flags:           Flags(be.Uint32(b[56:])),
		Unclean:         magic == MagicUnclean,
		MDSizeSectors:   be.Uint32(b[64:]),
		ALOffset:        int32(be.Uint32(b[68:])),
		ALExtents:       be.Uint32(b[72:]),
		BMOffset:        int32(be.Uint32(b[76:])),
		BytesPerBit:     be.Uint32(b[80:]),
		PeerMaxBIOBytes: be.Uint32(b[84:]),
		ALStripes:       be.Uint32(b[88:]),
		ALStripeSize4K:  be.Uint32(b[92:]),
	}
	for i := range sb.UUIDs {
		sb.UUIDs[i] = be.Uint64(b[8+8*i:])
	}
	return nil
}
