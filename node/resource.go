package node

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/replblk/replblk/node/transport"
	"github.com/replblk/replblk/replication"
	"github.com/replblk/replblk/replication/state"
)

// tickInterval is how often the core sees EvTick.
const tickInterval = 100 * time.Millisecond

// diskCloseTime is how long Close waits for backing devices.
const diskCloseTime = 10 * time.Second

// Config is what a Resource needs to know.
type Config struct {
	Core     replication.Config
	Network  transport.Network // nil: TCP with Options
	Options  transport.Options // UserTimeout 0: as long as the core waits for an answer
	Link     transport.Config
	Handlers HandlerConfig
}

// link is Link, with what the core's configuration asks of it: a kernel that refuses writes of
// another Primary confirms no epoch any more (spec 14.2 #2), so this node tries to be the one
// that refuses.
func (c *Config) link() transport.Config {
	l := c.Link
	l.Resolve = l.Resolve || c.Core.TwoPrimaries
	return l
}

// Resource is a resource of this node, with everything that it is connected to.
type Resource struct {
	name string
	log  *slog.Logger
	ctx  context.Context // ends when the resource is closed
	stop context.CancelFunc

	core    core
	loop    *loop
	lease   time.Duration // direct reads need a tick that is not older
	slots   *slots
	bufs    *buffers
	ops     *diskOps
	head    []byte // of a packet with a digest; owned by the runner
	conn    *connection
	volumes map[uint16]*Volume // immutable after NewResource
	numbers []uint16           // its keys, ascending as configured

	replies  replies
	handlers *handlers
	watchers watchers

	ticks     sync.WaitGroup
	disks     sync.WaitGroup // backing devices that are not closed yet
	closeOnce sync.Once
}

// NewResource makes a resource: diskless, unconnected, Secondary.
func NewResource(cfg Config, log *slog.Logger) (*Resource, error) {
	if cfg.Core.MaxRequests == 0 {
		cfg.Core.MaxRequests = 1024
	}
	if cfg.Core.MaxRequests < 0 || cfg.Core.MaxRequests > replication.MaxRequests {
		return nil, fmt.Errorf("resource %s: %d request slots, want 1 to %d", cfg.Core.Name, cfg.Core.MaxRequests, replication.MaxRequests)
	}
	if cfg.Core.Seed == 0 {
		cfg.Core.Seed = randomWord()
	}
	seen := make(map[uint16]bool)
	for _, v := range cfg.Core.Volumes {
		if seen[v.Number] {
			return nil, fmt.Errorf("resource %s: volume %d twice", cfg.Core.Name, v.Number)
		}
		seen[v.Number] = true
	}
	return newResource(cfg, newCore(cfg.Core), log), nil
}

func newResource(cfg Config, c core, log *slog.Logger) *Resource {
	r := &Resource{name: cfg.Core.Name, log: log.With("resource", cfg.Core.Name), core: c, volumes: make(map[uint16]*Volume)}
	r.lease = time.Duration(cfg.Core.Lease())
	r.ctx, r.stop = context.WithCancel(context.Background())
	r.loop = newLoop(c, r.execute)
	r.slots = newSlots(cfg.Core.MaxRequests)
	r.bufs = &buffers{}
	r.ops = &diskOps{loop: r.loop, bufs: r.bufs, slots: r.slots}
	for _, vc := range cfg.Core.Volumes {
		v := &Volume{res: r, number: vc.Number}
		v.changed(c.State(vc.Number))
		v.guarded.Store(vc.DiskTimeoutTenths != 0)
		r.volumes[vc.Number] = v
		r.numbers = append(r.numbers, vc.Number)
	}
	network := cfg.Network
	if network == nil {
		opt := cfg.Options
		if opt.UserTimeout == 0 {
			opt.UserTimeout = time.Duration(cfg.Core.TimeoutTenths*max(cfg.Core.KoCount, 1)) * 100 * time.Millisecond
		}
		network = &transport.TCP{Options: opt}
	}
	r.conn = &connection{loop: r.loop, bufs: r.bufs, sums: &r.ops.sums, log: r.log, before: r.remeasure}
	r.conn.configure(network, cfg.link())
	r.handlers = newHandlers(r.ctx, cfg.Handlers, r.loop, r.log, r.publish)
	r.replies.waiting = make(map[uint64]chan state.Result)
	go r.loop.stand()
	r.ticks.Add(1)
	go r.tick()
	return r
}

// tick delivers EvTick, each with fresh entropy.
func (r *Resource) tick() {
	defer r.ticks.Done()
	t := time.NewTicker(tickInterval)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			r.loop.post(&replication.Event{Kind: replication.EvTick, Rand: randomWord()})
		case <-r.ctx.Done():
			return
		}
	}
}

func randomWord() uint64 {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails, see its documentation
	return binary.NativeEndian.Uint64(b[:])
}

