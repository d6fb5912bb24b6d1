package file

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/replblk/replblk/block"
	"github.com/replblk/replblk/internal/buffer"
)

func tempFile(t testing.TB, dir string, size int64) string {
	t.Helper()
	if dir == "" {
		dir = t.TempDir()
	}
	f, err := os.CreateTemp(dir, "replblk-file-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove(f.Name()) })
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	f.Close()
	return f.Name()
}

func open(t testing.TB, path string, opt Options) *File {
	t.Helper()
	f, err := Open(path, opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// variants runs the test buffered, direct and mapped, inline and through workers.
func variants(t *testing.T, size int64, test func(t *testing.T, f *File)) {
	for _, inline := range []InlineMode{InlineAlways, InlineNever} {
		t.Run(fmt.Sprintf("mapped,inline=%v", inline == InlineAlways), func(t *testing.T) {
			test(t, open(t, tempFile(t, "/dev/shm", size), Options{Map: true, Inline: inline}))
		})
		for _, direct := range []DirectMode{DirectOff, DirectOn} {
			t.Run(fmt.Sprintf("direct=%v,inline=%v", direct == DirectOn, inline == InlineAlways), func(t *testing.T) {
				f, err := Open(tempFile(t, "", size), Options{Direct: direct, Inline: inline})
				if err != nil && direct == DirectOn && errors.Is(err, unix.EINVAL) {
					t.Skip("no direct I/O here")
				}
				if err != nil {
					t.Fatal(err)
				}
				defer f.Close()
				test(t, f)
			})
		}
	}
}

func TestRandomRequestsAgainstACopy(t *testing.T) {
	const size = 4 << 20
	variants(t, size, func(t *testing.T, f *File) {
		want := make([]byte, size)
		rnd := rand.New(rand.NewPCG(1, 2))
		requests := 600
		if testing.Short() { // under the race detector
			requests = 60
		}
		for i := range requests {
			sector := rnd.Uint64N(size/512 - 600)
			n := 1 + rnd.Uint32N(600)
			if i%3 == 0 {
				sector, n = sector&^7, 8*(1+n/8)
			}
			r := &block.Request{Sector: sector, Sectors: n}
			at := want[sector*512 : (sector+uint64(n))*512]
			switch rnd.IntN(5) {
			case 0:
				r.Op, r.Flags = block.WriteZeroes, block.Flags(rnd.IntN(4))
				clear(at)
			case 1:
				r.Op = block.Discard
				clear(at)
			case 2, 3:
				r.Op, r.Flags, r.Data = block.Write, block.Flags(rnd.IntN(2)), make([]byte, len(at))
				for j := range r.Data {
					r.Data[j] = byte(rnd.Uint32())
				}
				copy(at, r.Data)
			case 4:
				r.Op, r.Data = block.Read, buffer.Get(len(at)).B
			}
			if err := block.Do(f, r); err != nil {
				t.Fatal(err)
			}
			if r.Op == block.Read && !bytes.Equal(r.Data, at) {
				t.Fatalf("request %d: read of %d sectors at %d differs", i, n, sector)
			}
		}
		if err := f.Sync(); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(f.Path())
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("file differs from what was written (%v)", err)
		}
	})
}

func TestMetadataAtAnyByte(t *testing.T) {
	variants(t, 1<<20, func(t *testing.T, f *File) {
		text := []byte("three odd bytes")
		for _, off := range []int64{0, 1, 4090, 1<<20 - int64(len(text))} {
			if _, err := f.WriteAt(text, off); err != nil {
				t.Fatal(err)
			}
			got := make([]byte, len(text))
			if _, err := f.ReadAt(got, off); err != nil || !bytes.Equal(got, text) {
				t.Errorf("at %d: %q, %v", off, got, err)
			}
		}
		if _, err := f.WriteAt(text, 1<<20-1); !errors.Is(err, unix.EINVAL) {
			t.Errorf("write over the end: %v", err)
		}
		if _, err := f.ReadAt(text, -1); err == nil {
			t.Error("read at -1 worked")
		}
	})
}

// Writers of neighbouring sectors in one block must not undo each other.
func TestPartialBlocksDoNotCollide(t *testing.T) {
	f := open(t, tempFile(t, "", 1<<20), Options{Direct: DirectAuto, Inline: InlineNever})
	// Pretend that the backing needs 4 KiB, whatever this one needs.
	f.align, f.memAlign = 4096, 4096
	if !f.direct {
		t.Skip("no direct I/O here")
	}
	var wg sync.WaitGroup
	for s := range uint64(8) {
		wg.Go(func() {
			p := make([]byte, 512)
			for i := range 100 {
				for j := range p {
					p[j] = byte(i)
				}
				if err := block.WriteAt(f, p, s); err != nil {
					t.Error(err)
					return
				}
				if err := block.ReadAt(f, p, s); err != nil || p[0] != byte(i) {
					t.Errorf("sector %d holds %d after writing %d (%v)", s, p[0], i, err)
					return
				}
			}
		})
	}
	wg.Wait()
}

func TestExclusive(t *testing.T) {
	path := tempFile(t, "", 4096)
	f := open(t, path, Options{})
	if _, err := Open(path, Options{}); !errors.Is(err, unix.EBUSY) {
		t.Errorf("second open: %v", err)
	}
	if _, err := Open(path, Options{ReadOnly: true}); !errors.Is(err, unix.EBUSY) {
		t.Errorf("second open, read-only: %v", err)
	}
	f.Close()
	open(t, path, Options{ReadOnly: true})
	open(t, path, Options{ReadOnly: true})
}

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	for _, path := range []string{dir, filepath.Join(dir, "absent"), "/dev/null"} {
		if f, err := Open(path, Options{}); err == nil {
			f.Close()
			t.Errorf("opened %s", path)
		}
	}
	odd := tempFile(t, "", 1000)
	if _, err := Open(odd, Options{Direct: DirectOn}); err == nil {
		t.Error("direct I/O on a file of 1000 bytes")
	}
	f := open(t, odd, Options{Direct: DirectAuto})
	if f.Direct() || f.Geometry().Sectors != 1 {
		t.Errorf("direct %v, geometry %+v", f.Direct(), f.Geometry())
	}
}

func TestReadOnly(t *testing.T) {
	f := open(t, tempFile(t, "", 4096), Options{ReadOnly: true})
	if err := block.WriteAt(f, make([]byte, 512), 0); !errors.Is(err, unix.EROFS) {
		t.Errorf("write: %v", err)
	}
	if _, err := f.WriteAt(make([]byte, 5), 0); !errors.Is(err, unix.EROFS) {
		t.Errorf("WriteAt: %v", err)
	}
	if err := block.FlushAll(f); err != nil {
		t.Errorf("flush: %v", err)
	}
}

func TestFailedFlushIsFinal(t *testing.T) {
	f := open(t, tempFile(t, "", 1<<20), Options{Direct: DirectOff})
	f.poison(unix.EIO) // as fdatasync would
	for i := range 3 {
		if err := block.FlushAll(f); !errors.Is(err, unix.EIO) {
			t.Errorf("flush %d after a failed one: %v", i, err)
		}
	}
	p := make([]byte, 512)
	if err := block.Do(f, &block.Request{Op: block.Write, Flags: block.FUA, Sectors: 1, Data: p}); !errors.Is(err, unix.EIO) {
		t.Errorf("FUA after a failed flush: %v", err)
	}
	if err := block.Do(f, &block.Request{Op: block.WriteZeroes, Flags: block.FUA, Sectors: 1}); !errors.Is(err, unix.EIO) {
		t.Errorf("zeroes with FUA after a failed flush: %v", err)
	}
	if f.Err() == nil || f.Sync() == nil {
		t.Error("the device does not know that it failed")
	}
}

func TestFlushFailureFromTheKernel(t *testing.T) {
	f := open(t, tempFile(t, "", 4096), Options{})
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	old := f.fd
	f.fd = pipe[1] // fdatasync of a pipe is EINVAL
	err := block.FlushAll(f)
	f.fd = old
	unix.Close(pipe[0])
	unix.Close(pipe[1])
	if !errors.Is(err, unix.EINVAL) {
		t.Fatalf("flush: %v", err)
	}
	if err := block.FlushAll(f); err == nil {
		t.Error("the second flush hid the failure of the first")
	}
}

func TestFallbacks(t *testing.T) {
	f := open(t, tempFile(t, "", 4<<20), Options{Direct: DirectOff})
	f.noPunch.Store(true)
	f.noZero.Store(true)
	f.noDsync.Store(true)
	ones := bytes.Repeat([]byte{1}, 3<<20)
	if err := block.Do(f, &block.Request{Op: block.Write, Flags: block.FUA, Sector: 1, Sectors: 6 << 10, Data: ones}); err != nil {
		t.Fatal(err)
	}
	if err := block.Do(f, &block.Request{Op: block.Discard, Sector: 3, Sectors: 5000}); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 3<<20)
	if err := block.ReadAt(f, got, 1); err != nil {
		t.Fatal(err)
	}
	clear(ones[2*512 : 5002*512])
	if !bytes.Equal(got, ones) {
		t.Error("discard by writing zeroes took the wrong range")
	}
	if f.FastZero(false) {
		t.Error("FastZero although nothing is supported")
	}
}

