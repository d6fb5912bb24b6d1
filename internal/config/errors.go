package config

import (
	"fmt"
	"slices"
	"strings"
)

// Pos is a place in a configuration file. Line and Col start at 1; Col counts
// bytes, so that it is the same in every editor's byte view.
type Pos struct {
	File string
	Line int
	Col  int
}

// String prints file:line:column, as compilers do.
func (p Pos) String() string { return fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Col) }

// Error is one thing wrong in a configuration file.
type Error struct {
	// Pos is where Word stands.
	Pos Pos
	// Word is the offending word as written, without its quotes.
	Word string
	// Problem says what is wrong; empty if Expected says it all.
	Problem string
	// Expected says what could have stood here; may be empty.
	Expected string
	// Hint is a suggestion, such as the nearest known word; may be empty.
	Hint string
}

// Error prints `file:line:col: "word": problem, expected …; hint`.
func (e *Error) Error() string {
	var s strings.Builder
	fmt.Fprintf(&s, "%s: ", e.Pos)
	if e.Word == "" {
		s.WriteString("end of file")
	} else {
		fmt.Fprintf(&s, "%q", e.Word)
	}
	sep := ": "
	if e.Problem != "" {
		s.WriteString(sep + e.Problem)
		sep = ", "
	}
	if e.Expected != "" {
		s.WriteString(sep + "expected " + e.Expected)
	}
	if e.Hint != "" {
		s.WriteString("; " + e.Hint)
	}
	return s.String()
}

// ErrorList is every error found in one reading, at least one, at most maxErrors.
type ErrorList []*Error

// Error prints one error per line.
func (l ErrorList) Error() string {
	lines := make([]string, len(l))
	for i, e := range l {
		lines[i] = e.Error()
	}
	return strings.Join(lines, "\n")
}

// Unwrap lets errors.As reach each *Error.
func (l ErrorList) Unwrap() []error {
	errs := make([]error, len(l))
	for i, e := range l {
		errs[i] = e
	}
	return errs
}

// Warning is something accepted that does not do what its writer may think:
// a deprecated spelling, an option without effect, a value that is overridden.
type Warning struct {
	Pos  Pos
	Word string
	Text string
}

// String prints `file:line:col: "word": text`.
func (w Warning) String() string { return fmt.Sprintf("%s: %q: %s", w.Pos, w.Word, w.Text) }

// maxErrors bounds an ErrorList: a file in another language would otherwise
// produce an error per word.
const maxErrors = 20

// reporter collects errors and warnings for one reading.
type reporter struct {
	errs     ErrorList
	warnings []Warning
}

// fail records an error about w, once: what is inherited by two hosts is wrong in
// both of them. Beyond maxErrors it is dropped, not the reading
// stopped: the list is long enough to be believed.
func (r *reporter) fail(w Word, problem, expected, hint string) {
	e := Error{Pos: w.Pos, Word: w.Text, Problem: problem, Expected: expected, Hint: hint}
	if len(r.errs) < maxErrors && !slices.ContainsFunc(r.errs, func(o *Error) bool { return *o == e }) {
		r.errs = append(r.errs, &e)
	}
}

// full reports whether more errors would be dropped. Loops over statements stop
// then: looking for suggestions for a million unknown words takes minutes.
func (r *reporter) full() bool { return len(r.errs) == maxErrors }

func (r *reporter) warn(w Word, format string, args ...any) {
	const maxWarnings = 1000
	if len(r.warnings) < maxWarnings {
		r.warnings = append(r.warnings, Warning{Pos: w.Pos, Word: w.Text, Text: fmt.Sprintf(format, args...)})
	}
}

// err is the collected errors as an error, nil if there are none.
func (r *reporter) err() error {
	if len(r.errs) == 0 {
		return nil
	}
	return r.errs
}

// didYouMean suggests the known word nearest to got, or nothing if none is near.
func didYouMean(got string, known []string) string {
	if len(got) < 3 {
		return "" // anything is near
	}
	best, bestDistance := "", max(1, min(len(got)/3, 3))+1
	for _, k := range known {
		if d := editDistance(got, k); d < bestDistance {
			best, bestDistance = k, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf("did you mean %q?", best)
}

// editDistance counts the insertions, deletions, replacements and swaps of
// neighbours between two words. Swaps count once: they are the commonest slip.
func editDistance(a, b string) int {
	if len(a) > 64 || len(b) > 64 {
		return 64 // no option is that long, and the table below is quadratic
	}
	var prev2 []int
	prev := make([]int, len(b)+1)
	for j := range prev {
		prev[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row := make([]int, len(b)+1)
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(prev[j]+1, row[j-1]+1, prev[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], prev2[j-2]+1)
			}
		}
		prev2, prev = prev, row
	}
	return prev[len(b)]
}

// oneOf joins words as drbdadm does in its messages: "a | b | c".
func oneOf(words []string) string { return strings.Join(words, " | ") }
