package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// program is the replblk under test, built once.
var program string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "soak-test-")
	if err != nil {
		panic(err)
	}
	program = filepath.Join(dir, "replblk")
	cmd := exec.Command("go", "build", "-o", program, "../cmd/replblk")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0") // strace counts the calls of the program that is shipped
	if out, err := cmd.CombinedOutput(); err != nil {
		panic(fmt.Sprintf("go build: %v\n%s", err, out))
	}
	code := m.Run()
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

// figuresOf logs the figures of a run and returns them as text.
func figuresOf(t *testing.T, fig *figures) string {
	t.Helper()
	var b strings.Builder
	fig.print(&b)
	t.Log("\n" + b.String())
	return b.String()
}

// memDir is a folder in memory, as the programs prefer it.
func memDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp(defaultDir(), "soak-test-") //nolint:usetesting // t.TempDir is on a disk
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// A sample of what make kill-points does (X01, W04 to W13, M02 to M04, D02 to D10).
func TestKillPoints(t *testing.T) {
	if testing.Short() {
		t.Skip("real programs only: nothing of ours runs in this process")
	}
	const points = 150
	fig, err := killPoints(t.Context(), killOptions{binary: program, dir: memDir(t), points: points, parallel: 6, seed: 1})
	figuresOf(t, fig)
	if err != nil {
		t.Fatal(err)
	}
	tried, struck := fig.faults()
	if tried != points || struck < tried*2/3 {
		t.Errorf("of %d points %d were tried and %d hit: the injections do not fit the daemon's calls", points, tried, struck)
	}
	if n := fig.checks.Load(); n < points/3 {
		t.Errorf("only %d comparisons for %d points", n, points)
	}
}

// Each fault of soak once (X02, X06, X07, E10, N01 to N04, N10, P07), judged by the ledger
// and by porcupine.
func TestSoakCycles(t *testing.T) {
	if testing.Short() {
		t.Skip("real programs only: nothing of ours runs in this process")
	}
	fig, err := soak(t.Context(), soakOptions{binary: program, dir: memDir(t), duration: 15 * time.Minute, cycles: len(faults), seed: 1})
	figuresOf(t, fig)
	if err != nil {
		t.Fatal(err)
	}
	if fig.cycles.Load() != int64(len(faults)) || fig.judged.Load() < 1000 || fig.writes() < 1000 {
		t.Errorf("too little was done")
	}
}
