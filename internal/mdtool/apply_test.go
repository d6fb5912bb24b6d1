package mdtool

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand"
	"os"
	"testing"

	"github.com/replblk/replblk/activitylog"
	"github.com/replblk/replblk/metadata"
)

func asExit(err error, e **ExitError) bool { return errors.As(err, e) }

// writeLog drives a Set through random work and writes its transactions, as a
// node would; it returns the ring index of the last one, and how many there were.
func (im *image) writeLog(t *testing.T, rng *rand.Rand, slots, transactions int, start uint32, extents int) uint32 {
	t.Helper()
	ring := activitylog.Ring(im.l.Striping)
	set, err := activitylog.New(slots, ring)
	if err != nil {
		t.Fatal(err)
	}
	set.Reset(start)
	var tr activitylog.Transaction
	var held []activitylog.Extent
	for range transactions {
		for len(held) > slots/2 || len(held) > 0 && rng.Intn(2) == 0 {
			i := rng.Intn(len(held))
			set.Release(held[i])
			held = append(held[:i], held[i+1:]...)
		}
		for range 1 + rng.Intn(20) {
			e := activitylog.Extent(rng.Intn(extents))
			if o := set.Use(e); o == activitylog.Hot || o == activitylog.NeedsTransaction {
				held = append(held, e)
			}
		}
		set.BuildTransaction(&tr)
		im.log(t, ring, tr.Number, tr.AppendTo(nil))
		set.Commit()
	}
	return set.Number() - 1
}

// applyBoth applies with both tools and compares exit codes and bytes.
func applyBoth(t *testing.T, im *image, o ApplyOptions) ApplyResult {
	t.Helper()
	copyPath := copyFile(t, im.path)
	_, errs, code := drbdmeta(t, copyPath, im.p, "apply-al")
	var r ApplyResult
	withFile(t, im.path, func(s *File) {
		var err error
		r, err = ApplyAL(s, im.p, o)
		var e *ExitError
		got := 0
		if asExit(err, &e) {
			got = e.Code
		} else if err != nil {
			t.Fatal(err)
		}
		if got != code {
			t.Fatalf("exit %d (%v), drbdmeta %d: %s", got, err, code, errs)
		}
	})
	diff(t, "area after apply-al", area(t, im.path, im.l), area(t, copyPath, im.l))
	return r
}

