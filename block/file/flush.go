package file

import (
	"errors"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/replblk/replblk/block"
)

// flusher collects the requests that wait for an fdatasync: flushes, and
// modifications that must be durable and are not yet.
type flusher struct {
	mu         sync.Mutex
	head, tail *block.Request
	running    bool // somebody will take the list, or is about to ask for a worker

	// job is queued like a request to make a worker run flushAll.
	job block.Request
}

// submitFlush queues r for the next fdatasync, and runs that here if inline is
// set and none is running.
func (f *File) submitFlush(r *block.Request, inline bool) {
	fl := &f.flush
	r.Next = nil
	fl.mu.Lock()
	if fl.head == nil {
		fl.head = r
	} else {
		fl.tail.Next = r
	}
	fl.tail = r
	start := !fl.running
	fl.running = true
	fl.mu.Unlock()
	if !start {
		return
	}
	// One round at most on the submitter's goroutine: it must not be kept
	// serving the flushes of others.
	if inline && !f.flushRound() {
		return
	}
	f.queue.push(&fl.job)
}

// flushAll runs rounds until nobody waits.
func (f *File) flushAll() {
	for f.flushRound() {
	}
}

// flushRound serves everyone queued so far with one fdatasync and says whether
// more were queued meanwhile. If not, running is reset.
func (f *File) flushRound() (more bool) {
	fl := &f.flush
	fl.mu.Lock()
	r := fl.head
	fl.head, fl.tail = nil, nil
	fl.mu.Unlock()

	start := time.Now()
	err := f.fdatasync()
	f.policy.observe(&fl.job, time.Since(start))

	// The state is settled before anybody is told: Done may submit the next
	// flush, and Close may follow the last.
	fl.mu.Lock()
	more = fl.head != nil
	fl.running = more
	fl.mu.Unlock()
	for r != nil {
		next := r.Next
		r.Next = nil
		if err != nil {
			f.finish(r, r.Fail(err))
		} else {
			f.finish(r, nil)
		}
		r = next
	}
	return more
}

// fdatasync makes the page cache and the disk's cache durable. After the first
// failure it is never called again: the kernel marks pages that it could not
// write as clean, so a later success would be a lie (ATC'20, "Can applications
// recover from fsync failures?").
func (f *File) fdatasync() error {
	if errno := f.failed.Load(); errno != 0 {
		return unix.Errno(errno)
	}
	for {
		err := unix.Fdatasync(f.fd)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			f.poison(err)
		}
		return err
	}
}

// poison makes a lost flush final.
func (f *File) poison(err error) {
	errno := unix.EIO
	if !errors.As(err, &errno) || errno == 0 {
		errno = unix.EIO
	}
	f.failed.CompareAndSwap(0, int32(errno))
}
