package main

import (
	"context"
	"syscall"
	"time"

	"github.com/replblk/replblk/internal/chaos"
)

// fault is what is done to a pair under load, and undone.
type fault struct {
	name    string
	inflict func(context.Context, *cycle) error
	// settled: inflict has undone it already. Otherwise it lasts a while, and ends with
	// the weather.
	settled bool
}

// faults are all that soak knows. None of them may lose an acknowledged write.
var faults = []fault{
	{"kill the Primary, take over", killTakeOver, true},
	{"kill the Primary, it returns", killReturn, true},
	{"kill the Secondary", killSecondary, true},
	{"kill both", killBoth, true},
	{"stop the Secondary", stopSecondary, true},
	{"stop the Primary past a takeover", zombie, true},
	{"stop the Primary for a moment", stopPrimary, true},
	{"exchange roles", exchange, true},
	{"cut", cut, false},
	{"flap", flap, false},
	{"reset in the middle of a packet", resetMiddle, false},
	{"silence one way", silence, false},
	{"silence both ways", silenceBoth, false},
	{"stall one way", stall, false},
	{"delay", delay, false},
	{"no way back", refuse, false},
}

func killTakeOver(ctx context.Context, c *cycle) error {
	old := c.host()
	_ = old.End(syscall.SIGKILL)
	if err := c.takeOver(ctx); err != nil {
		return err
	}
	c.groups[0].moveTo(c.host())
	pause(ctx, c.some(20, 200))
	return old.Start(nil)
}

func killReturn(ctx context.Context, c *cycle) error {
	_ = c.host().End(syscall.SIGKILL)
	pause(ctx, c.some(1, 400))
	return c.host().Start(nil)
}

func killSecondary(ctx context.Context, c *cycle) error {
	_ = c.other().End(syscall.SIGKILL)
	pause(ctx, c.some(20, 400))
	return c.other().Start(nil)
}

func killBoth(ctx context.Context, c *cycle) error {
	first, second := c.host(), c.other()
	if c.rng.IntN(2) == 0 {
		first, second = second, first
	}
	first.Signal(syscall.SIGKILL)
	_ = second.End(syscall.SIGKILL)
	_ = first.End(syscall.SIGKILL)
	if err := second.Start(nil); err != nil {
		return err
	}
	pause(ctx, c.some(1, 100))
	return first.Start(nil)
}

func stopSecondary(ctx context.Context, c *cycle) error {
	c.other().Signal(syscall.SIGSTOP)
	pause(ctx, c.some(50, 4000))
	c.other().Signal(syscall.SIGCONT)
	return nil
}

func stopPrimary(ctx context.Context, c *cycle) error {
	c.host().Signal(syscall.SIGSTOP)
	pause(ctx, c.some(50, 3000))
	c.host().Signal(syscall.SIGCONT)
	return nil
}

// zombie stops the Primary until the other node has taken over, and lets it run
// again before it is shot. Nothing that it answers then may be wrong. It finds no peer:
// two Primaries that meet refuse each other, and that is another story.
func zombie(ctx context.Context, c *cycle) error {
	old := c.host()
	old.Signal(syscall.SIGSTOP)
	if err := c.takeOver(ctx); err != nil {
		return err
	}
	c.load(ctx)
	pause(ctx, c.some(100, 300))
	for _, p := range c.pair.Proxies {
		p.Refuse(true)
	}
	old.Signal(syscall.SIGCONT)
	pause(ctx, c.some(100, 1500))
	shoot(old)
	return old.Start(nil)
}

func exchange(ctx context.Context, c *cycle) error {
	if err := c.pair.SwitchTo(ctx, 1-c.primary); err != nil {
		return c.outvoted(err)
	}
	c.primary = 1 - c.primary
	c.groups[0].moveTo(c.host())
	pause(ctx, c.some(20, 100))
	return nil
}

func cut(_ context.Context, c *cycle) error {
	for _, p := range c.pair.Proxies {
		p.Cut()
	}
	return nil
}

func flap(ctx context.Context, c *cycle) error {
	for range 20 {
		_ = cut(ctx, c)
		pause(ctx, c.some(1, 60))
	}
	return nil
}

func resetMiddle(_ context.Context, c *cycle) error {
	c.blow(c.rng.IntN(2), chaos.Weather{Reset: 1 + c.rng.IntN(200000)})
	return nil
}

func silence(ctx context.Context, c *cycle) error {
	c.blow(c.rng.IntN(2), chaos.Weather{Silence: true})
	pause(ctx, c.some(100, 3000))
	return nil
}

func silenceBoth(ctx context.Context, c *cycle) error {
	c.blow(0, chaos.Weather{Silence: true})
	c.blow(1, chaos.Weather{Silence: true})
	pause(ctx, c.some(100, 3000))
	return nil
}

func stall(ctx context.Context, c *cycle) error {
	c.blow(c.rng.IntN(2), chaos.Weather{Stall: true})
	pause(ctx, c.some(100, 3000))
	return nil
}

func delay(_ context.Context, c *cycle) error {
	c.blow(c.rng.IntN(2), chaos.Weather{Delay: c.some(1, 80)})
	return nil
}

func refuse(ctx context.Context, c *cycle) error {
	for _, p := range c.pair.Proxies {
		p.Refuse(true)
		p.Cut()
	}
	pause(ctx, time.Second)
	return nil
}

// blow sets the weather of what one node sends, whoever dialled the connection.
func (c *cycle) blow(from int, w chaos.Weather) {
	c.pair.Proxies[from].Set(chaos.Forth, w)
	c.pair.Proxies[1-from].Set(chaos.Back, w)
}
