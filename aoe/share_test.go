package aoe

import (
	"slices"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// hear gives t a frame of the other end's, from src.
func (w *wire) hear(t *Target, src MAC, b []byte) {
	f := w.pool.Get()
	f.SetLen(copy(f.Buffer(), b))
	copy(f.buf[6:12], src[:])
	var h Header
	if h.DecodeFrom(f.Bytes()) == nil {
		t.hear(f, &h, w)
	}
	f.Release()
}

// reserve sends a request to set the reserve list.
func (c *lanClient) reserve(tag uint32, macs ...MAC) {
	h := Header{Dst: vmac, Src: clientMAC, Version: 1, Shelf: 7, Slot: 3, Command: CommandReserve, Tag: tag}
	set := ReserveArg{Command: ReserveForceSet, MACs: macs}
	_, _ = c.Send([][]byte{set.AppendTo(h.AppendTo(nil))})
}

// reserved returns the tag of the next answer to reserve, 0 if there is none in time.
func (c *lanClient) reserved(limit time.Duration) uint32 {
	timeout := time.After(limit)
	for {
		select {
		case b := <-c.rx:
			var h Header
			if h.DecodeFrom(b) == nil && h.Command == CommandReserve {
				return h.Tag
			}
		case <-timeout:
			return 0
		}
	}
}

// mirror is what the ends of a test believe about their connection.
type mirror struct {
	connected   atomic.Bool
	unconfirmed atomic.Int32
}

func (m *mirror) options(o *Options) {
	o.Mirrored = m.connected.Load
	o.OnUnconfirmed = func() { m.unconfirmed.Add(1) }
}

func (e *end) spoken() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.sharing.connected && e.sharing.spoke // since it was seen to be connected
}

// TestAnswerWaitsForTheOtherEnd: a change is answered when the other end has it, and not
// at all if that takes longer than the initiator waits.
func TestAnswerWaitsForTheOtherEnd(t *testing.T) { synctest.Test(t, answerWaitsForTheOtherEnd) }

func answerWaitsForTheOtherEnd(t *testing.T) {
	var m mirror
	m.connected.Store(true)
	_, _, a, b, c := twoEnds(t, m.options)
	eventually(t, "the other end says nothing", a.spoken)
	b.link.cut.Store(true)
	c.reserve(1, clientMAC)
	if tag := c.reserved(100 * time.Millisecond); tag != 0 {
		t.Fatalf("answer to %d before the other end has the list", tag)
	}
	c.reserve(2, clientMAC) // repeated: nothing changes, and is as little safe
	if tag := c.reserved(100 * time.Millisecond); tag != 0 {
		t.Fatalf("answer to %d before the other end has the list", tag)
	}
	b.link.cut.Store(false)
	if x, y := c.reserved(time.Second), c.reserved(time.Second); x != 1 || y != 2 {
		t.Errorf("answers to %d and %d, want 1 and 2", x, y)
	}
	if got := b.State(); !slices.Equal(got.Reserve, []MAC{clientMAC}) || got.Generation != 1 {
		t.Errorf("answered, and the other end has %+v", got)
	}

	b.link.cut.Store(true)
	c.reserve(3)
	if tag := c.reserved(DefaultMaxAge + 200*time.Millisecond); tag != 0 {
		t.Errorf("answer to %d", tag)
	}
	eventually(t, "not dropped", func() bool { return a.Counters().Drops(DropUnconfirmed) == 1 })
	if n := m.unconfirmed.Load(); n != 1 {
		t.Errorf("told %d times that the other end is mute", n)
	}
	c.reserve(4, otherMAC)
	m.connected.Store(false) // the other end has gone: nobody to wait for
	if tag := c.reserved(time.Second); tag != 4 {
		t.Errorf("answer to %d, want 4", tag)
	}
}

// TestNobodyIsWaitedFor: an end that says nothing from the beginning, a kernel's, is
// waited for a moment; one that is away not at all, and gets everything when it is back.
func TestNobodyIsWaitedFor(t *testing.T) { synctest.Test(t, nobodyIsWaitedFor) }