// copyFile copies a file with its holes: most of a disk is one.
func copyFile(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	c := newFile(t, int64(len(b)))
	f, err := os.OpenFile(c, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	hole := make([]byte, 64<<10)
	for off := 0; off < len(b); off += len(hole) {
		piece := b[off:min(off+len(hole), len(b))]
		if bytes.Equal(piece, hole[:len(piece)]) {
			continue
		}
		if _, err := f.WriteAt(piece, int64(off)); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

// TestApplyALEqualsDrbdmeta applies logs written by Set, whole and damaged.
func TestApplyALEqualsDrbdmeta(t *testing.T) {
	rng := rand.New(rand.NewSource(2))
	flagSets := []metadata.Flags{
		metadata.PrimaryInd | metadata.Consistent, 0, metadata.Consistent | metadata.ALClean,
		metadata.PrimaryInd | metadata.ALClean, metadata.PrimaryInd | metadata.FullSync,
	}
	for i := range 60 {
		p := []metadata.Placement{metadata.Internal, metadata.FlexExternal}[i%2]
		if i%10 == 0 {
			p = metadata.Indexed(0)
		}
		st := metadata.Striping{}
		if i%4 > 1 && p != metadata.Indexed(0) {
			st = []metadata.Striping{{Stripes: 3, StripeSize4K: 8}, {Stripes: 4, StripeSize4K: 2}}[i/4%2]
		}
		size := int64(16 << 20)
		if p == metadata.Indexed(0) {
			size = 128 << 20
		}
		im := newImage(t, p, size, st, uint64(10000+rng.Intn(3000000)), flagSets[rng.Intn(len(flagSets))])
		slots := []int{7, 67, 257, 1237, 3000}[rng.Intn(5)]
		n := rng.Intn(30)
		start := []uint32{0, 0, 5, 0xfffffff8, 0x12345678}[rng.Intn(5)]
		im.writeLog(t, rng, slots, n, start, 20+rng.Intn(500))
		damaged := ""
		for range []int{0, 0, 1, 1, 2, 7}[rng.Intn(6)] {
			b := uint32(rng.Intn(int(im.l.Striping.Blocks())))
			junk := make([]byte, 512)
			rng.Read(junk)
			im.write(t, im.l.ActivityLog+uint64(b)*8+uint64(rng.Intn(8)), junk)
			damaged += fmt.Sprint(" ", b)
		}
		t.Run(fmt.Sprintf("%d/%s/%v/slots=%d/n=%d/start=%#x/flags=%v/damaged%s", i, p, st, slots, n, start, im.sb.Flags, damaged), func(t *testing.T) {
			applyBoth(t, im, ApplyOptions{AsDRBD: true})
		})
	}
}

// TestApplyALDamageEqualsDrbdmeta goes through every set of damaged blocks of an
// empty ring, and every single one of a used ring.
func TestApplyALDamageEqualsDrbdmeta(t *testing.T) {
	rng := rand.New(rand.NewSource(3))
	junk := make([]byte, 4096)
	rng.Read(junk)
	masks := []int{0, 1, 2, 3, 4, 0x80, 0x81, 0xfe, 0x7f, 0xff}
	for _, used := range []int{0, 1, 2, 8, 12} {
		for _, flags := range []metadata.Flags{0, metadata.PrimaryInd, metadata.ALClean, metadata.ALClean | metadata.PrimaryInd} {
			for _, mask := range masks {
				im := newImage(t, metadata.Internal, 2<<20, metadata.Striping{}, 3000, flags)
				im.writeLog(t, rng, 67, used, 0, 3)
				for b := range uint64(8) {
					if mask&(1<<b) != 0 {
						im.write(t, im.l.ActivityLog+b*8, junk)
					}
				}
				t.Run(fmt.Sprintf("used=%d/flags=%v/mask=%#x", used, flags, mask), func(t *testing.T) {
					applyBoth(t, im, ApplyOptions{AsDRBD: true})
				})
			}
		}
	}
}

// TestApplyALOddBlocksEqualsDrbdmeta uses blocks that Set would never write, with
// a right checksum.
func TestApplyALOddBlocksEqualsDrbdmeta(t *testing.T) {
	rng := rand.New(rand.NewSource(4))
	for i := range 80 {
		im := newImage(t, metadata.Internal, 4<<20, metadata.Striping{}, uint64(1+rng.Intn(8000)), metadata.PrimaryInd)
		if i%2 == 1 {
			im = newImage(t, metadata.FlexExternal, 1<<20, metadata.Striping{}, uint64(1+rng.Intn(40000000)), metadata.PrimaryInd)
		}
		// drbdmeta compares transaction numbers as signed integers, so that it
		// goes wrong where they pass 2^31; we do not, and compare elsewhere.
		base := []uint32{0, 1000, 0xfffffffa, 0x80000000}[rng.Intn(4)]
		for b := range uint32(8) {
			if rng.Intn(3) == 0 {
				continue
			}
			tr := oddTransaction(rng, base)
			im.log(t, activitylog.DefaultRing, b, tr.AppendTo(nil))
		}
		t.Run(fmt.Sprintf("%d/la=%d", i, im.sb.LASizeSectors), func(t *testing.T) { applyBoth(t, im, ApplyOptions{AsDRBD: true}) })
	}
}

func oddTransaction(rng *rand.Rand, base uint32) *activitylog.Transaction {
	tr := &activitylog.Transaction{
		Number:       base + uint32(rng.Intn(12)),
		Slots:        uint16(rng.Intn(3) * 500),
		ContextStart: uint16(rng.Intn(4) * rng.Intn(21845)),
		NumUpdates:   uint16(rng.Intn(64)),
	}
	for i := range tr.UpdateSlot {
		tr.UpdateSlot[i] = uint16(rng.Intn(70000))
		tr.UpdateExtent[i] = uint32(rng.Intn(5000))
		if rng.Intn(3) == 0 {
			tr.UpdateSlot[i] = 0xffff
		}
	}
	for i := range tr.Context {
		tr.Context[i] = activitylog.Free
		if rng.Intn(30) == 0 {
			tr.Context[i] = uint32(rng.Intn(5000))
		}
	}
	return tr
}

// TestApplyALGapIsSafe: with a transaction lost in the middle, what is applied
// contains what drbdmeta applies.
func TestApplyALGapIsSafe(t *testing.T) {
	rng := rand.New(rand.NewSource(5))
	for i := range 20 {
		im := newImage(t, metadata.Internal, 48<<20, metadata.Striping{}, 90000, metadata.PrimaryInd)
		last := im.writeLog(t, rng, []int{67, 1237}[i%2], 12, 0, 12)
		lost := (last - 2 - uint32(rng.Intn(3))) % 8
		im.log(t, activitylog.DefaultRing, lost, make([]byte, 4096))
		theirs := copyFile(t, im.path)
		mustDrbdmeta(t, theirs, im.p, "apply-al")
		var r ApplyResult
		withFile(t, im.path, func(s *File) {
			var err error
			if r, err = ApplyAL(s, im.p, ApplyOptions{}); err != nil {
				t.Fatal(err)
			}
		})
		if !r.Gap {
			t.Errorf("gap at block %d not seen: %+v", lost, r)
		}
		a, b := area(t, im.path, im.l), area(t, theirs, im.l)
		for i := range a[:im.l.BitmapSectors*512] {
			if a[i]&b[i] != b[i] {
				t.Fatalf("bitmap byte %d: ours %#x lacks bits of drbdmeta's %#x", i, a[i], b[i])
			}
		}
	}
}
