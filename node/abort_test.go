package node

import (
	"bytes"
	"errors"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/replblk/replblk/block"
	"github.com/replblk/replblk/block/faulty"
	"github.com/replblk/replblk/block/mem"
	"github.com/replblk/replblk/metadata"
	"github.com/replblk/replblk/node/transport"
	"github.com/replblk/replblk/replication"
	"github.com/replblk/replblk/replication/state"
)

// hanging is a node whose disk can hang.
type hanging struct {
	host
	disk   *faulty.Device
	closed atomic.Bool
}

func newHanging(t *testing.T, cfg Config, n transport.Network, d *mem.Device, name string) *hanging {
	t.Helper()
	h := &hanging{host: host{disk: d}, disk: faulty.New(d)}
	h.Resource = attached(t, cfg, n, name, Backing{Data: h.disk, Close: func() error { h.closed.Store(true); return nil }})
	return h
}

// hangingPair is a pair in sync, a Primary, with a disk-timeout of half a second if limited.
func hangingPair(t *testing.T, limited bool) (a, b *hanging) {
	t.Helper()
	n := &transport.Memory{}
	var hosts [2]*hanging
	for i, name := range []string{"a", "b"} {
		cfg := pairConfig(name, string(rune('b'-i)))
		if limited {
			cfg.Core.Volumes[0].DiskTimeoutTenths = 5
		}
		hosts[i] = newHanging(t, cfg, n, newDisk(t), name)
	}
	a, b = hosts[0], hosts[1]
	initialSync(t, &a.host, &b.host)
	return a, b
}

func (h *hanging) hang() { h.disk.Set(faulty.Rule{Hold: true}) }

func (h *hanging) leave() {
	h.disk.Set()
	h.disk.Release()
}

func diskless(s state.State) bool { return s.Disk == state.Diskless }

// submitted starts a request and returns its memory and a way to ask whether it is done.
func submitted(v *Volume, op block.Op, sector uint64, p []byte) (*block.Request, *atomic.Bool) {
	done := new(atomic.Bool)
	r := &block.Request{Op: op, Sector: sector, Sectors: uint32(len(p) / 512), Data: p, Done: func(*block.Request) { done.Store(true) }}
	v.Submit(r)
	return r, done
}

// TestHungDiskTouchesNoMemory: with disk-timeout set, what a disk does after it was given up
// is done with memory that has no other owner, and is reported to nobody.
func TestHungDiskTouchesNoMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := hangingPair(t, true)
		v := a.Volume(0)
		if err := block.WriteAt(v, bytes.Repeat([]byte{1}, 4096), 64); err != nil {
			t.Fatal(err)
		}
		a.hang()
		out, in := bytes.Repeat([]byte{2}, 4096), make([]byte, 4096)
		write, written := submitted(v, block.Write, 8, out)
		read, got := submitted(v, block.Read, 64, in)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if !written.Load() || write.Err != nil || !got.Load() || read.Err != nil || in[0] != 1 {
			t.Fatalf("write done %v, %v; read done %v, %v, has %d", written.Load(), write.Err, got.Load(), read.Err, in[0])
		}
		a.wait(t, "detach", diskless)
		for i := range out { // the application uses its memory again
			out[i], in[i] = 3, 3
		}
		before := a.disk.Held()
		if before == 0 || a.closed.Load() {
			t.Fatalf("%d operations held, closed: %v; want some, and the device open", before, a.closed.Load())
		}
		a.leave()
		synctest.Wait()
		if c := a.host.disk.Contents()[8*512]; c != 2 {
			t.Errorf("the late write has brought %d, want 2: its memory was used again", c)
		}
		if in[0] != 3 {
			t.Errorf("the late read has changed memory that was given back to %d", in[0])
		}
		if !a.closed.Load() {
			t.Error("the device was not closed when everything had returned")
		}
		closeAll(t, &a.host, &b.host)
	})
}

