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

// Link is an Ethernet interface. One goroutine at a time calls Recv, and one
// Send. Errors that pass (the interface is down, buffers are short) are the
// link's to survive; syscall.ENETDOWN from Recv or Send is only news.
type Link interface {
	// Recv waits for frames, writes each into one of bufs and cuts that to the
	// frame's length. It returns how many. A frame larger than its buffer comes
	// with length zero.
	Recv(bufs [][]byte) (int, error)
	// Send sends frames and returns how many were taken by the interface. A
	// frame that cannot be sent is skipped.
	Send(frames [][]byte) (int, error)
	// StopRecv makes Recv return an error, now and from now on.
	StopRecv() error
	// Refresh looks at the interface again. It returns whether the MTU, the
	// address or the state has changed since the last look, and
	// syscall.ENODEV if the interface is gone and the link useless. Any
	// goroutine may call it.
	Refresh() (changed bool, err error)
	// Up says whether the interface was up at the last look.
	Up() bool
	MTU() int
	HardwareAddr() [6]byte
}

// batch is how many frames go through a system call.
const batch = 64

// maxSendQueue limits responses that wait for the interface. It is above what
// the targets have in flight, so it matters only when the interface is stuck.
const maxSendQueue = 4096

// corkLimit is how many answers a receiver gathers before sendLoop helps.
const corkLimit = 32

// refreshInterval is how often a port looks at its interface.
const refreshInterval = time.Second

// announceAt are the times of the advertisements after a link or a target came
// up: repeated because frames get lost, and switches learn from them (rule R12).
var announceAt = []time.Duration{0, 50 * time.Millisecond, 200 * time.Millisecond, time.Second, 2 * time.Second}

// PortCounters count what happened before a frame had a target.
type PortCounters struct {
	Received  atomic.Uint64 // frames
	Sent      atomic.Uint64 // frames
	Malformed atomic.Uint64 // too short for a header, longer than the MTU, or not AoE
	Foreign   atomic.Uint64 // for no target here
	Unsent    atomic.Uint64 // responses that the interface did not take
	LinkDown  atomic.Uint64 // times the interface went down
}

// Port serves targets on one interface.
type Port struct {
	counters PortCounters
	table    atomic.Pointer[table]
	mu       sync.Mutex // serializes changes of table
	announce chan struct{}
}

// table is immutable.
type table struct {
	exact map[uint32]*Target
	all   []*Target
}

func tableKey(shelf uint16, slot uint8) uint32 { return uint32(shelf)<<8 | uint32(slot) }

// NewPort returns a port with targets.
func NewPort(targets ...*Target) (*Port, error) {
	p := &Port{announce: make(chan struct{}, 1)}
	p.table.Store(&table{})
	for _, t := range targets {
		if err := p.Add(t); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// Counters returns the counters of the port.
func (p *Port) Counters() *PortCounters { return &p.counters }

// Add adds a target and announces it.
func (p *Port) Add(t *Target) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	old := p.table.Load()
	if old.exact[tableKey(t.shelf, t.slot)] != nil {
		return fmt.Errorf("e%d.%d exists on this port", t.shelf, t.slot)
	}
	p.setLocked(append(slices.Clone(old.all), t))
	p.Announce()
	return nil
}

// Remove removes a target. Requests that it has accepted are still answered.
func (p *Port) Remove(t *Target) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.setLocked(slices.DeleteFunc(slices.Clone(p.table.Load().all), func(o *Target) bool { return o == t }))
}

func (p *Port) setLocked(all []*Target) {
	n := &table{exact: make(map[uint32]*Target, len(all)), all: all}
	for _, t := range all {
		n.exact[tableKey(t.shelf, t.slot)] = t
	}
	p.table.Store(n)
}

// Announce advertises all serving targets, several times over the next two
// seconds. Call it after a target began to serve.
func (p *Port) Announce() {
	select {
	case p.announce <- struct{}{}:
	default:
	}
}

// ServeOptions tune Serve.
type ServeOptions struct {
	// DrainTimeout limits how long Serve waits for requests in flight at the
	// end. 0 means DefaultDrainTimeout.
	DrainTimeout time.Duration
}

