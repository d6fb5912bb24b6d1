package mdtool

import (
	"bytes"
	"encoding/binary"
	"errors"

	"github.com/replblk/replblk/activitylog"
	"github.com/replblk/replblk/metadata"
)

// maxRingBytes bounds the memory for an activity log: twice what drbdmeta creates.
const maxRingBytes = 64 << 20

// ApplyOptions change how ApplyAL judges a log that the disk has partly lost.
type ApplyOptions struct {
	// AsDRBD does what drbdmeta does when a transaction in the middle is missing:
	// nothing. Without it the union of all that is left is applied, and the whole
	// device if that cannot be complete. Both agree unless the disk lost a write
	// that it had acknowledged.
	AsDRBD bool
}

// ApplyResult tells what ApplyAL did.
type ApplyResult struct {
	Extents      int    // AL extents marked in the bitmap
	BitmapBytes  uint64 // bytes of the bitmap that changed or were marked already
	Ignored      int    // extents beyond the end of the device
	Everything   bool   // the log was not complete: all blocks were marked
	Gap          bool   // a transaction was missing
	Reinit       bool   // the ring was initialised
	WroteSuper   bool   // the superblock was marked clean
	LogWasUnread error  // why the log was ignored; nil if it was read
}

// ApplyAL replays the activity log into the bitmap (section 2.5.6), so that the
// volume may be attached. It can be repeated after a crash at any point: the log
// is not touched before the bitmap is durable, and the superblock says "unclean"
// until both are.
func ApplyAL(s Store, p metadata.Placement, o ApplyOptions) (ApplyResult, error) {
	var r ApplyResult
	m, err := Open(s, p)
	if err != nil {
		return r, err
	}
	if m.Superblock.Flags.Has(metadata.FullSync) && !o.AsDRBD {
		// Every block is out of sync already, so the log has nothing to add; and it may not
		// be there, if the metadata was being moved (see Move).
		r.Reinit = true
		if err := m.initLog(); err != nil {
			return r, err
		}
		return r, m.finishApply(&r)
	}
	log, err := m.readLog()
	if err != nil {
		return r, err
	}
	if log.absent && !m.Superblock.Unclean {
		r.LogWasUnread, r.Reinit = activitylog.ErrNoLog, true
		if err := m.initLog(); err != nil {
			return r, err
		}
		return r, m.finishApply(&r)
	}
	primary := m.Superblock.Flags.Has(metadata.PrimaryInd)
	if err := m.logError(log.err, primary); err != nil {
		return r, err
	}
	r.LogWasUnread, r.Gap = log.err, log.Gap
	if primary {
		if err := m.markLog(log.Result, o, &r); err != nil {
			return r, err
		}
	}
	// A single torn block does no harm, but there is no reason to keep it.
	if log.Reinit || !o.AsDRBD && uint64(log.Valid) < m.Layout.Striping.Blocks() {
		r.Reinit = true
		if err := m.initLog(); err != nil {
			return r, err
		}
	}
	return r, m.finishApply(&r)
}

// finishApply says in the superblock that the log is replayed.
func (m *Meta) finishApply(r *ApplyResult) error {
	if m.Clean() && r.BitmapBytes == 0 {
		return syncStore(m.store)
	}
	m.Superblock.Unclean = false
	m.Superblock.Flags |= metadata.ALClean
	r.WroteSuper = true
	return m.write()
}

type replayedLog struct {
	activitylog.Result
	err    error // activitylog.ErrNoLog or ErrDamaged
	absent bool  // there does not seem to be a log
}

// isAbsent says whether what lies where the log should be does not look like one.
// drbdmeta looks at two blocks, and only in a ring of the default shape: such
// metadata may be older than the log's format. With a clean superblock that is no
// error, even of a node that was Primary.
func isAbsent(s metadata.Striping, area []byte) bool {
	magic := func(b int) bool { return binary.BigEndian.Uint32(area[b*pageSize:]) == activitylog.Magic }
	return s == metadata.DefaultStriping && !magic(0) && !magic(1)
}

func (m *Meta) readLog() (replayedLog, error) {
	size := m.Layout.ActivityLogSectors * 512
	if size > maxRingBytes {
		return replayedLog{}, exit(ExitConfig, "activity log has %d bytes, the limit is %d", size, maxRingBytes)
	}
	area := make([]byte, size)
	if err := readAt(m.store, area, m.Layout.ActivityLog); err != nil {
		return replayedLog{}, err
	}
	res, err := activitylog.Replay(activitylog.Ring(m.Layout.Striping), area)
	if err != nil && !errors.Is(err, activitylog.ErrNoLog) && !errors.Is(err, activitylog.ErrDamaged) {
		return replayedLog{}, exitWith(ExitConfig, err)
	}
	return replayedLog{res, err, isAbsent(m.Layout.Striping, area)}, nil
}

