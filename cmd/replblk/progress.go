package main

import (
	"sync"
	"time"

	"github.com/replblk/replblk/internal/control"
	"github.com/replblk/replblk/replication/state"
)

const (
	// markInterval and marks make the window over which the rate is measured: the
	// kernel looks back about 18 s.
	markInterval = time.Second
	marks        = 18

	// stallTime is how long nothing may happen before a resync counts as stalled.
	stallTime = 10 * time.Second
)

// progress remembers how much was left of each running resync or verify, to tell its
// rate.
type progress struct {
	mu   sync.Mutex
	runs map[uint16]*syncRun // guarded by mu; by volume
}

type syncRun struct {
	began, moved time.Time
	total, last  uint64
	marks        []mark // oldest first
}

type mark struct {
	at   time.Time
	left uint64
}

// changed follows the state of a volume.
func (p *progress) changed(vol uint16, old, now state.Conn) {
	runs := func(c state.Conn) bool { return c.Resync() || c.Verify() }
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case runs(now) && !runs(old):
		if p.runs == nil {
			p.runs = make(map[uint16]*syncRun)
		}
		t := time.Now()
		p.runs[vol] = &syncRun{began: t, moved: t}
	case !runs(now):
		delete(p.runs, vol)
	}
}

func (p *progress) forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.runs = nil
}

// busy says whether anything is running.
func (p *progress) busy() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.runs) > 0
}

// look tells how far a volume is, of which left bytes out of total are left; nil if
// nothing is running.
func (p *progress) look(vol uint16, total, left uint64) *control.Resync {
	p.mu.Lock()
	defer p.mu.Unlock()
	run := p.runs[vol]
	if run == nil {
		return nil
	}
	return run.look(time.Now(), total, left)
}

func (run *syncRun) look(now time.Time, total, left uint64) *control.Resync {
	run.total = max(run.total, total, left)
	if left != run.last {
		run.last, run.moved = left, now
	}
	if n := len(run.marks); n == 0 || now.Sub(run.marks[n-1].at) >= markInterval {
		run.marks = append(run.marks, mark{now, left})
		if len(run.marks) > marks {
			run.marks = run.marks[1:]
		}
	}
	s := &control.Resync{Total: run.total, Left: left, Seconds: now.Sub(run.began).Seconds(), Stalled: now.Sub(run.moved) > stallTime}
	s.Rate = rate(run.marks[0].left, left, now.Sub(run.marks[0].at))
	s.Average = rate(run.total, left, now.Sub(run.began))
	return s
}

func rate(from, to uint64, d time.Duration) float64 {
	if from <= to || d <= 0 {
		return 0
	}
	return float64(from-to) / d.Seconds()
}
