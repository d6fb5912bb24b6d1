package mdtool

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/replblk/replblk/activitylog"
	"github.com/replblk/replblk/metadata"
)

var crossCases = []struct {
	p        metadata.Placement
	size     int64
	striping metadata.Striping
}{
	{metadata.Internal, 68 << 10, metadata.Striping{}},
	{metadata.Internal, 1 << 20, metadata.Striping{}},
	{metadata.Internal, 1<<20 + 512, metadata.Striping{}},
	{metadata.Internal, 16<<20 + 7*512, metadata.Striping{}},
	{metadata.Internal, 128 << 20, metadata.Striping{}},
	{metadata.Internal, 128<<20 + 512, metadata.Striping{}},
	{metadata.Internal, 300<<20 + 3*512 + 100, metadata.Striping{}},
	{metadata.Internal, 40 << 30, metadata.Striping{}},
	{metadata.Internal, 64 << 20, metadata.Striping{Stripes: 3, StripeSize4K: 16}},
	{metadata.Internal, 64 << 20, metadata.Striping{Stripes: 8, StripeSize4K: 1024}},
	{metadata.FlexExternal, 100 << 10, metadata.Striping{}},
	{metadata.FlexExternal, 1 << 20, metadata.Striping{}},
	{metadata.FlexExternal, 300<<20 + 5*512, metadata.Striping{}},
	{metadata.FlexExternal, 64 << 20, metadata.Striping{Stripes: 5, StripeSize4K: 2}},
	{metadata.Indexed(0), 128 << 20, metadata.Striping{}},
	{metadata.Indexed(0), 300 << 20, metadata.Striping{}},
	{metadata.Indexed(2), 512 << 20, metadata.Striping{}},
}

func stripingArgs(s metadata.Striping) []string {
	if s == (metadata.Striping{}) {
		return nil
	}
	return []string{"--al-stripes", strconv.Itoa(int(s.Stripes)), "--al-stripe-size-kB", strconv.Itoa(int(s.StripeSize4K) * 4)}
}

// TestCreateEqualsDrbdmeta compares the whole metadata area, on a file whose
// metadata area was full of garbage before.
func TestCreateEqualsDrbdmeta(t *testing.T) {
	for _, c := range crossCases {
		t.Run(fmt.Sprintf("%s/%d/%v", c.p, c.size, c.striping), func(t *testing.T) {
			ours, theirs := newFile(t, c.size), newFile(t, c.size)
			var l metadata.Layout
			garbage(t, ours, c.size)
			garbage(t, theirs, c.size)
			withFile(t, ours, func(s *File) {
				var err error
				l, err = Create(s, c.p, CreateOptions{Ask: Ask{Force: true}, Striping: c.striping})
				if err != nil {
					t.Fatal(err)
				}
			})
			mustDrbdmeta(t, theirs, c.p, append([]string{"create-md"}, stripingArgs(c.striping)...)...)
			diff(t, "metadata area", area(t, ours, l), area(t, theirs, l))
			if got := mustDrbdmeta(t, ours, c.p, "get-gi"); got != giOf(t, theirs, c.p)+"\n" {
				t.Errorf("drbdmeta reads %q from ours, we read %q from theirs", got, giOf(t, theirs, c.p))
			}
			compareDump(t, ours, c.p)
		})
	}
}

// garbage fills the last and the first MiB: where metadata can be.
func garbage(t *testing.T, path string, size int64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	n := min(size, 1<<20)
	for _, off := range []int64{0, size - n} {
		if _, err := f.WriteAt(bytes.Repeat([]byte{0xa5}, int(n)), off); err != nil {
			t.Fatal(err)
		}
	}
}

func giOf(t *testing.T, path string, p metadata.Placement) (gi string) {
	t.Helper()
	withFile(t, path, func(s *File) {
		var err error
		if gi, err = GetGI(s, p); err != nil {
			t.Fatal(err)
		}
	})
	return gi
}