// TestForcedDetachOfHungDisk: without disk-timeout the disk has the application's own
// memory, so a request that it holds is answered when it returns, but nothing else waits.
func TestForcedDetachOfHungDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := hangingPair(t, false)
		v := a.Volume(0)
		if err := block.WriteAt(v, bytes.Repeat([]byte{1}, 4096), 8); err != nil { // else it would wait for the activity log
			t.Fatal(err)
		}
		a.hang()
		write, written := submitted(v, block.Write, 8, bytes.Repeat([]byte{2}, 4096))
		time.Sleep(time.Minute)
		a.do(t, replication.Admin{Kind: replication.AdminDetach, Force: true})
		if s := a.State(0); !diskless(s) || written.Load() {
			t.Fatalf("after detach --force: %+v, the write in the disk is answered: %v", s, written.Load())
		}
		if err := block.WriteAt(v, bytes.Repeat([]byte{5}, 4096), 128); err != nil {
			t.Fatalf("write without the disk: %v", err)
		}
		in := make([]byte, 4096)
		if err := block.ReadAt(v, in, 8); err != nil || in[0] != 2 {
			t.Errorf("read without the disk: %v, %d; want what the peer has", err, in[0])
		}
		a.leave()
		synctest.Wait()
		if !written.Load() || write.Err != nil {
			t.Errorf("the disk has returned: write answered %v, %v", written.Load(), write.Err)
		}
		closeAll(t, &a.host, &b.host)
	})
}

// TestHungDiskOfSecondary: the buffer of a write that the disk holds is not used for
// another one, and the disk may come back as soon as it has returned everything.
func TestHungDiskOfSecondary(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := hangingPair(t, true)
		image := make([]byte, a.dataSectors()*512)
		scribble(t, a.Volume(0), 1, 100, image)
		b.hang()
		for i := range image[:1<<20] {
			image[i] = 7
		}
		if err := block.WriteAt(a.Volume(0), image[:1<<20], 0); err != nil {
			t.Fatal(err)
		}
		b.wait(t, "detach", diskless)
		scribble(t, a.Volume(0), 2, 200, image) // in all the memory there is
		if b.closed.Load() {
			t.Fatal("the device is closed while it has operations")
		}
		b.leave()
		synctest.Wait()
		back := Backing{Data: b.disk, Placement: metadata.Internal}
		if err := b.AttachVolume(limit(t), 0, back); err != nil {
			t.Fatal(err)
		}
		converged(t, image, &a.host, &b.host)
		closeAll(t, &a.host, &b.host)
	})
}

// TestHungDiskHoldsItsDevice: a disk that was given up cannot be attached again before it
// has returned, and a resource can be closed without it.
func TestHungDiskHoldsItsDevice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := hangingPair(t, true)
		a.disk.Set(faulty.Rule{Ops: []block.Op{block.Flush}, Hold: true}) // the metadata
		b.do(t, replication.Admin{Kind: replication.AdminDisconnect, Force: true})
		a.wait(t, "detach", diskless)
		if !a.Volume(0).Hanging() {
			t.Error("the volume does not say that its disk hangs")
		}
		if err := a.AttachVolume(limit(t), 0, Backing{Data: a.disk, Placement: metadata.Internal}); !errors.Is(err, errHanging) {
			t.Errorf("attach: %v, want %v", err, errHanging)
		}
		a.leave()
		synctest.Wait()
		if a.Volume(0).Hanging() || !a.closed.Load() {
			t.Errorf("hanging: %v, closed: %v", a.Volume(0).Hanging(), a.closed.Load())
		}
		b.close(t)
	})
}

// TestPostponedFills: pieces of a read that came from the peer are not undone by the
// piece that the disk had.
func TestPostponedFills(t *testing.T) {
	s, bufs := newSlots(1), &buffers{}
	var ended error = syscall.EAGAIN
	req := &block.Request{Op: block.Read, Sectors: 2, Data: make([]byte, 1024), Done: func(r *block.Request) { ended = r.Err }}
	id, _ := s.take(req, nil)
	s.hang(id)
	s.hang(id)
	fill := func(kind replication.EffectKind, from uint32, value byte) *replication.Effect {
		buf, p := bufs.alloc(512)
		p[0] = value
		return &replication.Effect{Kind: kind, Req: id, From: from, Size: 512, Buf: buf}
	}
	for _, e := range []*replication.Effect{fill(replication.FxFill, 0, 1), fill(replication.FxFill, 512, 2), {Kind: replication.FxComplete, Req: id}} {
		if !s.postpone(e) {
			t.Fatalf("effect %d was not postponed", e.Kind)
		}
	}
	req.Data[0], req.Data[512] = 9, 9 // the disk
	s.unhang(id, bufs)
	if ended == nil {
		t.Fatal("answered while the disk has the other half")
	}
	s.unhang(id, bufs)
	if ended != nil || req.Data[0] != 1 || req.Data[512] != 2 {
		t.Errorf("ended with %v, data %d and %d, want 1 and 2", ended, req.Data[0], req.Data[512])
	}
	if s.inUse() != 0 || bufs.inUse() != 0 {
		t.Errorf("%d slots and %d buffers in use", s.inUse(), bufs.inUse())
	}
}
