package file

import (
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/replblk/replblk/block"
)

// maxRun is how many adjacent requests become one system call.
const maxRun = 64

// stopwatch measures requests that are served one after the other, with one look at
// the clock for each. The zero value has not been started.
type stopwatch struct{ last time.Duration }

// epoch is when this process began: durations since then need one look at the clock, times two.
var epoch = time.Now()

// start begins the first measurement.
func (c *stopwatch) start() {
	if c.last == 0 {
		c.last = time.Since(epoch)
	}
}

// lap ends a measurement and begins the next.
func (c *stopwatch) lap() time.Duration {
	now := time.Since(epoch)
	d := now - c.last
	c.last = now
	return d
}

// SubmitBatch implements block.Batcher: adjacent requests to the page cache go to the
// kernel together.
func (f *File) SubmitBatch(rs []*block.Request) {
	var c stopwatch
	f.mapped.Load().warm(rs)
	for len(rs) > 0 {
		n := f.run(rs)
		if n == 1 || !f.serveRun(rs[:n], &c) {
			for _, r := range rs[:n] {
				f.submit(r, &c)
			}
		}
		rs = rs[n:]
	}
}

// run returns how many of the first requests are one range of the file and may be
// served together.
func (f *File) run(rs []*block.Request) int {
	first := rs[0]
	if first.Op != block.Read && first.Op != block.Write || f.direct || f.opt.WriteThrough || first.Flags&block.FUA != 0 {
		return 1
	}
	n, size := 1, len(first.Data)
	for next := first.Sector + uint64(first.Sectors); n < min(len(rs), maxRun); n++ {
		r := rs[n]
		size += len(r.Data)
		if r.Op != first.Op || r.Sector != next || r.Flags&block.FUA != 0 || size > inlineBytes {
			break
		}
		next += uint64(r.Sectors)
	}
	return n
}

// serveRun serves adjacent requests with one system call, on the caller's goroutine. It
// reports false, and has not completed any, if they must be submitted one by one: the
// backing blocks, or something is wrong with one of them.
func (f *File) serveRun(rs []*block.Request, c *stopwatch) bool {
	if f.opt.Inline == InlineNever || f.opt.Inline == InlineAuto && !f.policy.inline(rs[0], false) {
		return false
	}
	g := f.Geometry()
	for _, r := range rs {
		if r.Check(g) != nil {
			return false
		}
	}
	if !f.enterMany(len(rs)) {
		return false
	}
	c.start()
	ok := f.transferRun(rs)
	each := c.lap() / time.Duration(len(rs))
	if !ok {
		f.leaveMany(len(rs)) // writing a part of them twice does no harm
		return false
	}
	for _, r := range rs {
		f.policy.observe(r, each)
		f.finish(r, nil)
	}
	return true
}

// transferRun reports false if not all was transferred.
func (f *File) transferRun(rs []*block.Request) bool {
	last := rs[len(rs)-1]
	off := block.Bytes(rs[0].Sector)
	size := block.Bytes(last.Sector+uint64(last.Sectors)) - off
	if rs[0].Op == block.Write {
		f.sectors.lock(off, size)
		defer f.sectors.unlock(off, size)
	} else {
		f.sectors.rLock(off, size)
		defer f.sectors.rUnlock(off, size)
	}
	return f.mapped.Load().transferRun(rs) || f.vectorRun(rs, off)
}

// vectorRun is transferRun by one system call. The caller holds the locks of the range.
func (f *File) vectorRun(rs []*block.Request, off int64) bool {
	var iovs [maxRun]unix.Iovec
	total := 0
	for i, r := range rs {
		iovs[i].Base = unsafe.SliceData(r.Data)
		iovs[i].SetLen(len(r.Data))
		total += len(r.Data)
	}
	trap := uintptr(unix.SYS_PREADV)
	if rs[0].Op == block.Write {
		trap = unix.SYS_PWRITEV
	}
	n, _, errno := unix.Syscall6(trap, uintptr(f.fd), uintptr(unsafe.Pointer(&iovs[0])), uintptr(len(rs)), uintptr(off), uintptr(off>>32), 0)
	return errno == 0 && int(n) == total //nolint:gosec // at most inlineBytes
}
