package sim

import (
	"flag"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"sync"
	"testing"
	"time"
)

var (
	simSeed    = flag.Uint64("sim.seed", 0, "run this seed only")
	simRuns    = flag.Int("sim.runs", 400, "number of seeds")
	simFirst   = flag.Uint64("sim.first", 1, "first seed")
	simVerbose = flag.Bool("sim.v", false, "print the trace of -sim.seed")
	simAll     = flag.Bool("sim.all", false, "do not stop at the first failing seed")
)

// TestSim runs seeds. With a failure it prints how to reproduce it.
func TestSim(t *testing.T) {
	if *simSeed != 0 {
		res := Run(*simSeed, NoMutant, true)
		if *simVerbose {
			for _, l := range res.Trace {
				fmt.Fprintln(os.Stdout, l)
			}
		}
		if res.Err != nil {
			t.Fatal(res.Report())
		}
		t.Logf("seed %d: %d events, %d faults, hash %016x\n%v", *simSeed, res.Events, res.Faults, res.Hash, res.Options)
		return
	}
	start := time.Now()
	events, faults, failed := sweep(t, *simFirst, *simRuns)
	took := time.Since(start).Seconds()
	t.Logf("%d scenarios in %.1f s (%.0f/s), %.0f events/s, %d faults, %d failed", *simRuns, took, float64(*simRuns)/took,
		float64(events)/took, faults, failed)
}

// sweep runs seeds on all processors.
func sweep(t *testing.T, first uint64, runs int) (events, faults, failed int) {
	defer debug.SetGCPercent(debug.SetGCPercent(800))
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
				faults += res.Faults
				if res.Err != nil {
					failed++
					if *simAll {
						t.Errorf("seed %d: %v", first+uint64(i), res.Err)
					} else {
						again := Run(first+uint64(i), NoMutant, true)
						t.Error(again.Report())
					}
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return events, faults, failed
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