func TestResize(t *testing.T) {
	path := tempFile(t, "", 1<<20)
	f := open(t, path, Options{})
	if changed, err := f.Refresh(); changed || err != nil {
		t.Errorf("unchanged: %v, %v", changed, err)
	}
	if err := os.Truncate(path, 2<<20); err != nil {
		t.Fatal(err)
	}
	if changed, err := f.Refresh(); !changed || err != nil || f.Geometry().Sectors != 4096 {
		t.Errorf("grown: %v, %v, %+v", changed, err, f.Geometry())
	}
	// Truncated behind our back: a read of what is gone must fail.
	if err := os.Truncate(path, 0); err != nil {
		t.Fatal(err)
	}
	if err := block.ReadAt(f, make([]byte, 4096), 0); !errors.Is(err, unix.EIO) {
		t.Errorf("read beyond the end: %v", err)
	}
}

func TestCloseDrains(t *testing.T) {
	for range 15 {
		f, err := Open(tempFile(t, "", 1<<20), Options{Inline: InlineNever, Direct: DirectOff})
		if err != nil {
			t.Fatal(err)
		}
		var bad atomic.Int32
		var wg sync.WaitGroup
		wg.Add(3 * 64)
		submit := func(op block.Op) {
			f.Submit(&block.Request{Op: op, Sectors: 8, Data: make([]byte, 4096), Done: func(r *block.Request) {
				if r.Err != nil && !errors.Is(r.Err, unix.EBADF) {
					bad.Add(1)
				}
				wg.Done()
			}})
		}
		for range 64 {
			submit(block.Write)
			submit(block.Flush)
		}
		go func() {
			for range 64 {
				submit(block.Write)
			}
		}()
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(100 * time.Microsecond)
		if err := f.Close(); !errors.Is(err, os.ErrClosed) {
			t.Errorf("second Close: %v", err)
		}
		if err := block.FlushAll(f); !errors.Is(err, unix.EBADF) {
			t.Errorf("flush after Close: %v", err)
		}
		wg.Wait()
		if bad.Load() != 0 {
			t.Fatalf("%d requests failed with something else than EBADF", bad.Load())
		}
	}
}

