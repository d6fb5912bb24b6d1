// Command mutants plants bugs in the core, one at a time, and looks whether the tests
// notice. Run it from the root of the repository:
//
//	go run ./sim/mutants              every mutant
//	go run ./sim/mutants -fast        those that are found within seconds; part of make test
//	go run ./sim/mutants -v al-early  one, with the output of what found it
//
// A mutant is a file in sim/mutants:
//
//	class: A activity log            catalogue class, and scenarios it stands for
//	fast                             it belongs to the fast subset (optional)
//	by: sim 3000                     seeds until it must be found, or
//	by: ./replication TestCompare.*  tests of a package that must fail; tried in order
//	--- replication/al.go
//	<<<<                             text that occurs exactly once in the file
//	====                             what it is replaced by
//	>>>>
//
// The mutated file is only ever seen by the compiler (go build -overlay): the
// product has no switch for it. A mutant that does not apply is a failure, and one that
// is not found is a hole in the tests.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
)

func main() {
	fast := flag.Bool("fast", false, "only the fast subset")
	verbose := flag.Bool("v", false, "print what found a mutant")
	flag.Parse()
	if err := run(*fast, *verbose, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "mutants:", err)
		os.Exit(1)
	}
}

func run(fast, verbose bool, names []string) error {
	list, err := load("sim/mutants", fast, names)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "mutants")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }() // nothing of it is needed afterwards
	found, start := 0, time.Now()
	for _, m := range list {
		began := time.Now()
		how, err := m.hunt(dir, verbose)
		if err != nil {
			return fmt.Errorf("%s: %w", m.name, err)
		}
		word := "found"
		if how == "" {
			word = "NOT FOUND"
		} else {
			found++
		}
		fmt.Printf("%-22s %-34s %-9s %5.1f s  %s\n", m.name, m.class, word, time.Since(began).Seconds(), how)
	}
	fmt.Printf("%d of %d mutants found in %.0f s\n", found, len(list), time.Since(start).Seconds())
	if found < len(list) {
		return fmt.Errorf("%d mutants survive: the tests have a hole", len(list)-found)
	}
	return nil
}

// mutant is one planted bug.
type mutant struct {
	name  string
	class string
	fast  bool
	by    []string
	edits []edit
}

// edit is a replacement in a file.
type edit struct{ file, old, new string }

func load(dir string, fast bool, names []string) ([]mutant, error) {
	paths, err := filepath.Glob(filepath.Join(dir, "*.mutant"))
	if err != nil {
		return nil, err
	}
	var list []mutant
	for _, p := range paths {
		text, err := os.ReadFile(p)
		if err != nil {
			return nil, err
		}
		m, err := parse(strings.TrimSuffix(filepath.Base(p), ".mutant"), string(text))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", p, err)
		}
		if wanted(m, fast, names) {
			list = append(list, m)
		}
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("no mutant in %s matches %v", dir, names)
	}
	return list, nil
}

func wanted(m mutant, fast bool, names []string) bool {
	if len(names) == 0 {
		return m.fast || !fast
	}
	for _, n := range names {
		if strings.HasPrefix(m.name, n) {
			return true
		}
	}
	return false
}

// parse reads a mutant's file.
func parse(name, text string) (mutant, error) {
	m := mutant{name: name}
	file, part := "", ""
	var e edit
	for line := range strings.Lines(text) {
		word := strings.TrimRight(line, "\n")
		switch {
		case word == "<<<<" && part == "" && file != "":
			part, e = "old", edit{file: file}
		case word == "====" && part == "old":
			part = "new"
		case word == ">>>>" && part == "new":
			m.edits, part = append(m.edits, e), ""
		case part == "old":
			e.old += line
		case part == "new":
			e.new += line
		case strings.HasPrefix(word, "--- "):
			file = word[4:]
		case strings.HasPrefix(word, "class: "):
			m.class = word[7:]
		case strings.HasPrefix(word, "by: "):
			m.by = append(m.by, word[4:])
		case word == "fast":
			m.fast = true
		case word != "" && !strings.HasPrefix(word, "#"):
			return m, fmt.Errorf("unknown line %q", word)
		}
	}
	if m.class == "" || len(m.by) == 0 || len(m.edits) == 0 || part != "" {
		return m, errors.New("class, by or the replacement is missing")
	}
	return m, nil
}

