package file

import (
	"errors"
	"os"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/replblk/replblk/internal/buffer"
)

// zeroes is the source of written zeroes; never modified.
var zeroes = buffer.Get(bounceMax).B

// FastZero says whether zeroing is cheaper than writing zeroes, as far as is
// known: true until the backing has refused. noHole asks for zeroes that stay
// allocated.
func (f *File) FastZero(noHole bool) bool {
	return !noHole && !f.noPunch.Load() || !f.noZero.Load()
}

// zero makes [off, off+n) read as zeroes. On a block device a hole is
// BLKDEV_ZERO_NOFALLBACK underneath, which unlike BLKDISCARD promises zeroes.
func (f *File) zero(off, n int64, noHole bool) error {
	unit := f.zeroUnit()
	defer f.stored.Store(nil)
	slot := f.ranges.lock(off&^(unit-1), (off+n+unit-1)&^(unit-1))
	defer f.ranges.unlock(slot)

	inStart, inEnd := f.inside(off, n)
	if inStart >= inEnd {
		return f.writeZeroes(off, n)
	}
	if err := f.writeZeroes(off, inStart-off); err != nil {
		return err
	}
	if err := f.deallocate(inStart, inEnd-inStart, noHole); err != nil {
		return err
	}
	return f.writeZeroes(inEnd, off+n-inEnd)
}

// zeroUnit is the granularity that fallocate insists on. In the page cache it is a page:
// a part of one would be zeroed under the eyes of readers.
func (f *File) zeroUnit() int64 {
	switch {
	case !f.direct:
		return int64(max(f.geometry.LogicalBlock, uint32(os.Getpagesize())))
	case f.blockDev:
		return max(int64(f.geometry.LogicalBlock), int64(f.align))
	default:
		return int64(f.align)
	}
}

// inside returns the whole blocks within a range; start >= end if there are none.
func (f *File) inside(off, n int64) (start, end int64) {
	unit := f.zeroUnit()
	return (off + unit - 1) &^ (unit - 1), (off + n) &^ (unit - 1)
}

// deallocate zeroes whole blocks with the cheapest means that the backing has.
func (f *File) deallocate(off, n int64, noHole bool) error {
	if !noHole {
		done, err := f.fallocate(&f.noPunch, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, n)
		if done {
			return err
		}
	}
	done, err := f.fallocate(&f.noZero, unix.FALLOC_FL_ZERO_RANGE|unix.FALLOC_FL_KEEP_SIZE, off, n)
	if done {
		return err
	}
	return f.writeZeroes(off, n)
}

// fallocate tries one mode. done is false if the backing does not have it,
// which is remembered in unsupported.
func (f *File) fallocate(unsupported *atomic.Bool, mode uint32, off, n int64) (done bool, err error) {
	if unsupported.Load() {
		return false, nil
	}
	if m := f.mapped.Load(); m != nil {
		// Readers would see the page vanish while they are at a sector of it.
		f.sectors.lock(off, n)
		defer f.sectors.unlock(off, n)
		defer m.forget(off, n)
	}
	for {
		err = unix.Fallocate(f.fd, mode, off, n)
		switch {
		case err == unix.EINTR:
		case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENOSYS), errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENODEV):
			unsupported.Store(true)
			return false, nil
		default:
			return true, err
		}
	}
}

// writeZeroes writes zeroes to a range that the caller holds.
func (f *File) writeZeroes(off, n int64) error {
	for n > 0 {
		k := min(n, int64(len(zeroes)))
		if err := f.writeLocked(zeroes[:k], off, 0); err != nil {
			return err
		}
		off, n = off+k, n-k
	}
	return nil
}
