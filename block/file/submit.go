package file

import (
	"errors"
	"io"

	"golang.org/x/sys/unix"

	"github.com/replblk/replblk/block"
)

// Submit implements block.Device. Of overlapping requests in flight at the same
// time any may come first; each sector is of one of them.
func (f *File) Submit(r *block.Request) {
	var c stopwatch
	f.submit(r, &c)
}

func (f *File) submit(r *block.Request, c *stopwatch) {
	if !f.enter() {
		r.Complete(r.Fail(unix.EBADF))
		return
	}
	if err := r.Check(f.Geometry()); err != nil {
		f.finish(r, err)
		return
	}
	if f.serveMapped(r) {
		f.finish(r, nil)
		return
	}
	alone := r.Flags&block.More == 0 && f.inflight.Load() == 1
	inline := f.opt.Inline == InlineAlways || f.opt.Inline == InlineAuto && f.policy.inline(r, alone)
	switch {
	case r.Op == block.Flush:
		f.submitFlush(r, inline)
	case inline:
		f.serve(r, c)
	default:
		f.queue.push(r)
	}
}

// finish gives the request back.
func (f *File) finish(r *block.Request, err error) {
	r.Err = err
	done := r.Done
	f.leave()
	done(r)
}

// serve executes a request other than Flush and completes it, or passes it on
// to the flusher.
func (f *File) serve(r *block.Request, c *stopwatch) {
	c.start()
	durable := r.Op.Modifies() && (f.opt.WriteThrough || r.Flags&block.FUA != 0)
	flush, err := f.execute(r, durable)
	f.policy.observe(r, c.lap())
	switch {
	case err != nil:
		f.finish(r, r.Fail(errno(err)))
	case flush:
		f.submitFlush(r, false)
	default:
		f.finish(r, nil)
	}
}

// execute does the I/O of r. flush says that r is not durable yet and must be.
func (f *File) execute(r *block.Request, durable bool) (flush bool, err error) {
	off := block.Bytes(r.Sector)
	switch r.Op {
	case block.Read:
		return false, f.read(r.Data, off)
	case block.Write:
		if !durable {
			return false, f.write(r.Data, off, 0)
		}
		return f.writeDurable(r.Data, off)
	case block.Discard, block.WriteZeroes:
		noHole := r.Op == block.WriteZeroes && r.Flags&block.NoHole != 0
		return durable, f.zero(off, int64(r.Sectors)*block.SectorSize, noHole)
	default:
		return false, unix.EINVAL
	}
}

// writeDurable writes p so that it is durable, or says that a flush is still
// needed for that.
//
// An error of a synchronous write may be a failed write-back of any older page,
// whose only report this was. So it poisons the device like a failed flush.
func (f *File) writeDurable(p []byte, off int64) (flush bool, err error) {
	if errno := f.failed.Load(); errno != 0 {
		return false, unix.Errno(errno)
	}
	if f.noDsync.Load() {
		return true, f.write(p, off, 0)
	}
	err = f.write(p, off, unix.RWF_DSYNC)
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) {
		f.noDsync.Store(true)
		return true, f.write(p, off, 0)
	}
	if err != nil {
		f.poison(err)
	}
	return false, err
}

// errno turns the errors that are not from the kernel into one that a
// frontend can map.
func errno(err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.ErrShortWrite) {
		return unix.EIO
	}
	return err
}
