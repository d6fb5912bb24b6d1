package file

import "sync"

// sectorLocks keep a reader from seeing a sector of which a part is written: the page
// cache copies while it is read, and only a disk reads and writes whole sectors. They are
// not needed for direct I/O.
//
// A lock covers every stripeCount-th stripe of the file, so that none is allocated.
// Requests of different sectors that share one may run after each other, which nobody can
// tell.
type sectorLocks [stripeCount]struct {
	sync.RWMutex
	_ [64 - 24]byte // a cache line each
}

const (
	stripeBytes = 64 << 10
	stripeCount = 256
)

// stripes returns the first lock of [off, off+n) and the one past the last, which is past
// the end of the table if the range goes on at its beginning.
func stripes(off, n int64) (first, past int) {
	s, e := off/stripeBytes, (off+n+stripeBytes-1)/stripeBytes
	first = int(s % stripeCount)
	return first, first + int(min(e-s, stripeCount))
}

// each calls f for the locks of a range, in the order of the table: who takes them so waits
// for nobody who waits for him.
func (l *sectorLocks) each(off, n int64, f func(*sync.RWMutex)) {
	first, past := stripes(off, n)
	for i := range past - stripeCount {
		f(&l[i].RWMutex)
	}
	for i := first; i < min(past, stripeCount); i++ {
		f(&l[i].RWMutex)
	}
}

func (l *sectorLocks) lock(off, n int64)    { l.each(off, n, (*sync.RWMutex).Lock) }
func (l *sectorLocks) unlock(off, n int64)  { l.each(off, n, (*sync.RWMutex).Unlock) }
func (l *sectorLocks) rLock(off, n int64)   { l.each(off, n, (*sync.RWMutex).RLock) }
func (l *sectorLocks) rUnlock(off, n int64) { l.each(off, n, (*sync.RWMutex).RUnlock) }
