package aoe

import (
	"slices"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/replblk/replblk/block"
	"github.com/replblk/replblk/block/mem"
)

// TestPlannedSwitch: what was accepted before is answered, what arrives while
// nobody serves is served by the other end, once, and nothing is lost.
func TestPlannedSwitch(t *testing.T) { synctest.Test(t, plannedSwitch) }

func plannedSwitch(t *testing.T) {
	_, dev, a, b, c := twoEnds(t)
	dev.hold = true
	c.write(1, 10, 1)
	dev.wait(t, 1)
	a.Hold()
	c.write(2, 11, 2) // held
	eventually(t, "not held", func() bool { a.mu.Lock(); defer a.mu.Unlock(); return len(a.held) == 1 })
	dev.mu.Lock()
	dev.hold = false
	dev.mu.Unlock()
	dev.release(0)
	if tag := c.answer(time.Second); tag != 1 {
		t.Fatalf("answer to %d, want 1: what was accepted must be answered", tag)
	}
	if err := a.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	c.write(3, 12, 3)
	if tag := c.answer(20 * time.Millisecond); tag != 0 {
		t.Fatalf("answer to %d although nobody serves", tag)
	}
	b.SetServing(true)
	got := map[uint32]bool{c.answer(time.Second): true, c.answer(time.Second): true}
	if !got[2] || !got[3] {
		t.Errorf("answered %v, want 2 and 3", got)
	}
	c.write(4, 13, 4)
	if tag := c.answer(time.Second); tag != 4 {
		t.Errorf("answer to %d, want 4", tag)
	}
	for i, v := range map[int]byte{10: 1, 11: 2, 12: 3, 13: 4} {
		if got := dev.Contents()[i*512]; got != v {
			t.Errorf("sector %d holds %d, want %d", i, got, v)
		}
	}
	if x, y := a.Counters().HandedOver.Load(), b.Counters().TakenOver.Load(); x != 2 || y != 2 {
		t.Errorf("%d handed over, %d taken", x, y)
	}
	if n := a.Conflicts() + b.Conflicts(); n != 0 {
		t.Errorf("%d conflicts in an orderly switch", n)
	}
}

// TestSwitchRefused: the end that could not give the role up serves what it held.
func TestSwitchRefused(t *testing.T) { synctest.Test(t, switchRefused) }

func switchRefused(t *testing.T) {
	_, _, a, b, c := twoEnds(t)
	a.Hold()
	c.write(1, 10, 1)
	eventually(t, "not held", func() bool { a.mu.Lock(); defer a.mu.Unlock(); return len(a.held) == 1 })
	a.SetServing(true)
	if tag := c.answer(time.Second); tag != 1 {
		t.Errorf("answer to %d", tag)
	}
	if b.Counters().TakenOver.Load() != 0 {
		t.Error("the other end got something")
	}
}

// TestLateCopyDoesNotUndo: a copy of a write that the old end held is handed over
// after the new end has executed another copy and a newer write to the same place.
func TestLateCopyDoesNotUndo(t *testing.T) {
	w := newWire(1500)
	dev := newSlow(100)
	tg := newTestTarget(t, dev, func(o *Options) { o.Virtual, o.Standby, o.Commit = true, true, CommitNone })
	old := newTestTarget(t, dev, func(o *Options) { o.Virtual = true })
	old.Hold()
	w.give(old, writeFrame(1, 5, 1, 1))
	w.give(old, writeFrame(2, 9, 9, 1)) // to another place: still wanted

	tg.SetServing(true)
	w.give(tg, writeFrame(3, 5, 1, 1)) // the client's repetition
	w.one(t)
	w.give(tg, writeFrame(4, 5, 2, 1)) // and what followed it
	w.one(t)
	h := Header{Dst: Broadcast, Src: serverMAC, Version: 1, Flags: FlagResponse, Shelf: 7, Slot: 3, Command: CommandConfig, Tag: uint32(tg.claim)}
	own := *w
	other := &otherSender{&own}
	f := other.pool.Get()
	f.SetLen(copy(f.Buffer(), (&ConfigArg{}).AppendTo(h.AppendTo(nil))))
	old.Handle(f, other)
	for range 2 {
		hdr, b := other.one(t)
		if hdr.Command != CommandPeer || hdr.Src != serverMAC {
			t.Fatalf("handed over as %+v", hdr)
		}
		w.give(tg, b)
	}
	if hdr, _ := w.one(t); hdr.Tag != 2 || hdr.Dst != clientMAC {
		t.Errorf("answer %+v", hdr)
	}
	if got := dev.Contents(); got[5*512] != 2 || got[9*512] != 9 {
		t.Errorf("contents %d and %d: an old copy was executed after a newer write", got[5*512], got[9*512])
	}
	if n := tg.Counters().Drops(DropSuperseded); n != 1 {
		t.Errorf("%d superseded", n)
	}
}

