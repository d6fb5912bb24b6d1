package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/replblk/replblk/internal/chaos"
	"github.com/replblk/replblk/internal/nbdclient"
)

// killOptions are those of kill-points.
type killOptions struct {
	binary   string
	dir      string
	points   int
	parallel int
	seed     uint64
}

// Sizes of the load: few blocks, so that reading all of them after each point is
// cheap, in every extent of the activity log.
const (
	killDiskMiB = 16
	killExtents = 3 // whole ones below the metadata
	killClients = 3
	killWrites  = 12  // of each client
	killSlice   = 16  // blocks of an extent that belong to a client
	killDeaths  = 3   // crashes during recovery from a crash, before it may recover
	killAgain   = 0.7 // how often the node that died is the next victim too
)

// killNet is the net section: who dies is noticed at once, and who is only slow, on a machine
// that is shared by all pairs and their straces, is not given up.
const killNet = "ping-int 1; ping-timeout 100; timeout 150;"

// deathNews is how long we may be the last to hear of a daemon's death.
const deathNews = 20 * time.Second

// patience is how long a pair may take to come back. It is far above what it takes:
// who does not come back within it never does.
const patience = 2 * time.Minute

// killPoints goes through points with several pairs at a time.
func killPoints(ctx context.Context, o killOptions) (*figures, error) {
	fig := newFigures()
	var next atomic.Int64
	var wg sync.WaitGroup
	errs := make([]error, o.parallel)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for i := range o.parallel {
		wg.Go(func() {
			c := &campaign{fig: fig, ledger: nbdclient.NewLedger(), rng: rand.New(rand.NewPCG(o.seed, uint64(i))), dir: filepath.Join(o.dir, fmt.Sprint("pair", i))}
			errs[i] = c.run(ctx, o, &next)
			if errs[i] != nil && ctx.Err() == nil {
				errs[i] = fmt.Errorf("pair %d: %w", i, errs[i])
				cancel()
			}
		})
	}
	wg.Wait()
	var first error
	for _, err := range errs {
		if err != nil && !errors.Is(err, context.Canceled) {
			first = errors.Join(first, err)
		}
	}
	return fig, first
}

// campaign is one pair and what has been done to it.
type campaign struct {
	fig    *figures
	ledger *nbdclient.Ledger
	rng    *rand.Rand
	dir    string
	pair   *chaos.Pair

	victim  int // the host that is hit next
	deaths  int // in a row, without the pair being in sync
	history []string
}

func (c *campaign) run(ctx context.Context, o killOptions, next *atomic.Int64) (err error) {
	c.pair, err = chaos.NewPair(ctx, chaos.Options{Binary: o.binary, Dir: c.dir, SizeMiB: killDiskMiB,
		Net: killNet})
	if err != nil {
		return err
	}
	defer func() {
		if err != nil && ctx.Err() == nil {
			keep := filepath.Join(os.TempDir(), fmt.Sprintf("soak-failed-%d-%s", os.Getpid(), filepath.Base(c.dir)))
			err = errors.Join(fmt.Errorf("%w\nlast points: %q\nlogs and disks are in %s", err, c.history, keep), c.pair.Keep(keep))
		}
		err = errors.Join(err, c.pair.Close())
	}()
	if err := c.pair.Begin(ctx); err != nil {
		return err
	}
	for next.Add(1) <= int64(o.points) {
		if err := c.point(ctx); err != nil {
			return err
		}
	}
	return c.settle(ctx)
}

