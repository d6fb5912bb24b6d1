package aoe

import (
	"context"
	"fmt"
	"time"
)

// Mode says what a target does with requests. The zero value is silence.
type Mode uint8

// Modes of a target.
const (
	// Silent: nothing is taken in and nothing is answered.
	Silent Mode = iota
	// Holding: what was accepted is finished; what arrives is kept, without an
	// answer, for whoever serves next. It ends in silence after holdLimit.
	Holding
	// Serving: requests are carried out.
	Serving
)

// String returns the mode in a word.
func (m Mode) String() string {
	switch m {
	case Holding:
		return "holding"
	case Serving:
		return "serving"
	default:
		return "silent"
	}
}

// holdLimit ends Holding: the other end has then long had the time to serve.
const holdLimit = 30 * time.Second

// heldFrame is a request that waits for a server.
type heldFrame struct {
	frame  *Frame
	sender Sender
}

// Mode returns the target's mode.
func (t *Target) Mode() Mode {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.mode
}

// Serving says whether the target answers what arrives.
func (t *Target) Serving() bool { return t.Mode() == Serving }

// SetServing makes the target answer or fall silent. What arrived before the target
// began to serve is neither started nor answered, unless the target held it itself.
// What was accepted and is not answered when the target falls silent is never
// answered; what the device already has is the device's to refuse.
func (t *Target) SetServing(on bool) {
	t.mu.Lock()
	t.setServingLocked(on)
}

// resume makes the target serve if it holds since epoch. If it does not, somebody
// else has decided meanwhile.
func (t *Target) resume(epoch uint64) {
	t.mu.Lock()
	if t.mode != Holding || t.holdEpoch != epoch {
		t.mu.Unlock()
		return
	}
	t.setServingLocked(true)
}

// setServingLocked unlocks the target.
func (t *Target) setServingLocked(on bool) {
	if on == (t.mode == Serving) && (on || t.mode == Silent) {
		t.mu.Unlock()
		return
	}
	held, keep := t.held, on && !t.yielded
	t.held = nil
	if on {
		switch {
		case t.mode == Silent:
			t.period.Add(1)
		case t.yielded:
			t.period.Add(2) // one has ended
		}
		t.mode, t.since, t.successor, t.yielded = Serving, time.Now(), false, false
		t.sharing.untold, t.sharing.confirmed = true, 0
		t.sinceAt.Store(int64(t.since.Sub(t.made)))
	} else {
		t.mode, t.successor, t.yielded = Silent, false, false
		t.period.Add(1)
	}
	t.holding.Store(false)
	var parked []parked
	if !on {
		parked, t.sharing.parked = t.sharing.parked, nil
	}
	t.mu.Unlock()
	for _, a := range parked {
		a.call.drop(DropNotServing)
	}
	for _, h := range held {
		t.takeBack(h, keep)
	}
	t.modeChanged()
}

// takeBack serves a frame that the target has held, or drops it.
func (t *Target) takeBack(h heldFrame, serve bool) {
	var hdr Header
	if !serve || hdr.DecodeFrom(h.frame.Bytes()) != nil {
		t.dropFrame(h.frame, DropNotServing)
		return
	}
	t.serve(h.frame, h.sender, &hdr, nil)
}

// Hold makes a serving target finish what it has accepted and keep what arrives, so
// that a client does not lose a frame while the role moves: it would wait for its
// retransmission timer, which is seconds when it has not heard many answers
// (spec/aoe.md 4.3). The frames are served when SetServing makes the target serve
// again, or handed to the other end when that announces itself. Follow it with
// Drain.
func (t *Target) Hold() { t.beginHold() }

// beginHold is Hold. The epoch tells this Hold from later ones; 0 means that the target
// did not serve.
func (t *Target) beginHold() (epoch uint64) {
	t.mu.Lock()
	if t.mode == Silent {
		t.mu.Unlock()
		return 0
	}
	t.mode, t.yielded = Holding, false
	t.holding.Store(true)
	t.holdEpoch++
	epoch = t.holdEpoch
	t.mu.Unlock()
	time.AfterFunc(holdLimit, func() { t.endHold(epoch) })
	t.modeChanged()
	return epoch
}

// Yield says that the role has been given up since Hold: from now on the other end may serve,
// so what is held is for it alone. If this end serves again although the other one has never
// been heard of, newer writes may have been executed there meanwhile.
func (t *Target) Yield() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.yielded = t.mode == Holding
}

// endHold makes a target silent that still holds since epoch.
func (t *Target) endHold(epoch uint64) {
	t.mu.Lock()
	over := t.mode == Holding && t.holdEpoch == epoch
	t.mu.Unlock()
	if over {
		t.SetServing(false)
	}
}

// hold keeps a request, or hands it to the successor that has shown itself. It
// reports false if the target does not hold any more.
func (t *Target) hold(f *Frame, s Sender, h *Header) bool {
	t.mu.Lock()
	if t.mode != Holding {
		t.mu.Unlock()
		return false
	}
	if h.Command != CommandATA { // who asks for the target is not to find it here
		t.mu.Unlock()
		t.dropFrame(f, DropNotServing)
		return true
	}
	if t.successor {
		t.mu.Unlock()
		t.handOver(f, s)
		return true
	}
	var oldest *Frame
	if int64(len(t.held)) >= t.maxQueue {
		oldest = t.held[0].frame
		t.held = t.held[1:]
	}
	t.held = append(t.held, heldFrame{f, s})
	t.mu.Unlock()
	if oldest != nil {
		t.dropFrame(oldest, DropQueueFull)
	}
	return true
}

// settleTime is how long Drain waits for the other end to have the state, beside the
// requests.
const settleTime = 300 * time.Millisecond

// Drain waits until every accepted request is answered or dropped; and until the other end
// has what initiators have set, or has had time enough.
func (t *Target) Drain(ctx context.Context) error {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	settled := time.Now().Add(settleTime)
	for {
		n := t.counters.InFlight.Load()
		if n == 0 && (!t.unsettled() || time.Now().After(settled)) {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("e%d.%d: %d requests in flight: %w", t.shelf, t.slot, n, ctx.Err())
		case <-tick.C:
		}
	}
}

// modeChanged tells the ports, which receive and advertise by mode.
func (t *Target) modeChanged() {
	t.mu.Lock()
	ports := t.ports
	t.mu.Unlock()
	for _, p := range ports {
		p.Update()
	}
}

// late says whether a frame that arrived at received is too old to be begun: its
// initiator has repeated it, and a newer write may have followed the repetition
// (rule R7). The wall clock counts too: the other one stands still while the
// machine is suspended.
func (t *Target) late(received, now time.Time) bool {
	return now.Sub(received) > t.maxAge || now.UnixNano()-received.UnixNano() > int64(t.maxAge)
}
