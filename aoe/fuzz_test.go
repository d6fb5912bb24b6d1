package aoe

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/replblk/replblk/block/mem"
)

// FuzzFrame gives a target any frame. Whatever it is, there is at most one
// answer, well formed and to the sender, and the device changes only by a write
// whose every byte is in the frame.
func FuzzFrame(f *testing.F) {
	h := Header{Dst: serverMAC, Src: clientMAC, Version: 1, Shelf: 7, Slot: 3, Tag: 5}
	f.Add(writeFrame(1, 3, 0x55, 2))
	f.Add(writeFrame(1, 3, 0x55, 2)[:100])
	f.Add(ataFrame(1, ATA{Command: ATARead, Count: 2, LBA: 1}, nil))
	f.Add(ataFrame(1, ATA{Command: ATAIdentify, Count: 1}, nil))
	f.Add(ataFrame(1, ATA{Command: ATAVerify, Count: 64}, nil))
	f.Add(ataFrame(1, ATA{Command: ATAFlush}, nil))
	h.Command = CommandConfig
	f.Add((&ConfigArg{Command: ConfigSet, String: []byte("abc")}).AppendTo(h.AppendTo(nil)))
	h.Command = CommandMask
	f.Add((&MaskArg{Command: MaskEdit, Count: 1, Directives: []Directive{{DirectiveAdd, clientMAC}}}).AppendTo(h.AppendTo(nil)))
	h.Command = CommandReserve
	f.Add((&ReserveArg{Command: ReserveSet, MACs: []MAC{otherMAC}}).AppendTo(h.AppendTo(nil)))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 1514 {
			return
		}
		const sectors = 64
		w, dev := newWire(1500), mem.New(sectors)
		tg := newTestTarget(t, dev, nil)
		w.give(tg, b)
		if err := tg.Drain(t.Context()); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(dev.Contents(), fuzzModel(b, sectors)) {
			t.Fatal("the device is not what the frame says")
		}
		if w.pool.Outstanding() != 0 {
			t.Fatal("frame leaked")
		}
		checkAnswer(t, w, b)
	})
}

func checkAnswer(t *testing.T, w *wire, req []byte) {
	if len(w.got) > 1 {
		t.Fatalf("%d answers", len(w.got))
	}
	if len(w.got) == 0 {
		return
	}
	b := <-w.got
	var h Header
	if err := h.DecodeFrom(b); err != nil {
		t.Fatal(err)
	}
	if len(b) < MinFrame || len(b) > 1514 || h.Version != 1 || h.Flags&FlagResponse == 0 || h.Shelf != 7 || h.Slot != 3 ||
		!bytes.Equal(b[0:6], req[6:12]) || !bytes.Equal(b[20:24], req[20:24]) || b[19] != req[19] {
		t.Fatalf("bad answer % x", b)
	}
}

// fuzzModel says what a device of zeroes holds after frame b. It is written
// from the format, not from the target's code.
func fuzzModel(b []byte, sectors uint64) []byte {
	dev := make([]byte, sectors*512)
	if len(b) < 36+512 || binary.BigEndian.Uint16(b[12:]) != 0x88a2 || b[14]>>4 != 1 || b[14]&8 != 0 ||
		binary.BigEndian.Uint16(b[16:]) != 7 || b[18] != 3 || b[19] != 0 || b[6]&1 != 0 {
		return dev
	}
	if MAC(b[:6]) != serverMAC && MAC(b[:6]) != Broadcast {
		return dev
	}
	var lba uint64
	switch b[27] {
	case 0x30, 0xca:
		lba = uint64(binary.LittleEndian.Uint32(b[28:]) & 0x0fffffff)
	case 0x34, 0x35, 0x3d:
		lba = binary.LittleEndian.Uint64(b[28:]) & (1<<48 - 1)
	default:
		return dev
	}
	n := uint64(b[26])
	if n == 0 || n > 2 || uint64(len(b)) < 36+n*512 || lba+n > sectors {
		return dev
	}
	copy(dev[lba*512:], b[36:36+n*512])
	return dev
}

// FuzzArguments decodes and encodes again: what was understood must survive.
func FuzzArguments(f *testing.F) {
	f.Add(writeFrame(1, 3, 0x55, 1))
	f.Fuzz(func(t *testing.T, b []byte) {
		var h Header
		if h.DecodeFrom(b) != nil {
			return
		}
		head := h.AppendTo(nil)
		if !bytes.Equal(head, b[:HeaderLen]) {
			t.Fatalf("header % x, was % x", head, b[:HeaderLen])
		}
		var a ATA
		if a.DecodeFrom(b) == nil {
			if got := a.AppendTo(head); !bytes.Equal(got[:34], b[:34]) {
				t.Fatalf("ata % x, was % x", got, b[:36])
			}
		}
		var c ConfigArg
		if c.DecodeFrom(b) == nil && (c.Command != ConfigRead || h.Flags&FlagResponse != 0) {
			if got := c.AppendTo(head); !bytes.Equal(got, b[:len(got)]) {
				t.Fatalf("config % x, was % x", got, b)
			}
		}
		var m MaskArg
		_ = m.DecodeFrom(b)
		var r ReserveArg
		_ = r.DecodeFrom(b)
	})
}

// TestNoAllocation: the path of a read and of a write makes no garbage.
func TestNoAllocation(t *testing.T) {
	w := &discard{pool: NewFramePool(1500)}
	tg := newTestTarget(t, mem.NewVolatile(100), func(o *Options) { o.Commit = CommitNone })
	for _, b := range [][]byte{writeFrame(1, 3, 1, 2), ataFrame(1, ATA{Command: ATARead, Count: 2}, nil)} {
		n := testing.AllocsPerRun(1000, func() {
			f := w.pool.Get()
			f.SetLen(copy(f.Buffer(), b))
			tg.Handle(f, w)
		})
		if n > 0.1 && !raceEnabled {
			t.Errorf("%v allocations per request", n)
		}
	}
}

// discard is a Sender that drops everything.
type discard struct{ pool *FramePool }

func (d *discard) Send(f *Frame) { f.Release() }
func (d *discard) Addr() MAC     { return serverMAC }
func (*discard) OwnAddr() MAC    { return serverMAC }
func (d *discard) MTU() int      { return 1500 }

func BenchmarkHandleRead(b *testing.B) {
	w := &discard{pool: NewFramePool(1500)}
	tg := newTestTarget(b, mem.NewVolatile(100), nil)
	req := ataFrame(1, ATA{Command: ATARead, Count: 2}, nil)
	b.ReportAllocs()
	for b.Loop() {
		f := w.pool.Get()
		f.SetLen(copy(f.Buffer(), req))
		tg.Handle(f, w)
	}
}
