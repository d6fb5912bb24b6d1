package mdtool

import (
	"fmt"

	"github.com/replblk/replblk/metadata"
)

// moveChunk is how much is copied at a time.
const moveChunk = 1 << 20

// Move moves internal metadata from one place of a device to another, further up, after
// the device has grown. At every moment there is a superblock that is true, at one of the two
// places, and whoever looks at the end of the device first (as everybody does) finds the
// right one:
//
// If the places do not touch each other, everything is copied before the superblock
// appears at the end. If they do, a superblock that says that the bitmap means nothing (a
// full sync) goes first, because what is copied after it destroys the old metadata.
//
// The old superblock is wiped afterwards: it lies where data will be, and nobody must take
// it for metadata. The log and the bitmap must not change meanwhile. Move may be repeated
// after it was interrupted, with the same arguments.
func Move(s Store, from, to metadata.Layout) error {
	switch {
	case !from.Placement.IsInternal() || !to.Placement.IsInternal() || from.Striping != to.Striping:
		return exit(ExitConfig, "metadata cannot move from %v to %v", from.Placement, to.Placement)
	case to.Bitmap < from.Bitmap || to.Superblock < from.Superblock || to.BitmapSectors < from.BitmapSectors:
		return exit(ExitConfig, "metadata at sector %d cannot move down to %d: the device has shrunk", from.Superblock, to.Superblock)
	case to.Superblock == from.Superblock:
		return nil
	}
	var buf [metadata.SuperblockSize]byte
	if err := readAt(s, buf[:], from.Superblock); err != nil {
		return err
	}
	var sb metadata.Superblock
	if err := sb.Decode(buf[:]); err != nil {
		return exit(ExitCancelled, "%w: sector %d: %w", ErrNoMetadata, from.Superblock, err)
	}
	sb.SetLayout(to)
	m := &Meta{Superblock: sb, Layout: to, store: s}
	if to.Bitmap < from.Superblock+metadata.SuperblockSectors {
		m.Superblock.Flags |= metadata.FullSync
		if err := m.write(); err != nil {
			return err
		}
	}
	if err := copyMeta(s, from, to); err != nil {
		return err
	}
	m.Superblock.Flags = sb.Flags
	if err := m.write(); err != nil {
		return err
	}
	if from.Superblock >= to.Bitmap { // copied over already
		return nil
	}
	return wipeSuperblock(s, from.Superblock)
}

// copyMeta copies log and bitmap upwards, and makes them durable. The highest goes first, so
// that nothing is overwritten before it has been copied.
func copyMeta(s Store, from, to metadata.Layout) error {
	if err := copyUp(s, from.ActivityLog, to.ActivityLog, from.ActivityLogSectors); err != nil {
		return err
	}
	if err := copyUp(s, from.Bitmap, to.Bitmap, from.BitmapSectors); err != nil {
		return err
	}
	if err := writeZeroes(s, to.Bitmap+from.BitmapSectors, to.BitmapSectors-from.BitmapSectors); err != nil {
		return err
	}
	return syncStore(s)
}

func copyUp(s Store, from, to, sectors uint64) error {
	buf := make([]byte, min(sectors*512, moveChunk))
	for sectors > 0 {
		n := min(sectors, moveChunk/512)
		sectors -= n
		if err := readAt(s, buf[:n*512], from+sectors); err != nil {
			return err
		}
		if err := writeAt(s, buf[:n*512], to+sectors); err != nil {
			return err
		}
	}
	return nil
}

// CheckResize moves the internal metadata of a device that had oldSectors when it was last
// used to where it belongs now, if it is not there yet. It returns whether it did.
func CheckResize(s Store, p metadata.Placement, oldSectors uint64) (moved bool, err error) {
	if !p.IsInternal() {
		return false, nil
	}
	now := sectors(s)
	_, errHere := Open(s, p)
	switch {
	case errHere == nil || oldSectors == now:
		return false, errHere
	case oldSectors == 0:
		return false, exit(ExitConfig, "%w, and it is not known how large the device was", errHere)
	case oldSectors > now:
		return false, exit(ExitConfig, "%w: the device had %d sectors, has %d", errHere, oldSectors, now)
	}
	old, err := Open(&prefix{s, oldSectors}, p)
	if err != nil {
		return false, fmt.Errorf("at the end of the %d sectors that the device had: %w", oldSectors, err)
	}
	to, err := old.Layout.Grown(now)
	if err != nil {
		return false, exitWith(ExitConfig, err)
	}
	return true, Move(s, old.Layout, to)
}

// prefix is the first sectors of a Store.
type prefix struct {
	Store
	sectors uint64
}

// Size implements Store.
func (p *prefix) Size() int64 { return int64(p.sectors) * 512 }