// compareDump compares the text byte for byte but for time and command line.
func compareDump(t *testing.T, path string, p metadata.Placement) {
	t.Helper()
	want := mustDrbdmeta(t, path, p, "dump-md")
	lines := strings.SplitN(want, "\n", 4)
	var got bytes.Buffer
	withFile(t, path, func(s *File) {
		preamble := []string{strings.TrimPrefix(lines[1], "# "), strings.TrimPrefix(lines[2], "# ")}
		if err := Dump(s, p, &got, DumpOptions{Preamble: preamble, Force: true}); err != nil {
			t.Fatal(err)
		}
	})
	diff(t, "dump", got.Bytes(), []byte(want))
}

// image is a file with created metadata that a test changes piece by piece.
type image struct {
	p    metadata.Placement
	l    metadata.Layout
	sb   metadata.Superblock
	path string
}

func newImage(t *testing.T, p metadata.Placement, size int64, s metadata.Striping, la uint64, flags metadata.Flags) *image {
	t.Helper()
	im := &image{p: p, path: newFile(t, size)}
	withFile(t, im.path, func(f *File) {
		var err error
		if im.l, err = Create(f, p, CreateOptions{Ask: Ask{Force: true}, Striping: s}); err != nil {
			t.Fatal(err)
		}
	})
	im.sb = metadata.NewSuperblock(im.l)
	im.sb.LASizeSectors = min(la, im.l.DataSectors)
	im.sb.Flags = flags
	im.sb.Unclean = !flags.Has(metadata.ALClean)
	im.sb.UUIDs = metadata.UUIDs{0x1111111111111111, 0x2222222222222222, 3, 4}
	im.write(t, im.l.Superblock, im.sb.AppendTo(nil))
	return im
}

