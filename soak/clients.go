package main

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/replblk/replblk/internal/chaos"
	"github.com/replblk/replblk/internal/nbdclient"
)

// Pauses of a client: before it tries again to be served, and between requests, so that
// there is time left for the rest of the machine and of a history's judgement.
const (
	redialPause  = 5 * time.Millisecond
	requestPause = 300 * time.Microsecond
)

// Blocks of the ledger: the first three extents, a share for each client.
const (
	ledgerShare  = 96
	ledgerGroups = 2 // sets of clients in a cycle
	groupWriters = 2
	groupReaders = 2 // clients of the registers, which write as well
)

// group is a set of clients of one host. They come again whenever they are sent away,
// until Stop.
type group struct {
	number int
	host   atomic.Pointer[chaos.Host]
	ledger *nbdclient.Ledger
	hist   *history
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu    sync.Mutex
	first error // guarded by mu: a wrong answer, not an error of a request
}

// startGroup sends the clients of group number 0 or 1 to a host.
func startGroup(ctx context.Context, number int, h *chaos.Host, l *nbdclient.Ledger, hist *history, seed uint64) *group {
	ctx, cancel := context.WithCancel(ctx)
	g := &group{number: number, ledger: l, hist: hist, cancel: cancel}
	g.host.Store(h)
	for i := range groupWriters {
		g.wg.Go(func() { g.again(ctx, func(c *nbdclient.Client) { g.write(ctx, c, i) }) })
	}
	for i := range groupReaders {
		rng := rand.New(rand.NewPCG(seed, uint64(i)))
		g.wg.Go(func() { g.again(ctx, func(c *nbdclient.Client) { g.access(ctx, c, i, rng) }) })
	}
	return g
}

// moveTo sends clients that have lost their host to another one.
func (g *group) moveTo(h *chaos.Host) { g.host.Store(h) }

// stop ends the clients; requests in progress are given up. It returns the first wrong
// answer.
func (g *group) stop() error {
	g.cancel()
	g.wg.Wait()
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.first
}

func (g *group) wrong(err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.first == nil {
		g.first = err
	}
}

// again serves with one connection after the other.
func (g *group) again(ctx context.Context, serve func(*nbdclient.Client)) {
	for ctx.Err() == nil {
		c, err := g.host.Load().Dial(ctx)
		if err != nil {
			time.Sleep(redialPause)
			continue
		}
		stop := context.AfterFunc(ctx, c.Abort)
		serve(c)
		stop()
		c.Abort()
	}
}

// write fills the client's share of every extent.
func (g *group) write(ctx context.Context, c *nbdclient.Client, client int) {
	for extent := uint64(0); ctx.Err() == nil; extent = (extent + 1) % killExtents {
		first := extent*1024 + uint64(g.number*groupWriters+client)*ledgerShare
		if err := g.ledger.Fill(ctx, c, first, ledgerShare, 3); err != nil {
			return
		}
		if extent == 0 && c.Flush() != nil {
			return
		}
		time.Sleep(requestPause)
	}
}

// access reads and writes the registers, which all clients share.
func (g *group) access(ctx context.Context, c *nbdclient.Client, client int, rng *rand.Rand) {
	buf := make([]byte, registerSize)
	id := g.number*groupReaders + client
	for ; ctx.Err() == nil; time.Sleep(requestPause) {
		a := access{register: rng.IntN(registers), write: rng.IntN(2) == 0}
		off := uint64(registerFirst + a.register*registerStep)
		called := g.hist.now()
		if a.write {
			a.value = rng.Uint64()
			fillRegister(buf, a.value)
			if err := c.Write(buf, off, rng.IntN(8) == 0); err != nil {
				g.hist.doubt(id, a, called)
				return
			}
			g.hist.add(id, a, 0, called)
			continue
		}
		if err := c.Read(buf, off); err != nil {
			return
		}
		value, err := readRegister(buf)
		if err != nil {
			g.wrong(err)
			return
		}
		g.hist.add(id, a, value, called)
	}
}
