package file

import (
	"bytes"
	"math/rand/v2"
	"os"
	"testing"

	"github.com/replblk/replblk/block"
	"github.com/replblk/replblk/internal/buffer"
)

// holes walks the whole device and returns how many sectors are holes.
func holes(t *testing.T, f *File) (sectors uint64) {
	t.Helper()
	end := f.Geometry().Sectors
	for at := uint64(0); at < end; {
		n, zero := f.Allocation(at, end-at)
		if n == 0 || n > end-at {
			t.Fatalf("sector %d of %d: a run of %d", at, end, n)
		}
		if zero {
			sectors += n
		}
		at += n
	}
	return sectors
}

func write(t *testing.T, f *File, p []byte, sector uint64) {
	t.Helper()
	b := buffer.Get(len(p))
	defer buffer.Put(b)
	copy(b.B, p)
	if err := block.WriteAt(f, b.B, sector); err != nil {
		t.Fatal(err)
	}
}

func TestAllocationFollowsTheFile(t *testing.T) {
	const size = 8 << 20
	variants(t, size, func(t *testing.T, f *File) {
		if got := holes(t, f); got != size/512 {
			t.Fatalf("an empty file has %d sectors of holes of %d", got, size/512)
		}
		write(t, f, bytes.Repeat([]byte{1}, 64<<10), 2048)
		if got := holes(t, f); got != (size-64<<10)/512 {
			t.Errorf("with 64 KiB written: %d sectors of holes", got)
		}
		if n, zero := f.Allocation(0, 1<<40); zero != true || n != 2048 {
			t.Errorf("from 0: %d, %v; want 2048 sectors of hole", n, zero)
		}
		if n, zero := f.Allocation(2050, 4); zero || n != 4 {
			t.Errorf("inside the data: %d, %v", n, zero)
		}
		r := &block.Request{Op: block.Discard, Sector: 2048, Sectors: 128}
		if err := block.Do(f, r); err != nil {
			t.Fatal(err)
		}
		if got := holes(t, f); got != size/512 {
			t.Errorf("after a discard: %d sectors of holes", got)
		}
	})
}

// What is called a hole reads as zeroes at that moment, whatever was written and
// discarded before.
func TestAllocationIsTrue(t *testing.T) {
	const sectors = 4096
	variants(t, sectors*512, func(t *testing.T, f *File) {
		rnd := rand.New(rand.NewPCG(1, 2))
		p := buffer.Get(512 * 64)
		defer buffer.Put(p)
		for step := range 2000 {
			at, n := rnd.Uint64N(sectors-64), 1+rnd.Uint64N(64)
			switch rnd.IntN(4) {
			case 0:
				write(t, f, bytes.Repeat([]byte{byte(step) | 1}, int(n)*512), at)
			case 1:
				if err := block.Do(f, &block.Request{Op: block.Discard, Sector: at, Sectors: uint32(n)}); err != nil {
					t.Fatal(err)
				}
			default:
				k, zero := f.Allocation(at, n)
				if k == 0 || k > n {
					t.Fatalf("step %d: %d sectors of %d", step, k, n)
				}
				if err := block.ReadAt(f, p.B[:k*512], at); err != nil {
					t.Fatal(err)
				}
				if zero && !bytes.Equal(p.B[:k*512], make([]byte, k*512)) {
					t.Fatalf("step %d: %d sectors at %d are called a hole and have data", step, k, at)
				}
			}
		}
	})
}

func TestAllocationAtTheEnds(t *testing.T) {
	path := tempFile(t, "", 0)
	if err := os.WriteFile(path, bytes.Repeat([]byte{7}, 1000), 0o600); err != nil {
		t.Fatal(err)
	}
	f := open(t, path, Options{})
	if n, zero := f.Allocation(0, 1); n != 1 || zero {
		t.Errorf("a file of 1000 bytes: %d, %v", n, zero)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if n, zero := f.Allocation(0, 1); n != 1 || zero {
		t.Errorf("closed: %d, %v", n, zero)
	}
}
