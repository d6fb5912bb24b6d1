package sim

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"

	"github.com/replblk/replblk/replication"
)

// Scenario is everything a run depends on: the same scenario gives the same trace.
type Scenario struct {
	Options Options
	Faults  []Fault // in order of time
}

// Fault is one thing that goes wrong, or an unusual thing that an operator does.
type Fault struct {
	At   replication.Time
	Kind string // a name in faultKinds
	Seed uint64 // its details come from here, so that other faults can be taken away
}

// faultKinds are the faults by name.
var faultKinds = map[string]func(o *operator, r *rand.Rand){
	"kill":    func(o *operator, r *rand.Rand) { o.crash(r, false) },
	"power":   func(o *operator, r *rand.Rand) { o.crash(r, true) },
	"cut":     (*operator).cut,
	"stall":   (*operator).stall,
	"garbage": (*operator).garbage,
	"intrude": (*operator).intrude,
	"disk":    (*operator).diskError,
	"hang":    (*operator).hang,
	"latent":  (*operator).latent,
	"pause":   (*operator).pause,
	"clock":   (*operator).clockJump,
	"switch":  (*operator).switchRoles,
	"admin":   (*operator).meddle,
	"grow":    (*operator).grow,
}

// swarm lists the kinds of faults with their mean interval as a multiple of the usual one.
// The order is part of what a seed means.
var swarm = []struct {
	kind   string
	rarity replication.Time
}{{"kill", 1}, {"power", 1}, {"cut", 1}, {"disk", 1}, {"switch", 1}, {"admin", 1},
	{"stall", 1}, {"garbage", 2}, {"intrude", 2}, {"hang", 1}, {"latent", 2}, {"pause", 1}, {"clock", 2}, {"grow", 1}}

// Draw expands a seed. Options, faults and what happens in the run come from streams of
// their own, so a plan with fewer faults is still about the same cluster.
func Draw(seed uint64) Scenario {
	s := Scenario{Options: draw(seed, rand.New(rand.NewPCG(seed, 1)))}
	r := rand.New(rand.NewPCG(seed, 2))
	for _, k := range swarm {
		if r.IntN(100) < 40 {
			continue // this run is without it
		}
		mean := k.rarity * between(r, 100*replication.Millisecond, 1500*replication.Millisecond)
		for at := between(r, mean/10, 2*mean); at < s.Options.Duration; at += between(r, mean/10, 2*mean) {
			s.Faults = append(s.Faults, Fault{at, k.kind, r.Uint64() >> 32})
		}
	}
	slices.SortStableFunc(s.Faults, func(a, b Fault) int { return int(a.At - b.At) })
	return s
}

// String writes a scenario in the format of a plan file: options in JSON, then a
// fault per line.
func (s Scenario) String() string {
	opt, err := json.Marshal(s.Options)
	if err != nil {
		return err.Error()
	}
	var b strings.Builder
	fmt.Fprintf(&b, "options %s\n", opt)
	for _, f := range s.Faults {
		fmt.Fprintf(&b, "%d.%09d %s %x\n", f.At/replication.Second, f.At%replication.Second, f.Kind, f.Seed)
	}
	return b.String()
}

// ParsePlan reads what String writes. Lines that begin with # are comments.
func ParsePlan(text []byte) (s Scenario, err error) {
	in := bufio.NewScanner(bytes.NewReader(text))
	for in.Scan() {
		line := strings.TrimSpace(in.Text())
		if rest, ok := strings.CutPrefix(line, "options "); ok {
			if err := json.Unmarshal([]byte(rest), &s.Options); err != nil {
				return s, fmt.Errorf("options: %w", err)
			}
			continue
		}
		if line == "" || line[0] == '#' {
			continue
		}
		f, err := parseFault(line)
		if err != nil {
			return s, err
		}
		s.Faults = append(s.Faults, f)
	}
	if s.Options.Sectors == 0 {
		return s, fmt.Errorf("plan has no options")
	}
	return s, in.Err()
}

func parseFault(line string) (f Fault, err error) {
	w := strings.Fields(line)
	if len(w) != 3 || faultKinds[w[1]] == nil {
		return f, fmt.Errorf("not a fault: %q", line)
	}
	sec, ns, _ := strings.Cut(w[0], ".")
	a, err := strconv.ParseInt(sec, 10, 32)
	if err != nil {
		return f, err
	}
	b, err := strconv.ParseInt(ns, 10, 32)
	if err != nil || len(ns) != 9 {
		return f, fmt.Errorf("not a time with nine digits: %q", w[0])
	}
	seed, err := strconv.ParseUint(w[2], 16, 64)
	return Fault{replication.Time(a)*replication.Second + replication.Time(b), w[1], seed}, err
}

// Shrink looks for a smaller scenario that fails in the same way: it takes faults away
// as long as it still does, then whatever follows the failure, and tries simpler
// options. At most tries runs are made.
func Shrink(s Scenario, m Mutant, tries int) Scenario {
	want := symptom(s.run(m, false).Err)
	fails := func(t Scenario) bool {
		if tries <= 0 {
			return false
		}
		tries--
		return symptom(t.run(m, false).Err) == want
	}
	if want == "" {
		return s
	}
	for n := (len(s.Faults) + 1) / 2; n > 0; n /= 2 {
		for i := 0; i < len(s.Faults); {
			t := s
			t.Faults = slices.Delete(slices.Clone(s.Faults), i, min(i+n, len(s.Faults)))
			if fails(t) {
				s = t
			} else {
				i += n
			}
		}
	}
	for _, simpler := range simplifications {
		t := s
		simpler(&t.Options)
		if t.Options != s.Options && fails(t) {
			s = t
		}
	}
	return s
}

// simplifications make a scenario easier to read.
var simplifications = []func(*Options){
	func(o *Options) { o.CrashAgain = false },
	func(o *Options) { o.Duration /= 2 },
	func(o *Options) { o.ReadPart, o.TrimPart = 0, 0 },
	func(o *Options) { o.FlushPart, o.FUAPart = 0, 0 },
	func(o *Options) { o.HotBlocks = 1 },
	func(o *Options) { o.Depth = 1 },
	func(o *Options) { o.MetaSkew = 0 },
	func(o *Options) { o.SurviveShuffle, o.Separate = false, false },
	func(o *Options) { o.Drift = [2]int{} },
}

// symptom is what failures of one kind have in common: the text without numbers.
func symptom(err error) string {
	if err == nil {
		return ""
	}
	text, _, _ := strings.Cut(err.Error(), "\n")
	clean := strings.Map(func(c rune) rune {
		if c >= '0' && c <= '9' {
			return -1
		}
		return c
	}, text)
	return clean[:min(len(clean), 24)]
}
