package aoe

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Link is an Ethernet interface. One goroutine at a time calls Recv or TryRecv; any may
// call Send. Errors that pass (the interface is down, buffers are short) are the
// link's to survive; syscall.ENETDOWN from Recv or Send is only news.
type Link interface {
	// Recv waits for frames, writes each into one of bufs and cuts that to the
	// frame's length. It returns how many. A frame larger than its buffer comes
	// with length zero. times gets the time of arrival of each.
	Recv(bufs [][]byte, times []time.Time) (int, error)
	// TryRecv is Recv without the waiting: there may be no frames.
	TryRecv(bufs [][]byte, times []time.Time) (int, error)
	// Send sends frames and returns how many were taken by the interface. A
	// frame that cannot be sent is skipped.
	Send(frames [][]byte) (int, error)
	// StopRecv makes Recv return an error, now and from now on.
	StopRecv() error
	// Listen replaces what the link takes in. Any goroutine may call it.
	Listen(r Reception) error
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

// batch is how many frames are received at once. Then the devices get what they ask for,
// adjacent requests together, and the answers are sent: the initiator works on them
// while the next ones are served. With more the buffers outgrow the processor's cache,
// and a client with 64 requests has work for one receiver only.
const batch = 24

// sendBatch is how many frames go through a system call.
const sendBatch = 64

// maxSendQueue limits responses that wait for the interface. It is above what
// the targets have in flight, so it matters only when the interface is stuck.
const maxSendQueue = 4096

// corkLimit is how many answers a receiver gathers before sendLoop helps: the
// device blocks it, or answers for others.
const corkLimit = 64

// refreshInterval is how often a port looks at its interface, whether or not Poke
// told it to.
const refreshInterval = time.Second

// stallLimit is how long the watch of a link may not have run before it believes that
// time was lost.
const stallLimit = 2500 * time.Millisecond

// announceInterval is how often a target with a virtual address is advertised in
// quiet times: bridges are reminded, and another end that serves as well is found.
const announceInterval = 15 * time.Second

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
	Deaf      atomic.Uint64 // times the interface refused to receive for an address
}

// Port serves targets on one interface, on one Link after the other as the interface
// is lost and found; for a moment on two.
type Port struct {
	counters PortCounters

	mu       sync.Mutex // guards what follows; taken before Target.mu
	bindings []binding
	sessions []*session
	used     bool // there has been a session
}

// binding is a target with the address that it has on a port.
type binding struct {
	target *Target
	addr   MAC // zero: the interface's own
}

func tableKey(shelf uint16, slot uint8) uint32 { return uint32(shelf)<<8 | uint32(slot) }

// NewPort returns a port with targets that answer from the interface's address.
func NewPort(targets ...*Target) (*Port, error) {
	p := &Port{}
	for _, t := range targets {
		if err := p.Add(t, MAC{}); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// Virtual says whether a target of the port has an address that is not the interface's.
func (p *Port) Virtual() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.ContainsFunc(p.bindings, func(b binding) bool { return b.addr != MAC{} })
}

// Counters returns the counters of the port.
func (p *Port) Counters() *PortCounters { return &p.counters }

// Add adds a target and announces it. addr is its virtual address on this
// interface, for a target with Options.Virtual; zero is the interface's own.
func (p *Port) Add(t *Target, addr MAC) error {
	p.mu.Lock()
	for _, b := range p.bindings {
		if b.target.shelf == t.shelf && b.target.slot == t.slot {
			p.mu.Unlock()
			return fmt.Errorf("e%d.%d exists on this port", t.shelf, t.slot)
		}
		if addr != (MAC{}) && b.addr == addr {
			p.mu.Unlock()
			return fmt.Errorf("e%d.%d and e%d.%d have one address %v", b.target.shelf, b.target.slot, t.shelf, t.slot, addr)
		}
	}
	p.bindings = append(slices.Clone(p.bindings), binding{t, addr})
	p.mu.Unlock()
	t.mu.Lock()
	t.ports = append(slices.Clone(t.ports), p)
	t.mu.Unlock()
	p.Update()
	return nil
}

// Remove removes a target. Requests that it has accepted are still answered.
func (p *Port) Remove(t *Target) {
	p.mu.Lock()
	p.bindings = slices.DeleteFunc(slices.Clone(p.bindings), func(b binding) bool { return b.target == t })
	p.mu.Unlock()
	t.mu.Lock()
	t.ports = slices.DeleteFunc(slices.Clone(t.ports), func(o *Port) bool { return o == p })
	t.mu.Unlock()
	p.Update()
}

// Update makes the link take in what the targets' modes call for, and advertises
// those that serve several times over the next two seconds. Targets call it when
// their mode changes.
func (p *Port) Update() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range p.sessions {
		s.updateLocked()
		s.announceSoon()
	}
}

