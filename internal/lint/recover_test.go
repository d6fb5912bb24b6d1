package lint

import (
	"go/ast"
	"strings"
	"testing"
)

// X16: a panic ends the process. A daemon of which one part has given up, and which goes
// on answering, is worse than one that is gone: its peer would wait for it.
func TestNobodyRecovers(t *testing.T) {
	for _, s := range sources(t) {
		switch {
		case s.pkg == "sim": // says which seed has made the core panic
			continue
		case strings.HasSuffix(s.path, "block/file/mapping.go"): // of a fault in a mapped file, which is an I/O error; panics again for all else
			continue
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			if call, ok := n.(*ast.CallExpr); ok {
				if name, ok := call.Fun.(*ast.Ident); ok && name.Name == "recover" {
					t.Errorf("%s recovers from a panic", s.path)
				}
			}
			return true
		})
	}
}
