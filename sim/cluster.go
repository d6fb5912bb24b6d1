package sim

import (
	"fmt"
	"math/rand/v2"
	"runtime/debug"
	"strings"

	"github.com/replblk/replblk/replication"
)

// world is one run: two nodes and everything around them. It has one goroutine,
// and every decision comes from rng.
type world struct {
	opt    Options
	plan   []Fault
	mutant Mutant
	rng    *rand.Rand // what happens in the run; faults have their own
	now    replication.Time
	queue  eventQueue
	seq    uint64

	nodes   [2]*node
	net     network
	client  client
	oracle  oracle
	check   checker
	op      operator
	healing bool
	survive int // of the caches at the next loss of power: 1 nothing, 2 half, 3 all; 0 drawn
	steps   int
	figures Figures
	scratch []byte
	digest  [512]byte // memory to compute one

	hash  uint64
	lines []string // the last lines of the trace, if verbose
	keep  bool
	err   error
}

// fail ends the run with the first thing that is wrong.
func (w *world) fail(format string, args ...any) {
	if w.err != nil {
		return
	}
	w.err = fmt.Errorf(format, args...)
	w.trace("FAIL", -1, 0, 0)
}

// trace adds a line to the trace: always to its hash, to its text if it is wanted.
func (w *world) trace(what string, node int, a, b uint64) {
	h := w.hash
	for i := range len(what) {
		h = (h ^ uint64(what[i])) * 1099511628211
	}
	for _, x := range [...]uint64{uint64(w.now), uint64(node), a, b} {
		h = (h ^ x) * 1099511628211
		h ^= h >> 29
	}
	w.hash = h
	if w.keep {
		w.line("%s %d %d", what, a, b, nodeName(node))
	}
}

// line adds a line to the text only. The last argument is the name of the node.
func (w *world) line(format string, args ...any) {
	last := len(args) - 1
	w.lines = append(w.lines, fmt.Sprintf("%12.6f %s ", float64(w.now)/1e9, args[last])+fmt.Sprintf(format, args[:last]...))
	if len(w.lines) > 20000 {
		w.lines = append(w.lines[:0], w.lines[10000:]...)
	}
}

func nodeName(n int) string {
	if n < 0 {
		return "-"
	}
	return string(rune('A' + n))
}

// Result is what a run says.
type Result struct {
	Scenario Scenario
	Hash     uint64
	Events   int
	Figures  Figures
	Err      error
	Trace    []string // if asked for
}

// Report is the text for a failed run.
func (r *Result) Report() string {
	var b strings.Builder
	seed := r.Scenario.Options.Seed
	fmt.Fprintf(&b, "seed %d: %v\ntrace hash: %016x, %d events\n%v", seed, r.Err, r.Hash, r.Events, r.Scenario)
	tail := r.Trace
	if len(tail) > 200 {
		tail = tail[len(tail)-200:]
	}
	for _, l := range tail {
		b.WriteString(l)
		b.WriteByte('\n')
	}
	fmt.Fprintf(&b, "reproduce: go test ./sim -run TestSim -sim.seed=%d -sim.v\n", seed)
	return b.String()
}

// Run simulates the scenario of a seed with a mutant (none: NoMutant). With text the
// trace is kept as text as well.
func Run(seed uint64, m Mutant, text bool) Result { return Draw(seed).run(m, text) }

func (s Scenario) run(m Mutant, text bool) (res Result) {
	w := newWorld(s, m, text)
	defer func() {
		if p := recover(); p != nil {
			w.err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
		res = Result{s, w.hash, w.steps, w.figures, w.err, w.lines}
	}()
	w.scenario()
	return res
}

func newWorld(s Scenario, m Mutant, text bool) *world {
	rng := rand.New(rand.NewPCG(s.Options.Seed, 3))
	w := &world{opt: s.Options, plan: s.Faults, mutant: m, rng: rng, keep: text, hash: 14695981039346656037,
		figures: Figures{Faults: map[string]int{}}}
	w.check.init(w)
	w.oracle.init(w)
	w.net.w, w.client.w, w.op.w = w, w, w
	w.client.init()
	for i := range w.nodes {
		w.nodes[i] = newNode(w, i)
	}
	return w
}

// begin starts everything.
func (w *world) begin() {
	w.nodes[0].boot()
	w.nodes[1].boot()
	w.op.start()
	w.client.start()
}

// scenario is the course of a run.
func (w *world) scenario() {
	w.begin()
	w.run(w.opt.Duration, func() bool { return false })
	w.heal()
	w.rot()
	if w.opt.CrashAgain && w.err == nil {
		for _, n := range w.nodes {
			n.powerLoss()
		}
		w.heal()
	}
}

// heal repairs everything and waits until the copies are equal (Q1 to Q5).
func (w *world) heal() {
	if w.err != nil {
		return
	}
	w.healing = true
	w.trace("heal", -1, 0, 0)
	w.op.heal()
	const bound = 30 * replication.Second
	limit := w.now + bound
	for w.err == nil && w.now < limit {
		w.run(limit, w.settled)
		since := w.now
		w.run(w.now+replication.Second/2, func() bool { return false }) // what is in flight arrives
		if w.settled() && w.now > since {
			break
		}
	}
	if w.err == nil && !w.settled() {
		w.fail("not in sync %d s after the last fault: %s", bound/replication.Second, w.describe())
	}
	w.quiescent()
}

// settled says whether the copies are in sync and nothing is in progress.
func (w *world) settled() bool {
	if !w.oracle.inSync || !w.net.good() || w.client.outstanding() > 0 || !w.op.idle() {
		return false
	}
	for _, n := range w.nodes { // under protocol A much may be on its way
		if n.conn.out[replication.DataSocket].arrives > w.now || n.pausedUntil > w.now {
			return false // the other socket is never at rest: pings
		}
		vol := n.core.Status().Volumes[0]
		if len(n.dev.inflight) > 0 || vol.PeerPending > 0 || vol.OutOfSync > 0 {
			return false
		}
	}
	return true
}

func (w *world) describe() string {
	var b strings.Builder
	for _, n := range w.nodes {
		fmt.Fprintf(&b, "%s: ", nodeName(n.id))
		if !n.up {
			b.WriteString("down; ")
			continue
		}
		fmt.Fprintf(&b, "%v, %d bits, connection wanted %v, %d meta ops, %d disk ops; ", n.core.State(0), n.core.Status().Volumes[0].OutOfSync, n.want, len(n.dev.queue), len(n.dev.inflight))
	}
	fmt.Fprintf(&b, "%d requests outstanding, operator idle %v", w.client.outstanding(), w.op.idle())
	return b.String()
}
