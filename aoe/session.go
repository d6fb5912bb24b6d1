package aoe

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// session is a Port on a Link.
type session struct {
	port  *Port
	link  Link
	pool  *FramePool
	table atomic.Pointer[table]

	announce chan struct{} // capacity 1
	poke     chan struct{} // capacity 1
	doubts   chan struct{} // capacity 1
	up       atomic.Bool   // at the last refresh

	mu     sync.Mutex // guards queue, closed
	queue  []*Frame
	closed bool

	turn    sync.Mutex    // held by the receiver that receives and accepts
	waiting atomic.Bool   // it has the turn and waits for frames
	help    chan struct{} // capacity 1: another receiver is wanted
	helping atomic.Bool   // it is at work
	crowded atomic.Bool   // it has no processor to work on

	wake chan struct{} // never closed: late answers still signal
	done chan struct{}

	sending []*Frame
	bufs    [sendBatch][]byte
}

// place is a target on a session. It is the Sender of the requests received there.
type place struct {
	*session
	binding
}

// Addr implements Sender.
func (p *place) Addr() MAC {
	if p.addr != (MAC{}) {
		return p.addr
	}
	return p.OwnAddr()
}

// table is immutable.
type table struct {
	exact map[uint32]*place
	all   []*place
}

func newSession(p *Port, link Link) *session {
	s := &session{
		port: p, link: link, pool: NewFramePool(link.MTU()),
		announce: make(chan struct{}, 1), poke: make(chan struct{}, 1), doubts: make(chan struct{}, 1),
		wake: make(chan struct{}, 1), done: make(chan struct{}), help: make(chan struct{}, 1),
	}
	s.table.Store(&table{})
	s.up.Store(link.Up())
	return s
}

// updateLocked takes over the port's targets and their modes.
func (s *session) updateLocked() {
	tab := &table{exact: make(map[uint32]*place)}
	var r Reception
	for _, b := range s.port.bindings {
		p := &place{s, b}
		t := b.target
		tab.exact[tableKey(t.shelf, t.slot)] = p
		tab.all = append(tab.all, p)
		virtual := t.virtual && b.addr != (MAC{})
		if virtual {
			r.MACs = append(r.MACs, b.addr.group())
		}
		if t.Mode() == Silent {
			continue
		}
		r.Requests = append(r.Requests, Address{t.shelf, t.slot})
		if virtual {
			r.MACs = append(r.MACs, b.addr)
		}
	}
	s.table.Store(tab)
	if s.link.Listen(r) != nil {
		s.port.counters.Deaf.Add(1)
	}
}

func (s *session) announceSoon() {
	select {
	case s.announce <- struct{}{}:
	default:
	}
}

// ask asks who serves t.
func (s *session) ask(t *Target) {
	p := s.table.Load().exact[tableKey(t.shelf, t.slot)]
	if p == nil || p.target != t {
		return
	}
	for _, dst := range []MAC{Broadcast, p.Addr().group()} {
		if dst == Broadcast || t.virtual {
			f := s.pool.Get()
			t.query(f, p, dst)
			s.Send(f)
		}
	}
}

// OwnAddr implements Sender.
func (s *session) OwnAddr() MAC { return s.link.HardwareAddr() }

// MTU implements Sender.
func (s *session) MTU() int { return s.link.MTU() }

// Send implements Sender.
func (s *session) Send(f *Frame) {
	if o := f.out; o != nil && o.session == s && o.put(f) {
		return
	}
	s.mu.Lock()
	ok := !s.closed && len(s.queue) < maxSendQueue
	if ok {
		s.queue = append(s.queue, f)
	}
	s.mu.Unlock()
	if !ok {
		s.port.counters.Unsent.Add(1)
		f.Release()
		return
	}
	s.signal()
}

func (s *session) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// close ends sendLoop after what is queued.
func (s *session) close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	close(s.done)
}

// sendLoop sends what completes apart from the receivers' bursts.
func (s *session) sendLoop() {
	for {
		select {
		case <-s.wake:
			s.flush()
		case <-s.done:
			s.flush()
			return
		}
	}
}

// flush sends whatever has gathered while the batch before was sent.
func (s *session) flush() {
	s.mu.Lock()
	frames := s.queue
	s.queue = s.sending[:0]
	s.mu.Unlock()
	s.sending = frames
	s.transmit(frames, &s.bufs)
	s.pool.putAll(frames)
	clear(frames)
}

// transmit sends frames.
func (s *session) transmit(frames []*Frame, scratch *[sendBatch][]byte) {
	for part := range slices.Chunk(frames, sendBatch) {
		bufs := scratch[:len(part)]
		for i, f := range part {
			bufs[i] = f.Bytes()
		}
		n, _ := s.link.Send(bufs) // what was not sent is lost, as on any wire
		s.port.counters.Sent.Add(uint64(n))
		s.port.counters.Unsent.Add(uint64(len(part) - n))
		clear(bufs)
	}
}

// refresh looks at the interface and announces if it has changed.
func (s *session) refresh() error {
	changed, err := s.link.Refresh()
	if err != nil {
		return err
	}
	if changed {
		s.pool.SetMTU(s.link.MTU())
		if up := s.link.Up(); up != s.up.Swap(up) && up {
			s.doubtSoon()
		}
		s.announceSoon()
	}
	return nil
}

func (s *session) doubtSoon() {
	select {
	case s.doubts <- struct{}{}:
	default:
	}
}

// watch advertises the targets, and notices changes of the interface.
func (s *session) watch(ctx context.Context, cancel context.CancelCauseFunc) {
	tick := time.NewTicker(refreshInterval)
	defer tick.Stop()
	next := time.NewTimer(announceInterval)
	defer next.Stop()
	began, seen := time.Now(), time.Now()
	step := len(announceAt)
	for {
		var due bool
		select {
		case <-ctx.Done():
			return
		case <-s.announce:
			began, step = time.Now(), 0
			next.Reset(0)
		case <-s.doubts:
			s.port.doubt(ctx)
		case <-s.poke:
		case <-tick.C:
		case <-next.C:
			due = true
		}
		now := time.Now()
		if now.Sub(seen) > stallLimit || now.UnixNano()-seen.UnixNano() > int64(stallLimit) {
			s.port.doubt(ctx) // this process or machine was stopped
		}
		seen = now
		if due {
			select {
			case <-s.doubts: // first: an advertisement is what must not go out
				s.port.doubt(ctx)
			default:
			}
			s.advertise(step == len(announceAt))
			step = min(step+1, len(announceAt))
			if step < len(announceAt) {
				next.Reset(announceAt[step] - time.Since(began))
			} else {
				next.Reset(announceInterval)
			}
			continue
		}
		if err := s.refresh(); errors.Is(err, syscall.ENODEV) {
			cancel(fmt.Errorf("interface: %w", err))
			return
		}
	}
}

// advertise sends what announces the targets; in quiet times only those that move.
func (s *session) advertise(quiet bool) {
	if !s.link.Up() {
		return // refresh sees it come up and announces again
	}
	for _, p := range s.table.Load().all {
		if p.target.virtual || !quiet {
			p.target.Advertise(p, s.pool)
		}
	}
}

// drain waits until every frame is back in the pool: answered and sent, or dropped.
func (s *session) drain(timeout time.Duration) error {
	deadline := time.Now().Add(timeout)
	for s.pool.Outstanding() > 0 {
		if time.Now().After(deadline) {
			return fmt.Errorf("%d requests unanswered after %v", s.pool.Outstanding(), timeout)
		}
		time.Sleep(time.Millisecond)
	}
	return nil
}
