package mdtool

import (
	"compress/gzip"
	"io"
	"math/bits"
	"os"
	"path/filepath"
	"testing"

	"github.com/replblk/replblk/activitylog"
	"github.com/replblk/replblk/metadata"
)

// kernelImage is the metadata of a disk of a kernel in testdata/kernel, which ends with it.
type kernelImage struct {
	name     string
	size     int64 // of the disk
	striping metadata.Striping
	updates  int // transactions in the activity log
	extents  int // that it says are in use
	marked   int // bits set in the bitmap after it was applied
}

const mib = 1 << 20

// kernelImages were left by TestKernelMetadata of interop/ on a disk of 128 MiB.
var kernelImages = []kernelImage{
	{"crashed", 128 * mib, metadata.DefaultStriping, 8, 20, 20 * 1024},
	{"applied", 128 * mib, metadata.DefaultStriping, 0, 0, 20 * 1024},
	{"grown", 176 * mib, metadata.DefaultStriping, 8, 0, 20*1024 + 12287},
	{"striped", 128 * mib, metadata.Striping{Stripes: 3, StripeSize4K: 8}, 24, 9, 9 * 1024},
}

// restore makes a disk with the image.
func (k kernelImage) restore(t *testing.T) *image {
	t.Helper()
	f, err := os.Open(filepath.Join("testdata", "kernel", k.name+".md.gz"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	tail, err := io.ReadAll(io.LimitReader(z, mib))
	if err != nil {
		t.Fatal(err)
	}
	im := &image{path: newFile(t, k.size), p: metadata.Internal}
	withFile(t, im.path, func(s *File) {
		if _, err := s.WriteAt(tail, k.size-int64(len(tail))); err != nil {
			t.Fatal(err)
		}
		m, err := Open(s, im.p)
		if err != nil {
			t.Fatal(err)
		}
		im.l, im.sb = m.Layout, m.Superblock
	})
	return im
}

// TestKernelImages reads metadata that a kernel has written, encodes all of it again to the
// same bytes, and applies its activity log as drbdmeta does.
func TestKernelImages(t *testing.T) {
	for _, k := range kernelImages {
		t.Run(k.name, func(t *testing.T) {
			im := k.restore(t)
			if im.l.Striping != k.striping {
				t.Errorf("striping %+v, want %+v", im.l.Striping, k.striping)
			}
			b := area(t, im.path, im.l)
			super := b[(im.l.Superblock-im.l.First())*512:][:metadata.SuperblockSize]
			diff(t, "superblock", im.sb.AppendTo(nil), super)
			log := b[(im.l.ActivityLog-im.l.First())*512:][:im.l.ActivityLogSectors*512]
			k.checkLog(t, im.l, log)
			applyBoth(t, im, ApplyOptions{AsDRBD: true})
			bitmap := im.bitmap(t)
			if n := popCount(bitmap); n != k.marked {
				t.Errorf("%d bits set, want %d", n, k.marked)
			}
			if k.name == "crashed" { // the kernel did the same next
				diff(t, "bitmap", bitmap, kernelImages[1].restore(t).bitmap(t))
			}
		})
	}
}

// bitmap returns the bitmap, up to the end of the device.
func (im *image) bitmap(t *testing.T) []byte {
	t.Helper()
	at := (im.l.Bitmap - im.l.First()) * 512
	return area(t, im.path, im.l)[at : at+metadata.BitmapWords(im.sb.LASizeSectors)*8]
}

func popCount(bitmap []byte) (n int) {
	for _, b := range bitmap {
		n += bits.OnesCount8(b)
	}
	return n
}

// checkLog takes the activity log apart.
func (k kernelImage) checkLog(t *testing.T, l metadata.Layout, log []byte) {
	t.Helper()
	var tr activitylog.Transaction
	for at := 0; at < len(log); at += activitylog.BlockSize {
		block := log[at : at+activitylog.BlockSize]
		if err := tr.Decode(block); err != nil {
			t.Fatalf("log block at %d: %v", at, err)
		}
		diff(t, "log block", tr.AppendTo(nil), block)
	}
	r, err := activitylog.Replay(activitylog.Ring(l.Striping), log)
	if err != nil || r.Gap || r.Incomplete || r.Updates != k.updates || len(r.Extents) != k.extents {
		t.Errorf("replay: %+v, %v, want %d updates and %d extents", r, err, k.updates, k.extents)
	}
}
