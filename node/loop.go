package node

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/replblk/replblk/replication"
	"github.com/replblk/replblk/replication/state"
)

// core is the protocol state machine. *replication.Resource is the one that
// counts; tests have others.
type core interface {
	Step(ev *replication.Event, fx *replication.Effects)
	// PeerRoom is how many more packets of the data socket may be delivered.
	PeerRoom() int
	State(vol uint16) state.State
}

const (
	// maxRounds is how many batches one goroutine runs before the relief
	// goroutine takes over. A write takes three at most.
	maxRounds = 16

	// metaRoom bounds the packets of the meta socket that wait in the mailbox.
	metaRoom = 4096
)

// loop is the mailbox and the right to run the core.
type loop struct {
	core    core
	execute func(*replication.Effects) // carries out the effects; runs on the runner
	started time.Time
	relief  chan struct{} // capacity 1: take over the running
	stopped chan struct{} // closed: the relief goroutine ends
	ticked  atomic.Int64  // core time of the last EvTick that was carried out

	mu      sync.Mutex
	room    *sync.Cond          // on mu: readers wait for it
	in      []replication.Event // guarded by mu
	arena   []byte              // guarded by mu: bodies of in
	calls   []func()            // guarded by mu: run between steps
	running bool                // guarded by mu: somebody is the runner
	waiting int                 // guarded by mu: readers that wait for room
	packets [3]int              // guarded by mu: by socket, delivered and not stepped
	accepts int                 // guarded by mu: core.PeerRoom after the last batch

	// Owned by the runner.
	work      []replication.Event
	workArena []byte
	workCalls []func()
	fx        replication.Effects
}

func newLoop(c core, execute func(*replication.Effects)) *loop {
	l := &loop{
		core: c, execute: execute, started: time.Now(), accepts: c.PeerRoom(),
		relief: make(chan struct{}, 1), stopped: make(chan struct{}),
	}
	l.room = sync.NewCond(&l.mu)
	return l
}

// stand is the relief goroutine: it runs when a runner has run long enough, or when
// the one who had news must not run itself.
func (l *loop) stand() {
	for {
		select {
		case <-l.relief:
			l.run()
		case <-l.stopped:
			select {
			case <-l.relief: // somebody counted on us
				l.run()
			default:
			}
			return
		}
	}
}

// handOver gives the running to the relief goroutine, if there is one left.
func (l *loop) handOver() bool {
	select {
	case <-l.stopped:
		return false
	default:
		l.relief <- struct{}{} // there is room: only the runner puts something in
		return true
	}
}

// put appends an event. ev.Body is copied. The caller must follow with kick or
// relieve, unless more events come at once or a delay until the next event (at most
// the next tick) does not matter.
func (l *loop) put(ev *replication.Event) {
	l.mu.Lock()
	l.append(ev)
	l.mu.Unlock()
}

// post appends an event and runs if nobody does.
func (l *loop) post(ev *replication.Event) {
	l.mu.Lock()
	l.append(ev)
	run := !l.running
	l.running = true
	l.mu.Unlock()
	if run {
		l.run()
	}
}

func (l *loop) append(ev *replication.Event) {
	l.in = append(l.in, *ev)
	if n := len(ev.Body); n > 0 {
		// When the arena grows, bodies appended earlier stay in the old one,
		// which lives as long as they refer to it.
		l.arena = append(l.arena, ev.Body...)
		end := len(l.arena)
		l.in[len(l.in)-1].Body = l.arena[end-n : end : end]
	}
	if ev.Kind == replication.EvPacket {
		l.packets[ev.Socket]++
	}
}

// kick runs if nobody does.
func (l *loop) kick() {
	l.mu.Lock()
	run := !l.running
	l.running = true
	l.mu.Unlock()
	if run {
		l.run()
	}
}

// relieve lets the relief goroutine run if nobody does. For those who must not be
// kept: a socket's writer.
func (l *loop) relieve() {
	l.mu.Lock()
	run := !l.running
	l.running = true
	l.mu.Unlock()
	if run && !l.handOver() {
		l.run()
	}
}

// call runs fn between two steps, and returns when it has run. fn may use the core.
// The runner itself must not use it.
func (l *loop) call(fn func()) {
	done := make(chan struct{})
	l.mu.Lock()
	l.calls = append(l.calls, func() { fn(); close(done) })
	l.mu.Unlock()
	l.kick()
	<-done
}

// run is what the runner does. l.running was set by the caller in favour of this
// goroutine, and is handed on or cleared before it returns.
func (l *loop) run() {
	for round := 0; ; round++ {
		l.mu.Lock()
		if len(l.in) == 0 && len(l.calls) == 0 {
			l.running = false
			l.mu.Unlock()
			return
		}
		if round == maxRounds {
			l.mu.Unlock()
			if l.handOver() {
				return
			}
			l.mu.Lock()
		}
		l.work, l.in = l.in, l.work[:0]
		l.workArena, l.arena = l.arena, l.workArena[:0]
		l.workCalls, l.calls = l.calls, l.workCalls[:0]
		l.mu.Unlock()
		l.batch()
	}
}

// batch steps the core through l.work and carries out what it calls for.
func (l *loop) batch() {
	for _, fn := range l.workCalls {
		fn()
	}
	clear(l.workCalls)
	if len(l.work) == 0 {
		return
	}
	now := l.now()
	var packets [3]int
	ticked := false
	for i := range l.work {
		ev := &l.work[i]
		ev.Now = now
		ticked = ticked || ev.Kind == replication.EvTick
		if ev.Kind == replication.EvPacket {
			packets[ev.Socket]++
		}
		l.core.Step(ev, &l.fx)
	}
	l.execute(&l.fx)
	l.fx.Reset()
	clear(l.work)
	if ticked {
		l.ticked.Store(int64(now))
	}

	accepts := l.core.PeerRoom()
	l.mu.Lock()
	l.accepts = accepts
	for i, n := range packets {
		l.packets[i] -= n
	}
	if l.waiting > 0 {
		l.room.Broadcast()
	}
	l.mu.Unlock()
}

// now is the time on the core's clock.
func (l *loop) now() replication.Time { return replication.Time(time.Since(l.started)) }

// late says whether the core has not seen a tick for so long, as after the process
// was stopped: then it must be asked before anything is done that it has allowed.
func (l *loop) late(limit time.Duration) bool {
	return time.Duration(l.now())-time.Duration(l.ticked.Load()) > limit
}

// waitRoom waits until a packet of the socket may be delivered and returns how many;
// none if over says that there is no point any more.
func (l *loop) waitRoom(sock replication.Socket, over func() bool) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	for {
		if over() {
			return 0
		}
		limit := l.accepts
		if sock == replication.MetaSocket {
			limit = metaRoom
		}
		if n := limit - l.packets[sock]; n > 0 {
			return n
		}
		l.waiting++
		l.room.Wait()
		l.waiting--
	}
}

// wakeReaders makes everybody in waitRoom look again.
func (l *loop) wakeReaders() {
	l.mu.Lock()
	l.room.Broadcast()
	l.mu.Unlock()
}
