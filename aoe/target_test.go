package aoe

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/replblk/replblk/block"
	"github.com/replblk/replblk/block/mem"
)

var (
	serverMAC = MAC{2, 0, 0, 0, 0, 1}
	clientMAC = MAC{2, 0, 0, 0, 0, 2}
	otherMAC  = MAC{2, 0, 0, 0, 0, 3}
)

// wire is a Sender that keeps copies of the responses.
type wire struct {
	mtu  int
	pool *FramePool
	got  chan []byte
}

func newWire(mtu int) *wire {
	return &wire{mtu: mtu, pool: NewFramePool(mtu), got: make(chan []byte, 4096)}
}

func (w *wire) Send(f *Frame) {
	w.got <- bytes.Clone(f.Bytes())
	f.Release()
}
func (w *wire) Addr() MAC    { return serverMAC }
func (w *wire) OwnAddr() MAC { return serverMAC }
func (w *wire) MTU() int     { return w.mtu }

// give hands a copy of b to t.
func (w *wire) give(t *Target, b []byte) {
	f := w.pool.Get()
	f.SetLen(copy(f.Buffer(), b))
	t.Handle(f, w)
}

// one returns the next response.
func (w *wire) one(t *testing.T) (Header, []byte) {
	t.Helper()
	select {
	case b := <-w.got:
		var h Header
		if err := h.DecodeFrom(b); err != nil {
			t.Fatal(err)
		}
		return h, b
	case <-time.After(patience):
		t.Fatal("no response")
		return Header{}, nil
	}
}

// none fails if there is a response.
func (w *wire) none(t *testing.T) {
	t.Helper()
	select {
	case b := <-w.got:
		t.Fatalf("unexpected response % x", b)
	case <-time.After(20 * time.Millisecond):
	}
}

// slow is a device whose requests wait until the test lets them go.
type slow struct {
	*mem.Device
	mu   sync.Mutex
	held []*block.Request
	hold bool
	fail error // of every request from now on
}

func (s *slow) Submit(r *block.Request) {
	s.mu.Lock()
	hold, fail := s.hold, s.fail
	if hold {
		s.held = append(s.held, r)
	}
	s.mu.Unlock()
	switch {
	case hold:
	case fail != nil:
		r.Complete(r.Fail(fail))
	default:
		s.Device.Submit(r)
	}
}

// wait waits until n requests are held.
func (s *slow) wait(t *testing.T, n int) {
	t.Helper()
	eventually(t, fmt.Sprintf("the device never had %d requests", n), func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return len(s.held) >= n
	})
}

// release serves held request i.
func (s *slow) release(i int) {
	s.mu.Lock()
	r := s.held[i]
	s.held = append(s.held[:i], s.held[i+1:]...)
	s.mu.Unlock()
	s.Device.Submit(r)
}

func newSlow(sectors uint64) *slow { return &slow{Device: mem.New(sectors)} }

