package file

import (
	"bytes"
	"errors"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/replblk/replblk/block"
)

// openMapped opens a file of zeroes that are written, and has met all of it.
func openMapped(t testing.TB, size int64, opt Options) *File {
	t.Helper()
	path := tempFile(t, "/dev/shm", size)
	if err := os.WriteFile(path, make([]byte, size), 0o600); err != nil {
		t.Fatal(err)
	}
	opt.Map = true
	f := open(t, path, opt)
	if !f.inMemory() {
		t.Fatal("/dev/shm is not in memory, which this test needs")
	}
	readAll(t, f, 1)
	if n := int64(wholeUnits(f)); n != size/unitBytes {
		t.Fatalf("%d of %d units of a file in memory are mapped", n, size/unitBytes)
	}
	return f
}

// readAll reads all of f so many times, in small pieces, and returns the last one.
func readAll(t testing.TB, f *File, times int) []byte {
	t.Helper()
	p := make([]byte, f.Geometry().Sectors*block.SectorSize)
	for range times {
		for sector := uint64(0); sector < f.Geometry().Sectors; sector += 8 {
			if err := block.ReadAt(f, p[sector*block.SectorSize:][:8*block.SectorSize], sector); err != nil {
				t.Fatal(err)
			}
		}
	}
	return p
}

// wholeUnits counts the units that need no system call.
func wholeUnits(f *File) (n int) {
	m := f.mapped.Load()
	for off := int64(0); off < f.Size(); off += unitBytes {
		if m.known(off, 1) != nil {
			n++
		}
	}
	return n
}

// stored returns how many bytes of the file are not holes.
func stored(t *testing.T, f *File) int64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Fstat(f.fd, &st); err != nil {
		t.Fatal(err)
	}
	return st.Blocks * block.SectorSize
}

func TestMappingIsOfMemoryOnly(t *testing.T) {
	path := tempFile(t, "/dev/shm", 1<<20)
	for _, c := range []struct {
		name string
		path string
		opt  Options
		may  bool
	}{
		{"asked for", path, Options{Map: true}, true},
		{"not asked for", path, Options{}, false},
		{"read-only", path, Options{Map: true, ReadOnly: true}, false},
		{"empty", tempFile(t, "/dev/shm", 0), Options{Map: true}, false},
		{"probably on a disk", tempFile(t, "", 1<<20), Options{Map: true}, true},
	} {
		f, err := Open(c.path, c.opt)
		if err != nil {
			t.Fatal(err)
		}
		if got, want := f.mapped.Load() != nil, c.may && f.inMemory(); got != want {
			t.Errorf("%s: mapped %v, want %v", c.name, got, want)
		}
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	}
}

// A hole is neither filled by reading it, nor taken for one when it has been written to.
func TestMappingLeavesHoles(t *testing.T) {
	f := open(t, tempFile(t, "/dev/shm", 1<<20), Options{Map: true, Inline: InlineAlways})
	if !f.inMemory() {
		t.Fatal("/dev/shm is not in memory, which this test needs")
	}
	readAll(t, f, 3*lookInterval)
	if n := stored(t, f); n != 0 || wholeUnits(f) != 0 {
		t.Errorf("reading has filled %d bytes of holes, %d units are mapped", n, wholeUnits(f))
	}
	ones := bytes.Repeat([]byte{1}, unitBytes)
	write(t, f, ones, unitBytes/512)
	write(t, f, ones[:unitBytes-4096], 4*unitBytes/512)
	before := stored(t, f)
	p := readAll(t, f, 3*lookInterval)
	if n := stored(t, f); n != before {
		t.Errorf("reading has made %d bytes of %d", n, before)
	}
	if n := wholeUnits(f); n != 1 && before == 2*unitBytes-4096 { // otherwise pages are huge
		t.Errorf("%d units are mapped of which one was written, and another less a page", n)
	}
	if !bytes.Equal(p[unitBytes:2*unitBytes], ones) || bytes.Count(p, ones[:1]) != 2*unitBytes-4096 {
		t.Error("read differs from what was written")
	}
}

func TestMappingFollowsDiscard(t *testing.T) {
	f := openMapped(t, 1<<20, Options{Inline: InlineAlways})
	write(t, f, bytes.Repeat([]byte{1}, 1<<20), 0)
	if err := block.Do(f, &block.Request{Op: block.Discard, Sector: unitBytes / 512, Sectors: 2 * unitBytes / 512}); err != nil {
		t.Fatal(err)
	}
	before := stored(t, f)
	p := readAll(t, f, 3*lookInterval)
	if n := bytes.Count(p, []byte{1}); n != 1<<20-2*unitBytes {
		t.Errorf("%d bytes are left", n)
	}
	if n := stored(t, f); n != before {
		t.Errorf("reading has made %d bytes of %d", n, before)
	}
}

