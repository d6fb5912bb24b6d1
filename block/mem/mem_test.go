package mem

import (
	"bytes"
	"errors"
	"syscall"
	"testing"

	"github.com/replblk/replblk/block"
)

func write(t *testing.T, d *Device, sector uint64, v byte, sectors int, flags block.Flags) {
	t.Helper()
	data := bytes.Repeat([]byte{v}, sectors*block.SectorSize)
	if err := block.Do(d, &block.Request{Op: block.Write, Flags: flags, Sector: sector, Sectors: uint32(sectors), Data: data}); err != nil {
		t.Fatal(err)
	}
}

func TestReadSeesTheLastWrite(t *testing.T) {
	d := New(64)
	write(t, d, 8, 7, 8, 0)
	got := make([]byte, 4096)
	if err := block.ReadAt(d, got, 8); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, bytes.Repeat([]byte{7}, 4096)) {
		t.Error("read something else than was written")
	}
	if err := block.Do(d, &block.Request{Op: block.Discard, Sector: 8, Sectors: 4}); err != nil {
		t.Fatal(err)
	}
	if c := d.Contents()[8*512:]; c[0] != 0 || c[4*512] != 7 {
		t.Error("discard does not read back as zeroes, or took more than its range")
	}
}

func TestCrashKeepsWhatWasFlushed(t *testing.T) {
	for seed := range uint64(200) {
		d := New(64)
		write(t, d, 0, 1, 8, 0)
		if err := block.FlushAll(d); err != nil {
			t.Fatal(err)
		}
		write(t, d, 8, 2, 8, 0)
		write(t, d, 8, 3, 2, block.FUA)
		write(t, d, 0, 4, 1, 0)
		d.Crash(seed)
		c := d.Contents()
		for s := range 8 {
			if v := c[s*512]; v != 1 && (s != 0 || v != 4) {
				t.Fatalf("seed %d: flushed sector %d holds %d", seed, s, v)
			}
		}
		for s := 8; s < 10; s++ {
			if v := c[s*512]; v != 3 {
				t.Fatalf("seed %d: FUA sector %d holds %d", seed, s, v)
			}
		}
	}
}

func TestCrashTearsAndIsDeterministic(t *testing.T) {
	run := func(seed uint64) []byte {
		d := New(64)
		write(t, d, 0, 9, 64, 0)
		d.Crash(seed)
		return d.Contents()
	}
	var none, all, torn bool
	for seed := range uint64(64) {
		c := run(seed)
		if !bytes.Equal(c, run(seed)) {
			t.Fatalf("seed %d: two runs differ", seed)
		}
		n := 0
		for s := range 64 {
			if c[s*512] != c[s*512+511] {
				t.Fatalf("seed %d: sector %d is torn inside", seed, s)
			}
			if c[s*512] == 9 {
				n++
			}
		}
		none, all, torn = none || n == 0, all || n == 64, torn || n > 0 && n < 64
	}
	if !none || !all || !torn {
		t.Errorf("64 seeds gave none=%v all=%v torn=%v, want every kind", none, all, torn)
	}
}

func TestRefusals(t *testing.T) {
	d := New(8)
	for _, c := range []struct {
		op   block.Op
		want syscall.Errno
	}{{block.Read, syscall.EINVAL}, {block.Write, syscall.ENOSPC}} {
		err := block.Do(d, &block.Request{Op: c.op, Sector: 8, Sectors: 1, Data: make([]byte, 512)})
		if !errors.Is(err, c.want) {
			t.Errorf("%v past the end: %v, want %v", c.op, err, c.want)
		}
	}
	d.SetReadOnly(true)
	if err := block.WriteAt(d, make([]byte, 512), 0); !errors.Is(err, syscall.EROFS) {
		t.Errorf("write on a read-only device: %v", err)
	}
}

func TestAllocation(t *testing.T) {
	d := NewVolatile(64)
	write(t, d, 16, 1, 16, 0)
	for _, c := range []struct {
		sector, sectors, n uint64
		zero               bool
	}{{0, 64, 16, true}, {16, 48, 16, false}, {20, 4, 4, false}, {32, 32, 32, true}, {33, 1, 1, true}} {
		n, zero := d.Allocation(c.sector, c.sectors)
		if n != c.n || zero != c.zero {
			t.Errorf("Allocation(%d, %d) = %d, %v, want %d, %v", c.sector, c.sectors, n, zero, c.n, c.zero)
		}
	}
}
