//go:build interop

package interop

import (
	"bufio"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"
)

// A report collects what the machines' tests say. It prints one line for each scenario as
// soon as it is over, the log of those that fail, and a table in the end.
type report struct {
	out   io.Writer
	began time.Time

	mu       sync.Mutex
	verdicts map[string]verdictLine // guarded by mu, as are all below
	order    []string               // in which tests have ended
	versions string                 // of the machines' kernel and drbd
	died     bool                   // a process said that something failed, or ended otherwise
}

// verdictLine is the end of one test or subtest.
type verdictLine struct {
	over, passed bool
	seconds      float64
	parent       bool // of subtests, which are the scenarios
}

func newReport(out io.Writer) *report {
	return &report{out: out, began: time.Now(), verdicts: map[string]verdictLine{}}
}

// The lines of a test process with -test.v=test2json, which come when things happen.
var (
	runLine = regexp.MustCompile(`^=== RUN +(\S+)$`)
	endLine = regexp.MustCompile(`^ *--- (PASS|FAIL|SKIP): (\S+) \(([0-9.]+)s\)$`)
)

// versionMark begins the line in which a machine introduces itself.
const versionMark = "interop: machine runs "

// follow reads the output of one machine's tests until it ends, and copies it to raw.
func (r *report) follow(output io.Reader, raw io.Writer) error {
	var log []string // since the latest test began
	s := bufio.NewScanner(output)
	s.Buffer(nil, 1<<22)
	for s.Scan() {
		line := strings.TrimPrefix(s.Text(), "\x16") // test2json's mark
		if _, err := fmt.Fprintln(raw, line); err != nil {
			return err
		}
		if v, ok := strings.CutPrefix(line, versionMark); ok {
			r.mu.Lock()
			r.versions = v
			r.mu.Unlock()
		}
		if m := runLine.FindStringSubmatch(line); m != nil {
			log = log[:0]
			r.parentOf(m[1])
			continue
		}
		if m := endLine.FindStringSubmatch(line); m != nil {
			r.ended(m[2], m[1] == "PASS", m[3], log)
			log = log[:0]
			continue
		}
		if !strings.HasPrefix(line, "=== ") {
			log = append(log, line)
		}
	}
	if err := s.Err(); err != nil {
		return err
	}
	if len(log) > 0 && log[len(log)-1] != "PASS" { // the process died
		r.mu.Lock()
		defer r.mu.Unlock()
		r.print(log)
	}
	return nil
}

// parentOf notes that the parent of a subtest is none itself.
func (r *report) parentOf(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if i := strings.LastIndexByte(name, '/'); i >= 0 {
		r.verdicts[name[:i]] = verdictLine{parent: true}
	}
}

// ended notes the end of a test.
func (r *report) ended(name string, passed bool, took string, log []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	seconds, _ := strconv.ParseFloat(took, 64)
	old := r.verdicts[name]
	r.verdicts[name] = verdictLine{true, passed, seconds, old.parent}
	r.order = append(r.order, name)
	if old.parent && passed {
		return
	}
	group, _, _ := groupOf(name)
	word := "ok  "
	if !passed {
		word = "FAIL"
	}
	fmt.Fprintf(r.out, "%s  group %d  %6.1f s  %s\n", word, group, seconds, name)
	if !passed {
		r.print(log)
	}
}

func (r *report) print(log []string) {
	for _, line := range log {
		fmt.Fprintln(r.out, "      | "+line)
	}
}

// summary prints the table and returns whether all tests that were to run have passed.
func (r *report) summary(tests []string, machines int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	good := !r.died
	for _, name := range tests {
		v := r.verdicts[name]
		good = good && v.passed
		if !v.over {
			fmt.Fprintf(r.out, "FAIL  %s did not come to an end\n", name)
		}
	}
	type row struct {
		n, failed int
		seconds   float64
	}
	var rows [len(groupNames)]row
	var all row
	for _, name := range r.order {
		v := r.verdicts[name]
		if v.parent {
			continue
		}
		group, _, _ := groupOf(name)
		for _, w := range []*row{&rows[group], &all} {
			w.n++
			w.seconds += v.seconds
			if !v.passed {
				w.failed++
			}
		}
	}
	fmt.Fprintf(r.out, "\n%-40s %9s %7s %8s\n", "group", "scenarios", "failed", "seconds")
	for i, w := range rows {
		if w.n > 0 {
			fmt.Fprintf(r.out, "%d %-38s %9d %7d %8.0f\n", i, groupNames[i], w.n, w.failed, w.seconds)
		}
	}
	fmt.Fprintf(r.out, "%-40s %9d %7d %8.0f\n", "all", all.n, all.failed, all.seconds)
	fmt.Fprintf(r.out, "\n%s; %d machine(s) side by side, %v\n", r.versions, machines, time.Since(r.began).Round(time.Second))
	return good
}
