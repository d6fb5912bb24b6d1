package file

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/replblk/replblk/block"
	"github.com/replblk/replblk/internal/buffer"
)

// batch submits requests together, waits for all and returns their errors.
func batch(f *File, rs []*block.Request) []error {
	var wg sync.WaitGroup
	wg.Add(len(rs))
	for _, r := range rs {
		r.Done = func(*block.Request) { wg.Done() }
	}
	block.SubmitAll(f, rs)
	wg.Wait()
	errs := make([]error, len(rs))
	for i, r := range rs {
		errs[i] = r.Err
	}
	return errs
}

// Batches of requests that do not overlap, most of them adjacent, against a copy.
func TestBatchesAgainstACopy(t *testing.T) {
	const size = 4 << 20
	variants(t, size, func(t *testing.T, f *File) {
		want := make([]byte, size)
		rnd := rand.New(rand.NewPCG(3, 4))
		for round := range 60 {
			var rs []*block.Request
			at := rnd.Uint64N(size/512 - 100*20)
			for range 1 + rnd.IntN(100) { // more than a run has
				n := 1 + rnd.Uint32N(16)
				r := &block.Request{Op: block.Read, Sector: at, Sectors: n, Data: buffer.Get(int(n) * 512).B}
				if round%3 > 0 && rnd.IntN(10) > 0 {
					r.Op, r.Flags = block.Write, block.Flags(rnd.IntN(40)/39) // some with FUA
					for i := range r.Data {
						r.Data[i] = byte(rnd.Uint32())
					}
					copy(want[at*512:], r.Data)
				}
				rs = append(rs, r)
				at += uint64(n)
				if rnd.IntN(10) == 0 {
					at++
				}
			}
			if err := errors.Join(batch(f, rs)...); err != nil {
				t.Fatal(err)
			}
			for _, r := range rs {
				if r.Op == block.Read && !bytes.Equal(r.Data, want[r.Sector*512:][:len(r.Data)]) {
					t.Fatalf("round %d: read of %d sectors at %d differs", round, r.Sectors, r.Sector)
				}
			}
		}
		got, err := os.ReadFile(f.Path())
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("file differs from what was written (%v)", err)
		}
	})
}

func TestRun(t *testing.T) {
	f := open(t, tempFile(t, "/dev/shm", 1<<20), Options{Direct: DirectOff})
	req := func(op block.Op, sector uint64, n int, flags block.Flags) *block.Request {
		return &block.Request{Op: op, Flags: flags, Sector: sector, Sectors: uint32(n), Data: make([]byte, n*512)}
	}
	large := []*block.Request{req(block.Read, 0, 200, 0), req(block.Read, 200, 57, 0)}
	for _, c := range []struct {
		name string
		rs   []*block.Request
		want int
	}{
		{"adjacent", []*block.Request{req(block.Read, 4, 2, block.More), req(block.Read, 6, 1, block.More), req(block.Read, 7, 2, 0)}, 3},
		{"a gap", []*block.Request{req(block.Read, 4, 2, 0), req(block.Read, 6, 2, 0), req(block.Read, 9, 2, 0)}, 2},
		{"backwards", []*block.Request{req(block.Read, 4, 2, 0), req(block.Read, 2, 2, 0)}, 1},
		{"another operation", []*block.Request{req(block.Write, 4, 2, 0), req(block.Read, 6, 2, 0)}, 1},
		{"durable", []*block.Request{req(block.Write, 4, 2, 0), req(block.Write, 6, 2, block.FUA)}, 1},
		{"durable first", []*block.Request{req(block.Write, 4, 2, block.FUA), req(block.Write, 6, 2, 0)}, 1},
		{"flush", []*block.Request{{Op: block.Flush}, {Op: block.Flush}}, 1},
		{"zeroes", []*block.Request{req(block.WriteZeroes, 0, 1, 0), req(block.WriteZeroes, 1, 1, 0)}, 1},
		{"long", large, 1},
	} {
		if got := f.run(c.rs); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
	f.opt.WriteThrough = true
	if got := f.run([]*block.Request{req(block.Write, 4, 2, 0), req(block.Write, 6, 2, 0)}); got != 1 {
		t.Errorf("write-through: a run of %d", got)
	}
}

// What is wrong with one request of a run is wrong with that one only.
func TestBatchErrors(t *testing.T) {
	path := tempFile(t, "/dev/shm", 1<<20)
	f := open(t, path, Options{Direct: DirectOff, Inline: InlineAlways})
	four := func(op block.Op, sector uint64) (rs []*block.Request) {
		for i := range uint64(4) {
			rs = append(rs, &block.Request{Op: op, Sector: sector + i*8, Sectors: 8, Data: bytes.Repeat([]byte{byte(i + 1)}, 4096)})
		}
		return rs
	}
	check := func(when string, errs []error, want ...error) {
		t.Helper()
		for i := range want {
			if !errors.Is(errs[i], want[i]) || want[i] == nil && errs[i] != nil {
				t.Errorf("%s: request %d: %v, want %v", when, i, errs[i], want[i])
			}
		}
	}
	check("over the end", batch(f, four(block.Write, 2048-16)), nil, nil, unix.ENOSPC, unix.ENOSPC)
	if err := os.Truncate(path, 2*4096); err != nil {
		t.Fatal(err)
	}
	rs := four(block.Read, 0)
	check("cut short behind our back", batch(f, rs), nil, nil, unix.EIO, unix.EIO)
	if !bytes.Equal(rs[1].Data, make([]byte, 4096)) {
		t.Error("what is left was not read")
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	check("closed", batch(f, four(block.Read, 0)), unix.EBADF, unix.EBADF, unix.EBADF, unix.EBADF)
}

func TestSubmitBatchDoesNotAllocate(t *testing.T) {
	for _, f := range []*File{
		open(t, tempFile(t, "/dev/shm", 1<<20), Options{Direct: DirectOff, Inline: InlineAlways}),
		openMapped(t, 1<<20, Options{Inline: InlineAlways}),
	} {
		var rs []*block.Request
		for i := range uint64(16) {
			sector := i*2 + i/8 // two runs
			rs = append(rs, &block.Request{Op: block.Write, Sector: sector, Sectors: 2, Data: make([]byte, 1024), Done: func(*block.Request) {}})
		}
		if n := testing.AllocsPerRun(100, func() { block.SubmitAll(f, rs) }); n != 0 {
			t.Errorf("mapped %v: %v allocations", f.opt.Map, n)
		}
	}
}
