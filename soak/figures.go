package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/replblk/replblk/internal/chaos"
)

// figures count what a run did and found. All methods may be called from any goroutine.
type figures struct {
	began time.Time

	checks      atomic.Int64 // comparisons of both disks and of what was acknowledged
	takeovers   atomic.Int64
	cycles      atomic.Int64
	lost        atomic.Int64
	differences atomic.Int64
	judged      atomic.Int64 // operations that porcupine has judged

	mu     sync.Mutex
	acked  map[any]int    // guarded by mu: acknowledged writes by who counts them
	tried  map[string]int // guarded by mu: faults by name
	struck map[string]int // guarded by mu: those that hit
}

func newFigures() *figures {
	return &figures{began: time.Now(), acked: make(map[any]int), tried: make(map[string]int), struck: make(map[string]int)}
}

// acknowledge sets the number of writes that a ledger has seen acknowledged.
func (f *figures) acknowledge(who any, writes int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.acked[who] = writes
}

// fault counts a fault that was tried, and whether it came about.
func (f *figures) fault(name string, hit bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.tried[name]++
	if hit {
		f.struck[name]++
	}
}

// point counts a kill point.
func (f *figures) point(in *chaos.Injection, hit bool) {
	name := "SIGKILL"
	switch {
	case in.Errno != "":
		name = in.Errno
	case in.Delay > 0:
		name = "delay"
	}
	f.fault(name+" at "+in.Calls, hit)
}

// faults returns how many faults were tried and came about.
func (f *figures) faults() (tried, struck int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for name, n := range f.tried {
		tried += n
		struck += f.struck[name]
	}
	return tried, struck
}

// writes returns the number of acknowledged writes.
func (f *figures) writes() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := 0
	for _, w := range f.acked {
		n += w
	}
	return n
}

// print writes the table.
func (f *figures) print(w io.Writer) {
	tried, struck := f.faults()
	d := time.Since(f.began)
	fmt.Fprintf(w, "%-44s %9s %9s\n", "fault", "tried", "hit")
	f.mu.Lock()
	for _, name := range slices.Sorted(maps.Keys(f.tried)) {
		fmt.Fprintf(w, "  %-42s %9d %9d\n", name, f.tried[name], f.struck[name])
	}
	f.mu.Unlock()
	fmt.Fprintf(w, "  %-42s %9d %9d\n", "all", tried, struck)
	for _, line := range []struct {
		what string
		n    int64
	}{
		{"cycles", f.cycles.Load()},
		{"takeovers", f.takeovers.Load()},
		{"comparisons of disks and ledger", f.checks.Load()},
		{"operations judged by porcupine", f.judged.Load()},
		{"acknowledged writes", int64(f.writes())},
		{"acknowledged writes lost", f.lost.Load()},
		{"blocks that differ", f.differences.Load()},
	} {
		fmt.Fprintf(w, "%-44s %9d\n", line.what, line.n)
	}
	fmt.Fprintf(w, "%-44s %9s (%.1f faults a second)\n", "time", d.Round(time.Second), float64(tried)/d.Seconds())
}
