package file

import (
	"os"
	"runtime/debug"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/replblk/replblk/block"
)

const (
	// unitBytes is what a mapping looks up, and uses, as a whole. It has one lock of sectorLocks.
	unitBytes = stripeBytes
	// lookInterval is how many transfers are left to the kernel, because their unit was not
	// whole, before one of them has it looked at again.
	lookInterval = 16
	// maxMapped is the longest file that is mapped, in bytes.
	maxMapped = 1 << 40
	// leastPage is the size of the smallest page that any machine has.
	leastPage = 4096
)

// mapping is a file of a file system in memory as a part of this process's memory. Of a
// small transfer by the kernel most is the search for the page, and the locks, of which that
// of the file lets one writer in at a time.
//
// Only units of which every page is there are used. A hole would be filled by reading it, and
// where there is no memory for that the process would get a signal instead of an error. That
// pages of such a unit go after all, or to swap, costs time or the kernel is asked again.
type mapping struct {
	mem   []byte          // reaches beyond the end of the file
	seen  []atomic.Uint32 // bit per unit: it was looked at
	whole []atomic.Uint32 // bit per unit: it was whole then. Changed with the unit's lock held
	asked atomic.Uint32   // transfers that were left to the kernel
	wrote atomic.Bool     // something was written since touched was called
}

// newMapping maps a file of size bytes with as much room again, so that one that grows is
// mapped anew a few times only. It returns nil if that is not possible.
func newMapping(fd int, size int64) *mapping {
	if size <= 0 || size > maxMapped {
		return nil
	}
	size = (2*size + unitBytes - 1) &^ (unitBytes - 1)
	if size != int64(int(size)) {
		return nil
	}
	mem, err := unix.Mmap(fd, 0, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil // the kernel does without
	}
	words := size/unitBytes/32 + 1
	return &mapping{mem: mem, seen: make([]atomic.Uint32, words), whole: make([]atomic.Uint32, words)}
}

// word returns where the bit of a unit is.
func word(u int64) (i int64, bit uint32) { return u / 32, 1 << (u % 32) }

// at returns the memory of [off, off+n), n > 0, if all of its units are whole, and nil
// otherwise. The caller holds the locks of the range.
func (m *mapping) at(off int64, n int) []byte {
	if m == nil || off > int64(len(m.mem))-int64(n) {
		return nil
	}
	for u := off / unitBytes; u*unitBytes < off+int64(n); u++ {
		if i, bit := word(u); m.whole[i].Load()&bit == 0 && !m.look(u) {
			return nil
		}
	}
	return m.mem[off:][:n]
}

// look says whether a unit has become whole, if it is time to look.
func (m *mapping) look(u int64) bool {
	i, bit := word(u)
	if m.asked.Add(1)%lookInterval > 0 && m.seen[i].Load()&bit != 0 {
		return false
	}
	m.seen[i].Or(bit)
	mem := m.mem[u*unitBytes:][:unitBytes]
	if !resident(mem) {
		return false
	}
	_ = unix.Madvise(mem, unix.MADV_POPULATE_WRITE) // of Linux 5.14: saves a fault for each page
	m.whole[i].Or(bit)
	return true
}

// resident says whether all pages of a unit are in memory.
func resident(unit []byte) bool {
	var pages [unitBytes / leastPage]byte
	if _, _, errno := unix.Syscall(unix.SYS_MINCORE, uintptr(unsafe.Pointer(unsafe.SliceData(unit))), unitBytes,
		uintptr(unsafe.Pointer(&pages))); errno != 0 {
		return false
	}
	for _, p := range pages[:max(1, unitBytes/os.Getpagesize())] {
		if p&1 == 0 {
			return false
		}
	}
	return true
}

// forget says that [off, off+n) has become a hole. The caller holds the locks of the range.
func (m *mapping) forget(off, n int64) {
	for u := off / unitBytes; u*unitBytes < min(off+n, int64(len(m.mem))); u++ {
		i, bit := word(u)
		m.whole[i].And(^bit)
	}
}

// load fills p from off, or reports false.
func (m *mapping) load(p []byte, off int64) bool {
	mem := m.at(off, len(p))
	return mem != nil && carefully(mem, func() { copy(p, mem) })
}

// store writes p at off, or reports false: a part of it may have been written then.
func (m *mapping) store(p []byte, off int64) bool {
	mem := m.at(off, len(p))
	if mem == nil || !carefully(mem, func() { copy(mem, p) }) {
		return false
	}
	if !m.wrote.Load() { // not every time: the receivers of a client would wait for each other
		m.wrote.Store(true)
	}
	return true
}

