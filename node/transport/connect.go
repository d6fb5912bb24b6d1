package transport

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"
)

// Pair is an established connection.
type Pair struct {
	Data, Meta Socket
	// ResolveConflicts: this node accepted the meta socket. Exactly one of the
	// peers has it, and it decides ties (spec 3.2).
	ResolveConflicts bool
}

// Close closes both sockets.
func (p *Pair) Close() { closeAll(p.Data, p.Meta) }

// Config says how to establish a connection.
type Config struct {
	Local, Peer string // "host:port": where to listen, where to connect to

	ConnectInterval time.Duration // connect-int: how long to wait before connecting again; 0: 10 s
	PingTimeout     time.Duration // ping-timeout; a stranger has four of it for the first packet; 0: 500 ms
	// CheckTime is how long both sockets must have stood when they are taken
	// for established. The kernel waits for socket-check-timeout; shorter is
	// fine, the peer's verdict arrives as a closed socket. 0: 100 ms.
	CheckTime time.Duration
	// MetaWait is how long to wait for the peer's meta socket after this node
	// connected the data socket. A kernel connects at once. 0: 400 ms.
	MetaWait time.Duration
	// Resolve: try to be the node that accepts the meta socket, see
	// Pair.ResolveConflicts. A peer that tries the same may win.
	Resolve bool
}

func (c Config) withDefaults() Config {
	def := func(d *time.Duration, v time.Duration) {
		if *d <= 0 {
			*d = v
		}
	}
	def(&c.ConnectInterval, 10*time.Second)
	def(&c.PingTimeout, 500*time.Millisecond)
	def(&c.CheckTime, 100*time.Millisecond)
	def(&c.MetaWait, 400*time.Millisecond)
	return c
}

// Connect establishes both sockets, trying until it succeeds or ctx ends. The
// listener is open meanwhile, and closed afterwards as the kernel's is: a peer that
// connects again must notice that it is too late or too early.
//
// The algorithm is that of spec 3.2 with the two waits made independent: it listens
// while it dials, so that a black hole in one direction does not keep the other
// from working. Two nodes that dial at the same moment end with two data sockets
// ("crossed"). The kernel then gives up its own, so the node with the smaller
// address keeps its own and the other behaves like the kernel: two kernels need a
// coin for that, we do not, unless the first attempt shows that both think alike.
func Connect(ctx context.Context, n Network, cfg Config, log *slog.Logger) (*Pair, error) {
	cfg = cfg.withDefaults()
	l, err := n.Listen(cfg.Local)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	e := &establisher{
		cfg: cfg, net: n, log: log, ctx: ctx,
		dialed: make(chan dialResult, 1),
		door:   openDoor(l, 4*cfg.PingTimeout),
		keep:   cfg.Local < cfg.Peer,
	}
	pair, err := e.run()
	cancel()
	e.door.shut()
	if e.dialing {
		if d := <-e.dialed; d.sock != nil {
			_ = d.sock.Close()
		}
	}
	return pair, err
}

// establisher is the state of one Connect. Owned by its goroutine.
type establisher struct {
	cfg  Config
	net  Network
	log  *slog.Logger
	ctx  context.Context
	door *door

	data, meta Socket
	resolve    bool // the meta socket was accepted
	ownData    bool // the data socket was dialed
	ownMeta    bool
	keep       bool // in a crossing, keep the own socket
	crossings  int
	bids       int // how often Resolve was tried

	dialing  bool
	dialed   chan dialResult
	nextDial time.Time
	since    time.Time // both sockets stand since then
}

type dialResult struct {
	sock Socket
	err  error
}

func (e *establisher) run() (*Pair, error) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-e.ctx.Done():
			closeAll(e.data, e.meta)
			return nil, context.Cause(e.ctx)
		case d := <-e.dialed:
			e.dialing = false
			e.connected(d)
		case a, ok := <-e.door.arrivals:
			if !ok {
				closeAll(e.data, e.meta)
				return nil, e.door.err
			}
			e.accepted(a)
		case <-timer.C:
		}
		if e.established() {
			return &Pair{Data: e.data, Meta: e.meta, ResolveConflicts: e.resolve}, nil
		}
		timer.Reset(e.next())
	}
}

// established drops dead sockets and says whether both have stood long enough.
func (e *establisher) established() bool {
	if e.data == nil || e.meta == nil {
		e.since = time.Time{}
		return false
	}
	now := time.Now()
	if e.since.IsZero() {
		e.since = now
	}
	if now.Sub(e.since) < e.cfg.CheckTime {
		return false
	}
	e.dropDead()
	if e.data == nil || e.meta == nil {
		e.since = time.Time{}
		e.nextDial = now.Add(e.short())
		return false
	}
	return true
}