// DefaultDrainTimeout is the default of ServeOptions.
const DefaultDrainTimeout = 5 * time.Second

// Serve runs the port on link until ctx ends, which is no error: it stops
// receiving, waits for the requests in flight and sends their responses. It
// returns an error that wraps syscall.ENODEV when the interface is gone. The
// link is the caller's to close afterwards.
func (p *Port) Serve(ctx context.Context, link Link, o ServeOptions) error {
	s := newSession(p, link)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var senders, watchers sync.WaitGroup
	senders.Go(s.sendLoop)
	watchers.Go(func() { s.watch(ctx, cancel) })
	stop := context.AfterFunc(ctx, func() { _ = link.StopRecv() })
	defer stop()

	err := s.recvLoop()
	if ctx.Err() != nil {
		err = nil
		if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) && !errors.Is(cause, context.DeadlineExceeded) {
			err = cause
		}
	}
	cancel(nil)
	watchers.Wait()
	if err == nil {
		err = s.drain(orDefault(o.DrainTimeout, DefaultDrainTimeout))
	}
	s.close()
	senders.Wait()
	return err
}

// session is a Port on a Link. It is the Sender of the requests received there.
type session struct {
	port *Port
	link Link
	pool *FramePool

	mu     sync.Mutex // guards queue, closed, corked
	queue  []*Frame
	closed bool
	corked bool

	wake chan struct{} // never closed: late answers still signal
	done chan struct{}

	sendMu  sync.Mutex // held by who sends, taken before mu; guards what follows
	sending []*Frame
	bufs    [batch][]byte
}

func newSession(p *Port, link Link) *session {
	return &session{port: p, link: link, pool: NewFramePool(link.MTU()), wake: make(chan struct{}, 1), done: make(chan struct{})}
}

// Addr implements Sender.
func (s *session) Addr() MAC { return s.link.HardwareAddr() }

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
	for part := range slices.Chunk(frames, batch) {
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
		n, err := s.link.Recv(bufs)
		if errors.Is(err, syscall.ENETDOWN) {
			s.port.counters.LinkDown.Add(1)
			_ = s.refresh() // watch sees it come up again, or go
			continue
		}
		if err != nil {
			return fmt.Errorf("receive: %w", err)
		}
		now := time.Now()
		s.port.counters.Received.Add(uint64(n))
		s.cork(true)
		for i := range n {
			f := frames[i]
			f.SetLen(len(bufs[i]))
			f.Received = now
			frames[i] = s.pool.Get()
			// The MTU may have grown while Recv waited: room for the answer.
			s.route(s.pool.refit(f))
		}
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
	tab := s.port.table.Load()
	if !h.wildcard() {
		if t := tab.exact[tableKey(h.Shelf, h.Slot)]; t != nil {
			t.handle(f, s, &h)
			return
		}
		s.port.counters.Foreign.Add(1)
		f.Release()
		return
	}
	for _, t := range tab.all {
		if h.matches(t.shelf, t.slot) {
			c := s.pool.Get()
			c.SetLen(copy(c.Buffer(), f.Bytes()))
			c.Received = f.Received
			t.handle(c, s, &h)
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
		s.port.Announce()
	}
	return nil
}

// watch advertises the targets, and notices changes of the interface.
func (s *session) watch(ctx context.Context, cancel context.CancelCauseFunc) {
	s.port.Announce()
	tick := time.NewTicker(refreshInterval)
	defer tick.Stop()
	next := time.NewTimer(0)
	next.Stop()
	var began time.Time
	step := len(announceAt)
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.port.announce:
			began, step = time.Now(), 0
			next.Reset(0)
		case <-next.C:
			s.advertise()
			if step++; step < len(announceAt) {
				next.Reset(announceAt[step] - time.Since(began))
			}
		case <-tick.C:
			if err := s.refresh(); errors.Is(err, syscall.ENODEV) {
				cancel(fmt.Errorf("interface: %w", err))
				return
			}
		}
	}
}

func (s *session) advertise() {
	if !s.link.Up() {
		return // refresh sees it come up and announces again
	}
	for _, t := range s.port.table.Load().all {
		t.Advertise(s, s.pool)
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
