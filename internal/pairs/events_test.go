package pairs

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// constants returns the names of the constants of a type in the order of the source, without
// the prefix that they share.
func constants(t *testing.T, file, typ, prefix string) (names []string) {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), filepath.FromSlash(file), nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range f.Decls {
		group, ok := d.(*ast.GenDecl)
		if !ok || group.Tok != token.CONST {
			continue
		}
		of := ""
		for _, s := range group.Specs {
			c := s.(*ast.ValueSpec)
			switch id, ok := c.Type.(*ast.Ident); {
			case ok:
				of = id.Name
			case len(c.Values) > 0: // not one of an iota group
				of = ""
			}
			if of == typ {
				names = append(names, strings.TrimPrefix(c.Names[0].Name, prefix))
			}
		}
	}
	return names
}

// words spells a name in CamelCase with dashes.
func words(name string) string {
	return strings.ToLower(regexp.MustCompile(`([a-z])([A-Z])`).ReplaceAllString(name, "$1-$2"))
}

// TestNumbersAreThoseOfReplication: the tables here repeat constants of a package that this one
// must not import. What is added, removed or moved there would else be recorded under the name
// of another event, or not at all.
func TestNumbersAreThoseOfReplication(t *testing.T) {
	const step = "../../replication/step.go"
	spelt := func(typ, prefix string) (list []string) {
		for _, name := range constants(t, step, typ, prefix) {
			list = append(list, words(name))
		}
		return list
	}
	for _, c := range []struct {
		what       string
		have, want []string
	}{
		{"kinds", constants(t, "events.go", "Kind", ""), constants(t, step, "EventKind", "Ev")},
		{"operations", opNames[1:], spelt("Op", "Op")},
		{"commands", adminNames[1:], spelt("AdminKind", "Admin")},
	} {
		if len(c.want) == 0 || !slices.Equal(c.have, c.want) {
			t.Errorf("%s: %v here, %v there", c.what, c.have, c.want)
		}
	}
	if len(kindNames) != int(lastKind)+1 || slices.Contains(kindNames[1:], "") {
		t.Errorf("names of %d kinds for %d: %q", len(kindNames)-1, lastKind, kindNames)
	}
}
