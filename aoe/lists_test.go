package aoe

import (
	"testing"

	"github.com/replblk/replblk/block/mem"
)

func TestPermits(t *testing.T) {
	w := newWire(1500)
	tg := newTestTarget(t, mem.New(100), func(o *Options) { o.Permit = 0 })
	h := Header{Dst: serverMAC, Src: clientMAC, Version: 1, Shelf: 7, Slot: 3}
	h.Command = CommandConfig
	w.give(tg, (&ConfigArg{Command: ConfigForceSet, String: []byte("x")}).AppendTo(h.AppendTo(nil)))
	if h, _ := w.one(t); h.Error != ErrArgument {
		t.Errorf("config: %+v", h)
	}
	h.Command = CommandMask
	w.give(tg, (&MaskArg{Command: MaskEdit, Count: 1, Directives: []Directive{{DirectiveAdd, clientMAC}}}).AppendTo(h.AppendTo(nil)))
	if _, b := w.one(t); MaskError(b[26]) != MaskUnspecified {
		t.Errorf("mask: error %d", b[26])
	}
	h.Command = CommandReserve
	w.give(tg, (&ReserveArg{Command: ReserveForceSet, MACs: []MAC{clientMAC}}).AppendTo(h.AppendTo(nil)))
	if h, _ := w.one(t); h.Error != ErrReserved {
		t.Errorf("reserve: %+v", h)
	}
	if s := tg.State(); len(s.Config)+len(s.Mask)+len(s.Reserve) != 0 {
		t.Errorf("state %+v", s)
	}
}

func TestStateIsReported(t *testing.T) {
	w := newWire(1500)
	var got []State
	tg := newTestTarget(t, mem.New(100), func(o *Options) { o.OnState = func(s State) error { got = append(got, s); return nil } })
	h := Header{Dst: serverMAC, Src: clientMAC, Version: 1, Shelf: 7, Slot: 3, Command: CommandConfig}
	for range 2 { // the repeated request changes nothing
		w.give(tg, (&ConfigArg{Command: ConfigSet, String: []byte("x")}).AppendTo(h.AppendTo(nil)))
		w.one(t)
	}
	if len(got) != 1 || string(got[0].Config) != "x" {
		t.Errorf("reported %+v", got)
	}
}

func TestMaskListIsLimitedByTheFrame(t *testing.T) {
	w := newWire(1500)
	tg := newTestTarget(t, mem.New(100), nil)
	h := Header{Dst: serverMAC, Src: clientMAC, Version: 1, Shelf: 7, Slot: 3, Command: CommandMask}
	var full *MaskArg
	for i := range 300 {
		m := clientMAC
		if i > 0 {
			m = MAC{2, 9, 0, 0, byte(i >> 8), byte(i)}
		}
		w.give(tg, (&MaskArg{Command: MaskEdit, Count: 1, Directives: []Directive{{DirectiveAdd, m}}}).AppendTo(h.AppendTo(nil)))
		_, b := w.one(t)
		if len(b) > 1514 {
			t.Fatalf("answer of %d bytes", len(b))
		}
		var a MaskArg
		if err := a.DecodeFrom(b); err != nil {
			t.Fatal(err)
		}
		if a.Error != 0 {
			full = &a
			break
		}
	}
	if full == nil || full.Error != MaskFull || full.Count != 0 {
		t.Errorf("last answer %+v", full)
	}
}

func TestAdvertisedSectors(t *testing.T) {
	for mtu, want := range map[int]uint8{576: 1, 1500: 2, 4200: 8, 9000: 16, 65536: 120} {
		if got := AdvertisedSectors(mtu); got != want {
			t.Errorf("mtu %d: %d sectors, want %d", mtu, got, want)
		}
	}
}
