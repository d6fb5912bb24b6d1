package node

import (
	"sync"

	"github.com/replblk/replblk/block"
	"github.com/replblk/replblk/internal/buffer"
	"github.com/replblk/replblk/replication"
)

// buffers gives names to payload buffers: the core knows a buffer by its BufID
// only. How many there are is bounded by those who allocate: readers by the core's
// room for packets, the core by its own tables.
type buffers struct {
	mu   sync.Mutex
	bufs []*buffer.Buffer // guarded by mu; BufID-1 is the index
	free []uint32         // guarded by mu
}

// alloc returns a new buffer of n bytes and its name.
func (t *buffers) alloc(n int) (replication.BufID, []byte) {
	b := buffer.Get(n)
	t.mu.Lock()
	defer t.mu.Unlock()
	if k := len(t.free); k > 0 {
		i := t.free[k-1]
		t.free = t.free[:k-1]
		t.bufs[i] = b
		return replication.BufID(i + 1), b.B
	}
	t.bufs = append(t.bufs, b)
	return replication.BufID(len(t.bufs)), b.B
}

// bytes returns the memory of a buffer.
func (t *buffers) bytes(id replication.BufID) []byte {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.bufs[id-1].B
}

// forsake takes the memory of a buffer out of use for good, because a disk may still read
// or write it. The name stands for other memory of the same size.
func (t *buffers) forsake(id replication.BufID) {
	t.mu.Lock()
	t.bufs[id-1] = buffer.Get(len(t.bufs[id-1].B))
	t.mu.Unlock()
}

// release gives a buffer back.
func (t *buffers) release(id replication.BufID) {
	t.mu.Lock()
	b := t.bufs[id-1]
	t.bufs[id-1] = nil
	t.free = append(t.free, uint32(id-1))
	t.mu.Unlock()
	buffer.Put(b)
}

// fill puts what an FxFill or FxComplete brings into the memory of a request, and gives the
// buffer back.
func (t *buffers) fill(req *block.Request, e *replication.Effect) {
	if e.Buf == 0 {
		return
	}
	switch data := t.bytes(e.Buf); {
	case e.Kind == replication.FxFill:
		copy(req.Data[e.From:], data[:e.Size])
	case e.Outcome == replication.OK:
		copy(req.Data, data)
	}
	t.release(e.Buf)
}

// inUse returns how many buffers have not been given back.
func (t *buffers) inUse() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.bufs) - len(t.free)
}