// point is one life of a daemon: it starts with an injection, recovers, serves, and
// dies of it or is killed at the end.
func (c *campaign) point(ctx context.Context) error {
	if c.rng.Float64() >= killAgain {
		c.victim = 1 - c.victim
	}
	if c.deaths >= killDeaths {
		if err := c.settle(ctx); err != nil {
			return err
		}
	}
	in := drawInjection(c.rng)
	v, other := c.pair.Hosts[c.victim], c.pair.Hosts[1-c.victim]
	c.note("%s %v", v.Name, in)
	_ = v.End(syscall.SIGKILL)
	if !other.Running() {
		if err := other.Start(nil); err != nil {
			return err
		}
	}
	_ = os.Remove(v.Path(".strace"))
	if err := v.Start(in); err != nil {
		return err
	}
	primary, err := c.life(ctx, v, other, in)
	if err != nil {
		return err
	}
	hit := in.Kills() && !v.Running() || v.Injected() > 0
	c.fig.point(in, hit)
	if !in.Kills() && !hit {
		c.note("not reached")
	}
	_ = v.End(syscall.SIGKILL)
	c.deaths++
	return c.after(ctx, primary == v, other)
}

// life is what the victim does until it dies: it returns who was Primary when writes
// began, nil if it did not come to that.
func (c *campaign) life(ctx context.Context, v, other *chaos.Host, in *chaos.Injection) (*chaos.Host, error) {
	if ok, err := c.recover(ctx, v, other, in); !ok || err != nil {
		return nil, err
	}
	if err := c.verify(); err != nil {
		return nil, err
	}
	c.deaths = 0
	next := c.victim
	if c.rng.IntN(5) < 2 {
		next = 1 - next
	}
	primary := c.pair.Hosts[next]
	if err := c.pair.SwitchTo(ctx, next); err != nil {
		if c.excused(v, in) {
			return nil, nil
		}
		return nil, err
	}
	if err := c.load(ctx, primary); err != nil && (primary == other || !c.died(v, in)) {
		// Whatever happens to the Secondary, or to the Primary's disk, is no concern
		// of its clients while the other copy is good.
		return nil, fmt.Errorf("a client of %s: %w", primary.Name, err)
	}
	if v.Running() && c.rng.IntN(4) == 0 {
		_ = v.End(syscall.SIGTERM) // the end in order has system calls too
	}
	return primary, nil
}

// recover waits until both disks are equal again. It is false if the injection has
// kept that from happening.
func (c *campaign) recover(ctx context.Context, v, other *chaos.Host, in *chaos.Injection) (bool, error) {
	for end := time.Now().Add(patience); ; time.Sleep(4 * time.Millisecond) {
		err := c.pair.WaitInSync(ctx, 0)
		switch {
		case err == nil:
			return true, nil
		case ctx.Err() != nil:
			return false, ctx.Err()
		case !other.Running():
			return false, fmt.Errorf("%s, to which nothing was done: %w", other.Name, chaos.ErrDied)
		case !v.Running():
			return false, c.excuse(v, in)
		case in.Errno != "" && v.Injected() > 0:
			return false, nil // no disk, and no way to get it before the next start
		case time.Now().After(end):
			return false, fmt.Errorf("not in sync after %v: %w", patience, err)
		}
	}
}

// excused says whether a command to the victim may fail: it is dead, or its disk.
func (c *campaign) excused(v *chaos.Host, in *chaos.Injection) bool {
	return c.died(v, in) || in.Errno != "" && v.Injected() > 0
}

// died says whether the injection has killed the victim. Its clients may know before we
// do: strace is the first to be told.
func (c *campaign) died(v *chaos.Host, in *chaos.Injection) bool {
	if in.Kills() && v.Running() {
		select {
		case <-v.Gone():
		case <-time.After(deathNews):
		}
	}
	return in.Kills() && !v.Running()
}

// excuse is an error if the victim has ended, and should not have.
func (c *campaign) excuse(v *chaos.Host, in *chaos.Injection) error {
	if in.Kills() || in.Errno != "" {
		return nil
	}
	return fmt.Errorf("%s ended by itself", v.Name)
}

// load has several clients write, and returns the first error that one of them saw.
func (c *campaign) load(ctx context.Context, h *chaos.Host) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	errs := make(chan error, killClients)
	for client := range uint64(killClients) {
		rng := rand.New(rand.NewPCG(c.rng.Uint64(), client))
		go func() { errs <- c.client(ctx, h, client, rng) }()
	}
	var first error
	for range killClients {
		if err := <-errs; err != nil && first == nil {
			first = err
		}
	}
	return first
}