// logError decides whether an unreadable log matters: only if this node may have
// had writes under way.
func (m *Meta) logError(err error, primary bool) error {
	if err == nil || !primary {
		return nil
	}
	return exitWith(ExitCancelled, err)
}

// markLog marks what the log names in the bitmap and makes it durable.
func (m *Meta) markLog(log activitylog.Result, o ApplyOptions, r *ApplyResult) error {
	extents := log.Extents
	if !o.AsDRBD && log.Gap {
		extents = log.Union
	}
	// Whole pages, as drbdmeta counts: bits beyond the end of the device mean nothing.
	size := min(metadata.BitmapBytes(m.Superblock.LASizeSectors), m.Layout.BitmapSectors*512)
	if !o.AsDRBD && log.Incomplete {
		r.Everything = true
		extents = allExtents(size)
	}
	w := pageMarker{m: m, size: size, page: -1}
	for _, e := range extents {
		if uint64(e)*activitylog.BitmapBytesPerExtent >= size {
			r.Ignored++
			continue
		}
		r.Extents++
		if err := w.mark(e); err != nil {
			return err
		}
	}
	if err := w.flush(); err != nil {
		return err
	}
	r.BitmapBytes = w.marked
	if r.BitmapBytes == 0 {
		return nil
	}
	return syncStore(m.store)
}

func allExtents(size uint64) []activitylog.Extent {
	n := (size + activitylog.BitmapBytesPerExtent - 1) / activitylog.BitmapBytesPerExtent
	all := make([]activitylog.Extent, n)
	for i := range all {
		all[i] = activitylog.Extent(i)
	}
	return all
}

const pageSize = 4096

// pageMarker sets the bits of extents, given in rising order, one 4 KiB page of
// the bitmap at a time.
type pageMarker struct {
	m      *Meta
	size   uint64 // of the bitmap, in bytes
	page   int64  // in buf; -1 none
	dirty  bool
	marked uint64
	buf    [pageSize]byte
}

var ones = bytes.Repeat([]byte{0xff}, activitylog.BitmapBytesPerExtent)

func (w *pageMarker) mark(e activitylog.Extent) error {
	off := uint64(e) * activitylog.BitmapBytesPerExtent
	if page := int64(off / pageSize); page != w.page {
		if err := w.load(page); err != nil {
			return err
		}
	}
	n := min(activitylog.BitmapBytesPerExtent, w.size-off)
	bits := w.buf[off%pageSize:][:n]
	if !bytes.Equal(bits, ones[:n]) {
		copy(bits, ones)
		w.dirty = true
	}
	w.marked += n
	return nil
}

func (w *pageMarker) load(page int64) error {
	if err := w.flush(); err != nil {
		return err
	}
	w.page = page
	return readAt(w.m.store, w.bytes(), w.sector())
}

func (w *pageMarker) flush() error {
	if !w.dirty {
		return nil
	}
	w.dirty = false
	return writeAt(w.m.store, w.bytes(), w.sector())
}

func (w *pageMarker) sector() uint64 { return w.m.Layout.Bitmap + uint64(w.page)*pageSize/512 }

// bytes is the page, or what of it lies in the bitmap area: the area of external
// metadata may end within a page.
func (w *pageMarker) bytes() []byte {
	left := w.m.Layout.BitmapSectors*512 - uint64(w.page)*pageSize
	return w.buf[:min(left, pageSize)]
}

// initLog empties the ring. Block 0 comes last and alone: a ring of which nothing
// but block 0 is torn counts as empty, and until then block 0 still holds its
// transaction, so that the power may fail at any point.
func (m *Meta) initLog() error {
	if err := writeEmptyLog(m.store, m.Layout, 1); err != nil {
		return err
	}
	if err := syncStore(m.store); err != nil {
		return err
	}
	if err := writeAt(m.store, activitylog.AppendInitialized(nil), m.Layout.ActivityLog); err != nil {
		return err
	}
	return syncStore(m.store)
}

// writeEmptyLog initialises the blocks of the ring from the given one on.
func writeEmptyLog(s Store, l metadata.Layout, from uint64) error {
	block := activitylog.AppendInitialized(nil)
	chunk := bytes.Repeat(block, int(min(l.ActivityLogSectors/8, zeroChunk/pageSize)))
	for at, end := l.ActivityLog+from*8, l.ActivityLog+l.ActivityLogSectors; at < end; {
		n := min(end-at, uint64(len(chunk))/512)
		if err := writeAt(s, chunk[:n*512], at); err != nil {
			return err
		}
		at += n
	}
	return nil
}