func (im *image) write(t *testing.T, sector uint64, b []byte) {
	t.Helper()
	f, err := os.OpenFile(im.path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(b, int64(sector*512)); err != nil {
		t.Fatal(err)
	}
}

func (im *image) log(t *testing.T, ring activitylog.Ring, b uint32, block []byte) {
	im.write(t, im.l.ActivityLog+uint64(ring.Block(b))*8, block)
}

// TestDumpBitmapEqualsDrbdmeta dumps bitmaps with runs of every length.
func TestDumpBitmapEqualsDrbdmeta(t *testing.T) {
	rng := rand.New(rand.NewSource(1))
	for round := range 12 {
		im := newImage(t, metadata.Internal, 300<<20, metadata.Striping{}, 614304-uint64(rng.Intn(600000)), metadata.ALClean|metadata.Consistent)
		bm := make([]byte, im.l.BitmapSectors*512)
		for i := 0; i+8 <= len(bm); {
			w := []uint64{0, ^uint64(0), 0x11, rng.Uint64()}[rng.Intn(4)]
			for n := 1 + rng.Intn(40); n > 0 && i+8 <= len(bm); n-- {
				binary.LittleEndian.PutUint64(bm[i:], w)
				i += 8
			}
		}
		im.write(t, im.l.Bitmap, bm)
		t.Run(strconv.Itoa(round), func(t *testing.T) { compareDump(t, im.path, im.p) })
	}
}

func TestDumpUncleanEqualsDrbdmeta(t *testing.T) {
	im := newImage(t, metadata.FlexExternal, 2<<20, metadata.Striping{}, 600000, metadata.Consistent)
	compareDump(t, im.path, im.p)
	withFile(t, im.path, func(s *File) {
		var e *ExitError
		if err := Dump(s, im.p, &bytes.Buffer{}, DumpOptions{}); !asExit(err, &e) || e.Code != ExitCancelled {
			t.Errorf("dump of unclean metadata: %v, want exit 1", err)
		}
	})
}

// TestRestoreEqualsDrbdmeta restores the same text with both tools. drbdmeta
// leaves the log and the rest of the bitmap as they were, which on a fresh file is
// what create-md made of them.
func TestRestoreEqualsDrbdmeta(t *testing.T) {
	for i, p := range []metadata.Placement{metadata.Internal, metadata.FlexExternal, metadata.Indexed(1)} {
		im := newImage(t, p, 300<<20, metadata.Striping{}, 500000+uint64(i), 0xff)
		rng := rand.New(rand.NewSource(int64(i)))
		bm := make([]byte, 3000)
		rng.Read(bm)
		im.write(t, im.l.Bitmap, bm)
		var text bytes.Buffer
		withFile(t, im.path, func(s *File) {
			if err := Dump(s, p, &text, DumpOptions{RealFlags: true}); err != nil {
				t.Fatal(err)
			}
		})
		file := newFile(t, 0)
		if err := os.WriteFile(file, text.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
		theirs, ours := newFile(t, 300<<20), newFile(t, 300<<20)
		mustDrbdmeta(t, theirs, p, "create-md")
		mustDrbdmeta(t, theirs, p, "restore-md", file)
		withFile(t, ours, func(s *File) {
			if _, err := Restore(s, p, bytes.NewReader(text.Bytes()), RestoreOptions{Ask: Ask{Force: true}}); err != nil {
				t.Fatal(err)
			}
		})
		diff(t, "restored area", area(t, ours, im.l), area(t, theirs, im.l))
		diff(t, "area restored from its own dump", area(t, ours, im.l), area(t, im.path, im.l))
	}
}

// TestChangesEqualDrbdmeta makes the small changes with both tools.
func TestChangesEqualDrbdmeta(t *testing.T) {
	ask := Ask{Force: true}
	cases := []struct {
		args  []string
		flags metadata.Flags
		ours  func(s Store, p metadata.Placement) error
	}{
		{[]string{"outdate"}, 0x1ff, Outdate},
		{[]string{"outdate"}, 0x0fe, Outdate},
		{[]string{"outdate"}, metadata.Consistent | metadata.WasUpToDate, Outdate},
		{[]string{"invalidate"}, 0x097, Invalidate},
		{[]string{"invalidate"}, 0x013, Invalidate},
		{[]string{"wipe-md"}, 0x80, func(s Store, p metadata.Placement) error { return Wipe(s, p, ask) }},
		{[]string{"write-dev-uuid", "1234567890abcdef"}, 0x80, func(s Store, p metadata.Placement) error { return SetDeviceUUID(s, p, 0x1234567890abcdef) }},
		{[]string{"set-gi", "9::8:7:1:0::1"}, 0x9f, func(s Store, p metadata.Placement) error { return SetGI(s, p, "9::8:7:1:0::1", ask) }},
		{[]string{"set-gi", "1:2:3:4:0:1:0:1:0:1:1"}, 0x80, func(s Store, p metadata.Placement) error { return SetGI(s, p, "1:2:3:4:0:1:0:1:0:1:1", ask) }},
	}
	for _, c := range cases {
		t.Run(fmt.Sprint(c.args, c.flags), func(t *testing.T) {
			a := newImage(t, metadata.Internal, 16<<20, metadata.Striping{}, 32000, c.flags)
			b := newImage(t, metadata.Internal, 16<<20, metadata.Striping{}, 32000, c.flags)
			_, _, code := drbdmeta(t, b.path, b.p, c.args...)
			withFile(t, a.path, func(s *File) {
				err := c.ours(s, a.p)
				var e *ExitError
				if got := 0; asExit(err, &e) {
					got = e.Code
					if got != code {
						t.Errorf("exit %d (%v), drbdmeta %d", got, err, code)
					}
				} else if code != 0 || err != nil {
					t.Errorf("error %v, drbdmeta exits %d", err, code)
				}
			})
			diff(t, "area", area(t, a.path, a.l), area(t, b.path, b.l))
		})
	}
}

func TestDiskStateEqualsDrbdmeta(t *testing.T) {
	for f := range metadata.Flags(64) {
		if f&(metadata.PrimaryInd|metadata.ConnectedInd|metadata.FullSync) != 0 {
			continue
		}
		im := newImage(t, metadata.Internal, 16<<20, metadata.Striping{}, 32000, f|metadata.ALClean)
		want := strings.TrimSpace(mustDrbdmeta(t, im.path, im.p, "dstate"))
		withFile(t, im.path, func(s *File) {
			if got, err := DiskState(s, im.p); err != nil || got.String() != want {
				t.Errorf("flags %v: %v, %v; drbdmeta says %s", f, got, err, want)
			}
		})
	}
}