// overlay writes the mutated files and the list of them for the compiler.
func (m *mutant) overlay(dir string) (string, error) {
	files := map[string]string{}
	for _, e := range m.edits {
		text, ok := files[e.file]
		if !ok {
			b, err := os.ReadFile(e.file)
			if err != nil {
				return "", err
			}
			text = string(b)
		}
		if n := strings.Count(text, e.old); n != 1 {
			return "", fmt.Errorf("does not apply: %d places in %s with\n%s", n, e.file, e.old)
		}
		files[e.file] = strings.Replace(text, e.old, e.new, 1)
	}
	root, err := os.Getwd()
	if err != nil {
		return "", err
	}
	replace := map[string]string{}
	for file, text := range files {
		to := filepath.Join(dir, m.name+"-"+strings.ReplaceAll(file, "/", "-"))
		if err := os.WriteFile(to, []byte(text), 0o600); err != nil {
			return "", err
		}
		replace[filepath.Join(root, file)] = to
	}
	list, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, m.name+".json")
	return path, os.WriteFile(path, list, 0o600)
}

// hunt looks for the first of the tests that fails. It returns "" if none does.
func (m *mutant) hunt(dir string, verbose bool) (how string, err error) {
	overlay, err := m.overlay(dir)
	if err != nil {
		return "", err
	}
	for _, by := range m.by {
		pkg, args, err := detector(by)
		if err != nil {
			return "", err
		}
		bin := filepath.Join(dir, "test")
		if out, err := exec.Command("go", "test", "-vet=off", "-overlay", overlay, "-ldflags=-s -w", "-c", "-o", bin, pkg).CombinedOutput(); err != nil {
			return "", fmt.Errorf("does not compile: %w\n%s", err, out)
		}
		cmd := exec.Command(bin, args...)
		cmd.Dir = pkg
		out, err := cmd.CombinedOutput()
		if verbose {
			fmt.Printf("%s", out)
		}
		var exit *exec.ExitError
		switch {
		case errors.As(err, &exit):
			if healthy, err := passesWithout(dir, pkg, string(out)); !healthy || err != nil {
				return "", err
			}
			return pkg + ": " + reason(string(out)), nil
		case err != nil:
			return "", err
		}
	}
	return "", nil
}

// passesWithout says whether the seed that a mutant fails with passes without the mutant. A
// seed that fails either way has found nothing.
func passesWithout(dir, pkg, out string) (bool, error) {
	seed := seedNumber.FindStringSubmatch(out)
	if seed == nil {
		return true, nil // tests that fail without a mutant are noticed elsewhere
	}
	bin := filepath.Join(dir, "healthy")
	if _, err := os.Stat(bin); err != nil {
		if out, err := exec.Command("go", "test", "-vet=off", "-ldflags=-s -w", "-c", "-o", bin, pkg).CombinedOutput(); err != nil {
			return false, fmt.Errorf("does not compile: %w\n%s", err, out)
		}
	}
	cmd := exec.Command(bin, "-test.run=TestSim$", "-sim.seed="+seed[1], "-sim.shrink=false")
	cmd.Dir = pkg
	err := cmd.Run()
	if _, failed := errors.AsType[*exec.ExitError](err); failed {
		return false, nil
	}
	return err == nil, err
}

// detector turns a line of a mutant's file into a package and the arguments of its
// test binary.
func detector(by string) (pkg string, args []string, err error) {
	f := strings.Fields(by)
	if len(f) == 2 && f[0] == "sim" {
		if _, err := strconv.Atoi(f[1]); err != nil {
			return "", nil, err
		}
		return "./sim", []string{"-test.run=TestSim$", "-sim.runs=" + f[1], "-sim.shrink=false", "-test.timeout=60m"}, nil
	}
	if len(f) == 2 && strings.HasPrefix(f[0], "./") {
		return f[0], []string{"-test.run=" + f[1], "-test.failfast", "-test.timeout=60m"}, nil
	}
	return "", nil, fmt.Errorf("by: %q", by)
}

var (
	seedLine   = regexp.MustCompile(`(?m)seed \d+: .*$`)
	seedNumber = regexp.MustCompile(`(?m)seed (\d+): .*$`)
	failLine   = regexp.MustCompile(`(?m)^\s*--- FAIL: .*$|^panic: .*$`)
)

// reason is the line of a test's output that says what went wrong.
func reason(out string) string {
	line := seedLine.FindString(out)
	if line == "" {
		line = strings.TrimSpace(failLine.FindString(out))
	}
	if len(line) > 110 {
		line = line[:110]
	}
	return line
}
