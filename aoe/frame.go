package aoe

import (
	"sync"
	"sync/atomic"
	"time"
	"unsafe"
)

// dataAlign is the alignment of the payload: what O_DIRECT can ask for at most.
const dataAlign = 4096

// Frame is a buffer with one Ethernet frame. It has one owner at a time: who
// hands it to Handle or Send does not touch it again. Byte DataOffset of the
// frame lies on a page boundary.
type Frame struct {
	// Received is when the frame arrived; zero means when Handle saw it.
	Received time.Time

	buf  []byte // everything that may be used, at least as long as the MTU allows
	n    int
	pool *FramePool
	out  *outbox // of the receiver that it came through, may be nil
}

// Bytes returns the frame. It is valid until the frame is handed on.
func (f *Frame) Bytes() []byte { return f.buf[:f.n] }

// Buffer returns the whole buffer, to be filled before SetLen.
func (f *Frame) Buffer() []byte { return f.buf }

// SetLen says how many bytes of the buffer are the frame.
func (f *Frame) SetLen(n int) { f.n = n }

// Release returns the frame to its pool.
func (f *Frame) Release() { f.pool.put(f) }

// finish ends the frame at n bytes, padded with zeroes to MinFrame. Without
// this the tail of the request would go out as padding.
func (f *Frame) finish(n int) {
	if n < MinFrame {
		clear(f.buf[n:MinFrame])
		n = MinFrame
	}
	f.n = n
}

// FramePool recycles frames that are large enough for an MTU.
type FramePool struct {
	free        sync.Pool
	size        atomic.Int64
	outstanding atomic.Int64
}

// NewFramePool returns a pool of frames for mtu.
func NewFramePool(mtu int) *FramePool {
	p := &FramePool{}
	p.SetMTU(mtu)
	return p
}

// SetMTU changes the size of the frames that Get returns from now on.
func (p *FramePool) SetMTU(mtu int) {
	// Four bytes for a VLAN tag that the interface did not strip, and never
	// less than the largest answer to a command without data: IDENTIFY, or a
	// full config string, or a full MAC list.
	p.size.Store(int64(max(mtu+EthernetLen+4, maxListFrame)))
}

// Outstanding returns how many frames are not in the pool.
func (p *FramePool) Outstanding() int { return int(p.outstanding.Load()) }

// Get returns an empty frame.
func (p *FramePool) Get() *Frame {
	p.outstanding.Add(1)
	return p.get()
}

// get is Get without the counting.
func (p *FramePool) get() *Frame {
	size := int(p.size.Load())
	// A frame from before the MTU grew is left to the garbage collector.
	if f, ok := p.free.Get().(*Frame); ok && len(f.buf) >= size {
		return f
	}
	return &Frame{buf: alignedBuffer(size), pool: p}
}

// refit returns f, or a copy of it if the MTU has grown since f was made.
func (p *FramePool) refit(f *Frame) *Frame {
	if int64(len(f.buf)) >= p.size.Load() {
		return f
	}
	g := p.Get()
	g.n, g.Received = copy(g.buf, f.Bytes()), f.Received
	f.Release()
	return g
}

// fill puts a frame wherever there is none.
func (p *FramePool) fill(frames []*Frame) {
	n := int64(0)
	for i, f := range frames {
		if f == nil {
			frames[i] = p.get()
			n++
		}
	}
	p.outstanding.Add(n)
}

// putAll gives frames back, nearly all of them to this pool.
func (p *FramePool) putAll(frames []*Frame) {
	n := int64(0)
	for _, f := range frames {
		if f.pool != p {
			f.Release()
			continue
		}
		p.keep(f)
		n++
	}
	p.outstanding.Add(-n)
}

func (p *FramePool) put(f *Frame) {
	p.keep(f)
	p.outstanding.Add(-1)
}

// reset makes a frame empty.
func (f *Frame) reset() { f.n, f.out, f.Received = 0, nil, time.Time{} }

// keep is put without the counting.
func (p *FramePool) keep(f *Frame) {
	f.reset()
	p.free.Put(f)
}

// alignedBuffer returns size bytes placed so that the payload is aligned.
func alignedBuffer(size int) []byte {
	raw := make([]byte, size+dataAlign)
	addr := uintptr(unsafe.Pointer(unsafe.SliceData(raw)))
	skip := int((dataAlign - (addr+DataOffset)%dataAlign) % dataAlign)
	return raw[skip : skip+size : skip+size]
}