// Somebody cuts the file off: an error instead of a signal, and no harm to who comes next.
func TestMappingOfACutFile(t *testing.T) {
	f := openMapped(t, 1<<20, Options{Inline: InlineAlways})
	if err := os.Truncate(f.Path(), 4096); err != nil {
		t.Fatal(err)
	}
	rs := []*block.Request{
		{Op: block.Read, Sector: 1000, Sectors: 8, Data: make([]byte, 4096)},
		{Op: block.Read, Sector: 0, Sectors: 4, Data: make([]byte, 2048)},
		{Op: block.Read, Sector: 4, Sectors: 8, Data: make([]byte, 4096)},
		{Op: block.Read, Sector: 2, Sectors: 2, Data: make([]byte, 1024)},
	}
	for i, err := range batch(f, rs) {
		if want := i%2 == 0; errors.Is(err, unix.EIO) != want || !want && err != nil {
			t.Errorf("request %d: %v", i, err)
		}
	}
	// As without a mapping, a write brings the place back.
	p := bytes.Repeat([]byte{7}, 4096)
	write(t, f, p, 1000)
	got := make([]byte, 4096)
	if err := block.ReadAt(f, got, 1000); err != nil || !bytes.Equal(got, p) {
		t.Errorf("what was written to a file that was cut off: %v", err)
	}
}

func TestMappingFollowsSize(t *testing.T) {
	f := openMapped(t, 1<<20, Options{Inline: InlineAlways})
	resize := func(size int64) {
		t.Helper()
		if err := os.Truncate(f.Path(), size); err != nil {
			t.Fatal(err)
		}
		if changed, err := f.Refresh(); err != nil || !changed {
			t.Fatalf("to %d bytes: %v, %v", size, changed, err)
		}
	}
	p := bytes.Repeat([]byte{3}, unitBytes)
	for _, size := range []int64{2 << 20, 5 << 20, 8 << 20} {
		resize(size)
		last := uint64(size-unitBytes) / 512
		write(t, f, p, last)
		if got := readAll(t, f, 2*lookInterval); !bytes.Equal(got[last*512:], p) || f.mapped.Load().known(size-unitBytes, unitBytes) == nil {
			t.Errorf("%d bytes: the last unit differs, or is not mapped", size)
		}
	}
	if n := len(f.mappings); n != 2 {
		t.Errorf("%d mappings, want one more than at first", n)
	}
	resize(6 << 20)
	resize(8 << 20)
	before := stored(t, f)
	readAll(t, f, 2*lookInterval)
	if n := stored(t, f); n != before {
		t.Errorf("%d bytes stored after reading what was cut off and came back, %d before", n, before)
	}
}

// Who copies files that have changed sees that this one has.
func TestMappingIsSeenInTheTime(t *testing.T) {
	f := openMapped(t, 1<<20, Options{Inline: InlineAlways})
	old := time.Now().Add(-time.Hour)
	for _, c := range []struct {
		name  string
		write bool
		step  func() error
	}{
		{"Refresh, nothing written", false, func() error { _, err := f.Refresh(); return err }},
		{"Refresh", true, func() error { _, err := f.Refresh(); return err }},
		{"Close", true, f.Close},
	} {
		if c.write {
			write(t, f, make([]byte, 4096), 0)
		}
		if err := os.Chtimes(f.Path(), old, old); err != nil {
			t.Fatal(err)
		}
		if err := c.step(); err != nil {
			t.Fatal(err)
		}
		if st, err := os.Stat(f.Path()); err != nil || st.ModTime().After(old) != c.write {
			t.Errorf("%s: modified at %v (%v)", c.name, st.ModTime(), err)
		}
	}
}

func TestCarefully(t *testing.T) {
	defer func() {
		if r := recover(); r != "not a fault" {
			t.Errorf("recovered %v", r)
		}
	}()
	carefully(make([]byte, 1), func() { panic("not a fault") })
}

// What is fetched ahead need not be there.
func TestPrefetch(t *testing.T) {
	mem, err := unix.Mmap(-1, 0, 4096, unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range [][]byte{nil, mem[:0], mem[1:2], mem} {
		prefetch(p)
	}
	if err := unix.Munmap(mem); err != nil {
		t.Error(err)
	}
}