// client writes blocks of its own in every extent, and flushes now and then.
func (c *campaign) client(ctx context.Context, h *chaos.Host, number uint64, rng *rand.Rand) error {
	conn, err := h.Dial(ctx)
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, conn.Abort) // a hang is an error
	defer stop()
	for range killWrites / 2 {
		first := rng.Uint64N(killExtents)*1024 + number*killSlice
		if err := c.ledger.Fill(ctx, conn, first, killSlice, 2); err != nil {
			return err
		}
		if rng.IntN(4) == 0 {
			if err := conn.Flush(); err != nil {
				return fmt.Errorf("flush: %w", err)
			}
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return conn.Close()
}

// after goes on without the victim: sometimes the other node takes over, sometimes it
// dies as well, sometimes nothing happens until the victim is back.
func (c *campaign) after(ctx context.Context, wasPrimary bool, other *chaos.Host) error {
	switch n := c.rng.IntN(10); {
	case n == 0:
		c.note("%s killed too", other.Name)
		_ = other.End(syscall.SIGKILL)
		return nil
	case n > 5 || !wasPrimary:
		return nil
	}
	c.note("%s takes over", other.Name)
	if _, err := other.WaitFor(ctx, patience, "loss of the peer", chaos.Lost); err != nil {
		return err
	}
	if err := other.Primary(ctx); err != nil {
		return c.refused(ctx, other, err)
	}
	conn, err := other.Dial(ctx)
	if err != nil {
		return err
	}
	defer conn.Abort()
	if err := c.ledger.Check(conn); err != nil {
		c.fig.lost.Add(1)
		return fmt.Errorf("%s after taking over: %w", other.Name, err)
	}
	c.fig.takeovers.Add(1)
	if err := c.load(ctx, other); err != nil {
		return fmt.Errorf("a client of %s, alone: %w", other.Name, err)
	}
	return nil
}

// refused is err, unless the survivor was right to refuse: the pair had parted by itself,
// on a machine that starves it, and its disk was being brought up to date.
func (c *campaign) refused(ctx context.Context, other *chaos.Host, err error) error {
	r, failed := other.Snapshot(ctx)
	if failed != nil || r.Volumes[0].Disk == "UpToDate" {
		return err
	}
	c.note("%s may not: %s", other.Name, r.Volumes[0].Disk)
	return nil
}

// settle lets the pair recover in peace and checks it.
func (c *campaign) settle(ctx context.Context) error {
	c.note("settle")
	for _, h := range c.pair.Hosts {
		if c.deaths > 0 || !h.Running() {
			_ = h.End(syscall.SIGKILL)
			if err := h.Start(nil); err != nil {
				return err
			}
		}
	}
	c.deaths = 0
	if err := c.pair.WaitInSync(ctx, patience); err != nil {
		return err
	}
	return c.verify()
}

// verify compares both disks, and one of them with what was acknowledged.
func (c *campaign) verify() error {
	differ, err := c.pair.Differences()
	if err != nil {
		return err
	}
	if len(differ) > 0 {
		c.fig.differences.Add(int64(len(differ)))
		return fmt.Errorf("both nodes say that they are in sync, %d blocks differ, the first at byte %d", len(differ), differ[0])
	}
	d, err := c.pair.Hosts[0].OpenDisk()
	if err != nil {
		return err
	}
	defer func() { _ = d.Close() }()
	if err := c.ledger.Check(d); err != nil {
		c.fig.lost.Add(1)
		return err
	}
	c.fig.checks.Add(1)
	writes, _ := c.ledger.Acknowledged()
	c.fig.acknowledge(c, writes)
	return nil
}

// note remembers what was done last.
func (c *campaign) note(format string, args ...any) {
	c.history = append(c.history, fmt.Sprintf(format, args...))
	c.history = c.history[max(0, len(c.history)-8):]
}