// Name returns the resource's name.
func (r *Resource) Name() string { return r.name }

// Volumes returns the numbers of the volumes.
func (r *Resource) Volumes() []uint16 { return append([]uint16(nil), r.numbers...) }

// Volume returns a volume, nil if there is none with that number.
func (r *Resource) Volume(n uint16) *Volume { return r.volumes[n] }

// State returns the state of a volume.
func (r *Resource) State(vol uint16) (s state.State) {
	r.loop.call(func() { s = r.core.State(vol) })
	return s
}

// replies pairs operators' commands with their answers.
type replies struct {
	mu      sync.Mutex
	last    uint64                       // guarded by mu
	waiting map[uint64]chan state.Result // guarded by mu
}

func (p *replies) expect() (uint64, chan state.Result) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.last++
	c := make(chan state.Result, 1)
	p.waiting[p.last] = c
	return p.last, c
}

func (p *replies) deliver(token uint64, res state.Result) {
	p.mu.Lock()
	c := p.waiting[token]
	delete(p.waiting, token)
	p.mu.Unlock()
	if c != nil {
		c <- res
	}
}

// Admin carries out an operator's command and returns the result when the core has
// it, which may take as long as the peer takes. cmd.Token is chosen here. If ctx
// ends, the command may still be carried out later.
func (r *Resource) Admin(ctx context.Context, cmd replication.Admin) (state.Result, error) {
	token, answer := r.replies.expect()
	cmd.Token = token
	r.loop.post(&replication.Event{Kind: replication.EvAdmin, Vol: cmd.Vol, Admin: &cmd})
	select {
	case res := <-answer:
		return res, nil
	case <-ctx.Done():
		r.replies.deliver(token, state.UnknownError) // forget it
		return state.UnknownError, ctx.Err()
	case <-r.ctx.Done():
		return state.UnknownError, errClosing
	}
}

// Adjust takes over what may change in a running resource (see replication.AdminAdjust) and
// says what the core made of it. Handlers change at once; cfg.Link, and cfg.Network unless it
// is nil, are for the next connection.
func (r *Resource) Adjust(ctx context.Context, cfg Config) (state.Result, error) {
	res, err := r.Admin(ctx, replication.Admin{Kind: replication.AdminAdjust, Config: &cfg.Core})
	if err == nil && res.OK() {
		r.handlers.configure(cfg.Handlers)
		r.conn.configure(cfg.Network, cfg.link())
		for _, vc := range cfg.Core.Volumes {
			if v := r.volumes[vc.Number]; v != nil {
				v.guarded.Store(vc.DiskTimeoutTenths != 0)
			}
		}
	}
	return res, err
}

// Close ends the resource. As long as ctx allows it does so in order: no longer
// Primary, disconnected with the peer's knowledge, metadata clean. What does not
// succeed by then is done by force, as a crash would: nothing that was acknowledged
// is lost, but the next start has more to do. Frontends must have gone.
func (r *Resource) Close(ctx context.Context) error {
	var err error
	r.closeOnce.Do(func() {
		err = r.wind(ctx)
		r.end()
	})
	return err
}

// end is the part of Close that cannot fail.
func (r *Resource) end() {
	r.slots.close()
	r.conn.close()
	for _, n := range r.numbers {
		v := r.volumes[n]
		v.reads.Store(false)
		if b := v.disk.Load(); b != nil {
			r.retire(n, b)
		}
	}
	r.awaitDisks()
	r.stop()
	r.ticks.Wait()
	r.handlers.wg.Wait()
	close(r.loop.stopped)
}

// awaitDisks waits until the backing devices are closed, so that they may be opened
// again at once; but not for a disk that hangs.
func (r *Resource) awaitDisks() {
	closed := make(chan struct{})
	go func() { r.disks.Wait(); close(closed) }()
	select {
	case <-closed:
	case <-time.After(diskCloseTime):
		r.log.Warn("backing device does not return", "duration", diskCloseTime)
	}
}

// wind carries out the orderly part of Close.
func (r *Resource) wind(ctx context.Context) error {
	var errs []error
	do := func(cmd replication.Admin, fine ...state.Result) {
		res, err := r.Admin(ctx, cmd)
		if err == nil && !res.OK() {
			err = res.Err()
			for _, f := range fine {
				if res == f {
					err = nil
				}
			}
		}
		if err != nil {
			errs = append(errs, err)
		}
	}
	if len(r.numbers) > 0 && r.State(r.numbers[0]).Role == state.Primary {
		do(replication.Admin{Kind: replication.AdminSecondary})
	}
	do(replication.Admin{Kind: replication.AdminDisconnect}, state.AlreadyStandAlone, state.NoNetConfig)
	for _, n := range r.numbers {
		if r.volumes[n].disk.Load() != nil {
			do(replication.Admin{Kind: replication.AdminDetach, Vol: n}, state.IsDiskless)
		}
	}
	return errors.Join(errs...)
}