// serveMapped executes a request without the kernel, if that is possible. How long it takes says
// nothing about the others.
func (f *File) serveMapped(r *block.Request) bool {
	m := f.mapped.Load()
	if m == nil || f.opt.Inline == InlineNever || len(r.Data) > inlineBytes {
		return false
	}
	off, n := block.Bytes(r.Sector), int64(len(r.Data))
	switch {
	case r.Op == block.Read:
		f.sectors.rLock(off, n)
		defer f.sectors.rUnlock(off, n)
		return m.load(r.Data, off)
	case r.Op == block.Write && r.Flags&block.FUA == 0 && !f.opt.WriteThrough:
		f.sectors.lock(off, n)
		defer f.sectors.unlock(off, n)
		return m.store(r.Data, off)
	default:
		return false
	}
}

// transferRun is load or store for requests that are one range.
func (m *mapping) transferRun(rs []*block.Request) bool {
	if m == nil {
		return false
	}
	for _, r := range rs {
		off := block.Bytes(r.Sector)
		if r.Op == block.Read && !m.load(r.Data, off) || r.Op == block.Write && !m.store(r.Data, off) {
			return false
		}
	}
	return true
}

// carefully calls f, which uses mem, and reports false if the file does not have all of that
// any more, because somebody has cut it off, or there is no memory for a page of it.
func carefully(mem []byte, f func()) (ok bool) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if ok {
			return
		}
		r := recover()
		fault, is := r.(interface{ Addr() uintptr })
		if !is || fault.Addr()-uintptr(unsafe.Pointer(unsafe.SliceData(mem))) >= uintptr(len(mem)) {
			panic(r)
		}
	}()
	f()
	return true
}

// warmBytes is how much of a request's memory is fetched ahead. Behind that the processor
// itself sees where it goes.
const warmBytes = 1024

// warm has the processor fetch the memory of requests, all at once: one after the other, each that
// does not follow the one before would wait for its memory alone.
func (m *mapping) warm(rs []*block.Request) {
	if m == nil || len(rs) < 2 {
		return
	}
	next := rs[0].Sector
	for i, r := range rs {
		if i == 0 || r.Sector != next {
			prefetch(m.known(block.Bytes(r.Sector), min(len(r.Data), warmBytes)))
		}
		next = r.Sector + uint64(r.Sectors)
	}
}

// known returns the memory of [off, off+n), or nil if its first unit is not known to be whole.
func (m *mapping) known(off int64, n int) []byte {
	i, bit := word(off / unitBytes)
	if off < 0 || off > int64(len(m.mem))-int64(n) || n == 0 || m.whole[i].Load()&bit == 0 {
		return nil
	}
	return m.mem[off:][:n]
}

// touched makes the file's time of modification, which writing to memory leaves as it is, that
// of now, if something was written since the last call.
func (m *mapping) touched(fd int) {
	if m == nil || !m.wrote.Swap(false) {
		return
	}
	now := unix.NsecToTimeval(time.Now().UnixNano())
	_ = unix.Futimes(fd, []unix.Timeval{now, now}) // for who looks at it
}

// remap maps the file if there is reason to, and no mapping that is long enough. Who uses an older
// one may go on.
func (f *File) remap(size int64) {
	if !f.opt.Map || f.opt.ReadOnly || !f.inMemory() {
		return
	}
	f.mapMu.Lock()
	defer f.mapMu.Unlock()
	if m := f.mapped.Load(); m != nil && size <= int64(len(m.mem)) {
		return
	}
	m := newMapping(f.fd, size)
	f.mapped.Store(m)
	if m != nil {
		f.mappings = append(f.mappings, m)
	}
}

// resized takes note of the file's size now and before. What was cut off is a hole when the file
// grows again.
func (f *File) resized(before, now int64) {
	m := f.mapped.Load()
	m.touched(f.fd)
	if m != nil && now < before {
		f.sectors.lock(now, before-now)
		m.forget(now, before-now)
		f.sectors.unlock(now, before-now)
	}
	if now > before {
		f.remap(now)
	}
}

// unmap gives the mappings back, which nobody uses any more.
func (f *File) unmap() {
	f.mapMu.Lock()
	defer f.mapMu.Unlock()
	for _, m := range f.mappings {
		m.touched(f.fd)
		_ = unix.Munmap(m.mem)
	}
	f.mappings = nil
}
