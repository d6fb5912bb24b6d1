// Package file is a block device backed by a file, a sparse file, a loop
// device, a logical volume or a raw disk.
//
// # Where requests run
//
// Against the page cache a request takes two or three microseconds and any
// hand-off to another goroutine costs more than that, so Submit serves it on the
// caller's goroutine. Against a device that blocks, serial service wastes the
// device, so requests go to a pool of workers. Which of the two the backing is
// can change at any time, so the service time is measured (policy.go).
//
// # Durability
//
// Flush is fdatasync; one call serves every Flush that was queued before it
// started. A flush that failed is final: the kernel reports a lost page once
// and marks it clean, so a second fdatasync that succeeds proves nothing. From
// the first failure on every Flush and FUA write fails with the same error, and
// the owner must treat the disk as gone.
//
// # Sectors
//
// A sector is read and written whole, as a disk does it, also where the page cache
// would let a reader see half of a write in progress.
//
// # Files in memory
//
// A file of tmpfs can be mapped (Options.Map, mapping.go), which saves the system calls.
//
// # Direct I/O
//
// With O_DIRECT, requests that do not have the alignment that the backing needs
// go through an aligned copy; partial blocks are read, modified and written
// under a range lock, so that a neighbour written at the same time is not undone.
package file

import (
	"fmt"
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/replblk/replblk/block"
)

// DirectMode says whether to bypass the page cache.
type DirectMode uint8

// Values of DirectMode.
const (
	DirectAuto DirectMode = iota // O_DIRECT if the backing can
	DirectOn                     // O_DIRECT, or Open fails
	DirectOff                    // page cache
)

// InlineMode says whether Submit may serve a request before it returns.
type InlineMode uint8

// Values of InlineMode.
const (
	InlineAuto   InlineMode = iota // while the backing answers at once
	InlineNever                    // for submitters that must not block, such as an event loop
	InlineAlways                   // no workers but for flushes; for measurements
)

// Options of Open. The zero value is a writable device with direct I/O if possible.
type Options struct {
	Direct   DirectMode
	Inline   InlineMode
	ReadOnly bool
	// Workers bounds the requests that block in the kernel at once; 0 is 16.
	Workers int
	// WriteThrough makes every modification durable before it completes, as if
	// it carried FUA.
	WriteThrough bool
	// Map reads and writes a file of a file system in memory through a mapping of it, which is
	// several times as fast as system calls are. A process that is killed may then leave
	// the sector that it was writing half written: only for who promises nothing about
	// writes that were not acknowledged. It has no effect on other files, nor if ReadOnly.
	Map bool
	// NoLock opens the backing without exclusive ownership. Only for looking at
	// a device that somebody else serves.
	NoLock bool
}

const defaultWorkers = 16

// File is an open backing device. All methods may be called from any goroutine.
// It is also an io.ReaderAt and io.WriterAt at any byte offset, for metadata.
type File struct {
	path string
	fd   int
	opt  Options

	blockDev bool
	direct   bool
	align    int            // of offset and length, 1 without direct I/O
	memAlign int            // of memory
	geometry block.Geometry // all but Sectors is immutable after Open

	size      atomic.Int64 // bytes
	inflight  atomic.Int64 // requests between enter and leave, plus closing
	closed    atomic.Bool
	drained   chan struct{}
	drainOnce sync.Once

	failed  atomic.Int32 // errno of the first failed flush; final
	noPunch atomic.Bool  // the backing cannot punch holes
	noZero  atomic.Bool  // the backing cannot zero a range
	noDsync atomic.Bool  // the kernel does not know RWF_DSYNC here

	stored atomic.Pointer[extent] // see Allocation

	mapped   atomic.Pointer[mapping] // nil without one
	mapMu    sync.Mutex              // held to replace mapped
	mappings []*mapping              // guarded by mapMu: all, until Close

	policy  policy
	queue   queue
	flush   flusher
	ranges  rangeLock
	sectors sectorLocks
}

