// Package buffer is a pool of page-aligned byte buffers with one owner at a time.
//
// Every payload of the data path lives in one of these from the socket to the
// disk: alignment to Align makes the same memory fit O_DIRECT, and reuse keeps
// the garbage collector out of the latency of a request. Ownership moves with
// the pointer; whoever holds it last calls Put, exactly once.
//
// Sizes are powers of two from MinSize to MaxSize. Each size keeps a short list
// of free buffers (hotBytes) that survives garbage collection, and leaves the
// rest to a sync.Pool, so a burst of large requests gives its memory back.
package buffer

import (
	"math/bits"
	"sync"
	"sync/atomic"
	"unsafe"
)

const (
	// Align is the alignment in bytes of every buffer, enough for direct I/O on
	// any device with blocks of up to 4 KiB.
	Align = 4096
	// MinSize is the smallest buffer in bytes.
	MinSize = 1 << minShift
	// MaxSize is the largest pooled buffer in bytes. Get serves larger sizes
	// too, without pooling them.
	MaxSize = 1 << maxShift

	minShift = 12
	maxShift = 25
	classes  = maxShift - minShift + 1

	// hotBytes bounds the free list of one size.
	hotBytes = 4 << 20
)

// Buffer is page-aligned memory. B has the length asked for; its capacity is
// that of the size class.
type Buffer struct {
	B []byte

	mem   []byte // the whole class
	class int8   // -1: not pooled
	free  atomic.Bool
	next  *Buffer // free list, guarded by the class's mu
}

// class holds the free buffers of one size. The padding keeps neighbours, which
// other processors are busy with, off its cache line.
type class struct {
	mu   sync.Mutex
	head *Buffer
	n    int
	cold sync.Pool
	_    [64]byte
}

var pool [classes]class

// Get returns a buffer with len(B) == n. Its contents are unspecified. n must
// have been bounded by the caller.
func Get(n int) *Buffer {
	k := classOf(n)
	if k < 0 {
		m := aligned(n)
		return &Buffer{B: m, mem: m, class: -1}
	}
	b := pool[k].get()
	if b == nil {
		b = &Buffer{mem: aligned(MinSize << k), class: int8(k)}
	}
	b.B = b.mem[:n]
	return b
}

// Put gives b back. It panics if b has been given back already: two owners of
// one buffer means one client reads the data of another.
func Put(b *Buffer) {
	if !b.free.CompareAndSwap(false, true) {
		panic("buffer: put twice")
	}
	b.B = nil
	if b.class >= 0 {
		pool[b.class].put(b)
	}
}

func (c *class) get() *Buffer {
	c.mu.Lock()
	b := c.head
	if b != nil {
		c.head, b.next = b.next, nil
		c.n--
	}
	c.mu.Unlock()
	if b == nil {
		b, _ = c.cold.Get().(*Buffer)
	}
	if b != nil {
		b.free.Store(false)
	}
	return b
}

func (c *class) put(b *Buffer) {
	c.mu.Lock()
	hot := (c.n+1)*len(b.mem) <= hotBytes
	if hot {
		b.next, c.head = c.head, b
		c.n++
	}
	c.mu.Unlock()
	if !hot {
		c.cold.Put(b)
	}
}

// classOf returns the index of the smallest class that holds n bytes, -1 if
// none does.
func classOf(n int) int {
	if n <= MinSize {
		return 0
	}
	if n > MaxSize {
		return -1
	}
	return bits.Len(uint(n-1)) - minShift
}

// aligned allocates n bytes at a multiple of Align. The allocator happens to
// return page-aligned memory for these sizes, but does not promise it.
func aligned(n int) []byte {
	m := make([]byte, n)
	if IsAligned(m, Align) {
		return m
	}
	m = make([]byte, n+Align)
	skip := int(-uintptr(unsafe.Pointer(&m[0])) & (Align - 1))
	return m[skip : skip+n : skip+n]
}

// IsAligned says whether p starts at a multiple of align, a power of two.
func IsAligned(p []byte, align int) bool {
	return uintptr(unsafe.Pointer(unsafe.SliceData(p)))&uintptr(align-1) == 0
}
