package node

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"syscall"
	"testing"

	"github.com/replblk/replblk/block"
	"github.com/replblk/replblk/block/mem"
	"github.com/replblk/replblk/internal/mdtool"
	"github.com/replblk/replblk/metadata"
	"github.com/replblk/replblk/replication"
	"github.com/replblk/replblk/replication/state"
)

func TestDeviceStoreUnaligned(t *testing.T) {
	d := mem.NewVolatile(8 * 600) // more than one chunk
	s := &deviceStore{d}
	want := make([]byte, s.Size())
	rnd := rand.New(rand.NewPCG(1, 2))
	for i := range 200 {
		off := rnd.IntN(len(want))
		n := rnd.IntN(len(want) - off + 1)
		if i%2 == 0 {
			n = min(n, 600)
		}
		p := bytes.Repeat([]byte{byte(i)}, n)
		copy(want[off:], p)
		if k, err := s.WriteAt(p, int64(off)); k != n || err != nil {
			t.Fatalf("write %d at %d: %d, %v", n, off, k, err)
		}
		got := make([]byte, n)
		if k, err := s.ReadAt(got, int64(off)); k != n || err != nil || !bytes.Equal(got, p) {
			t.Fatalf("read %d at %d: %d, %v", n, off, k, err)
		}
	}
	if !bytes.Equal(d.Contents(), want) {
		t.Error("device differs from what was written")
	}
	if _, err := s.WriteAt(make([]byte, 2), s.Size()-1); err == nil {
		t.Error("write beyond the end succeeded")
	}
}

// TestReadBitmap checks a bitmap of several chunks with set bits at all the edges.
func TestReadBitmap(t *testing.T) {
	const size = 300<<21 + 8 // sectors: 300 GiB and one block, 9.4 MiB of bitmap
	l := metadata.Layout{Bitmap: 80, BitmapSectors: (metadata.BitmapBytes(size) + 511) / 512}
	d := mem.NewVolatile(80 + l.BitmapSectors)
	bits := []uint64{0, 1, 32767, 32768, 1<<23 - 1, 1 << 23, 1<<23 + 5, size/8 - 1}
	s := &deviceStore{d}
	for _, b := range bits {
		var p [1]byte
		if _, err := s.ReadAt(p[:], int64(80*512+b/8)); err != nil {
			t.Fatal(err)
		}
		p[0] |= 1 << (b % 8)
		if _, err := s.WriteAt(p[:], int64(80*512+b/8)); err != nil {
			t.Fatal(err)
		}
	}
	bm, err := readBitmap(d, l, size)
	if err != nil {
		t.Fatal(err)
	}
	if bm.Weight() != uint64(len(bits)) || bm.Bits() != size/8 {
		t.Errorf("%d of %d bits set, want %d of %d", bm.Weight(), bm.Bits(), len(bits), size/8)
	}
	for _, b := range bits {
		if !bm.Test(b) {
			t.Errorf("bit %d is clear", b)
		}
	}
	l.BitmapSectors--
	if _, err := readBitmap(d, l, size); err == nil {
		t.Error("bitmap larger than its area was read")
	}
}

// TestAttachDetach attaches, with external metadata, detaches, and attaches again; the
// devices must be closed once each time.
func TestAttachDetach(t *testing.T) {
	data, meta := mem.New(1<<16), mem.New(1<<12)
	if _, err := mdtool.Create(&deviceStore{meta}, metadata.FlexExternal, mdtool.CreateOptions{Ask: mdtool.Ask{Force: true}, DataSectors: 1 << 16}); err != nil {
		t.Fatal(err)
	}
	r, err := NewResource(pairConfig("127.0.0.1:0", "127.0.0.1:1"), testLog())
	if err != nil {
		t.Fatal(err)
	}
	closed := make(chan struct{}, 10)
	bk := Backing{Data: data, Meta: meta, Placement: metadata.FlexExternal, Close: func() error { closed <- struct{}{}; return nil }}
	for range 2 {
		if err := r.AttachVolume(limit(t), 0, bk); err != nil {
			t.Fatal(err)
		}
		if err := r.AttachVolume(limit(t), 0, bk); err == nil {
			t.Error("a second disk was attached")
		}
		<-closed // the second one
		h := &host{Resource: r}
		if r.State(0).Disk != state.UpToDate {
			h.do(t, replication.Admin{Kind: replication.AdminPrimary, Force: true})
		} else {
			h.do(t, replication.Admin{Kind: replication.AdminPrimary})
		}
		if g := r.Volume(0).Geometry(); g.Sectors != 1<<16 || g.ReadOnly {
			t.Errorf("geometry %+v, want 65536 sectors, writable", g)
		}
		if err := block.WriteAt(r.Volume(0), bytes.Repeat([]byte{1}, 4096), 8); err != nil {
			t.Error(err)
		}
		h.do(t, replication.Admin{Kind: replication.AdminSecondary})
		h.do(t, replication.Admin{Kind: replication.AdminDetach})
		<-closed
		if s := r.State(0).Disk; s != state.Diskless {
			t.Errorf("disk is %v after detach", s)
		}
	}
	if err := r.Close(limit(t)); err != nil {
		t.Errorf("close: %v", err)
	}
	if len(closed) != 0 {
		t.Errorf("devices closed %d times too often", len(closed))
	}
	if data.Contents()[4096] != 1 {
		t.Error("the write is not on the disk")
	}
}

func TestAttachRefusals(t *testing.T) {
	r, err := NewResource(pairConfig("127.0.0.1:0", "127.0.0.1:1"), testLog())
	if err != nil {
		t.Fatal(err)
	}
	closes := 0
	count := func() error { closes++; return nil }
	empty := Backing{Data: mem.New(1 << 16), Placement: metadata.Internal, Close: count}
	if err := r.AttachVolume(limit(t), 0, empty); !errors.Is(err, mdtool.ErrNoMetadata) {
		t.Errorf("disk without metadata: %v, want %v", err, mdtool.ErrNoMetadata)
	}
	if err := r.AttachVolume(limit(t), 7, empty); err == nil {
		t.Error("a disk was attached to a volume that is not there")
	}
	broken := Backing{Data: failing{mem.New(1 << 16)}, Placement: metadata.Internal, Close: count}
	if err := r.AttachVolume(limit(t), 0, broken); !errors.Is(err, syscall.EIO) {
		t.Errorf("broken disk: %v, want EIO", err)
	}
	if closes != 3 {
		t.Errorf("devices closed %d times, want 3", closes)
	}
	_ = r.Close(limit(t))
}
