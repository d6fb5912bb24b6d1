package node

import (
	"testing"

	"github.com/replblk/replblk/block"
	"github.com/replblk/replblk/node/transport"
)

// TestVolumeAllocation asks the local disk for its holes while it answers reads by
// itself, and never otherwise: the peer may have data where the disk has none.
func TestVolumeAllocation(t *testing.T) {
	m := newMirror(t, &transport.Memory{}, "a", "b", 4)
	v := m.Volume(0)
	if err := block.WriteAt(m.disk, append(make([]byte, 4095), 1), 8); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		reads  bool
		sector uint64
		n      uint64
		zero   bool
	}{{true, 0, 8, true}, {true, 8, 8, false}, {true, 16, 16, true}, {false, 0, 32, false}} {
		v.reads.Store(c.reads)
		if n, zero := v.Allocation(c.sector, 32-c.sector); n != c.n || zero != c.zero {
			t.Errorf("reads %v, sector %d: %d, %v; want %d, %v", c.reads, c.sector, n, zero, c.n, c.zero)
		}
	}
	v.reads.Store(true)
	b := v.disk.Load()
	b.data = failing{b.data} // a device that does not know
	if n, zero := v.Allocation(0, 32); n != 32 || zero {
		t.Errorf("a device without an answer: %d, %v", n, zero)
	}
	b.data = m.disk
	v.disk.Store(nil)
	if n, zero := v.Allocation(0, 32); n != 32 || zero {
		t.Errorf("no disk: %d, %v", n, zero)
	}
	v.disk.Store(b)
	m.shutdown(t)
}
