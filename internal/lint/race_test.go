package lint

import (
	"go/ast"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// unraced have goroutines and do not run under the race detector: programs for tests and
// measurements, and what is only used by those.
var unraced = []string{"sim", "soak", "bench", "bench/vm", "demo", "interop", "interop/lab/ledger", "internal/pairs", "internal/loopback", "internal/nbdclient", "aoe/aoetest"}

// TestSharedStateIsRaced: whatever starts goroutines or guards something against them is tested
// under the race detector (RACED of the Makefile), and nothing else.
func TestSharedStateIsRaced(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "Makefile"))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "\nRACED ")
	line, _, _ := strings.Cut(rest, "\n")
	var raced []string
	for field := range strings.FieldsSeq(line) {
		if pkg, ok := strings.CutPrefix(field, "./"); ok {
			raced = append(raced, pkg)
		}
	}
	shared := map[string]bool{}
	for _, s := range sources(t) {
		_, others := imports(s)
		if slices.Contains(others, "sync") || slices.Contains(others, "sync/atomic") {
			shared[s.pkg] = true
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			if _, ok := n.(*ast.GoStmt); ok {
				shared[s.pkg] = true
			}
			return true
		})
	}
	for pkg := range shared {
		if slices.Contains(raced, pkg) == slices.Contains(unraced, pkg) {
			t.Errorf("%s has goroutines or locks: it belongs to RACED of the Makefile (now %v), or to unraced here", pkg, raced)
		}
	}
	for _, pkg := range raced {
		if !shared[pkg] {
			t.Errorf("%s of RACED has no goroutines and no locks", pkg)
		}
	}
}
