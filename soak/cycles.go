package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/replblk/replblk/internal/chaos"
	"github.com/replblk/replblk/internal/control"
	"github.com/replblk/replblk/internal/nbdclient"
)

// soakNet is the net section of the soak: it notices a silent peer within about a
// second, and a slow one within two.
const soakNet = "ping-int 1; ping-timeout 5; timeout 10; ko-count 2;"

// newsTime is how long a reset may take to be noticed by a daemon.
const newsTime = 20 * time.Millisecond

// soakOptions are those of run.
type soakOptions struct {
	binary   string
	dir      string
	duration time.Duration
	cycles   int // ends after so many, if it is not 0
	seed     uint64
}

// errOutvoted: the Primary had noticed the loss of its peer first, on a machine that
// starves both, and the witness has decided for it.
var errOutvoted = errors.New("the witness has chosen the other node")

// soaker is one pair in its cycles.
type soaker struct {
	fig     *figures
	ledger  *nbdclient.Ledger
	rng     *rand.Rand
	pair    *chaos.Pair
	primary int
	held    [registers]uint64 // what the registers hold between cycles
	notes   []string
}

// cycle is a fault under load, what heals it, and the comparison.
type cycle struct {
	*soaker
	hist   *history
	groups []*group
}

// soak breaks a pair and lets it heal, again and again.
func soak(ctx context.Context, o soakOptions) (fig *figures, err error) {
	s := &soaker{fig: newFigures(), ledger: nbdclient.NewLedger(), rng: rand.New(rand.NewPCG(o.seed, 0))}
	s.pair, err = chaos.NewPair(ctx, chaos.Options{Binary: o.binary, Dir: o.dir, SizeMiB: killDiskMiB, Net: soakNet, Links: true, Fence: true})
	if err != nil {
		return s.fig, err
	}
	defer func() {
		if err != nil && ctx.Err() == nil {
			keep := filepath.Join(os.TempDir(), fmt.Sprintf("soak-failed-%d", os.Getpid()))
			err = errors.Join(fmt.Errorf("%w\nlast cycles: %q\nlogs and disks are in %s", err, s.notes, keep), s.pair.Keep(keep))
		}
		err = errors.Join(err, s.pair.Close())
	}()
	if err := s.pair.Begin(ctx); err != nil {
		return s.fig, err
	}
	if err := s.pair.Hosts[0].Primary(ctx); err != nil {
		return s.fig, err
	}
	for end := time.Now().Add(o.duration); time.Now().Before(end) && ctx.Err() == nil; {
		if n := s.fig.cycles.Load(); o.cycles > 0 && n >= int64(o.cycles) {
			break
		}
		// Every fault once, then any of them.
		f := &faults[s.rng.IntN(len(faults))]
		if n := int(s.fig.cycles.Load()); n < len(faults) {
			f = &faults[n]
		}
		if err := s.cycle(ctx, f); err != nil && ctx.Err() == nil {
			return s.fig, fmt.Errorf("cycle %d, %s: %w", s.fig.cycles.Load(), f.name, err)
		}
	}
	return s.fig, nil
}

// cycle breaks the pair once.
func (s *soaker) cycle(ctx context.Context, f *fault) error {
	c := &cycle{soaker: s, hist: newHistory(s.held)}
	s.note("%s, %s is Primary", f.name, s.host().Name)
	c.load(ctx)
	pause(ctx, c.some(50, 200))
	err := f.inflict(ctx, c)
	outvoted := errors.Is(err, errOutvoted)
	if outvoted {
		err = c.revive()
	}
	if err == nil && !f.settled {
		pause(ctx, c.some(50, 600))
	}
	for _, p := range s.pair.Proxies {
		p.Heal()
	}
	for _, g := range c.groups {
		err = errors.Join(err, g.stop())
	}
	if err != nil {
		return err
	}
	s.fig.fault(f.name, !outvoted)
	if err := c.converge(ctx); err != nil {
		return err
	}
	s.fig.cycles.Add(1)
	return nil
}

// revive lets whoever was stopped or killed go on.
func (s *soaker) revive() error {
	for _, h := range s.pair.Hosts {
		h.Signal(syscall.SIGCONT)
		if h.Running() {
			continue
		}
		if err := h.Start(nil); err != nil {
			return err
		}
	}
	return nil
}

// host is the Primary.
func (s *soaker) host() *chaos.Host { return s.pair.Hosts[s.primary] }

// other is the Secondary.
func (s *soaker) other() *chaos.Host { return s.pair.Hosts[1-s.primary] }

