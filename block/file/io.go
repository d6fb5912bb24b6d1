package file

import (
	"errors"
	"io"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/replblk/replblk/internal/buffer"
)

// bounceMax bounds the aligned copy of an unaligned request in bytes.
const bounceMax = 1 << 20

// read fills p from off, through an aligned copy where direct I/O needs one.
func (f *File) read(p []byte, off int64) error {
	if f.aligned(p, off) {
		return f.preadFull(p, off)
	}
	b := buffer.Get(bounceMax)
	defer buffer.Put(b)
	for len(p) > 0 {
		start, end := f.chunk(off, len(p))
		if err := f.preadFull(b.B[:end-start], start); err != nil {
			return err
		}
		n := copy(p, b.B[off-start:end-start])
		p, off = p[n:], off+int64(n)
	}
	return nil
}

// write writes p at off. flags is 0, or RWF_DSYNC for durable data.
func (f *File) write(p []byte, off int64, flags int) error {
	if !f.direct {
		return f.pwriteFull(p, off, flags)
	}
	start, end := f.round(off, len(p))
	slot := f.ranges.lock(start, end)
	defer f.ranges.unlock(slot)
	return f.writeLocked(p, off, flags)
}

// writeLocked is write for a caller that holds the range, rounded to blocks.
func (f *File) writeLocked(p []byte, off int64, flags int) error {
	if f.aligned(p, off) {
		return f.pwriteFull(p, off, flags)
	}
	b := buffer.Get(bounceMax)
	defer buffer.Put(b)
	for len(p) > 0 {
		start, end := f.chunk(off, len(p))
		n := min(len(p), int(end-off))
		if err := f.readEdges(b.B[:end-start], start, off, off+int64(n)); err != nil {
			return err
		}
		copy(b.B[off-start:], p[:n])
		if err := f.pwriteFull(b.B[:end-start], start, flags); err != nil {
			return err
		}
		p, off = p[n:], off+int64(n)
	}
	return nil
}

// readEdges reads the first and last block of p, which lies at start, if the
// range [from, to) covers them only partly.
func (f *File) readEdges(p []byte, start, from, to int64) error {
	a := int64(f.align)
	if from != start {
		if err := f.preadFull(p[:a], start); err != nil {
			return err
		}
	}
	last := int64(len(p)) - a
	if to == start+int64(len(p)) || last == 0 && from != start {
		return nil
	}
	return f.preadFull(p[last:], start+last)
}

// aligned says whether the kernel takes the request as it is.
func (f *File) aligned(p []byte, off int64) bool {
	return !f.direct ||
		(off|int64(len(p)))&int64(f.align-1) == 0 && buffer.IsAligned(p, f.memAlign)
}

// round widens a range to whole blocks.
func (f *File) round(off int64, n int) (start, end int64) {
	a := int64(f.align)
	return off &^ (a - 1), (off + int64(n) + a - 1) &^ (a - 1)
}

// chunk is round for as much of the range as fits the bounce buffer.
func (f *File) chunk(off int64, n int) (start, end int64) {
	start, end = f.round(off, n)
	return start, min(end, start+bounceMax)
}

// preadFull reads all of p or fails; the end of the file is a failure, since
// the range was checked against the size.
func (f *File) preadFull(p []byte, off int64) error {
	if !f.direct {
		n := int64(len(p))
		f.sectors.rLock(off, n)
		defer f.sectors.rUnlock(off, n)
		if f.mapped.Load().load(p, off) {
			return nil
		}
	}
	for len(p) > 0 {
		n, err := unix.Pread(f.fd, p, off)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		if n == 0 {
			return io.ErrUnexpectedEOF
		}
		p, off = p[n:], off+int64(n)
	}
	return nil
}

// pwriteFull writes all of p or fails.
func (f *File) pwriteFull(p []byte, off int64, flags int) error {
	if !f.direct {
		n := int64(len(p))
		f.sectors.lock(off, n)
		defer f.sectors.unlock(off, n)
		if flags == 0 && f.mapped.Load().store(p, off) {
			return nil
		}
	}
	for len(p) > 0 {
		n, err := f.pwrite(p, off, flags)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return err
		}
		if n == 0 {
			return io.ErrShortWrite
		}
		p, off = p[n:], off+int64(n)
	}
	return nil
}

func (f *File) pwrite(p []byte, off int64, flags int) (int, error) {
	if flags == 0 {
		return unix.Pwrite(f.fd, p, off)
	}
	return pwritev2(f.fd, p, off, flags)
}

// pwritev2 exists because the one of x/sys allocates its vector.
func pwritev2(fd int, p []byte, off int64, flags int) (int, error) {
	iov := unix.Iovec{Base: unsafe.SliceData(p)}
	iov.SetLen(len(p))
	n, _, errno := unix.Syscall6(unix.SYS_PWRITEV2, uintptr(fd), uintptr(unsafe.Pointer(&iov)), 1,
		uintptr(off), uintptr(off>>32), uintptr(flags))
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}