// Open opens the file or block device at path and takes exclusive ownership of
// it: an flock on a file (shared if ReadOnly), O_EXCL on a block device.
func Open(path string, opt Options) (*File, error) {
	if opt.Workers <= 0 {
		opt.Workers = defaultWorkers
	}
	f := &File{path: path, fd: -1, opt: opt, align: 1, memAlign: 1, drained: make(chan struct{})}
	f.queue.init(f, opt.Workers)
	f.ranges.init()
	f.flush.job.Op = block.Flush
	if err := f.open(); err != nil {
		if f.fd >= 0 {
			_ = unix.Close(f.fd)
		}
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	return f, nil
}

// Path returns the path given to Open.
func (f *File) Path() string { return f.path }

// Direct says whether I/O bypasses the page cache.
func (f *File) Direct() bool { return f.direct }

// Size returns the size of the backing in bytes, as of Open or the last Refresh.
func (f *File) Size() int64 { return f.size.Load() }

// Geometry implements block.Device.
func (f *File) Geometry() block.Geometry {
	g := f.geometry
	g.Sectors = block.SectorsIn(f.size.Load())
	return g
}

// Err returns the error of the first failed flush, nil while the disk is good.
func (f *File) Err() error {
	if errno := f.failed.Load(); errno != 0 {
		return fmt.Errorf("%s: an earlier flush was lost: %w", f.path, unix.Errno(errno))
	}
	return nil
}

// Refresh looks whether the backing was resized and returns whether it was. A
// new size that direct I/O cannot address to the end is an error and ignored.
func (f *File) Refresh() (changed bool, err error) {
	if !f.enter() {
		return false, os.ErrClosed
	}
	defer f.leave()
	size, err := f.measure()
	if err != nil {
		return false, fmt.Errorf("%s: measure: %w", f.path, err)
	}
	if size%int64(f.align) != 0 {
		return false, fmt.Errorf("%s: new size %d is not a multiple of %d, which direct I/O needs", f.path, size, f.align)
	}
	before := f.size.Swap(size)
	f.resized(before, size)
	return before != size, nil
}

// ReadAt implements io.ReaderAt. Unlike a file it never reads less than p: a
// range beyond the end is an error.
func (f *File) ReadAt(p []byte, off int64) (int, error) {
	return f.at(block.Read, p, off)
}

// WriteAt implements io.WriterAt. It does not make the data durable; see Sync.
func (f *File) WriteAt(p []byte, off int64) (int, error) {
	return f.at(block.Write, p, off)
}

func (f *File) at(op block.Op, p []byte, off int64) (int, error) {
	if !f.enter() {
		return 0, os.ErrClosed
	}
	defer f.leave()
	size := f.size.Load()
	if off < 0 || off > size || int64(len(p)) > size-off {
		return 0, fmt.Errorf("%s: %v of %d bytes at %d: beyond the end at %d: %w", f.path, op, len(p), off, size, unix.EINVAL)
	}
	if err := f.transfer(op, p, off); err != nil {
		return 0, fmt.Errorf("%s: %v of %d bytes at %d: %w", f.path, op, len(p), off, err)
	}
	return len(p), nil
}

func (f *File) transfer(op block.Op, p []byte, off int64) error {
	switch {
	case op == block.Read:
		return f.read(p, off)
	case f.geometry.ReadOnly:
		return unix.EROFS
	case f.opt.WriteThrough:
		return f.write(p, off, unix.RWF_DSYNC)
	default:
		return f.write(p, off, 0)
	}
}

// Sync makes every completed write durable.
func (f *File) Sync() error {
	if err := block.FlushAll(f); err != nil {
		return fmt.Errorf("%s: %w", f.path, err)
	}
	return nil
}

// closing is added to inflight by Close; no request count comes near it.
const closing = 1 << 40

// enter counts a request in; false means the device is closed.
func (f *File) enter() bool { return f.enterMany(1) }

func (f *File) enterMany(n int) bool {
	if f.inflight.Add(int64(n)) < closing {
		return true
	}
	f.leaveMany(n)
	return false
}

// leave counts a request out. After Close the count can touch zero more than
// once, when a late request counts itself in and out.
func (f *File) leave() { f.leaveMany(1) }

func (f *File) leaveMany(n int) {
	if f.inflight.Add(-int64(n)) == closing {
		f.drainOnce.Do(func() { close(f.drained) })
	}
}

// Close waits until no request touches the backing any more (the last Done may
// still be running), then gives up ownership. It does not flush:
// whoever cares has flushed. Requests submitted later fail with EBADF.
func (f *File) Close() error {
	if !f.closed.CompareAndSwap(false, true) {
		return os.ErrClosed
	}
	f.inflight.Add(closing + 1)
	f.leave() // if nothing is in flight this closes drained
	<-f.drained
	f.queue.close()
	f.unmap()
	if err := unix.Close(f.fd); err != nil {
		return fmt.Errorf("close %s: %w", f.path, err)
	}
	return nil
}