func TestSubmitDoesNotAllocate(t *testing.T) {
	f := open(t, tempFile(t, "/dev/shm", 1<<20), Options{Direct: DirectOff})
	done := make(chan struct{}, 1)
	r := &block.Request{Data: buffer.Get(4096).B, Sectors: 8, Done: func(*block.Request) { done <- struct{}{} }}
	for _, c := range []struct {
		op     block.Op
		flags  block.Flags
		inline InlineMode
	}{
		{block.Read, 0, InlineAlways},
		{block.Write, 0, InlineAlways},
		{block.Write, block.FUA, InlineAlways},
		{block.Flush, 0, InlineAlways},
		{block.WriteZeroes, 0, InlineAlways},
		{block.Write, 0, InlineNever},
		{block.Flush, 0, InlineNever},
	} {
		f.opt.Inline = c.inline
		n := testing.AllocsPerRun(200, func() {
			r.Op, r.Flags = c.op, c.flags
			f.Submit(r)
			<-done
			if r.Err != nil {
				t.Fatal(r.Err)
			}
		})
		if n != 0 {
			t.Errorf("%v, inline mode %d: %v allocations", c.op, c.inline, n)
		}
	}
}

func TestPolicy(t *testing.T) {
	var p policy
	r := &block.Request{Op: block.Read, Sectors: 8, Data: make([]byte, 4096)}
	if !p.inline(r, false) {
		t.Error("not inline before anything is known")
	}
	for range 4 {
		p.observe(r, 10*time.Millisecond)
	}
	if p.inline(r, false) {
		t.Error("still inline although it blocks")
	}
	if !p.inline(r, true) {
		t.Error("handed off although there is nothing to overlap with")
	}
	if !p.inline(&block.Request{Op: block.Write, Sectors: 8}, false) {
		t.Error("slow reads slow down writes")
	}
	for range 40 {
		p.observe(r, 3*time.Microsecond)
	}
	if !p.inline(r, false) {
		t.Error("does not recover")
	}
}

