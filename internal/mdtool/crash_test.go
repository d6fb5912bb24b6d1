package mdtool

import (
	"bytes"
	"math/rand"
	"os"
	"testing"

	"github.com/replblk/replblk/metadata"
)

// crashedPrimary is a volume whose log names extents 0 to 11, in memory.
func crashedPrimary(t *testing.T) (*image, []byte) {
	t.Helper()
	im := newImage(t, metadata.Internal, 2<<20+512, metadata.Striping{}, 4000, metadata.PrimaryInd|metadata.Consistent)
	im.writeLog(t, rand.New(rand.NewSource(7)), 67, 12, 0, 30)
	b, err := os.ReadFile(im.path)
	if err != nil {
		t.Fatal(err)
	}
	return im, b
}

// TestApplyALCrash cuts the power after every write and flush, keeping what was
// flushed, all that was written, or a random choice of its sectors; a second run must then
// mark at least what an undisturbed one marks. It may mark more: of a ring that was
// emptied in part, old transactions may be what is left.
func TestApplyALCrash(t *testing.T) {
	im, start := crashedPrimary(t)
	whole := newMemory(bytes.Clone(start))
	if _, err := ApplyAL(whole, im.p, ApplyOptions{}); err != nil {
		t.Fatal(err)
	}
	if bytes.Equal(whole.durable, start) {
		t.Fatal("nothing was applied")
	}
	rng := rand.New(rand.NewSource(8))
	for budget := 0; ; budget++ {
		m := newMemory(bytes.Clone(start))
		m.budget = budget
		_, err := ApplyAL(m, im.p, ApplyOptions{})
		if err == nil {
			if budget < 5 {
				t.Fatalf("only %d writes and flushes", budget)
			}
			return
		}
		for mode := range 40 {
			again := newMemory(m.afterCut(mode, rng))
			if _, err := ApplyAL(again, im.p, ApplyOptions{}); err != nil {
				t.Fatalf("second run after a crash at step %d: %v", budget, err)
			}
			sameOrMore(t, im, again.durable, whole.durable, budget)
		}
	}
}

// TestCreateCrash: at no point of create-md over old metadata may an old
// superblock be found together with an emptied bitmap.
func TestCreateCrash(t *testing.T) {
	im, start := crashedPrimary(t)
	bitmap := start[im.l.Bitmap*512 : im.l.ActivityLog*512]
	for i := range bitmap {
		bitmap[i] = 0xff
	}
	for budget := 0; ; budget++ {
		m := newMemory(bytes.Clone(start))
		m.budget = budget
		_, err := Create(m, im.p, CreateOptions{Ask: Ask{Force: true}})
		if err == nil {
			if !bytes.Equal(m.data, m.durable) {
				t.Fatal("create-md left writes that are not flushed")
			}
			return
		}
		for _, state := range [][]byte{m.durable, m.data} {
			found, err := Open(newMemory(bytes.Clone(state)), im.p)
			if err != nil || found.Superblock.UUIDs.Current() == metadata.JustCreated {
				continue
			}
			now := state[im.l.Bitmap*512 : im.l.ActivityLog*512]
			if !bytes.Equal(now, bytes.Repeat([]byte{0xff}, len(now))) {
				t.Fatalf("crash at step %d: the old superblock with another bitmap", budget)
			}
		}
	}
}

// TestRestoreChecksFirst: a mistake at the end of a dump leaves all as it was.
func TestRestoreChecksFirst(t *testing.T) {
	im, start := crashedPrimary(t)
	var text bytes.Buffer
	if err := Dump(newMemory(start), im.p, &text, DumpOptions{Force: true}); err != nil {
		t.Fatal(err)
	}
	clean := bytes.Replace(text.Bytes(), []byte("This_is_an_unclean_meta_data_dump._Don't_trust_the_bitmap."), nil, 1)
	for _, bad := range [][]byte{text.Bytes(), clean[:len(clean)-20], append(bytes.Clone(clean), "junk"...)} {
		m := newMemory(bytes.Clone(start))
		_, err := Restore(m, im.p, bytes.NewReader(bad), RestoreOptions{Ask: Ask{Force: true}})
		var e *ExitError
		if !asExit(err, &e) || e.Code != ExitConfig {
			t.Errorf("restore of a bad dump: %v", err)
		}
		if !bytes.Equal(m.data, start) {
			t.Error("restore of a bad dump changed the device")
		}
	}
}

// sameOrMore compares two devices: bits may be set more, all else must be equal.
func sameOrMore(t *testing.T, im *image, got, want []byte, step int) {
	t.Helper()
	lo, hi := im.l.Bitmap*512, im.l.ActivityLog*512
	if !bytes.Equal(got[:lo], want[:lo]) || !bytes.Equal(got[hi:], want[hi:]) {
		t.Fatalf("crash at step %d: log or superblock differ from those without a crash", step)
	}
	for i := lo; i < hi; i++ {
		if got[i]&want[i] != want[i] {
			t.Fatalf("crash at step %d: bitmap byte %d is %#x, without a crash %#x", step, i-lo, got[i], want[i])
		}
	}
}