func newTestTarget(t testing.TB, dev block.Device, change func(*Options)) *Target {
	t.Helper()
	o := Options{Shelf: 7, Slot: 3, Device: dev, Permit: PermitAll, Firmware: 0x4019,
		Identity: Identity{Serial: "7.3:host", Firmware: "replblk", Model: "test"}}
	if change != nil {
		change(&o)
	}
	tg, err := NewTarget(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(tg.Close)
	return tg
}

func ataFrame(tag uint32, a ATA, data []byte) []byte {
	h := Header{Dst: serverMAC, Src: clientMAC, Version: 1, Shelf: 7, Slot: 3, Tag: tag}
	return append(a.AppendTo(h.AppendTo(nil)), data...)
}

func writeFrame(tag uint32, lba uint64, v byte, n int) []byte {
	return ataFrame(tag, ATA{Flags: ATAFlagExt | ATAFlagWrite, Command: ATAWriteExt, Count: uint8(n), LBA: lba}, bytes.Repeat([]byte{v}, n*512))
}

func TestATACommands(t *testing.T) {
	for _, tc := range []struct {
		name   string
		ata    ATA
		data   int
		status uint8
		errReg uint8
		count  uint8
		code   ErrorCode
		bytes  int // of data in the answer
	}{
		{name: "read 28", ata: ATA{Command: ATARead, Count: 2, LBA: 5}, status: 0x40, bytes: 1024},
		{name: "read 28 with device bits in lba3", ata: ATA{Command: ATARead, Count: 1, LBA: 0xe0000005}, status: 0x40, bytes: 512},
		{name: "read 48", ata: ATA{Flags: 0x40, Command: ATAReadExt, Count: 1, LBA: 99}, status: 0x40, bytes: 512},
		{name: "path probe: a read with data", ata: ATA{Command: ATARead, Count: 2}, data: 1024, status: 0x40, bytes: 1024},
		{name: "read dma", ata: ATA{Command: ATAReadDMAExt, Count: 1}, status: 0x40, bytes: 512},
		{name: "read beyond the end", ata: ATA{Command: ATARead, Count: 2, LBA: 99}, status: 0x41, errReg: 0x10, count: 2},
		{name: "read at 2^48-1", ata: ATA{Command: ATAReadExt, Count: 1, LBA: 1<<48 - 1}, status: 0x41, errReg: 0x10, count: 1},
		{name: "read of nothing", ata: ATA{Command: ATARead}, code: ErrArgument},
		{name: "read of more than a frame", ata: ATA{Command: ATARead, Count: 3}, code: ErrArgument},
		{name: "write", ata: ATA{Command: ATAWrite, Count: 2, LBA: 5}, data: 1024, status: 0x40},
		{name: "write with padding", ata: ATA{Command: ATAWrite, Count: 1, LBA: 5}, data: 600, status: 0x40},
		{name: "write fua", ata: ATA{Command: ATAWriteDMAFUAExt, Count: 1, LBA: 5}, data: 512, status: 0x40},
		{name: "write cut short", ata: ATA{Command: ATAWrite, Count: 2, LBA: 5}, data: 1023, code: ErrArgument},
		{name: "write without data", ata: ATA{Command: ATAWrite, Count: 1, LBA: 5}, code: ErrArgument},
		{name: "write beyond the end", ata: ATA{Command: ATAWrite, Count: 1, LBA: 100}, data: 512, status: 0x41, errReg: 0x10, count: 1},
		{name: "flush", ata: ATA{Command: ATAFlush}, status: 0x40},
		{name: "flush ext", ata: ATA{Command: ATAFlushExt}, status: 0x40},
		{name: "identify", ata: ATA{Command: ATAIdentify, Count: 1}, status: 0x40, bytes: 512},
		{name: "identify count 0, padded", ata: ATA{Command: ATAIdentify}, data: 1400, status: 0x40, bytes: 512},
		{name: "identify count 2", ata: ATA{Command: ATAIdentify, Count: 2}, code: ErrArgument},
		{name: "verify of more than a frame", ata: ATA{Command: ATAVerify, Count: 99}, status: 0x40},
		{name: "verify beyond the end", ata: ATA{Command: ATAVerifyExt, Count: 101}, status: 0x41, errReg: 0x10, count: 101},
		{name: "check power", ata: ATA{Command: ATACheckPower}, status: 0x40, count: 0xff},
		{name: "standby", ata: ATA{Command: ATAStandbyNow}, status: 0x40},
		{name: "write cache off", ata: ATA{Command: ATASetFeatures, Feature: 0x82}, status: 0x40},
		{name: "other feature", ata: ATA{Command: ATASetFeatures, Feature: 3}, status: 0x41, errReg: 0x04},
		{name: "smart status", ata: ATA{Command: ATASmart, Feature: 0xda, LBA: 0xc24f00}, status: 0x40},
		{name: "smart without key", ata: ATA{Command: ATASmart, Feature: 0xda}, status: 0x41, errReg: 0x04},
		{name: "unknown", ata: ATA{Command: 0x99, Count: 1}, status: 0x41, errReg: 0x04, count: 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWire(1500)
			tg := newTestTarget(t, mem.New(100), nil)
			w.give(tg, ataFrame(0xabcd, tc.ata, make([]byte, tc.data)))
			h, b := w.one(t)
			want := Header{Dst: clientMAC, Src: serverMAC, Version: 1, Flags: FlagResponse, Shelf: 7, Slot: 3, Tag: 0xabcd}
			if tc.code != 0 {
				want.Flags, want.Error = FlagResponse|FlagError, tc.code
			}
			if h != want {
				t.Fatalf("header %+v, want %+v", h, want)
			}
			if len(b) != max(MinFrame, DataOffset+tc.bytes) {
				t.Errorf("%d bytes, want data of %d", len(b), tc.bytes)
			}
			if tc.code != 0 {
				return
			}
			var a ATA
			if err := a.DecodeFrom(b); err != nil {
				t.Fatal(err)
			}
			if a.Command != tc.status || a.Feature != tc.errReg || a.Count != tc.count {
				t.Errorf("status %#x error %#x count %d, want %#x %#x %d", a.Command, a.Feature, a.Count, tc.status, tc.errReg, tc.count)
			}
		})
	}
}

