// Command pairs says which events a core has never been given in which states. Run it from
// the root of the repository:
//
//	go run ./sim/pairs          run the tests and the simulator, and count
//	go run ./sim/pairs -v       and list what never happened
//	go run ./sim/pairs -d DIR   count what is in DIR already
//
// States are those that occur at all. rules.go says which events cannot occur in which of
// them, and which are answers to what the core has asked for. Of the others no more than -max
// may be missing.
package main

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"slices"

	"github.com/replblk/replblk/internal/pairs"
)

func main() {
	verbose := flag.Bool("v", false, "list the pairs that never occurred")
	dir := flag.String("d", "", "folder with records; empty: run the tests")
	runs := flag.Int("runs", 2000, "seeds of the simulator")
	limit := flag.Int("max", 1<<30, "pairs that may be missing")
	flag.Parse()
	if err := run(*dir, *runs, *limit, *verbose); err != nil {
		fmt.Fprintln(os.Stderr, "pairs:", err)
		os.Exit(1)
	}
}

func run(dir string, runs, limit int, verbose bool) error {
	if dir == "" {
		var err error
		if dir, err = os.MkdirTemp("", "pairs"); err != nil {
			return err
		}
		defer func() { _ = os.RemoveAll(dir) }() // nothing of it is needed afterwards
		if err := tests(dir, runs); err != nil {
			return err
		}
	}
	set, err := pairs.Read(dir)
	if err != nil {
		return err
	}
	r := count(set)
	r.print(verbose)
	if n := len(r.outside.never); n > limit {
		return fmt.Errorf("%d events from outside never came in a state, at most %d are expected", n, limit)
	}
	return nil
}

// tests runs what records pairs.
func tests(dir string, runs int) error {
	for _, args := range [][]string{
		{"./replication"},
		{"./sim", "-run", "TestSim$|TestPlans|TestCrash|TestTwo|TestSplit", "-args", fmt.Sprintf("-sim.runs=%d", runs)},
	} {
		cmd := exec.Command("go", append([]string{"test", "-count=1", "-timeout=30m"}, args...)...)
		cmd.Env = append(os.Environ(), pairs.Dir+"="+dir)
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
		if err := cmd.Run(); err != nil {
			return err
		}
	}
	return nil
}

// report is what came out, for events from outside and for answers.
type report struct {
	states  int
	outside tally
	answers tally
}

type tally struct {
	possible int
	reached  int
	never    []pair
}

type pair struct {
	state pairs.State
	event pairs.Event
}

// count compares what occurred with what can.
func count(set pairs.Set) report {
	r := report{states: len(set)}
	for _, s := range slices.Sorted(maps.Keys(set)) {
		for e := range pairs.Event(pairs.Events()) {
			t := &r.outside
			if answer(e) {
				t = &r.answers
			}
			switch can, did := !impossible(s, e), set[s][e]; {
			case can && did:
				t.possible++
				t.reached++
			case can:
				t.possible++
				t.never = append(t.never, pair{s, e})
			}
		}
	}
	return r
}

func (r *report) print(verbose bool) {
	fmt.Printf("%d states (connection, role, disk) occur\n", r.states)
	r.outside.print("events from outside", verbose)
	r.answers.print("answers to what the core has asked for", verbose)
}

// print lists the states of which something is missing.
func (t *tally) print(what string, verbose bool) {
	if verbose {
		for i, p := range t.never {
			if i == 0 || t.never[i-1].state != p.state {
				fmt.Printf("\nnever in %v:", p.state)
			}
			fmt.Printf(" %v,", p.event)
		}
		fmt.Println()
	}
	fmt.Printf("%s: %d pairs with a state can occur, %d did (%.1f %%), %d never\n",
		what, t.possible, t.reached, 100*float64(t.reached)/float64(max(t.possible, 1)), len(t.never))
}
