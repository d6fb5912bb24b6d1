package mdtool

import (
	"bytes"
	"math/rand"
	"testing"

	"github.com/replblk/replblk/activitylog"
	"github.com/replblk/replblk/metadata"
)

// grown are sizes to which a device of crashedPrimary may grow, in sectors more: by one
// block, by less than the superblock and the log, by less than the metadata, by far more, and
// over a bitmap page.
var grown = []uint64{8, 15, 64, 72, 80, 1024, 8192, 300000}

func grow(b []byte, sectors uint64) []byte {
	return append(bytes.Clone(b), make([]byte, sectors*512)...)
}

// logged returns what the log of m names.
func logged(t *testing.T, b []byte, l metadata.Layout) []activitylog.Extent {
	t.Helper()
	r, err := activitylog.Replay(activitylog.Ring(l.Striping), b[l.ActivityLog*512:][:l.ActivityLogSectors*512])
	if err != nil {
		t.Fatal(err)
	}
	return r.Extents
}

func sameExtents(a, b []activitylog.Extent) bool {
	for i := range a {
		if i >= len(b) || a[i] != b[i] {
			return false
		}
	}
	return len(a) == len(b)
}

// TestMove: bitmap, log and generations are the same at the new place, drbdmeta reads it, and
// the old superblock is gone.
func TestMove(t *testing.T) {
	im, start := crashedPrimary(t)
	marked := bytes.Repeat([]byte{0xa5}, int(min(im.l.BitmapSectors*512, 4000/64)))
	copy(start[im.l.Bitmap*512:], marked)
	old, err := Open(newMemory(start), im.p)
	if err != nil {
		t.Fatal(err)
	}
	for _, more := range grown {
		m := newMemory(grow(start, more))
		moved, err := CheckResize(m, im.p, uint64(len(start))/512)
		if err != nil || !moved {
			t.Fatalf("%d sectors more: moved %v, %v", more, moved, err)
		}
		if !bytes.Equal(m.data, m.durable) {
			t.Errorf("%d sectors more: not flushed", more)
		}
		now, err := Open(m, im.p)
		if err != nil {
			t.Fatalf("%d sectors more: %v", more, err)
		}
		if now.Superblock.UUIDs != old.Superblock.UUIDs || now.Superblock.Flags != old.Superblock.Flags || now.Superblock.LASizeSectors != old.Superblock.LASizeSectors {
			t.Errorf("%d sectors more: superblock %+v, was %+v", more, now.Superblock, old.Superblock)
		}
		if !bytes.HasPrefix(m.data[now.Layout.Bitmap*512:], marked) || !sameExtents(logged(t, m.data, now.Layout), logged(t, start, im.l)) {
			t.Errorf("%d sectors more: bitmap or log differ", more)
		}
		if end := uint64(len(start)) / 512; now.Layout.Bitmap > end {
			if _, err := Open(&prefix{m, end}, im.p); err == nil {
				t.Errorf("%d sectors more: the old superblock is still there", more)
			}
		}
		if moved, err := CheckResize(m, im.p, uint64(len(start))/512); moved || err != nil {
			t.Errorf("%d sectors more: moved again: %v, %v", more, moved, err)
		}
	}
}

// TestMoveCrash cuts the power at every step of a move. Whoever looks at the end first and
// then where the device ended before finds metadata which names everything that was marked.
func TestMoveCrash(t *testing.T) {
	im, start := crashedPrimary(t)
	copy(start[im.l.Bitmap*512:], bytes.Repeat([]byte{0xa5}, 60))
	names := logged(t, start, im.l)
	before := uint64(len(start)) / 512
	rng := rand.New(rand.NewSource(3))
	sizes := grown[:7]
	if testing.Short() { // under the race detector
		sizes = grown[3:5]
	}
	for _, more := range sizes {
		for budget := 0; ; budget++ {
			m := newMemory(grow(start, more))
			m.budget = budget
			if _, err := CheckResize(m, im.p, before); err == nil {
				break
			}
			for mode := range 8 {
				again := newMemory(m.afterCut(mode, rng))
				if _, err := CheckResize(again, im.p, before); err != nil {
					t.Fatalf("%d sectors more, crash at step %d: %v", more, budget, err)
				}
				now, err := Open(again, im.p)
				if err != nil {
					t.Fatal(err)
				}
				if now.Superblock.Flags.Has(metadata.FullSync) {
					if now.Layout.Bitmap >= before {
						t.Fatalf("%d sectors more, crash at step %d: full sync although the places do not touch", more, budget)
					}
				} else if image := again.data[now.Layout.Bitmap*512:]; !bytes.HasPrefix(image, start[im.l.Bitmap*512:][:60]) || !sameExtents(logged(t, again.data, now.Layout), names) {
					t.Fatalf("%d sectors more, crash at step %d: bitmap or log lost", more, budget)
				}
				if _, err := ApplyAL(again, im.p, ApplyOptions{}); err != nil {
					t.Fatalf("%d sectors more, crash at step %d: apply-al: %v", more, budget, err)
				}
			}
		}
	}
}

// TestCheckResizeRefuses: without metadata at either place, or on a device that has shrunk,
// nothing is written.
func TestCheckResizeRefuses(t *testing.T) {
	im, start := crashedPrimary(t)
	sectors := uint64(len(start)) / 512
	for _, c := range []struct {
		what string
		data []byte
		old  uint64
	}{
		{"nobody knows the old size", grow(start, 4096), 0},
		{"another old size", grow(start, 4096), sectors - 8},
		{"shrunk", start[:len(start)-8192], sectors},
	} {
		m := newMemory(bytes.Clone(c.data))
		if moved, err := CheckResize(m, im.p, c.old); err == nil || moved {
			t.Errorf("%s: moved %v, %v", c.what, moved, err)
		}
		if !bytes.Equal(m.data, c.data) {
			t.Errorf("%s: the device was changed", c.what)
		}
	}
}