func TestSilence(t *testing.T) {
	base := Header{Dst: serverMAC, Src: clientMAC, Version: 1, Shelf: 7, Slot: 3}
	for _, tc := range []struct {
		name   string
		change func(*Header)
		reason DropReason
	}{
		{"other shelf", func(h *Header) { h.Shelf = 8 }, DropForeign},
		{"other slot, any shelf", func(h *Header) { h.Shelf, h.Slot = AnyShelf, 4 }, DropForeign},
		{"other station", func(h *Header) { h.Dst = otherMAC }, DropForeign},
		{"source is a group", func(h *Header) { h.Src = Broadcast }, DropBadSource},
		{"write to any slot", func(h *Header) { h.Slot = AnySlot }, DropWildcard},
		{"write to any shelf", func(h *Header) { h.Shelf = AnyShelf }, DropWildcard},
		{"masked", func(h *Header) { h.Src = otherMAC }, DropMasked},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w, dev := newWire(1500), mem.New(100)
			tg := newTestTarget(t, dev, func(o *Options) { o.State.Mask = []MAC{clientMAC} })
			h := base
			tc.change(&h)
			a := ATA{Flags: 1, Command: ATAWrite, Count: 1}
			w.give(tg, append(a.AppendTo(h.AppendTo(nil)), bytes.Repeat([]byte{1}, 512)...))
			w.none(t)
			if n := tg.Counters().Drops(tc.reason); n != 1 {
				t.Errorf("counted %d drops for %v", n, tc.reason)
			}
			if !bytes.Equal(dev.Contents(), make([]byte, 100*512)) {
				t.Error("the device was written")
			}
		})
	}
}

// TestWriteIsDurableWhenAcknowledged crashes the device after each answer.
func TestWriteIsDurableWhenAcknowledged(t *testing.T) {
	for _, mode := range []CommitMode{CommitGroup, CommitFUA} {
		w, dev := newWire(1500), mem.New(100)
		tg := newTestTarget(t, dev, func(o *Options) { o.Commit = mode })
		for i := range 50 {
			w.give(tg, writeFrame(uint32(i), uint64(i), byte(i+1), 1))
			w.one(t)
			if n := dev.Unflushed(); n != 0 {
				t.Fatalf("mode %d: %d unflushed bytes after the answer", mode, n)
			}
		}
	}
	w, dev := newWire(1500), mem.New(100)
	w.give(newTestTarget(t, dev, func(o *Options) { o.Commit = CommitNone }), writeFrame(1, 0, 1, 1))
	w.one(t)
	if dev.Unflushed() == 0 {
		t.Fatal("CommitNone flushed: this test proves nothing")
	}
}

// TestGroupCommitSharesFlushes: writes that complete while a flush is in flight
// share the next one.
func TestGroupCommitSharesFlushes(t *testing.T) { synctest.Test(t, groupCommitSharesFlushes) }

func groupCommitSharesFlushes(t *testing.T) {
	w, dev := newWire(1500), newSlow(100)
	tg := newTestTarget(t, dev, nil)
	dev.hold = true
	for i := range 10 {
		w.give(tg, writeFrame(uint32(i), uint64(i), 1, 1))
	}
	dev.wait(t, 10)
	dev.release(0)
	dev.wait(t, 10) // nine writes and a flush
	for range 9 {
		dev.release(0)
	}
	w.none(t)
	dev.release(0) // the flush
	w.one(t)
	dev.wait(t, 1)
	w.none(t)
	dev.release(0)
	for range 9 {
		w.one(t)
	}
	if len(dev.held) != 0 {
		t.Errorf("%d requests left", len(dev.held))
	}
}