// next starts to dial if it is time, and returns how long to wait for events.
func (e *establisher) next() time.Duration {
	if e.data != nil && e.meta != nil {
		return max(time.Until(e.since.Add(e.cfg.CheckTime)), time.Millisecond)
	}
	if e.dialing {
		return e.cfg.ConnectInterval
	}
	if wait := time.Until(e.nextDial); wait > 0 {
		return wait
	}
	if e.data != nil && e.bid() { // the peer has waited for a meta socket: let it have our data socket again
		closeAll(e.data)
		e.data = nil
	}
	e.dialing = true
	go func() {
		ctx, cancel := context.WithTimeout(e.ctx, e.cfg.ConnectInterval)
		defer cancel()
		s, err := e.net.Dial(ctx, e.cfg.Local, e.cfg.Peer)
		e.dialed <- dialResult{s, err}
	}()
	return e.cfg.ConnectInterval
}

// connected uses a socket that this node dialed for what is missing now.
func (e *establisher) connected(d dialResult) {
	if d.err != nil {
		e.nextDial = time.Now().Add(e.long())
		return
	}
	e.dropDead()
	kind := firstData
	switch {
	case e.data == nil:
		e.data, e.ownData = d.sock, true
		e.nextDial = time.Now().Add(e.metaWait())
	case e.meta == nil:
		kind = firstMeta
		e.meta, e.ownMeta, e.resolve = d.sock, true, false
	default: // the peer was faster
		_ = d.sock.Close()
		return
	}
	if err := announce(d.sock, kind); err != nil {
		e.log.Debug("connection attempt broke", "err", err)
		e.dropDead()
		e.nextDial = time.Now().Add(e.short())
	}
}

// accepted uses a socket that the peer dialed.
func (e *establisher) accepted(a arrival) {
	e.dropDead()
	if a.kind == firstData && e.bid() {
		e.outbid(a.sock)
		return
	}
	slot, own := &e.data, &e.ownData
	if a.kind == firstMeta {
		slot, own = &e.meta, &e.ownMeta
	}
	if *slot != nil && *own && e.wins() {
		// The peer gives its own up, or finds it closed and accepts ours.
		_ = a.sock.Close()
		e.nextDial = time.Now().Add(e.short())
		return
	}
	crossed := *slot != nil
	closeAll(*slot)
	*slot, *own = a.sock, false
	e.since = time.Time{}
	if a.kind == firstMeta {
		e.resolve = true
	}
	e.nextDial = time.Now()
	if crossed && rand.IntN(2) == 0 {
		e.nextDial = time.Now().Add(e.short())
	}
}

// maxBids is how often one attempt tries to have the meta socket dialed by the peer. A
// kernel needs one, two nodes that both try it must end soon.
const maxBids = 3

// bid says whether to try once more to be the node that accepts the meta socket: who accepts a
// data socket dials the meta socket, so the data socket must be this node's.
func (e *establisher) bid() bool {
	if !e.cfg.Resolve || e.meta != nil || e.bids == maxBids {
		return false
	}
	e.bids++
	return true
}

// outbid refuses a data socket of the peer in favour of an own one. A kernel that finds its own
// closed takes the next one that comes, and dials the meta socket at once.
func (e *establisher) outbid(theirs Socket) {
	_ = theirs.Close()
	if e.data == nil {
		e.nextDial = time.Now()
	} else { // crossed: the kernel has closed its own already
		e.nextDial = time.Now().Add(e.metaWait())
	}
}

// wins decides a crossing in favour of the own socket.
func (e *establisher) wins() bool {
	e.crossings++
	if e.crossings > 2 { // seen through address translation, both may be "smaller"
		return rand.IntN(2) == 0
	}
	return e.keep
}

func (e *establisher) dropDead() {
	for _, s := range []*Socket{&e.data, &e.meta} {
		if *s != nil && !(*s).Alive() {
			closeAll(*s)
			*s = nil
		}
	}
}

// long is connect-int plus or minus a seventh, so that two nodes that dial at the
// same moment do not do so again.
func (e *establisher) long() time.Duration {
	seventh := e.cfg.ConnectInterval / 7
	return e.cfg.ConnectInterval - seventh + rand.N(2*seventh+1)
}

// short is a random time after which a crossing ought to be resolved.
func (e *establisher) short() time.Duration {
	return 20*time.Millisecond + rand.N(200*time.Millisecond)
}

func (e *establisher) metaWait() time.Duration {
	return e.cfg.MetaWait + rand.N(e.cfg.MetaWait/2+1)
}

func closeAll(socks ...Socket) {
	for _, s := range socks {
		if s != nil {
			_ = s.Close() // nothing that was sent matters
		}
	}
}

// announce sends the first packet, which says what the socket is for.
func announce(s Socket, k firstPacket) error {
	p := k.encode()
	n, err := s.TryWrite([][]byte{p})
	if err == nil && n < len(p) {
		err = errors.New("a new connection takes no 8 bytes")
	}
	if err != nil {
		return fmt.Errorf("first packet to %s: %w", s.RemoteAddr(), err)
	}
	return nil
}