// some is a time between so many milliseconds.
func (s *soaker) some(least, most int) time.Duration {
	return time.Duration(least+s.rng.IntN(most-least)) * time.Millisecond
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// load sends a group of clients to the Primary of the moment.
func (c *cycle) load(ctx context.Context) {
	c.groups = append(c.groups, startGroup(ctx, len(c.groups)%ledgerGroups, c.host(), c.ledger, c.hist, c.rng.Uint64()))
}

// takeOver makes the Secondary Primary, once it has noticed that it is alone.
func (c *cycle) takeOver(ctx context.Context) error {
	if _, err := c.other().WaitFor(ctx, patience, "loss of the peer", chaos.Lost); err != nil {
		return err
	}
	if err := c.other().Primary(ctx); err != nil {
		return c.outvoted(err)
	}
	c.primary = 1 - c.primary
	c.fig.takeovers.Add(1)
	return nil
}

// outvoted is why the Secondary was not promoted: err, or that the witness is for the Primary.
func (c *cycle) outvoted(err error) error {
	if c.pair.Chosen() == c.host().Name {
		return errOutvoted
	}
	return err
}

// converge waits until both copies are the same, and checks everything.
func (c *cycle) converge(ctx context.Context) error {
	for _, h := range c.pair.Hosts {
		if !h.Running() {
			return fmt.Errorf("%s: %w", h.Name, chaos.ErrDied)
		}
	}
	if err := c.rest(ctx); err != nil {
		return err
	}
	if err := c.pair.Pardon(); err != nil {
		return err
	}
	if r, err := c.host().Snapshot(ctx); err != nil || r.Role != "Primary" {
		if err := errors.Join(err, c.host().Primary(ctx)); err != nil {
			return err
		}
	}
	if err := c.judge(ctx); err != nil {
		c.fig.lost.Add(1)
		return err
	}
	differ, err := c.compare(ctx)
	if err != nil {
		return err
	}
	if len(differ) > 0 {
		c.fig.differences.Add(int64(len(differ)))
		return fmt.Errorf("both nodes say that they are in sync, %d blocks differ, the first at byte %d", len(differ), differ[0])
	}
	c.fig.checks.Add(1)
	writes, _ := c.ledger.Acknowledged()
	c.fig.acknowledge(c.soaker, writes)
	return nil
}

// rest waits until both nodes are in sync and nothing is under way.
func (c *cycle) rest(ctx context.Context) error {
	if err := c.pair.WaitInSync(ctx, patience); err != nil {
		return err
	}
	idle := func(r *control.Resource) bool {
		return r.InFlight == 0 && r.Volumes[0].LocalPending == 0 && r.Volumes[0].PeerPending == 0
	}
	for _, h := range c.pair.Hosts {
		if _, err := h.WaitFor(ctx, patience, "rest", idle); err != nil {
			return err
		}
	}
	return nil
}

// compare compares the disks while both nodes say that they are equal. Who has not
// heard yet that the connection was reset, which is how the weather heals, says so too.
func (c *cycle) compare(ctx context.Context) ([]uint64, error) {
	for {
		before, err := c.connections(ctx)
		if err != nil {
			return nil, err
		}
		if err := c.rest(ctx); err != nil {
			return nil, err
		}
		pause(ctx, newsTime)
		differ, err := c.pair.Differences()
		if err != nil {
			return nil, err
		}
		after, err := c.connections(ctx)
		if err != nil || after == before {
			return differ, err
		}
	}
}

// connections returns twice how many connections there have been, and one more if there is
// none.
func (c *cycle) connections(ctx context.Context) ([2]uint64, error) {
	var n [2]uint64
	for i, h := range c.pair.Hosts {
		r, err := h.Snapshot(ctx)
		if err != nil {
			return n, err
		}
		if n[i] = 2 * r.Reconnects; r.Connection != "Connected" {
			n[i]++
		}
	}
	return n, nil
}

// judge asks both checkers: the ledger, and porcupine about the registers.
func (c *cycle) judge(ctx context.Context) error {
	conn, err := c.host().Dial(ctx)
	if err != nil {
		return err
	}
	defer conn.Abort()
	if err := c.ledger.Check(conn); err != nil {
		return err
	}
	buf := make([]byte, registerSize)
	for i := range c.held {
		called := c.hist.now()
		if err := conn.Read(buf, uint64(registerFirst+i*registerStep)); err != nil {
			return err
		}
		if c.held[i], err = readRegister(buf); err != nil {
			return err
		}
		c.hist.add(-1, access{register: i}, c.held[i], called)
	}
	n, err := c.hist.check()
	c.fig.judged.Add(int64(n))
	return err
}

// note remembers what was done last.
func (s *soaker) note(format string, args ...any) {
	s.notes = append(s.notes, fmt.Sprintf(format, args...))
	s.notes = s.notes[max(0, len(s.notes)-6):]
}

// shoot ends a host that is stopped, as a cluster manager that shoots it does.
func shoot(h *chaos.Host) {
	h.Signal(syscall.SIGCONT)
	_ = h.End(syscall.SIGKILL)
}
