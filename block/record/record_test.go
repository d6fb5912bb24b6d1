package record

import (
	"bytes"
	"testing"

	"github.com/replblk/replblk/block"
	"github.com/replblk/replblk/block/faulty"
	"github.com/replblk/replblk/block/mem"
)

func sector(v byte) []byte { return bytes.Repeat([]byte{v}, block.SectorSize) }

// lose returns the first bytes of the first sectors after a power loss.
func lose(d *Device, at uint64, sectors int, keep bool) (left []byte, doubts int) {
	image := make([]byte, sectors*block.SectorSize)
	doubts = Lose(d.Entries(), at, image, func(int) bool { return keep })
	for i := range sectors {
		left = append(left, image[i*block.SectorSize])
	}
	return left, doubts
}

func TestLoseKeepsWhatWasFlushed(t *testing.T) {
	c := &Clock{}
	d := New(mem.NewVolatile(8), c)
	must := func(err error) uint64 {
		if err != nil {
			t.Fatal(err)
		}
		return c.Tick()
	}
	written := must(block.WriteAt(d, sector(1), 0))
	flushed := must(block.FlushAll(d))
	fua := must(block.Do(d, &block.Request{Op: block.Write, Flags: block.FUA, Sectors: 1, Sector: 1, Data: sector(2)}))
	over := must(block.WriteAt(d, sector(3), 0))
	zeroed := must(block.Do(d, &block.Request{Op: block.WriteZeroes, Sectors: 1, Sector: 1}))
	for _, tc := range []struct {
		at             uint64
		least, most    []byte
		sectorsInDoubt int
	}{
		{0, []byte{0, 0}, []byte{0, 0}, 0},
		{written, []byte{0, 0}, []byte{1, 0}, 1},
		{flushed, []byte{1, 0}, []byte{1, 0}, 0},
		{fua, []byte{1, 2}, []byte{1, 2}, 0},
		{over, []byte{1, 2}, []byte{3, 2}, 1},
		{zeroed, []byte{1, 2}, []byte{3, 0}, 2},
	} {
		least, n := lose(d, tc.at, 2, false)
		most, _ := lose(d, tc.at, 2, true)
		if !bytes.Equal(least, tc.least) || !bytes.Equal(most, tc.most) || n != tc.sectorsInDoubt {
			t.Errorf("at %d: %v to %v, %d in doubt, want %v to %v, %d", tc.at, least, most, n, tc.least, tc.most, tc.sectorsInDoubt)
		}
	}
}

// A flush covers what had ended when it began, and nothing if it fails.
func TestFlushCoversWhatHadEnded(t *testing.T) {
	c := &Clock{}
	disk := faulty.New(mem.NewVolatile(8), faulty.Rule{Ops: []block.Op{block.Write}, Hold: true, Count: 1})
	d := New(disk, c)
	done := make(chan error, 1)
	d.Submit(&block.Request{Op: block.Write, Sectors: 1, Data: sector(1), Done: func(r *block.Request) { done <- r.Err }})
	if err := block.FlushAll(d); err != nil {
		t.Fatal(err)
	}
	disk.Release()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if left, n := lose(d, c.Tick(), 1, false); left[0] != 0 || n != 1 {
		t.Errorf("a write that was in flight when the flush began: %v, %d in doubt", left, n)
	}
	disk.Set(faulty.Rule{Ops: []block.Op{block.Flush}, Err: 5})
	if err := block.FlushAll(d); err == nil {
		t.Fatal("the flush did not fail")
	}
	if _, n := lose(d, c.Tick(), 1, false); n != 1 {
		t.Errorf("a flush that failed has covered a write")
	}
}
