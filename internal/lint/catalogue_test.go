package lint

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// sections are those of the fault catalogue and how many scenarios each has.
var sections = []struct {
	letter string
	count  int
}{
	{"W", 24}, {"A", 18}, {"B", 18}, {"M", 15}, {"H", 21}, {"R", 24}, {"U", 21}, {"S", 15}, {"P", 14},
	{"Z", 11}, {"D", 21}, {"L", 10}, {"N", 20}, {"F", 14}, {"E", 14}, {"O", 14}, {"X", 17}, {"V", 8},
}

// dangerous are the scenarios that lose data silently: none of them may be without a
// test.
var dangerous = strings.Fields(`W09 W10 W11 W12 W13 W14 A03 A04 A05 A06 A07 A08 A09 A10 A11 A12 A13 B06 B07 B08 B09 B10 B14 B15 B16
	M02 M09 R03 R04 R05 R06 R07 R08 R21 R22 U04 U05 U06 U07 U08 U19 U20 U21 D03 D06 D07 D08 L01 L02 L03 L04 O02 O03 X06`)

// scenario is a line of docs/catalogue.txt.
type scenario struct {
	tests []string
	none  bool   // cannot arise
	open  string // what is missing, "" if nothing is
}

// parseCatalogue reads the text of docs/catalogue.txt.
func parseCatalogue(text string) (map[string]scenario, error) {
	all := make(map[string]scenario)
	for i, line := range strings.Split(text, "\n") {
		words := strings.Fields(line)
		if len(words) == 0 || strings.HasPrefix(words[0], "#") {
			continue
		}
		var s scenario
		for j, word := range words[1:] {
			if word == "open" {
				s.open = strings.Join(words[j+2:], " ")
				if s.open == "" {
					return nil, fmt.Errorf("line %d: %s is open, and nothing is missing", i+1, words[0])
				}
				break
			}
			if word == "none" {
				s.none = true
				continue
			}
			s.tests = append(s.tests, word)
		}
		if _, twice := all[words[0]]; twice {
			return nil, fmt.Errorf("line %d: %s a second time", i+1, words[0])
		}
		if s.none == (len(s.tests) > 0 || s.open != "") {
			return nil, fmt.Errorf("line %d: %s has tests, or is open, or cannot arise", i+1, words[0])
		}
		all[words[0]] = s
	}
	return all, nil
}

// testNames returns the tests and fuzz targets of the module as "package.Name".
func testNames(t *testing.T) map[string]bool {
	t.Helper()
	root := filepath.Join("..", "..")
	files, err := filepath.Glob(filepath.Join(root, "*", "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, pattern := range []string{"*/*/*_test.go", "interop/*.go"} {
		more, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, more...)
	}
	names := make(map[string]bool)
	for _, path := range files {
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		pkg, err := filepath.Rel(root, filepath.Dir(path))
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range f.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil && regexp.MustCompile(`^(Test|Fuzz)[A-Z]`).MatchString(fn.Name.Name) {
				names[filepath.ToSlash(pkg)+"."+fn.Name.Name] = true
			}
		}
	}
	return names
}

func readDoc(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// Every scenario of the fault catalogue has a test that exists, or is said to be open, or
// cannot arise for a reason that docs/testing.md gives. -v prints the counts.
func TestCatalogue(t *testing.T) {
	all, err := parseCatalogue(readDoc(t, "catalogue.txt"))
	if err != nil {
		t.Fatal(err)
	}
	names, reasons := testNames(t), readDoc(t, "testing.md")
	known := 0
	tested, part, none, open := 0, 0, 0, 0
	for _, section := range sections {
		for i := range section.count {
			id := fmt.Sprintf("%s%02d", section.letter, i+1)
			s, ok := all[id]
			if !ok {
				t.Errorf("%s is not in docs/catalogue.txt", id)
				continue
			}
			known++
			switch {
			case s.none:
				none++
				if !regexp.MustCompile(`(?m)^- .*\b` + id + `\b.*: `).MatchString(reasons) {
					t.Errorf("%s cannot arise, and docs/testing.md does not say why", id)
				}
			case len(s.tests) == 0:
				open++
				if slices.Contains(dangerous, id) {
					t.Errorf("%s loses data silently and has no test", id)
				}
			case s.open != "":
				part++
			default:
				tested++
			}
			for _, name := range s.tests {
				top, _, _ := strings.Cut(name[strings.LastIndex(name, ".")+1:], "/")
				if !names[name[:strings.LastIndex(name, ".")+1]+top] {
					t.Errorf("%s: there is no test %s", id, name)
				}
			}
		}
	}
	if known != len(all) {
		t.Errorf("docs/catalogue.txt has %d ids, %d of them are in the catalogue", len(all), known)
	}
	t.Logf("fault catalogue: %d scenarios: %d tested, %d in part, %d cannot arise, %d open", known, tested, part, none, open)
}

func TestCatalogueIsParsed(t *testing.T) {
	for text, ok := range map[string]bool{
		"W01 a.TestX b.TestY":        true,
		"W01 a.TestX open the rest":  true,
		"W01 open everything":        true,
		"W01 none\n# comment\n\n":    true,
		"W01":                        false,
		"W01 open":                   false,
		"W01 a.TestX none":           false,
		"W01 none open a bit":        false,
		"W01 a.TestX\nW01 a.TestY\n": false,
	} {
		if _, err := parseCatalogue(text); (err == nil) != ok {
			t.Errorf("%q: %v", text, err)
		}
	}
}
