package file

import (
	"errors"

	"golang.org/x/sys/unix"

	"github.com/replblk/replblk/block"
)

// extent is a range of bytes that is known to be stored. Only such ranges are
// remembered: that a stored range is taken for one when it has become a hole
// costs time, while a hole that has been written to must be seen at once.
type extent struct{ start, end int64 }

// Allocation says that the first n of the sectors starting at sector are a hole
// of the file, which reads as zeroes (zero), or that they are not known to be
// one. 1 <= n <= sectors. A device that is not a file has no holes.
//
// The end of a stored range is looked up once, because some file systems (tmpfs)
// find it by walking all of its pages.
func (f *File) Allocation(sector, sectors uint64) (n uint64, zero bool) {
	if f.blockDev || !f.enter() {
		return sectors, false
	}
	defer f.leave()
	off := block.Bytes(sector)
	end := off + block.Bytes(sectors)
	if e := f.stored.Load(); e != nil && e.start <= off && off < e.end {
		return sectorsTo(off, min(end, e.end)), false
	}
	data, err := f.seek(off, unix.SEEK_DATA)
	switch {
	case errors.Is(err, unix.ENXIO): // nothing but a hole up to the end of the file
		return sectors, true
	case err != nil:
		return sectors, false
	case data-off >= block.SectorSize:
		return uint64(min(data, end)-off) >> block.SectorShift, true
	}
	hole, err := f.seek(off, unix.SEEK_HOLE)
	if err != nil || hole <= off {
		return sectors, false
	}
	f.stored.Store(&extent{off, hole})
	return sectorsTo(off, min(end, hole)), false
}

// sectorsTo counts the sectors from off to end, the last one in part or whole.
func sectorsTo(off, end int64) uint64 {
	return uint64(end-off+block.SectorSize-1) >> block.SectorShift
}

// seek finds data or a hole from off on. The position of the descriptor, which
// it moves, is used by nobody.
func (f *File) seek(off int64, whence int) (int64, error) {
	for {
		at, err := unix.Seek(f.fd, off, whence)
		if err != unix.EINTR {
			return at, err
		}
	}
}