func TestRangeLock(t *testing.T) {
	var l rangeLock
	l.init()
	a := l.lock(0, 4096)
	b := l.lock(4096, 8192)
	got := make(chan int)
	go func() { got <- l.lock(4095, 4097) }()
	l.unlock(a)
	select {
	case <-got:
		t.Fatal("overlapping range was locked")
	case <-time.After(20 * time.Millisecond):
	}
	l.unlock(b)
	l.unlock(<-got)
	if l.used != 0 {
		t.Errorf("slots %x still used", l.used)
	}
}

// testDevice runs the tests of block devices: a loop device, needs root.
func testDevice(t *testing.T) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("attaching a loop device needs root")
	}
	out, err := exec.Command("losetup", "-f", "--show", tempFile(t, "", 8<<20)).Output()
	if err != nil {
		t.Skipf("no loop devices here: %v", err)
	}
	dev := strings.TrimSpace(string(out))
	t.Cleanup(func() { _ = exec.Command("losetup", "-d", dev).Run() })
	return dev
}

func TestBlockDevice(t *testing.T) {
	dev := testDevice(t)
	for _, direct := range []DirectMode{DirectOff, DirectOn} {
		f, err := Open(dev, Options{Direct: direct})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Open(dev, Options{}); !errors.Is(err, unix.EBUSY) {
			t.Errorf("second open: %v", err)
		}
		if g := f.Geometry(); g.Sectors != 8<<20/512 || g.LogicalBlock != 512 || g.ReadOnly {
			t.Errorf("geometry %+v", g)
		}
		ones := bytes.Repeat([]byte{1}, 1<<20)
		if err := block.Do(f, &block.Request{Op: block.Write, Flags: block.FUA, Sectors: 2048, Data: ones}); err != nil {
			t.Error(err)
		}
		if err := block.Do(f, &block.Request{Op: block.Discard, Sector: 3, Sectors: 1000}); err != nil {
			t.Error(err)
		}
		if err := block.Do(f, &block.Request{Op: block.WriteZeroes, Flags: block.NoHole | block.FUA, Sector: 1500, Sectors: 13}); err != nil {
			t.Error(err)
		}
		clear(ones[3*512 : 1003*512])
		clear(ones[1500*512 : 1513*512])
		got := make([]byte, 1<<20)
		if err := block.ReadAt(f, got, 0); err != nil || !bytes.Equal(got, ones) {
			t.Errorf("contents differ (%v)", err)
		}
		if err := f.Sync(); err != nil {
			t.Error(err)
		}
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	}
}