func nobodyIsWaitedFor(t *testing.T) {
	var m mirror
	_, _, a, b, c := twoEnds(t, m.options)
	b.link.cut.Store(true)
	c.reserve(1, clientMAC)
	if tag := c.reserved(100 * time.Millisecond); tag != 1 {
		t.Fatalf("answer to %d, want 1", tag)
	}
	m.connected.Store(true)
	c.reserve(2)
	if tag := c.reserved(time.Second); tag != 2 {
		t.Fatalf("answer to %d, want 2", tag)
	}
	m.connected.Store(false)
	eventually(t, "the loss of the connection is not seen", func() bool { a.look(); return !a.unsettled() })
	c.reserve(3, otherMAC)
	if tag := c.reserved(100 * time.Millisecond); tag != 3 {
		t.Fatalf("answer to %d, want 3", tag)
	}
	b.link.cut.Store(false)
	m.connected.Store(true)
	eventually(t, "not told after the reconnection", func() bool { return slices.Equal(b.State().Reserve, []MAC{otherMAC}) })
}

// TestSwitchTakesTheStateAlong: what was changed while the other end was away is there
// when a planned switch has drained this end.
func TestSwitchTakesTheStateAlong(t *testing.T) { synctest.Test(t, switchTakesTheStateAlong) }

func switchTakesTheStateAlong(t *testing.T) {
	var m mirror
	_, _, a, b, c := twoEnds(t, m.options)
	b.link.cut.Store(true)
	c.reserve(1, clientMAC)
	if tag := c.reserved(time.Second); tag != 1 {
		t.Fatalf("answer to %d, want 1", tag)
	}
	b.link.cut.Store(false)
	m.connected.Store(true)
	a.look()
	a.Hold()
	began := time.Now()
	if err := a.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := b.State().Reserve; !slices.Equal(got, []MAC{clientMAC}) && time.Since(began) < settleTime {
		t.Errorf("drained before its time, and the other end has %v", got)
	}
	eventually(t, "the other end has not got the list", func() bool { return slices.Equal(b.State().Reserve, []MAC{clientMAC}) })
}

// TestMoreChangesStand: the end that comes back knows of more changes than the one that
// has taken over. With a secret its list stands, without one that of the end that serves.
func TestMoreChangesStand(t *testing.T) {
	for secret, want := range map[string][]MAC{"": {otherMAC}, "secret": {clientMAC}} {
		t.Run("secret "+secret, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var m mirror
				n, _, a, b, c := twoEnds(t, m.options, func(o *Options) { o.Secret = func() []byte { return []byte(secret) } })
				b.link.cut.Store(true)
				for tag, list := range [][]MAC{1: {otherMAC}, 2: {serverMAC}, 3: {clientMAC}} {
					if tag > 0 {
						c.reserve(uint32(tag), list...)
						c.reserved(time.Second)
					}
				}
				a.link.cut.Store(true)
				a.SetServing(false)
				b.link.cut.Store(false)
				b.SetServing(true)
				n.learns(t, b.link)
				c.reserve(4, otherMAC)
				if tag := c.reserved(time.Second); tag != 4 {
					t.Fatalf("answer to %d, want 4", tag)
				}
				a.link.cut.Store(false)
				m.connected.Store(true)
				for _, e := range []*end{a, b} {
					eventually(t, "the ends differ", func() bool { return slices.Equal(e.State().Reserve, want) && !b.unsettled() })
				}
				if x, y := a.State().Generation, b.State().Generation; x != y {
					t.Errorf("generations %d and %d", x, y)
				}
			})
		})
	}
}

// TestOnlyTheOtherEndIsBelieved: with a secret, neither end takes anything from a station
// that does not know it.
func TestOnlyTheOtherEndIsBelieved(t *testing.T) { synctest.Test(t, onlyTheOtherEndIsBelieved) }