func TestFlushFailureFailsTheWrites(t *testing.T) {
	w, dev := newWire(1500), newSlow(100)
	tg := newTestTarget(t, dev, nil)
	dev.hold = true
	w.give(tg, writeFrame(1, 0, 1, 1))
	dev.wait(t, 1)
	dev.mu.Lock()
	dev.hold, dev.fail = false, syscall.EIO
	dev.mu.Unlock()
	dev.release(0)
	_, b := w.one(t)
	if b[27] != StatusReady|StatusError || b[25] != ATAAbort {
		t.Errorf("status %#x error %#x", b[27], b[25])
	}
}

// TestOverlappingInOrderOfArrival: O01, O02, O14.
func TestOverlappingInOrderOfArrival(t *testing.T) { synctest.Test(t, overlappingInOrderOfArrival) }

func overlappingInOrderOfArrival(t *testing.T) {
	w, dev := newWire(1500), newSlow(100)
	tg := newTestTarget(t, dev, func(o *Options) { o.Commit = CommitNone })
	dev.hold = true
	w.give(tg, writeFrame(1, 10, 1, 2))
	w.give(tg, writeFrame(2, 11, 2, 2)) // waits for 1
	w.give(tg, ataFrame(3, ATA{Command: ATARead, Count: 1, LBA: 12}, nil))
	w.give(tg, writeFrame(4, 20, 4, 1)) // independent
	w.give(tg, writeFrame(5, 10, 5, 1)) // waits for 1 only
	dev.wait(t, 2)
	if n := len(dev.held); n != 2 {
		t.Fatalf("%d requests at the device, want those with tags 1 and 4", n)
	}
	dev.release(1)
	if h, _ := w.one(t); h.Tag != 4 {
		t.Fatalf("tag %d first", h.Tag)
	}
	dev.release(0)
	if h, _ := w.one(t); h.Tag != 1 {
		t.Fatalf("tag %d after 4", h.Tag)
	}
	dev.wait(t, 2) // 2 and 5
	dev.release(0)
	if h, _ := w.one(t); h.Tag != 2 {
		t.Fatalf("tag %d after 1", h.Tag)
	}
	dev.wait(t, 2) // 5 and 3
	dev.release(1)
	if h, b := w.one(t); h.Tag != 3 || b[DataOffset] != 2 {
		t.Fatalf("tag %d read %d, want what 2 wrote", h.Tag, b[DataOffset])
	}
	dev.release(0)
	w.one(t)
	if n := tg.Counters().Delayed.Load(); n != 3 {
		t.Errorf("%d delayed, want 3", n)
	}
}

// TestOrderUnderLoad writes the same few sectors many times; the last to arrive
// must be what remains.
func TestOrderUnderLoad(t *testing.T) { synctest.Test(t, orderUnderLoad) }

func orderUnderLoad(t *testing.T) {
	w, dev := newWire(1500), &jitter{Device: mem.New(16)}
	tg := newTestTarget(t, dev, nil)
	want := make([]byte, 16*512)
	for i := range 200 {
		lba := i * 7 % 15
		v := byte(i + 1)
		w.give(tg, writeFrame(uint32(i), uint64(lba), v, 2))
		copy(want[lba*512:], bytes.Repeat([]byte{v}, 1024))
	}
	for range 200 {
		w.one(t)
	}
	if !bytes.Equal(dev.Contents(), want) {
		t.Error("an earlier write overwrote a later one")
	}
}

// jitter serves each request in a goroutine of its own.
type jitter struct{ *mem.Device }

func (j *jitter) Submit(r *block.Request) { go j.Device.Submit(r) }

// TestSilenced: O03. What was received while serving is neither executed nor
// answered afterwards, not even when the target serves again.
func TestSilenced(t *testing.T) { synctest.Test(t, silenced) }

func silenced(t *testing.T) {
	w, dev := newWire(1500), newSlow(100)
	tg := newTestTarget(t, dev, func(o *Options) { o.Commit = CommitNone })
	dev.hold = true
	w.give(tg, writeFrame(1, 0, 1, 1))
	w.give(tg, writeFrame(2, 0, 2, 1)) // waits for 1
	dev.wait(t, 1)
	tg.SetServing(false)
	w.give(tg, writeFrame(3, 50, 3, 1))
	tg.SetServing(true)
	dev.release(0)
	w.none(t)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if err := tg.Drain(ctx); err != nil {
		t.Fatal(err)
	}
	if got := dev.Contents(); got[0] != 1 || got[50*512] != 0 {
		t.Errorf("contents %d and %d: a silenced target executed a write", got[0], got[50*512])
	}
	dev.hold = false
	w.give(tg, writeFrame(4, 0, 4, 1))
	if h, _ := w.one(t); h.Tag != 4 {
		t.Errorf("tag %d", h.Tag)
	}
	if n := w.pool.Outstanding(); n != 0 {
		t.Errorf("%d frames leaked", n)
	}
}