// otherSender is on an interface with another address than the target's.
type otherSender struct{ *wire }

func (*otherSender) OwnAddr() MAC { return otherMAC }

// TestHistory compares the ring with a list that forgets nothing.
func TestHistory(t *testing.T) {
	var h history
	start := time.Now()
	at := func(i int) time.Time { return start.Add(time.Duration(i) * time.Millisecond) }
	for i := range historyLen {
		h.add(extent{start: uint64(i * 10), end: uint64(i*10 + 4)}, at(i))
	}
	for _, tc := range []struct {
		x    extent
		at   int
		want bool
	}{
		{extent{start: 50, end: 51}, 4, true},
		{extent{start: 53, end: 60}, 4, true},
		{extent{start: 54, end: 60}, 4, false},
		{extent{start: 46, end: 51}, 4, true},
		{extent{start: 50, end: 51}, 5, false},
		{extent{start: 50, end: 51}, historyLen + 1, false},
		{extent{start: 99999, end: 100000}, 0, false},
	} {
		if got := h.superseded(tc.x, at(tc.at)); got != tc.want {
			t.Errorf("%+v at %d: %v", tc.x, tc.at, got)
		}
	}
	h.add(extent{start: 1 << 30, end: 1<<30 + 1}, at(historyLen))
	if !h.superseded(extent{start: 99999, end: 100000}, start.Add(-time.Second)) {
		t.Error("what the ring has forgotten must count as newer")
	}
}

// TestTakeoverMovesTheAddress: the other end dies without a word.
func TestTakeoverMovesTheAddress(t *testing.T) { synctest.Test(t, takeoverMovesTheAddress) }

func takeoverMovesTheAddress(t *testing.T) {
	n, _, a, b, c := twoEnds(t)
	a.link.cut.Store(true)
	c.write(1, 10, 1) // to the dead port
	b.SetServing(true)
	eventually(t, "the address has not moved", func() bool {
		n.mu.Lock()
		defer n.mu.Unlock()
		return n.learned[vmac] == b.link && n.moves == 1
	})
	c.write(2, 10, 2)
	if tag := c.answer(time.Second); tag != 2 {
		t.Errorf("answer to %d", tag)
	}
}

// TestAsk: the other end answers whatever its mask says, and only while it serves.
func TestAsk(t *testing.T) { synctest.Test(t, ask) }

func ask(t *testing.T) {
	n, _, a, b, _ := twoEnds(t)
	if err := a.SetState(State{Mask: []MAC{clientMAC}}); err != nil {
		t.Fatal(err)
	}
	if got := b.port.Ask(t.Context(), b.Target, 30*time.Millisecond); !slices.Equal(got, []MAC{vmac}) {
		t.Errorf("who serves: %v", got)
	}
	n.mu.Lock()
	if n.learned[vmac] != a.link || n.moves != 0 {
		t.Error("the question has moved the address")
	}
	n.mu.Unlock()
	a.Hold()
	if got := b.port.Ask(t.Context(), b.Target, 30*time.Millisecond); len(got) != 0 {
		t.Errorf("who serves while nobody does: %v", got)
	}
}

// TestTwoServe: of two that serve at least one falls silent, and it is the one that
// has served longer if that is clear.
func TestTwoServe(t *testing.T) {
	for _, tc := range []struct {
		name string
		age  time.Duration // of the old end's service
	}{{"an hour older", time.Hour}, {"of one age", 0}} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				_, _, a, b, _ := twoEnds(t)
				a.mu.Lock()
				a.since = a.since.Add(-tc.age)
				a.mu.Unlock()
				b.SetServing(true)
				eventually(t, "both serve", func() bool { return !a.Serving() || !b.Serving() })
				time.Sleep(300 * time.Millisecond) // some more announcements
				if tc.age > 0 && (a.Serving() || !b.Serving()) {
					t.Errorf("the old end is %v, the new one %v", a.Mode(), b.Mode())
				}
				if n := a.quiet.Load() + b.quiet.Load(); n == 0 || n > 2 {
					t.Errorf("reported %d times", n)
				}
			})
		})
	}
}

