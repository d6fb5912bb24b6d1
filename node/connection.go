package node

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/replblk/replblk/node/transport"
	"github.com/replblk/replblk/replication"
	"github.com/replblk/replblk/replication/state"
)

// handshakeRandom is how many random bytes EvConnUp carries: a challenge.
const handshakeRandom = 64

// listenRetry is how long to wait when the port cannot be bound, which heals when
// somebody else goes away.
const listenRetry = time.Second

// reconnectPause is the shortest time from one link to the next attempt: two nodes
// that disagree would otherwise keep each other busy. The kernel waits as long.
const reconnectPause = time.Second

// connection keeps the link to the peer: it connects when the core wants to, and
// reports the end of each link.
type connection struct {
	loop *loop
	bufs *buffers
	sums *digests
	log  *slog.Logger
	// before runs before the core hears of a connection.
	before func()

	link    atomic.Pointer[link] // the newest; its generation may be over
	parting atomic.Bool          // one of the operators wants it to end

	mu     sync.Mutex
	net    transport.Network  // guarded by mu
	cfg    transport.Config   // guarded by mu
	cancel context.CancelFunc // guarded by mu: ends the present attempt, nil if none
	gen    uint32             // guarded by mu: the last one given out
	upAt   time.Time          // guarded by mu: when the last link stood
	closed bool               // guarded by mu
	wg     sync.WaitGroup     // attempts and links
}

// configure changes how the next connection is made, also if it is being tried already.
func (c *connection) configure(n transport.Network, cfg transport.Config) {
	c.mu.Lock()
	if n != nil {
		c.net = n
	}
	again := c.cancel != nil && (n != nil || c.cfg != cfg)
	c.cfg = cfg
	c.mu.Unlock()
	if again {
		c.want(false)
		c.want(true)
	}
}

func (c *connection) config() (transport.Network, transport.Config) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.net, c.cfg
}

// want begins or ends to try. It does not wait.
func (c *connection) want(on bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !on {
		if c.cancel != nil {
			c.cancel()
			c.cancel = nil
		}
		return
	}
	if c.cancel != nil || c.closed {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	c.cancel = cancel
	c.wg.Add(1)
	go c.attempt(ctx, cancel)
}

// attempt connects, and stays until the link has ended.
func (c *connection) attempt(ctx context.Context, cancel context.CancelFunc) {
	defer c.wg.Done()
	defer cancel()
	if !c.pause(ctx) {
		return
	}
	pair := c.connect(ctx)
	if pair == nil {
		return
	}
	c.mu.Lock()
	if ctx.Err() != nil {
		c.mu.Unlock()
		pair.Close()
		return
	}
	c.cancel = nil // want(true) may come again, from the core's reaction to EvConnDown
	c.gen++
	c.upAt = time.Now()
	k := newLink(c.loop, c.bufs, c.sums, c.gen, pair)
	c.link.Store(k)
	c.parting.Store(false)
	c.mu.Unlock()
	_, cfg := c.config()
	c.log.Info("connection established", "local", cfg.Local, "remote", pair.Data.RemoteAddr(), "generation", k.gen, "decides-ties", pair.ResolveConflicts)

	var random [handshakeRandom]byte
	_, _ = rand.Read(random[:]) // never fails, see its documentation
	c.before()
	c.loop.put(&replication.Event{Kind: replication.EvConnUp, Gen: k.gen, ResolveConflicts: pair.ResolveConflicts, Body: random[:]})
	k.start()
	c.loop.kick()
	k.wait()
	if k.err != nil && !c.parting.Load() {
		c.log.Warn("connection lost", "cause", k.cause.String(), "err", k.err)
	} else {
		c.log.Info("connection closed", "generation", k.gen)
	}
	c.loop.post(&replication.Event{Kind: replication.EvConnDown, Gen: k.gen, Cause: k.cause})
}

// pause sees to it that links which break at once do not follow each other faster
// than one a second; false if ctx ended.
func (c *connection) pause(ctx context.Context) bool {
	c.mu.Lock()
	wait := time.Until(c.upAt.Add(reconnectPause))
	c.mu.Unlock()
	if wait <= 0 {
		return true
	}
	select {
	case <-ctx.Done():
		return false
	case <-time.After(wait):
		return true
	}
}

// connect tries until it has a pair; nil if ctx ended first.
func (c *connection) connect(ctx context.Context) *transport.Pair {
	for {
		network, cfg := c.config()
		pair, err := transport.Connect(ctx, network, cfg, c.log)
		if err == nil {
			return pair
		}
		if ctx.Err() != nil {
			return nil
		}
		c.log.Warn("connection attempt ended", "local", cfg.Local, "err", err)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(listenRetry):
		}
	}
}

// find returns the link of a generation, nil if it is not the newest.
func (c *connection) find(gen uint32) *link {
	if k := c.link.Load(); k != nil && k.gen == gen {
		return k
	}
	return nil
}

// close ends everything and waits. EvConnDown has been delivered when it returns.
func (c *connection) close() {
	c.mu.Lock()
	c.closed = true
	if c.cancel != nil {
		c.cancel()
		c.cancel = nil
	}
	k := c.link.Load()
	c.mu.Unlock()
	if k != nil {
		k.fail(state.NetworkFailure, errClosing)
	}
	c.wg.Wait()
}

var errClosing = errors.New("resource is being closed")
