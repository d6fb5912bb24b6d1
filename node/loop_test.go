package node

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/replblk/replblk/block"
	"github.com/replblk/replblk/replication"
	"github.com/replblk/replblk/replication/state"
)

// countingCore checks that Step has one caller at a time and that the events of each
// source arrive in order, bodies intact.
type countingCore struct {
	t     *testing.T
	busy  atomic.Bool
	last  map[uint16]uint64
	steps int
	room  int
	onRun func(*replication.Event, *replication.Effects)
}

func (c *countingCore) Step(ev *replication.Event, fx *replication.Effects) {
	if !c.busy.CompareAndSwap(false, true) {
		c.t.Error("two runners")
	}
	defer c.busy.Store(false)
	c.steps++
	if c.onRun != nil {
		c.onRun(ev, fx)
		return
	}
	if c.last[ev.Vol] >= ev.Sector {
		c.t.Errorf("source %d: event %d after %d", ev.Vol, ev.Sector, c.last[ev.Vol])
	}
	c.last[ev.Vol] = ev.Sector
	for _, b := range ev.Body {
		if b != byte(ev.Sector) {
			c.t.Errorf("source %d event %d: body has byte %d", ev.Vol, ev.Sector, b)
			break
		}
	}
}

func (c *countingCore) PeerRoom() int            { return c.room }
func (c *countingCore) State(uint16) state.State { return state.Initial() }

func TestLoopOneRunnerInOrder(t *testing.T) {
	c := &countingCore{t: t, last: map[uint16]uint64{}, room: 1}
	l := newLoop(c, func(*replication.Effects) {})
	go l.stand()
	defer close(l.stopped)
	const sources, events = 8, 3000
	var wg sync.WaitGroup
	for s := range uint16(sources) {
		wg.Go(func() {
			body := make([]byte, 100)
			for i := uint64(1); i <= events; i++ {
				for k := range body {
					body[k] = byte(i)
				}
				ev := replication.Event{Kind: replication.EvTick, Vol: s, Sector: i, Body: body[:i%100]}
				switch i % 3 {
				case 0:
					l.post(&ev)
				case 1:
					l.put(&ev)
				default:
					l.put(&ev)
					l.relieve()
				}
			}
			l.kick()
		})
	}
	wg.Wait()
	for stepped := 0; stepped < sources*events; {
		l.call(func() { stepped = c.steps })
	}
}

// TestLoopRelief keeps the mailbox full from within, and expects that the goroutine
// that happened to begin gets away.
func TestLoopRelief(t *testing.T) {
	var stop atomic.Bool
	var l *loop
	c := &countingCore{t: t, onRun: func(*replication.Event, *replication.Effects) {
		if !stop.Load() {
			l.put(&replication.Event{Kind: replication.EvTick})
		}
	}}
	l = newLoop(c, func(*replication.Effects) {})
	go l.stand()
	defer close(l.stopped)
	back := make(chan struct{})
	go func() { l.post(&replication.Event{Kind: replication.EvTick}); close(back) }()
	select {
	case <-back:
	case <-time.After(time.Minute):
		t.Error("the first runner is captive")
	}
	stop.Store(true)
	l.call(func() {})
}

// TestLoopRoom lets a reader deliver no more than the core has room for.
func TestLoopRoom(t *testing.T) {
	c := &countingCore{t: t, room: 3, onRun: func(*replication.Event, *replication.Effects) {}}
	l := newLoop(c, func(*replication.Effects) {})
	never := func() bool { return false }
	packet := replication.Event{Kind: replication.EvPacket, Socket: replication.DataSocket}
	for want := 3; want > 0; want-- {
		if n := l.waitRoom(replication.DataSocket, never); n != want {
			t.Fatalf("room for %d, want %d", n, want)
		}
		l.put(&packet)
	}
	got := make(chan int)
	go func() { got <- l.waitRoom(replication.DataSocket, never) }()
	select {
	case n := <-got:
		t.Fatalf("room for %d packets with 3 of 3 undelivered", n)
	case <-time.After(20 * time.Millisecond):
	}
	l.kick()
	if n := <-got; n != 3 {
		t.Errorf("room for %d after the batch, want 3", n)
	}
}

func TestSlotsBackpressure(t *testing.T) {
	s := newSlots(2)
	reqs := make([]block.Request, 4)
	idle := 0
	a, _ := s.take(&reqs[0], func() { idle++ })
	b, _ := s.take(&reqs[1], func() { idle++ })
	if a == b || idle != 0 {
		t.Fatalf("slots %d and %d, idle called %d times", a, b, idle)
	}
	got := make(chan replication.ReqID)
	go func() { id, _ := s.take(&reqs[2], func() { idle++ }); got <- id }()
	select {
	case id := <-got:
		t.Fatalf("a third request got slot %d of 2", id)
	case <-time.After(20 * time.Millisecond):
	}
	if s.release(b) != &reqs[1] {
		t.Error("wrong request in the slot")
	}
	if id := <-got; id != b || idle != 1 {
		t.Errorf("got slot %d, want %d; idle called %d times, want 1", id, b, idle)
	}
	s.close()
	if _, ok := s.take(&reqs[3], func() {}); ok {
		t.Error("a shut table gave a slot")
	}
}
