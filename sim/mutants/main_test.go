package main

import (
	"os"
	"strings"
	"testing"
)

// TestEveryMutantApplies: whoever changes the code that a mutant is made of hears of it
// here, in a second, and not when make mutants is run.
func TestEveryMutantApplies(t *testing.T) {
	t.Chdir("../..")
	list, err := load("sim/mutants", false, nil)
	if err != nil {
		t.Fatal(err)
	}
	fast := 0
	for _, m := range list {
		if _, err := m.overlay(t.TempDir()); err != nil {
			t.Errorf("%s: %v", m.name, err)
		}
		for _, by := range m.by {
			if _, _, err := detector(by); err != nil {
				t.Errorf("%s: %v", m.name, err)
			}
		}
		if m.fast {
			fast++
		}
	}
	if len(list) < 25 || fast < 6 {
		t.Errorf("%d mutants, %d of them fast; want at least 25 and 6", len(list), fast)
	}
}

func TestParseMutant(t *testing.T) {
	const good = "# why\nclass: A\nfast\nby: sim 10\n--- a.txt\n<<<<\nold\n====\nnew\n>>>>\n"
	m, err := parse("x", good)
	if err != nil || !m.fast || m.class != "A" || len(m.edits) != 1 || m.edits[0] != (edit{"a.txt", "old\n", "new\n"}) {
		t.Fatalf("%+v, %v", m, err)
	}
	dir := t.TempDir()
	t.Chdir(dir)
	for text, ok := range map[string]bool{"old\n": true, "": false, "old\nold\n": false} {
		if err := os.WriteFile("a.txt", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := m.overlay(dir); (err == nil) != ok {
			t.Errorf("applied to %q: %v", text, err)
		}
	}
	for _, bad := range []string{"", "class: A\n", strings.Replace(good, "====\n", "", 1), strings.Replace(good, "class", "klass", 1)} {
		if _, err := parse("x", bad); err == nil {
			t.Errorf("%q is taken for a mutant", bad)
		}
	}
}