// tell sends the state of a target to its other end.
func (p *Port) tell(t *Target) {
	for _, s := range p.open() {
		if at := s.table.Load().exact[tableKey(t.shelf, t.slot)]; at != nil && at.target == t {
			t.tell(at, s.pool)
		}
	}
}

// Poke makes the port look at its interface now: something has happened to it.
func (p *Port) Poke() {
	for _, s := range p.open() {
		select {
		case s.poke <- struct{}{}:
		default:
		}
	}
}

func (p *Port) open() []*session {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.sessions)
}

// askInterval is how often Ask repeats its question.
const askInterval = 50 * time.Millisecond

// Ask asks the network who serves target t, for as long as wait, and returns the
// addresses that answered (rule R11). The other end of a virtual address answers
// whatever its mask list says; other targets may have one that leaves us out.
func (p *Port) Ask(ctx context.Context, t *Target, wait time.Duration) []MAC {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	t.beginAsking()
	tick := time.NewTicker(askInterval)
	defer tick.Stop()
	for {
		for _, s := range p.open() {
			s.ask(t)
		}
		select {
		case <-ctx.Done():
			return t.endAsking()
		case <-tick.C:
		}
	}
}

// ServeOptions tune Serve.
type ServeOptions struct {
	// DrainTimeout limits how long Serve waits for requests in flight at the
	// end. 0 means DefaultDrainTimeout.
	DrainTimeout time.Duration
	// Lost is called when the interface is gone, before Serve waits for the
	// requests in flight.
	Lost func(error)
}

// DefaultDrainTimeout is the default of ServeOptions.
const DefaultDrainTimeout = 5 * time.Second

// Serve runs the port on link until ctx ends, which is no error, or until the
// interface is gone, which is an error that wraps syscall.ENODEV. In both cases it
// stops receiving, waits for the requests in flight and sends their responses; what
// an interface that was renamed still carries arrives. The link is the caller's to
// close afterwards.
func (p *Port) Serve(ctx context.Context, link Link, o ServeOptions) error {
	s := newSession(p, link)
	caller := ctx
	ctx, cancel := context.WithCancelCause(caller)
	defer cancel(nil)
	var senders, watchers sync.WaitGroup
	senders.Go(s.sendLoop)
	if p.attach(s) {
		s.doubtSoon()
	}
	watchers.Go(func() { s.watch(ctx, cancel) })
	stop := context.AfterFunc(ctx, func() { _ = link.StopRecv() })
	defer stop()

	err := s.receive()
	switch {
	case caller.Err() != nil: // whatever the caller's cause is, the interface is not to blame
		err = nil
	case ctx.Err() != nil:
		err = context.Cause(ctx)
	}
	cancel(nil)
	watchers.Wait()
	p.detach(s)
	if err != nil && o.Lost != nil {
		o.Lost(err)
	}
	drainErr := s.drain(orDefault(o.DrainTimeout, DefaultDrainTimeout))
	if err == nil {
		err = drainErr
	}
	s.close()
	senders.Wait()
	return err
}

// doubtTime is how long the network is asked by a target that may have missed that the
// other end has taken over. What arrives meanwhile is held.
const doubtTime = 40 * time.Millisecond

// doubt makes the targets with a virtual address ask before they go on: the network, or
// this whole process, was away for a while, and the first frame that they sent would
// draw the clients away from the end that serves now (rule R11).
func (p *Port) doubt(ctx context.Context) {
	p.mu.Lock()
	bindings := p.bindings
	p.mu.Unlock()
	var wg sync.WaitGroup
	for _, b := range bindings {
		if b.addr == (MAC{}) || !b.target.virtual || !b.target.Serving() {
			continue
		}
		epoch := b.target.beginHold()
		wg.Go(func() {
			if slices.Contains(p.Ask(ctx, b.target, doubtTime), b.addr) {
				b.target.conflict(b.addr, true, false)
				return
			}
			b.target.resume(epoch)
		})
	}
	wg.Wait()
}

// attach begins the reception of s, and says whether the port had a link before.
func (p *Port) attach(s *session) (again bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	again, p.used = p.used, true
	p.sessions = append(slices.Clone(p.sessions), s)
	s.updateLocked()
	s.announceSoon()
	return again
}

// detach ends the reception of s: an address that has moved to another link must
// not be received for here.
func (p *Port) detach(s *session) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sessions = slices.DeleteFunc(slices.Clone(p.sessions), func(o *session) bool { return o == s })
	_ = s.link.Listen(Reception{}) // the link may be gone already
}
