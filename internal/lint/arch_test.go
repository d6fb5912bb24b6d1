package lint

import (
	"bufio"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/replblk/replblk/"

// graph is the import graph of docs/ARCHITECTURE.md: what of ours a package imports.
// Packages at the top (commands, benchmarks, tests of the whole) are not listed; everything
// else must be.
var graph = map[string][]string{
	"block":              nil,
	"bitmap":             nil,
	"activitylog":        nil,
	"metadata":           nil,
	"internal/buffer":    nil,
	"internal/config":    nil,
	"internal/lint":      nil,
	"internal/loopback":  nil,
	"internal/stats":     nil,
	"block/file":         {"block", "internal/buffer"},
	"block/mem":          {"block"},
	"block/faulty":       {"block"},
	"block/record":       {"block"},
	"block/remote":       {"block", "nbd/wire"},
	"replication/state":  nil,
	"replication/wire":   {"replication/state"},
	"replication":        {"replication/state", "replication/wire", "bitmap", "activitylog", "metadata"},
	"nbd/wire":           nil,
	"nbd":                {"block", "internal/buffer", "nbd/wire"},
	"aoe":                {"block"},
	"aoe/packet":         nil,
	"aoe/netif":          {"aoe", "aoe/packet"},
	"aoe/aoetest":        {"aoe", "aoe/packet"},
	"internal/mdtool":    {"metadata", "activitylog"},
	"node/transport":     {"replication/wire"},
	"node":               {"replication", "replication/state", "replication/wire", "bitmap", "metadata", "block", "internal/buffer", "internal/mdtool", "node/transport"},
	"sim/mutants":        nil,
	"sim":                {"replication", "replication/state", "replication/wire", "bitmap", "metadata", "activitylog"},
	"internal/control":   nil,
	"internal/metrics":   {"internal/control", "block"},
	"internal/targets":   {"aoe", "aoe/netif", "internal/control"},
	"internal/nbdclient": {"nbd/wire"},
	"internal/tlstest":   nil,
	"internal/pairs":     {"replication/state", "replication/wire"},
	"sim/pairs":          {"internal/pairs", "replication/state"},
	"internal/chaos":     {"internal/control", "internal/loopback", "internal/nbdclient"},
}

// top are folders whose packages may import anything but the simulator.
var top = []string{"cmd", "bench", "interop", "demo", "soak"}

// pure packages take bytes and events; these imports would let them reach outside.
var (
	pure      = []string{"bitmap", "activitylog", "metadata", "replication", "replication/state", "replication/wire"}
	forbidden = []string{"os", "net", "sync", "sync/atomic", "context", "log/slog", "log", "math/rand", "math/rand/v2", "time", "syscall", "unsafe", "io/fs"}
)

type source struct {
	pkg, path string
	file      *ast.File
}

// sources parses every file of the module that is not a test.
func sources(t *testing.T) []source {
	t.Helper()
	root := filepath.Join("..", "..")
	fset := token.NewFileSet()
	var list []source
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (strings.HasPrefix(d.Name(), ".") && d.Name() != ".." && d.Name() != "." || d.Name() == "testdata" || d.Name() == "bin") {
			return filepath.SkipDir
		}
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		f, err := parser.ParseFile(fset, path, nil, parser.ParseComments)
		if err != nil {
			return err
		}
		pkg, err := filepath.Rel(root, filepath.Dir(path))
		list = append(list, source{filepath.ToSlash(pkg), path, f})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(list) < 50 {
		t.Fatalf("only %d files found: the walk looks at the wrong place", len(list))
	}
	return list
}

func imports(s source) (ours, others []string) {
	for _, i := range s.file.Imports {
		path := strings.Trim(i.Path.Value, `"`)
		if rest, ok := strings.CutPrefix(path, module); ok {
			ours = append(ours, rest)
		} else {
			others = append(others, path)
		}
	}
	return ours, others
}

func isTop(pkg string) bool {
	return slices.ContainsFunc(top, func(dir string) bool { return pkg == dir || strings.HasPrefix(pkg, dir+"/") })
}

func TestImportGraph(t *testing.T) {
	imported := map[string]map[string]bool{}
	for _, s := range sources(t) {
		ours, _ := imports(s)
		list, known := graph[s.pkg]
		switch {
		case isTop(s.pkg):
			if slices.Contains(ours, "sim") {
				t.Errorf("%s: a program must not import the simulator", s.path)
			}
			continue
		case !known:
			t.Errorf("%s: package %s is not in the import graph; add it here and in docs/ARCHITECTURE.md", s.path, s.pkg)
			continue
		}
		if imported[s.pkg] == nil {
			imported[s.pkg] = map[string]bool{}
		}
		for _, i := range ours {
			imported[s.pkg][i] = true
			if !slices.Contains(list, i) {
				t.Errorf("%s: %s must not import %s", s.path, s.pkg, i)
			}
		}
	}
	for pkg, list := range graph {
		for _, i := range list {
			if !imported[pkg][i] {
				t.Errorf("%s does not import %s: the graph is to say what is so", pkg, i)
			}
		}
	}
}

func TestPurePackagesStayPure(t *testing.T) {
	for _, s := range sources(t) {
		if !slices.Contains(pure, s.pkg) {
			continue
		}
		_, others := imports(s)
		for _, i := range others {
			if slices.Contains(forbidden, i) {
				t.Errorf("%s: %s is pure and must not import %q", s.path, s.pkg, i)
			}
			if strings.Contains(i, ".") {
				t.Errorf("%s: %s is pure and depends on nothing but the standard library, not on %q", s.path, s.pkg, i)
			}
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			switch n.(type) {
			case *ast.GoStmt, *ast.SelectStmt, *ast.SendStmt:
				t.Errorf("%s: %s is pure: no goroutines and no channels", s.path, s.pkg)
			}
			return true
		})
	}
}

func TestEveryPackageIsDescribed(t *testing.T) {
	described := map[string]bool{}
	for _, s := range sources(t) {
		described[s.pkg] = described[s.pkg] || s.file.Doc != nil
	}
	for pkg, ok := range described {
		if !ok {
			t.Errorf("package %s has no package comment", pkg)
		}
	}
}

// maxLines is how long a file may be. Lower it when the longest one gets shorter.
const maxLines = 500

func TestFilesStayReadable(t *testing.T) {
	for _, s := range sources(t) {
		f, err := os.Open(s.path)
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for sc := bufio.NewScanner(f); sc.Scan(); n++ {
			if strings.Contains(sc.Text(), "FIXME") || strings.Contains(sc.Text(), "XXX") {
				t.Errorf("%s:%d: left-over marker", s.path, n+1)
			}
		}
		f.Close()
		if n > maxLines {
			t.Errorf("%s has %d lines, more than %d", s.path, n, maxLines)
		}
	}
}
