package sim

import (
	"flag"
	"fmt"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/replblk/replblk/replication"
	"github.com/replblk/replblk/replication/state"
)

var crashStride = flag.Int("sim.stride", 40, "crash at every event whose number divides by this")

// crashVariants is how a crash can go: three choices of nodes, and for each the end of the
// process and three losses of power, in which nothing, half or all of the cache survives.
const crashVariants = 12

// TestCrashAtEveryEvent runs scripted scenarios up to every event, crashes there in every
// variant, and lets the cluster recover. Of two runs one crashes again in the recovery.
func TestCrashAtEveryEvent(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(2000)) // as sweep: half of the time otherwise
	var runs, events atomic.Int64
	var wg sync.WaitGroup
	gate := make(chan struct{}, runtime.GOMAXPROCS(0))
	for name, s := range crashScripts() {
		length := eventsOf(t, s)
		events.Add(int64(length))
		wg.Go(func() {
			gate <- struct{}{}
			defer func() { <-gate }()
			for step := 1; step <= length; step += *crashStride {
				for v := range crashVariants {
					runs.Add(1)
					if err := s.crashAt(step, v, v%2 == step/(*crashStride)%2); err != nil {
						t.Errorf("%s: crash at event %d, variant %d: %v\n%v", name, step, v, err, s)
						return
					}
				}
			}
		})
	}
	wg.Wait()
	t.Logf("%d scripts of %d events, %d crashes", len(crashScripts()), events.Load(), runs.Load())
}

// crashScripts are short runs, each with one thing happening in it.
func crashScripts() map[string]Scenario {
	list := map[string]Scenario{}
	add := func(name string, change func(*Options), faults ...Fault) {
		s := Draw(uint64(1000 + len(list)))
		o := &s.Options
		*o = Options{Seed: o.Seed, Protocol: replication.ProtocolC, Sectors: 2 * 8192, Extents: 7, Separate: len(list)%2 == 0, UseRLE: true,
			HotBlocks: 6, HotSpan: 32, Depth: 4, MaxSectors: 16, Think: replication.Millisecond, FlushPart: 0.05, FUAPart: 0.1,
			Duration: 120 * replication.Millisecond, DiskLatency: 500 * microsecond, NetLatency: 200 * microsecond,
			Rate: 900_000, MaxEpochSize: 64, SurviveShuffle: len(list)%3 == 0}
		if change != nil {
			change(o)
		}
		s.Faults = faults
		list[name] = s
	}
	const ms = replication.Millisecond
	fault := func(at replication.Time, kind string, seed uint64) Fault { return Fault{at * ms, kind, seed} }
	add("writes", nil)
	add("writes through a cache on one device", func(o *Options) { o.Separate = false })
	add("flushes", func(o *Options) { o.FlushPart, o.FUAPart = 0.4, 0.3 })
	add("many extents", func(o *Options) { o.Sectors, o.HotBlocks, o.Extents = 75*8192, 80, 7 })
	add("discards", func(o *Options) { o.TrimPart = 0.3 })
	add("overlapping writes", func(o *Options) { o.HotBlocks, o.HotSpan = 1, 8 })
	add("large writes", func(o *Options) { o.MaxSectors = 256 })
	add("epochs of one write", func(o *Options) { o.MaxEpochSize = 1 })
	add("first sync", func(o *Options) { o.BlankPeer = true })
	add("protocol A", func(o *Options) { o.Protocol = replication.ProtocolA })
	add("protocol B", func(o *Options) { o.Protocol = replication.ProtocolB })
	add("link lost", nil, fault(60, "cut", 3))
	add("link lost twice", nil, fault(50, "cut", 5), fault(90, "cut", 6))
	add("silence", nil, fault(60, "cut", 1))
	add("switch", nil, fault(60, "switch", 1))
	add("disk fails", nil, fault(60, "disk", 2))
	add("another disk fails", nil, fault(60, "disk", 9))
	add("disk hangs", nil, fault(60, "hang", 4))
	add("fencing", func(o *Options) { o.Fencing = state.ResourceOnly }, fault(60, "cut", 3))
	add("checksums", func(o *Options) { o.Csums = true }, fault(50, "cut", 3), fault(80, "cut", 8))
	add("stall", nil, fault(60, "stall", 2))
	return list
}

// eventsOf counts the events of a script that nothing disturbs.
func eventsOf(t *testing.T, s Scenario) int {
	t.Helper()
	w := newWorld(s, NoMutant, false)
	w.begin()
	w.run(s.Options.Duration, func() bool { return false })
	if w.err != nil {
		t.Fatal(w.err)
	}
	return w.steps
}

// crashAt runs a script, crashes before an event, and recovers.
func (s Scenario) crashAt(step, variant int, again bool) (err error) {
	w := newWorld(s, NoMutant, false)
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	w.begin()
	w.run(s.Options.Duration, func() bool { return w.steps >= step-1 })
	w.crash(variant)
	w.check.covered()
	if again {
		w.healing = true
		w.op.heal()
		stop := w.steps + step%211
		w.run(w.now+10*replication.Second, func() bool { return w.steps >= stop })
		w.crash(variant * 7 % crashVariants)
		w.check.covered()
	}
	w.heal()
	return w.err
}

// crash ends one node or both as variant says.
func (w *world) crash(variant int) {
	if w.err != nil {
		return
	}
	for i, n := range w.nodes {
		if nodes := variant / 4; nodes != 2 && nodes != i {
			continue
		}
		if kind := variant % 4; kind == 0 {
			n.kill()
		} else {
			w.survive = kind
			n.powerLoss()
		}
	}
}
