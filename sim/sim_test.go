package sim

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/replblk/replblk/replication"
)

var (
	simSeed    = flag.Uint64("sim.seed", 0, "run this seed only")
	simRuns    = flag.Int("sim.runs", 400, "number of seeds")
	simFirst   = flag.Uint64("sim.first", 1, "first seed")
	simVerbose = flag.Bool("sim.v", false, "print the trace of -sim.seed")
	simPlan    = flag.String("sim.plan", "", "replay this plan file")
	simAll     = flag.Bool("sim.all", false, "do not stop at the first failing seed")
	simShrink  = flag.Bool("sim.shrink", true, "shrink the plan of a failing seed")
)

// TestSim runs seeds. With a failure it prints how to reproduce it.
func TestSim(t *testing.T) {
	switch {
	case *simPlan != "":
		replay(t, readPlan(t, *simPlan))
		return
	case *simSeed != 0:
		replay(t, Draw(*simSeed))
		return
	}
	start, cpu := time.Now(), cpuSeconds(t)
	events, f, failed := sweep(t, *simFirst, *simRuns)
	took, used := time.Since(start).Seconds(), cpuSeconds(t)-cpu
	t.Logf("%d scenarios in %.1f s (%.0f/s), %d events (%.0f/s), %d faults (%.0f per CPU-second), %d failed", f.Runs, took,
		float64(f.Runs)/took, events, float64(events)/took, f.Total(), float64(f.Total())/used, failed)
	t.Logf("faults by kind: %v; full resyncs that a bitmap could have avoided: %d; longest transient state: %.1f s",
		f.Faults, f.FullSyncs, float64(f.Longest)/float64(replication.Second))
}

// cpuSeconds is how much processor time this process has used.
func cpuSeconds(t *testing.T) float64 {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return float64(u.Utime.Sec+u.Stime.Sec) + float64(u.Utime.Usec+u.Stime.Usec)/1e6
}

// replay runs one scenario and prints all about it.
func replay(t *testing.T, s Scenario) {
	res := s.run(NoMutant, true)
	if *simVerbose {
		for _, l := range res.Trace {
			fmt.Fprintln(os.Stdout, l)
		}
	}
	if res.Err != nil {
		t.Fatal(res.Report() + shrunk(s))
	}
	t.Logf("seed %d: %d events, %d faults, hash %016x\n%v", s.Options.Seed, res.Events, res.Figures.Total(), res.Hash, s)
}

// shrunk is the smallest plan found that fails as s does, ready to be saved.
func shrunk(s Scenario) string {
	if !*simShrink {
		return ""
	}
	small := Shrink(s, NoMutant, 400)
	return fmt.Sprintf("shrunk from %d faults to %d: %v\n%vto be saved in sim/testdata/plans, replayed by -sim.plan=FILE\n",
		len(s.Faults), len(small.Faults), small.run(NoMutant, false).Err, small)
}

func readPlan(t *testing.T, path string) Scenario {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	s, err := ParsePlan(text)
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return s
}

// TestPlans runs the fault plans of bugs that have been mended.
func TestPlans(t *testing.T) {
	paths, err := filepath.Glob("testdata/plans/*.plan")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no plans: %v", err)
	}
	for _, p := range paths {
		s := readPlan(t, p)
		if res := s.run(NoMutant, false); res.Err != nil {
			t.Errorf("%s: %v", p, res.Err)
		}
	}
}

// TestPlanFormat: what a plan file says is what was drawn.
func TestPlanFormat(t *testing.T) {
	for seed := uint64(1); seed <= 50; seed++ {
		s := Draw(seed)
		back, err := ParsePlan([]byte(s.String()))
		if err != nil || back.String() != s.String() {
			t.Fatalf("seed %d: %v\n%v\n%v", seed, err, s, back)
		}
	}
	for _, bad := range []string{"", "options {", "options {}", "1.5 kill 1", "1.000000000 nothing 1", "x kill 1"} {
		if _, err := ParsePlan([]byte(bad)); err == nil {
			t.Errorf("%q is taken for a plan", bad)
		}
	}
}

// TestShrink: a plan of many faults shrinks to those that a planted bug needs.
func TestShrink(t *testing.T) {
	for seed := uint64(1); seed < 1000; seed++ {
		s := Draw(seed)
		if len(s.Faults) < 8 || s.run(FlushErrorIgnored, false).Err == nil {
			continue
		}
		small := Shrink(s, FlushErrorIgnored, 200)
		if small.run(FlushErrorIgnored, false).Err == nil || len(small.Faults) > len(s.Faults)/3 {
			t.Errorf("seed %d: %d faults shrink to %v", seed, len(s.Faults), small)
		}
		return
	}
	t.Error("no seed finds the planted bug")
}

// sweep runs seeds on all processors.
func sweep(t *testing.T, first uint64, runs int) (events int, f Figures, failed int) {
	defer debug.SetGCPercent(debug.SetGCPercent(2000))
	var mu sync.Mutex
	var wg sync.WaitGroup
	next := 0
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for {
				mu.Lock()
				i := next
				next++
				stop := i >= runs || failed > 0 && !*simAll
				mu.Unlock()
				if stop {
					return
				}
				res := Run(first+uint64(i), NoMutant, false)
				mu.Lock()
				events += res.Events
				f.Add(res.Figures)
				if res.Err != nil {
					failed++
					if *simAll {
						t.Errorf("seed %d: %v", first+uint64(i), res.Err)
					} else {
						again := Run(first+uint64(i), NoMutant, true)
						t.Error(again.Report() + shrunk(again.Scenario))
					}
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return events, f, failed
}

// TestSameSeedSameTrace: a run is a function of its seed.
func TestSameSeedSameTrace(t *testing.T) {
	for seed := uint64(1); seed <= 20; seed++ {
		a, b := Run(seed, NoMutant, false), Run(seed, NoMutant, true)
		if a.Hash != b.Hash || a.Events != b.Events {
			t.Errorf("seed %d: traces %016x and %016x, %d and %d events", seed, a.Hash, b.Hash, a.Events, b.Events)
		}
	}
}

// TestMutantsAreFound: the checker fails if the driver is wrong.
func TestMutantsAreFound(t *testing.T) {
	const budget = 300
	for m := NoMutant + 1; m < numMutants; m++ {
		t.Run(m.String(), func(t *testing.T) {
			for seed := uint64(1); seed <= budget; seed++ {
				if res := Run(seed, m, false); res.Err != nil && Run(seed, NoMutant, false).Err == nil {
					t.Logf("seed %d: %.200v", seed, res.Err)
					return
				}
			}
			t.Errorf("not found in %d seeds", budget)
		})
	}
}
