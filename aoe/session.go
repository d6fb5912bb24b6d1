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

	mu     sync.Mutex // guards queue, closed, corked
	queue  []*Frame
	closed bool
	corked bool

	burst burst // of recvLoop

	wake chan struct{} // never closed: late answers still signal
	done chan struct{}

	sendMu  sync.Mutex // held by who sends, taken before mu; guards what follows
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
		wake: make(chan struct{}, 1), done: make(chan struct{}),
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
	s.mu.Lock()
	ok := !s.closed && len(s.queue) < maxSendQueue
	if ok {
		s.queue = append(s.queue, f)
	}
	corked := s.corked && len(s.queue) < corkLimit
	s.mu.Unlock()
	if !ok {
		s.port.counters.Unsent.Add(1)
		f.Release()
		return
	}
	if !corked {
		s.signal()
	}
}

func (s *session) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// cork holds back the waking of sendLoop while a batch of requests is handed
// out; afterwards the receiver sends the answers that came at once itself. A
// device that answers within Submit is so served without a change of goroutine.
func (s *session) cork(on bool) {
	s.mu.Lock()
	s.corked = on
	waiting := !on && len(s.queue) > 0
	s.mu.Unlock()
	if waiting {
		s.flush()
	}
}

// close ends sendLoop after what is queued.
func (s *session) close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	close(s.done)
}

// sendLoop sends what completes apart from the receiver's batches.
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
	s.sendMu.Lock()
	defer s.sendMu.Unlock()
	s.mu.Lock()
	frames := s.queue
	s.queue = s.sending[:0]
	s.mu.Unlock()
	s.sending = frames
	for part := range slices.Chunk(frames, sendBatch) {
		bufs := s.bufs[:len(part)]
		for i, f := range part {
			bufs[i] = f.Bytes()
		}
		n, _ := s.link.Send(bufs) // what was not sent is lost, as on any wire
		s.port.counters.Sent.Add(uint64(n))
		s.port.counters.Unsent.Add(uint64(len(part) - n))
		for i, f := range part {
			f.Release()
			part[i], bufs[i] = nil, nil
		}
	}
}

// recvLoop receives until the link ends.
func (s *session) recvLoop() error {
	frames := make([]*Frame, batch)
	bufs := make([][]byte, batch)
	times := make([]time.Time, batch)
	for i := range frames {
		frames[i] = s.pool.Get()
	}
	defer func() {
		for _, f := range frames {
			f.Release()
		}
	}()
	for {
		for i, f := range frames {
			frames[i] = s.pool.refit(f)
			bufs[i] = frames[i].Buffer()
		}
		n, err := s.link.Recv(bufs, times)
		if errors.Is(err, syscall.ENETDOWN) {
			s.port.counters.LinkDown.Add(1)
			_ = s.refresh() // watch sees it come up again, or go
			continue
		}
		if err != nil {
			return fmt.Errorf("receive: %w", err)
		}
		s.port.counters.Received.Add(uint64(n))
		s.cork(true)
		for i := range n {
			f := frames[i]
			f.SetLen(len(bufs[i]))
			f.Received = times[i]
			frames[i] = s.pool.Get()
			// The MTU may have grown while Recv waited: room for the answer.
			s.route(s.pool.refit(f))
		}
		s.burst.submit()
		s.cork(false)
	}
}

// route hands a frame to its target, or copies to all that a wildcard names.
func (s *session) route(f *Frame) {
	var h Header
	if h.DecodeFrom(f.Bytes()) != nil {
		s.port.counters.Malformed.Add(1)
		f.Release()
		return
	}
	if h.Command == CommandConfig && h.Flags&FlagResponse == 0 {
		// The sector count of the answer follows the MTU (spec/aoe.md 1.6).
		_ = s.refresh()
	}
	tab := s.table.Load()
	if !h.wildcard() {
		if p := tab.exact[tableKey(h.Shelf, h.Slot)]; p != nil {
			p.target.handle(f, p, &h, &s.burst)
			return
		}
		s.port.counters.Foreign.Add(1)
		f.Release()
		return
	}
	for _, p := range tab.all {
		if h.matches(p.target.shelf, p.target.slot) {
			c := s.pool.Get()
			c.SetLen(copy(c.Buffer(), f.Bytes()))
			c.Received = f.Received
			hdr := h // the target may change it
			p.target.handle(c, p, &hdr, &s.burst)
		}
	}
	f.Release()
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
