package config

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var rewrite = flag.Bool("rewrite", false, "write the actual errors into the samples; review the diff")

// checkWant compares an error with the comment on the first line of its sample.
func checkWant(t *testing.T, file string, err error) {
	t.Helper()
	if err == nil {
		t.Fatalf("%s: no error", file)
	}
	got := strings.ReplaceAll(strings.ReplaceAll(err.Error(), filepath.Dir(file)+"/", ""), "\n", " | ")
	data, rerr := os.ReadFile(file)
	if rerr != nil {
		t.Fatal(rerr)
	}
	first, rest, _ := strings.Cut(string(data), "\n")
	want, ok := strings.CutPrefix(first, "# want: ")
	if *rewrite {
		if err := os.WriteFile(file, []byte("# want: "+got+"\n"+rest), 0o600); err != nil {
			t.Fatal(err)
		}
	} else if !ok || got != want {
		t.Errorf("got:  %s\nwant: %s", got, want)
	}
	checkErrors(t, err)
}

// checkErrors asserts what holds of every error: a list of positioned ones.
func checkErrors(t testing.TB, err error) {
	t.Helper()
	var list ErrorList
	if !errors.As(err, &list) || len(list) == 0 || len(list) > maxErrors {
		t.Fatalf("not an error list: %#v", err)
	}
	for _, e := range list {
		if e.Pos.File == "" || e.Pos.Line < 1 || e.Pos.Col < 1 || e.Problem == "" && e.Expected == "" {
			t.Errorf("incomplete error: %#v", e)
		}
	}
}

// TestRefusedByBoth: files that drbdadm refuses, we refuse, at the right word.
func TestRefusedByBoth(t *testing.T) {
	requireDrbdadm(t)
	for _, file := range samples(t, "testdata/invalid/*.conf", 30) {
		t.Run(filepath.Base(file), func(t *testing.T) {
			_, err := Load(OS{}, file)
			checkWant(t, file, err)
			if out, _, err := reference(t, file, "dump"); err == nil {
				t.Errorf("drbdadm accepts it:\n%s", out)
			}
		})
	}
}

// TestRefusedByUs: what drbdadm leaves to the kernel, or does not notice.
func TestRefusedByUs(t *testing.T) {
	requireDrbdadm(t)
	for _, file := range samples(t, "testdata/stricter/*.conf", 10) {
		t.Run(filepath.Base(file), func(t *testing.T) {
			_, err := Load(OS{}, file)
			checkWant(t, file, err)
			if _, stderr, err := reference(t, file, "dump"); err != nil {
				t.Errorf("drbdadm refuses it too, so it belongs in testdata/invalid:\n%s", stderr)
			}
		})
	}
}

// TestDaemonRefused is the same for replblk.conf.
func TestDaemonRefused(t *testing.T) {
	for _, file := range samples(t, "testdata/replblk/*.conf", 20) {
		t.Run(filepath.Base(file), func(t *testing.T) {
			_, err := LoadDaemon(OS{}, file)
			checkWant(t, file, err)
		})
	}
}