func TestLimits(t *testing.T) { synctest.Test(t, limits) }

func limits(t *testing.T) {
	w, dev := newWire(1500), newSlow(100)
	tg := newTestTarget(t, dev, func(o *Options) { o.MaxInFlight, o.MaxPerInitiator, o.Commit = 6, 4, CommitNone })
	dev.hold = true
	for i := range 10 {
		w.give(tg, writeFrame(uint32(i), uint64(i), 1, 1))
	}
	// One initiator's flood leaves room for another (O09).
	other := writeFrame(100, 50, 1, 1)
	copy(other[6:12], otherMAC[:])
	w.give(tg, other)
	dev.wait(t, 5)
	if n := len(dev.held); n != 5 {
		t.Errorf("%d requests at the device", n)
	}
	if n := tg.Counters().Drops(DropQueueFull); n != 6 {
		t.Errorf("%d dropped", n)
	}
	for range 5 {
		dev.release(0)
		w.one(t)
	}
	if n := tg.Counters().InFlight.Load(); n != 0 {
		t.Errorf("%d in flight", n)
	}
	if got := tg.Initiators(); len(got) != 2 || got[0].Counters.Drops(DropQueueFull) != 6 || got[1].Counters.Writes.Load() != 1 {
		t.Errorf("initiators %+v", got)
	}
}

func TestStaleIsDropped(t *testing.T) { synctest.Test(t, staleIsDropped) }

func staleIsDropped(t *testing.T) {
	w, dev := newWire(1500), newSlow(100)
	tg := newTestTarget(t, dev, func(o *Options) { o.MaxAge, o.Commit = time.Minute, CommitNone })
	dev.hold = true
	w.give(tg, writeFrame(1, 0, 1, 1))
	f := w.pool.Get()
	f.SetLen(copy(f.Buffer(), ataFrame(2, ATA{Command: ATARead, Count: 1}, nil)))
	f.Received = time.Now().Add(-2 * time.Minute)
	tg.Handle(f, w)
	dev.release(0)
	w.one(t)
	w.none(t)
	if tg.Counters().Drops(DropStale) != 1 || dev.Contents()[0] != 1 {
		t.Error("a stale request was executed")
	}
}

func TestDeviceErrors(t *testing.T) {
	for _, tc := range []struct {
		err    error
		read   bool
		silent bool
		errReg uint8
	}{
		{err: syscall.EIO, read: true, errReg: ATAUncorrectable},
		{err: syscall.EIO, errReg: ATAAbort},
		{err: syscall.EROFS, errReg: ATAAbort},
		{err: errors.New("text"), errReg: ATAAbort},
		{err: syscall.EAGAIN, silent: true},
		{err: syscall.ESHUTDOWN, read: true, silent: true},
	} {
		w, dev := newWire(1500), newSlow(100)
		tg := newTestTarget(t, dev, nil)
		dev.fail = tc.err
		if tc.read {
			w.give(tg, ataFrame(1, ATA{Command: ATARead, Count: 1}, nil))
		} else {
			w.give(tg, writeFrame(1, 0, 1, 1))
		}
		if tc.silent {
			w.none(t)
			continue
		}
		if _, b := w.one(t); b[27] != 0x41 || b[25] != tc.errReg || len(b) != MinFrame {
			t.Errorf("%v: status %#x error %#x, %d bytes", tc.err, b[27], b[25], len(b))
		}
	}
}

// TestPaddingIsZero: a short answer must not carry the end of the request.
func TestPaddingIsZero(t *testing.T) {
	w := newWire(1500)
	w.give(newTestTarget(t, mem.New(100), nil), writeFrame(1, 0, 0xee, 1))
	if _, b := w.one(t); !bytes.Equal(b[DataOffset:], make([]byte, MinFrame-DataOffset)) {
		t.Errorf("padding % x", b[DataOffset:])
	}
}
