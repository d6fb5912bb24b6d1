package lint

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// tree is what documents may refer to.
type tree struct {
	dirs    []string        // at the top
	files   []string        // paths from the root
	names   map[string]bool // last parts of paths
	targets []string        // of the Makefile
	tests   []string        // names of test and fuzz functions
}

var testFunction = regexp.MustCompile(`(?m)^func ((?:Test|Fuzz|Benchmark)\w+)\(`)

// readTree walks the repository without what is built or fetched.
func readTree(t *testing.T) *tree {
	t.Helper()
	root := filepath.Join("..", "..")
	r := &tree{names: map[string]bool{}}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil || rel == "." {
			return err
		}
		top := !strings.Contains(rel, string(filepath.Separator))
		if d.IsDir() && (strings.HasPrefix(d.Name(), ".") || top && d.Name() == "bin") {
			return filepath.SkipDir
		}
		if d.IsDir() && top {
			r.dirs = append(r.dirs, rel)
		}
		r.files = append(r.files, filepath.ToSlash(rel))
		r.names[d.Name()] = true
		if strings.HasSuffix(rel, "_test.go") {
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			for _, m := range testFunction.FindAllStringSubmatch(string(text), -1) {
				r.tests = append(r.tests, m[1])
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	makefile, err := os.ReadFile(filepath.Join(root, "Makefile"))
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`(?m)^([a-z-]+):`).FindAllStringSubmatch(string(makefile), -1) {
		r.targets = append(r.targets, m[1])
	}
	return r
}

var (
	quoted   = regexp.MustCompile("`([^`\n]+)`")
	pathWord = regexp.MustCompile(`^(?:\./)?[\w.-]+(?:/[\w.*-]+)*/?$`)
	makeWord = regexp.MustCompile(`^(?:[A-Z]+=\S+ )*make ([a-z-]+)`)
	testWord = regexp.MustCompile(`-run '?((?:Test|Fuzz)\w+)|^((?:Test|Fuzz)[A-Z]\w+)$`)
)

// missing says what of a word in backticks does not exist, "" if all does. Words that are
// neither a path below one of our folders, nor a Go file, a target of make or a test are not
// looked at.
func (r *tree) missing(word string) string {
	if m := makeWord.FindStringSubmatch(word); m != nil && !slices.Contains(r.targets, m[1]) {
		return "target " + m[1] + " of make"
	}
	for _, m := range testWord.FindAllStringSubmatch(word, -1) {
		name := m[1] + m[2]
		if !slices.ContainsFunc(r.tests, func(t string) bool { return strings.HasPrefix(t, name) }) {
			return "test " + name
		}
	}
	for w := range strings.FieldsSeq(word) {
		if !pathWord.MatchString(w) {
			continue
		}
		w = strings.TrimSuffix(strings.TrimPrefix(w, "./"), "/")
		top, _, below := strings.Cut(w, "/")
		switch {
		case below && slices.Contains(r.dirs, top):
			made := strings.HasPrefix(w, "bench/out")
			if !made && !slices.ContainsFunc(r.files, func(f string) bool { ok, err := filepath.Match(w, f); return ok && err == nil }) {
				return "path " + w
			}
		case !below && strings.HasSuffix(w, ".go"):
			if !r.names[w] {
				return "file " + w
			}
		}
	}
	return ""
}

// history speaks of commits as they were.
var history = []string{"CHANGELOG.md", "track-record.md"}

// TestDocumentsNameWhatThereIs: a file that is renamed, or a test, or a target of make, is
// renamed in what describes it.
func TestDocumentsNameWhatThereIs(t *testing.T) {
	r := readTree(t)
	for _, pattern := range []string{"*.md", "docs/*.md", "bench/*.md"} {
		list, err := filepath.Glob(filepath.Join("..", "..", filepath.FromSlash(pattern)))
		if err != nil || len(list) == 0 {
			t.Fatalf("%s: %d documents, %v", pattern, len(list), err)
		}
		for _, path := range list {
			if slices.Contains(history, filepath.Base(path)) {
				continue
			}
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			for i, line := range strings.Split(string(text), "\n") {
				for _, m := range quoted.FindAllStringSubmatch(line, -1) {
					if what := r.missing(m[1]); what != "" {
						t.Errorf("%s:%d: there is no %s", path, i+1, what)
					}
				}
			}
		}
	}
}
