package sim

import (
	"errors"
	"fmt"

	"github.com/replblk/replblk/activitylog"
	"github.com/replblk/replblk/bitmap"
	"github.com/replblk/replblk/metadata"
	"github.com/replblk/replblk/replication"
)

// metaSectors is the size of the device with the metadata.
const metaSectors = 512

// firstGeneration is the current UUID of both nodes at the start.
const firstGeneration = 0x1111222233334444 &^ 1

// format writes what create-md and an initial sync leave.
func (n *node) format(blank bool) error {
	layout, err := metadata.NewLayout(metadata.FlexExternal, n.w.opt.Sectors, metaSectors, metadata.Striping{})
	if err != nil {
		return err
	}
	n.layout = layout
	sb := metadata.NewSuperblock(layout)
	if !blank {
		sb.LASizeSectors = n.w.opt.Sectors
		sb.UUIDs = metadata.UUIDs{firstGeneration}
		sb.Flags |= metadata.Consistent | metadata.WasUpToDate
	}
	n.preset(layout.Superblock, sb.AppendTo(nil))
	for i := range layout.ActivityLogSectors / 8 {
		n.preset(layout.ActivityLog+i*8, activitylog.AppendInitialized(nil))
	}
	return nil
}

func (n *node) preset(sector uint64, block []byte) {
	for i, v := range sectorsOf(block) {
		n.dev.meta.preset(sector+uint64(i), v)
	}
}

var errCrashed = errors.New("crashed while the activity log was replayed")

// restarter replays the activity log on a disk, as "drbdmeta apply-al" does. It may
// crash between any two of its operations.
type restarter struct {
	n    *node
	left int // operations until the crash, negative: none
}

func (t *restarter) write(sector uint64, block []byte) error {
	if t.left == 0 {
		if t.n.w.rng.IntN(2) == 0 {
			t.n.dev.partialMeta(&metaOp{sector: sector, block: sectorsOf(block)})
		}
		return errCrashed
	}
	t.left--
	t.n.dev.meta.write(sector, sectorsOf(block), false)
	return nil
}

func (t *restarter) sync() error {
	if t.left == 0 {
		return errCrashed
	}
	t.left--
	t.n.dev.meta.destage(t.n.dev.meta.mark())
	t.n.metaChanged()
	return nil
}

func (t *restarter) superblock() (sb metadata.Superblock, err error) {
	d := &t.n.dev
	if err = sb.Decode(bytesOf(d.meta.cur, nil, t.n.layout.Superblock, 8)); err != nil {
		return sb, err
	}
	if _, err = sb.Validate(metadata.FlexExternal, t.n.sectors, metaSectors); errors.Is(err, metadata.ErrUnclean) {
		err = nil
	}
	return sb, err
}

// replay brings the disk into a state in which it may be attached (specification
// 2.5.6): bits durable, then the log empty, then the superblock clean.
func (t *restarter) replay() error {
	sb, err := t.superblock()
	if err != nil {
		return err
	}
	if !sb.Unclean && sb.Flags.Has(metadata.ALClean) {
		return nil
	}
	l := t.n.layout
	if sb.Flags.Has(metadata.PrimaryInd) && t.n.w.mutant != NoReplay {
		log, err := activitylog.Replay(activitylog.Ring(l.Striping), bytesOf(t.n.dev.meta.cur, nil, l.ActivityLog, l.ActivityLogSectors))
		if err != nil {
			return fmt.Errorf("activity log: %w", err)
		}
		extents := log.Extents
		if log.Gap || log.Incomplete { // the ring was being initialised when the node crashed
			extents = allExtents(t.n.sectors)
		}
		if err := t.mark(extents); err != nil {
			return err
		}
		if err := t.sync(); err != nil {
			return err
		}
	}
	// The first block last: as long as it is there the others may be torn.
	for i := l.ActivityLogSectors / 8; i > 0; i-- {
		if i == 1 {
			if err := t.sync(); err != nil {
				return err
			}
		}
		if err := t.write(l.ActivityLog+(i-1)*8, activitylog.AppendInitialized(nil)); err != nil {
			return err
		}
	}
	if err := t.sync(); err != nil {
		return err
	}
	sb.Unclean = false
	sb.Flags |= metadata.ALClean
	if err := t.write(l.Superblock, sb.AppendTo(nil)); err != nil {
		return err
	}
	return t.sync()
}

func allExtents(sectors uint64) []activitylog.Extent {
	_, last := activitylog.Extents(0, sectors)
	all := make([]activitylog.Extent, last+1)
	for i := range all {
		all[i] = activitylog.Extent(i)
	}
	return all
}

// mark sets the bits of extents in the bitmap on disk.
func (t *restarter) mark(extents []activitylog.Extent) error {
	for _, x := range extents {
		off := uint64(x) * activitylog.BitmapBytesPerExtent
		sector := t.n.layout.Bitmap + off/bitmap.PageSize*8
		if sector+8 > metaSectors {
			return fmt.Errorf("activity log names extent %d beyond the device", x)
		}
		page := bytesOf(t.n.dev.meta.cur, nil, sector, 8)
		for i := range page[off%bitmap.PageSize:][:activitylog.BitmapBytesPerExtent] {
			page[off%bitmap.PageSize+uint64(i)] = 0xff
		}
		if err := t.write(sector, page); err != nil {
			return err
		}
	}
	return nil
}

// attachment reads what the core wants to know of a disk whose log has been replayed.
func (t *restarter) attachment() (*replication.Attach, error) {
	sb, err := t.superblock()
	if err != nil {
		return nil, err
	}
	layout, err := t.n.layout.Grown(t.n.sectors)
	t.n.told = t.n.sectors
	if err != nil {
		return nil, err
	}
	at := &replication.Attach{Superblock: sb, Layout: layout, BackingSectors: t.n.sectors, Discard: true,
		PhysicalBlock: 512, LogicalBlock: 512}
	if sb.LASizeSectors == 0 {
		return at, nil
	}
	at.Bitmap = bitmap.New(bitmap.BitsFor(sb.LASizeSectors))
	for p := range at.Bitmap.Pages() {
		if err := at.Bitmap.LoadPage(p, bytesOf(t.n.dev.meta.cur, nil, t.n.layout.Bitmap+uint64(p)*8, 8)); err != nil {
			return nil, err
		}
	}
	return at, nil
}

// metaChanged: something has become durable, so what was learned from it is stale.
func (n *node) metaChanged() { n.logged = nil }

// durableSuperblock returns the superblock on stable storage.
func (n *node) durableSuperblock() metadata.Superblock { return n.superblock(n.dev.meta.dur) }

// superblock returns the superblock in m.
func (n *node) superblock(m image[rawSector]) (sb metadata.Superblock) {
	_ = sb.Decode(bytesOf(m, nil, n.layout.Superblock, 8)) // a bad one has no flags
	return sb
}

// durableLog returns the extents in the activity log on stable storage.
func (n *node) durableLog() map[activitylog.Extent]bool {
	if n.logged == nil {
		n.logged = map[activitylog.Extent]bool{}
		l := n.layout
		n.w.scratch = bytesOf(n.dev.meta.dur, n.w.scratch[:0], l.ActivityLog, l.ActivityLogSectors)
		log, err := activitylog.Replay(activitylog.Ring(l.Striping), n.w.scratch)
		if err == nil {
			for _, x := range log.Extents {
				n.logged[x] = true
			}
		}
	}
	return n.logged
}
