package aoe

import (
	"slices"
	"sync/atomic"
	"testing"
)

// TestListsAreShared: what an initiator sets on the end that serves is on the other
// end when the answer is there, full lists included, and only what may be set.
func TestListsAreShared(t *testing.T) {
	_, _, a, b, c := twoEnds(t)
	var kept atomic.Int32
	b.mu.Lock()
	b.onState = func(State) { kept.Add(1) }
	b.mu.Unlock()
	var all []MAC
	for i := range MaxMACs - 1 {
		all = append(all, MAC{2, 1, 1, 1, 0, byte(i)})
	}
	all = append(all, clientMAC)
	h := Header{Dst: vmac, Src: clientMAC, Version: 1, Shelf: 7, Slot: 3, Command: CommandReserve, Tag: 5}
	// Larger than the LAN's MTU, which the test's LAN does not mind.
	set := ReserveArg{Command: ReserveSet, MACs: all}
	a.SetState(State{Config: []byte("kept")})
	_, _ = c.Send([][]byte{set.AppendTo(h.AppendTo(nil))})
	eventually(t, "the list has not come", func() bool { return slices.Equal(b.State().Reserve, all) })
	eventually(t, "the string has not come", func() bool { return string(b.State().Config) == "kept" })
	if kept.Load() == 0 {
		t.Error("nobody was told to keep it")
	}
	if got := a.State(); !slices.Equal(got.Reserve, all) {
		t.Errorf("the serving end has %d entries", len(got.Reserve))
	}
	// The serving end believes nobody.
	forged := newTestTarget(t, newSlow(100), func(o *Options) { o.Virtual = true })
	if err := forged.SetState(State{Reserve: all[:1]}); err != nil {
		t.Fatal(err)
	}
	w := newWire(1500)
	forged.tell(w, w.pool)
	for range numShares {
		_, f := w.one(t)
		a.hear(f, &Header{Src: vmac, Tag: uint32(forged.claim)}, &place{session: nil, binding: binding{addr: vmac}})
	}
	if got := a.State(); len(got.Reserve) != MaxMACs {
		t.Errorf("a serving end took over a list of %d", len(got.Reserve))
	}
}

// TestSharedStateIsJudged: parts that are lost, too long or not permitted change
// nothing.
func TestSharedStateIsJudged(t *testing.T) {
	w := newWire(1500)
	from := newTestTarget(t, newSlow(100), func(o *Options) { o.Virtual = true })
	list := make([]MAC, MaxMACs)
	for i := range list {
		list[i] = MAC{2, 0, 0, 0, 9, byte(i)}
	}
	if err := from.SetState(State{Mask: list, Config: []byte("x")}); err != nil {
		t.Fatal(err)
	}
	from.tell(w, w.pool)
	var frames [][]byte
	for range 4 { // config, two for the mask, reserve
		_, b := w.one(t)
		frames = append(frames, b)
	}
	h := Header{Src: serverMAC, Tag: uint32(from.claim)}
	give := func(permit Permit, list ...[]byte) State {
		to := newTestTarget(t, newSlow(100), func(o *Options) { o.Virtual, o.Standby, o.Permit = true, true, permit })
		for _, b := range list {
			to.hear(b, &h, w)
		}
		return to.State()
	}
	if s := give(PermitAll, frames...); len(s.Mask) != MaxMACs || string(s.Config) != "x" {
		t.Errorf("all frames: %d in the mask, config %q", len(s.Mask), s.Config)
	}
	if s := give(PermitAll, frames[1]); len(s.Mask) != 0 {
		t.Errorf("first half of the mask: %d", len(s.Mask))
	}
	if s := give(PermitAll, frames[2], frames[1]); len(s.Mask) != 0 {
		t.Errorf("halves in the wrong order: %d", len(s.Mask))
	}
	if s := give(PermitConfig, frames...); len(s.Mask) != 0 || string(s.Config) != "x" {
		t.Errorf("only the string permitted: %d in the mask, config %q", len(s.Mask), s.Config)
	}
	for n := range frames[1] {
		give(PermitAll, frames[1][:n]) // must not panic
	}
	long := slices.Clone(frames[1])
	long[26], long[27] = 0xff, 0xff
	if s := give(PermitAll, long); len(s.Mask) != 0 {
		t.Error("a list longer than any was begun")
	}
}
