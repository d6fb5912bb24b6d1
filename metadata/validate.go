package metadata

import (
	"errors"
	"fmt"
)

// ErrUnclean says that the activity log must be replayed before the metadata can
// be used (DRBD's ERR_MD_UNCLEAN). The metadata itself is in order.
var ErrUnclean = errors.New("metadata is unclean: apply the activity log first")

// CorruptError says which field of a superblock cannot be right.
type CorruptError struct {
	Field  string
	Offset int    // of the field, in bytes from the start of the superblock
	Got    int64  // value found
	Want   string // what would have been accepted
}

// Error describes the field with both values.
func (e *CorruptError) Error() string {
	if e.Field == "magic" {
		return fmt.Sprintf("superblock: magic at byte %d is 0x%08x, want %s", e.Offset, e.Got, e.Want)
	}
	return fmt.Sprintf("superblock: %s at byte %d is %d, want %s", e.Field, e.Offset, e.Got, e.Want)
}

// Validate applies the rules by which the kernel accepts metadata at attach
// (section 2.2) and returns the layout the superblock describes, which need not
// be the one that create-md would choose today.
//
// The arguments are those of NewLayout. Field problems are *CorruptError.
// Metadata that is in order but not clean yields ErrUnclean together with the
// layout, so that the caller can replay the activity log.
func (sb *Superblock) Validate(p Placement, backingSectors, mdSectors uint64) (Layout, error) {
	if p.IsInternal() {
		mdSectors = backingSectors
	}
	start, err := p.SuperblockSector(mdSectors)
	if err != nil {
		return Layout{}, err
	}
	l := Layout{Placement: p, Superblock: start, MetaSectors: uint64(sb.MDSizeSectors)}
	if err := sb.checkFixed(p); err != nil {
		return Layout{}, err
	}
	if l.Striping, err = sb.striping(); err != nil {
		return Layout{}, err
	}
	if err := sb.place(&l, backingSectors); err != nil {
		return Layout{}, err
	}
	if err := sb.checkSizes(&l, mdSectors); err != nil {
		return Layout{}, err
	}
	if sb.Unclean || !sb.Flags.Has(ALClean) {
		return l, ErrUnclean
	}
	return l, nil
}

// checkFixed checks fields of which only one value is possible: rules 2 and 5.
func (sb *Superblock) checkFixed(p Placement) error {
	if sb.BytesPerBit != BytesPerBit {
		return &CorruptError{"bm_bytes_per_bit", 80, int64(sb.BytesPerBit), "4096"}
	}
	if p.kind != kindIndexed {
		return nil
	}
	switch {
	case sb.MDSizeSectors != SlotSectors:
		return &CorruptError{"md_size_sect", 64, int64(sb.MDSizeSectors), "262144"}
	case sb.ALOffset != SuperblockSectors:
		return &CorruptError{"al_offset", 68, int64(sb.ALOffset), "8"}
	case sb.BMOffset != SuperblockSectors+fixedALSectors:
		return &CorruptError{"bm_offset", 76, int64(sb.BMOffset), "72"}
	}
	if s, err := sb.striping(); err != nil || s != DefaultStriping {
		return &CorruptError{"al_stripes", 88, int64(sb.ALStripes), "1 stripe of 8 blocks"}
	}
	return nil
}

// striping applies rule 3.
func (sb *Superblock) striping() (Striping, error) {
	s := Striping{sb.ALStripes, sb.ALStripeSize4K}
	switch {
	case s == Striping{}:
		return DefaultStriping, nil
	case s.Stripes == 0:
		return s, &CorruptError{"al_stripes", 88, 0, "1 or more, as al_stripe_size_4k is set"}
	case s.StripeSize4K == 0:
		return s, &CorruptError{"al_stripe_size_4k", 92, 0, "1 or more, as al_stripes is set"}
	case s.Blocks() < MinStripeBlocks || s.Blocks() > MaxStripeBlocks:
		return s, &CorruptError{"al_stripe_size_4k", 92, int64(s.StripeSize4K),
			fmt.Sprintf("8 to 4194304 blocks in all with %d stripes", s.Stripes)}
	}
	return s, nil
}

// place applies rules 4, 7 and 8 and fills in the positions.
func (sb *Superblock) place(l *Layout, backingSectors uint64) error {
	if sb.BMOffset%8 != 0 {
		return &CorruptError{"bm_offset", 76, int64(sb.BMOffset), "a multiple of 8"}
	}
	l.ActivityLogSectors = l.Striping.Sectors()
	a := int64(l.ActivityLogSectors)
	al, bm := int64(sb.ALOffset), int64(sb.BMOffset)
	if l.Placement.IsInternal() {
		return sb.placeInternal(l, a, al, bm)
	}
	switch {
	case al != SuperblockSectors:
		return &CorruptError{"al_offset", 68, al, "8"}
	case bm != SuperblockSectors+a:
		return &CorruptError{"bm_offset", 76, bm, fmt.Sprintf("%d, behind the activity log", SuperblockSectors+a)}
	case int64(sb.MDSizeSectors) <= bm:
		return &CorruptError{"md_size_sect", 64, int64(sb.MDSizeSectors), fmt.Sprintf("more than bm_offset %d", bm)}
	}
	l.ActivityLog = l.Superblock + SuperblockSectors
	l.Bitmap = l.Superblock + uint64(bm)
	l.BitmapSectors = uint64(sb.MDSizeSectors) - uint64(bm)
	l.DataSectors = l.capacity(backingSectors)
	return nil
}

func (sb *Superblock) placeInternal(l *Layout, a, al, bm int64) error {
	switch {
	case al != -a:
		return &CorruptError{"al_offset", 68, al, fmt.Sprintf("%d, the size of the activity log", -a)}
	case bm >= al:
		return &CorruptError{"bm_offset", 76, bm, fmt.Sprintf("less than al_offset %d", al)}
	case -bm > int64(l.Superblock):
		return &CorruptError{"bm_offset", 76, bm, fmt.Sprintf("%d or more, the start of the device", -int64(l.Superblock))}
	case int64(sb.MDSizeSectors) != SuperblockSectors-bm:
		// Not a rule of the kernel, but of everything that writes metadata: the two say the same
		// thing twice, so that one flipped bit cannot move the bitmap (M08).
		return &CorruptError{"md_size_sect", 64, int64(sb.MDSizeSectors), fmt.Sprintf("%d, as bm_offset is %d", SuperblockSectors-bm, bm)}
	}
	l.ActivityLog = l.Superblock - uint64(a)
	l.Bitmap = l.Superblock - uint64(-bm)
	l.BitmapSectors = l.ActivityLog - l.Bitmap
	l.DataSectors = min(l.Bitmap, l.BitmapSectors*sectorsPerBitmapSector)
	return nil
}

// checkSizes applies rules 6 and 9.
func (sb *Superblock) checkSizes(l *Layout, mdSectors uint64) error {
	size := uint64(sb.MDSizeSectors)
	if size > mdSectors || mdSectors-size < l.First() {
		return &CorruptError{"md_size_sect", 64, int64(size), fmt.Sprintf("to fit between sectors %d and %d", l.First(), mdSectors)}
	}
	if need := (sb.LASizeSectors + 7) / 8 / 8 / 512; sb.LASizeSectors > 1<<63 || l.BitmapSectors < need {
		return &CorruptError{"la_size_sect", 0, int64(sb.LASizeSectors), fmt.Sprintf("at most what %d sectors of bitmap cover", l.BitmapSectors)}
	}
	return nil
}