// TestOldFramesOfTheSocket: what the kernel received before the target served is
// not for it (R5).
func TestOldFramesOfTheSocket(t *testing.T) {
	w := newWire(1500)
	tg := newTestTarget(t, mem.New(100), func(o *Options) { o.Standby = true })
	f := w.pool.Get()
	f.SetLen(copy(f.Buffer(), writeFrame(1, 0, 1, 1)))
	f.Received = time.Now()
	tg.SetServing(true)
	tg.Handle(f, w)
	w.none(t)
	if tg.Counters().Drops(DropStale) != 1 {
		t.Error("not counted")
	}
}

// TestCutOff: an end whose cable was out asks before it says a word, and falls silent
// when the other end serves; when nobody does it goes on, and what came meanwhile is
// served.
func TestCutOff(t *testing.T) { synctest.Test(t, cutOff) }

func cutOff(t *testing.T) {
	n, _, a, b, c := twoEnds(t)
	plug := func(in bool) {
		a.link.cut.Store(!in)
		a.port.Poke()
	}
	plug(false)
	eventually(t, "the cut was not seen", func() bool { return a.link.seen.Load() })
	plug(true)
	eventually(t, "no doubt", func() bool { return a.Mode() == Holding })
	c.write(1, 10, 1)
	if tag := c.answer(time.Second); tag != 1 || !a.Serving() {
		t.Fatalf("answer to %d, the end is %v", tag, a.Mode())
	}
	plug(false)
	eventually(t, "the cut was not seen", func() bool { return a.link.seen.Load() })
	b.SetServing(true)
	c.write(2, 11, 2)
	eventually(t, "the address has not moved", func() bool {
		n.mu.Lock()
		defer n.mu.Unlock()
		return n.learned[vmac] == b.link
	})
	plug(true)
	eventually(t, "both serve", func() bool { return a.Mode() == Silent })
	n.mu.Lock()
	if n.learned[vmac] != b.link || n.moves != 1 {
		t.Errorf("the address has moved %d times", n.moves)
	}
	n.mu.Unlock()
	eventually(t, "the old end was not silenced", func() bool { return a.quiet.Load() == 1 })
	if !b.Serving() {
		t.Errorf("the new end is %v", b.Mode())
	}
}

// lost is a device whose role has gone.
type lost struct {
	*slow
	gone atomic.Bool
}

func (l *lost) Geometry() block.Geometry {
	g := l.slow.Geometry()
	if l.gone.Load() {
		g = block.Geometry{ReadOnly: true}
	}
	return g
}

// TestRoleLost: until the target has heard that its device is another node's, it is
// silent: an error, or a size of zero, would reach the client's file system.
func TestRoleLost(t *testing.T) {
	w, dev := newWire(1500), &lost{slow: newSlow(100)}
	tg := newTestTarget(t, dev, func(o *Options) { o.Standby, o.Commit = true, CommitNone })
	tg.SetServing(true)
	dev.fail = syscall.EROFS // what was submitted just before
	w.give(tg, writeFrame(1, 0, 1, 1))
	w.give(tg, ataFrame(2, ATA{Command: ATARead, Count: 1}, nil))
	dev.gone.Store(true)
	w.give(tg, writeFrame(3, 0, 1, 1))
	w.give(tg, ataFrame(4, ATA{Command: ATARead, Count: 1}, nil))
	w.give(tg, ataFrame(5, ATA{Command: ATAIdentify, Count: 1}, nil))
	w.none(t)
	if n := tg.Counters().Drops(DropUnavailable); n != 5 {
		t.Errorf("%d dropped", n)
	}
	// What the administrator has made read-only says so.
	ro := newTestTarget(t, newSlow(100), func(o *Options) { o.Standby, o.ReadOnly = true, true })
	ro.SetServing(true)
	w.give(ro, writeFrame(6, 0, 1, 1))
	if _, b := w.one(t); b[27] != 0x41 || b[25] != ATAAbort {
		t.Errorf("status %#x error %#x", b[27], b[25])
	}
}