func onlyTheOtherEndIsBelieved(t *testing.T) {
	var m mirror
	m.connected.Store(true)
	_, _, a, b, _ := twoEnds(t, m.options, func(o *Options) { o.Secret = func() []byte { return []byte("secret") } })
	forged := newTestTarget(t, newSlow(100), func(o *Options) { o.Virtual, o.Secret = true, func() []byte { return []byte("another") } })
	if err := forged.SetState(State{Mask: []MAC{otherMAC}, Generation: 9}); err != nil {
		t.Fatal(err)
	}
	w := newWire(1500)
	forged.tell(w, w.pool)
	forged.SetServing(false)
	forged.have(vmac, w, w.pool)
	for range numShares + 1 {
		_, f := w.one(t)
		for _, src := range []MAC{serverMAC, otherMAC} {
			w.hear(a.Target, src, f)
			w.hear(b.Target, src, f)
		}
	}
	for _, e := range []*end{a, b} {
		if got := e.State(); got.Generation != 0 || len(got.Mask) > 0 {
			t.Errorf("believed a stranger: %+v", got)
		}
	}
}

// TestSecretChanges: an administrator gives the nodes another secret, one after the other.
// Between the two nothing is believed, and nothing that was set is answered.
func TestSecretChanges(t *testing.T) { synctest.Test(t, secretChanges) }

func secretChanges(t *testing.T) {
	var m mirror
	m.connected.Store(true)
	var secrets [2]atomic.Value
	ends := 0
	_, _, a, _, c := twoEnds(t, m.options, func(o *Options) {
		own := &secrets[ends]
		ends++
		own.Store("old")
		o.Secret = func() []byte { return []byte(own.Load().(string)) }
	})
	eventually(t, "the other end says nothing", a.spoken)
	secrets[0].Store("new")
	c.reserve(1, clientMAC)
	if tag := c.reserved(100 * time.Millisecond); tag != 0 {
		t.Fatalf("answer to %d, and the other end believes nothing", tag)
	}
	secrets[1].Store("new")
	if tag := c.reserved(time.Second); tag != 1 {
		t.Errorf("answer to %d, want 1", tag)
	}
}

// TestStateThatIsNotKept: a change that the administrator's disk refuses is not answered
// before it takes it, by either end.
func TestStateThatIsNotKept(t *testing.T) { synctest.Test(t, stateThatIsNotKept) }

func stateThatIsNotKept(t *testing.T) {
	var m mirror
	m.connected.Store(true)
	var full atomic.Bool
	_, _, a, _, c := twoEnds(t, m.options, func(o *Options) {
		o.OnState = func(State) error {
			if full.Load() {
				return syscall.ENOSPC
			}
			return nil
		}
	})
	eventually(t, "the other end says nothing", a.spoken)
	full.Store(true)
	c.reserve(1, clientMAC)
	if tag := c.reserved(100 * time.Millisecond); tag != 0 {
		t.Fatalf("answer to %d, and nothing is kept", tag)
	}
	full.Store(false)
	if tag := c.reserved(2 * time.Second); tag != 1 {
		t.Errorf("answer to %d, want 1", tag)
	}
}

// TestListsAreShared: what an initiator sets on the end that serves is on the other
// end when the answer is there, full lists included, and only what may be set.
func TestListsAreShared(t *testing.T) { synctest.Test(t, listsAreShared) }

func listsAreShared(t *testing.T) {
	_, _, a, b, c := twoEnds(t)
	var kept atomic.Int32
	b.mu.Lock()
	b.onState = func(State) error { kept.Add(1); return nil }
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
		for _, src := range []MAC{vmac, otherMAC} {
			w.hear(a.Target, src, f)
		}
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
	give := func(permit Permit, list ...[]byte) State {
		to := newTestTarget(t, newSlow(100), func(o *Options) { o.Virtual, o.Standby, o.Permit = true, true, permit })
		for _, b := range list {
			w.hear(to, serverMAC, b)
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
	other := slices.Clone(frames[3])
	other[39]++
	if s := give(PermitAll, frames[0], frames[1], frames[2], other); len(s.Mask) != 0 {
		t.Error("parts of two generations made a state")
	}
	long := slices.Clone(frames[1])
	long[26], long[27] = 0xff, 0xff
	if s := give(PermitAll, long); len(s.Mask) != 0 {
		t.Error("a list longer than any was begun")
	}
}
