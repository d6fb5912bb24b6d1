package config

import (
	"cmp"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const drbdadm = "/lib/drbd/drbdadm-84"

// requireDrbdadm fails: without the reference the test would prove nothing.
func requireDrbdadm(t *testing.T) {
	t.Helper()
	if _, err := os.Stat(drbdadm); err != nil {
		t.Fatalf("the differential tests need %s (apt-get install drbd-utils): %v", drbdadm, err)
	}
}

// reference runs drbdadm-84 as node alpha.
func reference(t *testing.T, file string, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	cmd := exec.Command(drbdadm, append([]string{"-c", filepath.Base(file)}, args...)...)
	cmd.Dir = filepath.Dir(file)
	cmd.Env = append(os.Environ(), "__DRBD_NODE__=alpha")
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errs
	err = cmd.Run()
	return out.String(), errs.String(), err
}

func samples(t testing.TB, pattern string, atLeast int) []string {
	t.Helper()
	files, err := filepath.Glob(pattern)
	if err != nil || len(files) < atLeast {
		t.Fatalf("%d files match %s, want at least %d: %v", len(files), pattern, atLeast, err)
	}
	return files
}

// labCopy is the lab's configuration with the one change drbdadm needs to look
// at it away from the lab: it must not look for the addresses.
func labCopy(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, f := range samples(t, "testdata/lab/*", 5) {
		data, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		text := strings.ReplaceAll(string(data), "usage-count no;", "usage-count no; disable-ip-verification;")
		text = strings.ReplaceAll(text, "an-node01.example.com", "alpha")
		if err := os.WriteFile(filepath.Join(dir, filepath.Base(f)), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(dir, "drbd.conf")
}

// dumpable are the samples whose drbdadm dump is well formed: it forgets quotes
// around keywords and numbers, so that it cannot read its own dump of names.conf.
func dumpable(t *testing.T) []string {
	files := append(samples(t, "testdata/valid/*.conf", 20), labCopy(t))
	return slices.DeleteFunc(files, func(f string) bool { return filepath.Base(f) == "names.conf" })
}

// TestDumpOfDrbdadm compares what we read in a file with what we read in
// drbdadm's own dump of it: the same values must hold.
func TestDumpOfDrbdadm(t *testing.T) {
	requireDrbdadm(t)
	for _, file := range dumpable(t) {
		t.Run(filepath.Base(file), func(t *testing.T) {
			ours, err := Load(OS{}, file)
			if err != nil {
				t.Fatal(err)
			}
			stdout, stderr, err := reference(t, file, "dump")
			if err != nil {
				t.Fatalf("drbdadm refuses it: %v\n%s", err, stderr)
			}
			theirs, err := Parse(memFS{}, "/dump", []byte(stdout))
			if err != nil {
				t.Fatalf("drbdadm's dump is refused: %v\n%s", err, stdout)
			}
			ours.Global.UdevAlwaysUseVnr = false // missing in drbdadm's dump
			if a, b := dump(ours.forgetSource()), dump(theirs.forgetSource()); a != b {
				t.Errorf("from the file:\n%s\nfrom drbdadm's dump:\n%s", a, b)
			}
		})
	}
}

// TestDrbdadmReadsOurDump gives our dump to drbdadm and compares what comes back.
func TestDrbdadmReadsOurDump(t *testing.T) {
	requireDrbdadm(t)
	for _, file := range dumpable(t) {
		t.Run(filepath.Base(file), func(t *testing.T) {
			ours, err := Load(OS{}, file)
			if err != nil {
				t.Fatal(err)
			}
			copied := filepath.Join(t.TempDir(), "dump.conf")
			if err := os.WriteFile(copied, []byte(ours.Dump()), 0o600); err != nil {
				t.Fatal(err)
			}
			stdout, stderr, err := reference(t, copied, "dump")
			if err != nil {
				t.Fatalf("drbdadm refuses our dump: %v\n%s\n%s", err, stderr, ours.Dump())
			}
			theirs, err := Parse(memFS{}, "/dump", []byte(stdout))
			if err != nil {
				t.Fatal(err)
			}
			ours.Global.UdevAlwaysUseVnr = false // missing in drbdadm's dump
			if a, b := dump(ours.forgetSource()), dump(theirs.forgetSource()); a != b {
				t.Errorf("ours:\n%s\nafter drbdadm:\n%s", a, b)
			}
		})
	}
}

// TestUpOfDrbdadm compares the options that hold with those drbdadm would hand
// to the kernel: dump shows options where they stand, only `up` shows what they
// come to.
func TestUpOfDrbdadm(t *testing.T) {
	requireDrbdadm(t)
	commands := 0
	for _, file := range append(samples(t, "testdata/valid/*.conf", 20), labCopy(t)) {
		t.Run(filepath.Base(file), func(t *testing.T) {
			ours, err := Load(OS{}, file)
			if err != nil {
				t.Fatal(err)
			}
			stdout, stderr, err := reference(t, file, "-d", "up", "all")
			if err != nil {
				if strings.Contains(stderr, "no normal resources defined for this host") {
					return // floating.conf: alpha has none of the addresses
				}
				t.Fatalf("%v\n%s", err, stderr)
			}
			for line := range strings.SplitSeq(stdout, "\n") {
				if _, args, ok := strings.Cut(line, "drbdsetup-84 "); ok {
					checkCommand(t, ours, args)
					commands++
				}
			}
		})
	}
	if commands < 50 {
		t.Errorf("only %d commands were compared", commands)
	}
}

func checkCommand(t *testing.T, c *Config, line string) {
	t.Helper()
	args := splitShell(line)
	var opts []Setting
	for _, a := range args {
		if name, val, ok := strings.Cut(a, "="); ok && strings.HasPrefix(name, "--") {
			name = name[2:]
			opts = slices.DeleteFunc(opts, func(s Setting) bool { return s.Name == name })
			opts = append(opts, Setting{Name: name, Values: []string{val}})
		}
	}
	compare := func(got, want string) {
		t.Helper()
		if got != want {
			t.Errorf("%s\nours:   %s\ntheirs: %s", line, got, want)
		}
	}
	switch args[0] {
	case "new-resource":
		var want ResourceOptions
		apply(resourceSpecs, opts, &want)
		compare(dump(c.Resource(args[1]).Options), dump(want))
	case "connect":
		var want NetOptions
		apply(netSpecs, opts, &want)
		r := c.Resource(args[1])
		got := r.Net
		got.AfterSB0Pri = got.AfterSB0Pri.On("alpha")
		compare(dump(got), dump(want))
	case "attach":
		v := localMinor(c, args[1])
		if v == nil {
			t.Fatalf("no local volume for: %s", line)
		}
		compare(strings.Join([]string{v.Disk, cmp.Or(v.MetaDisk.Path, v.Disk), v.MetaDisk.Kind()}, " "), strings.Join(args[2:5], " "))
		var want DiskOptions
		apply(diskSpecs, opts, &want)
		// drbdsetup gets the minor instead of the resource's name.
		got := v.DiskOptions
		if got.ResyncAfterMinor >= 0 {
			got.ResyncAfter = itoa(uint32(got.ResyncAfterMinor))
		}
		want.ResyncAfterMinor = got.ResyncAfterMinor
		compare(dump(got), dump(want))
	}
}

func localMinor(c *Config, minor string) *Volume {
	for _, r := range c.Resources {
		local, _, _ := r.Local("alpha", nil)
		if local == nil {
			continue
		}
		for _, v := range local.Volumes {
			if itoa(v.Minor) == minor {
				return v
			}
		}
	}
	return nil
}

// splitShell undoes the backslash quoting drbdadm -d prints with.
func splitShell(s string) []string {
	var out []string
	word, in := "", false
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '\\' && i+1 < len(s):
			i++
			word, in = word+string(s[i]), true
		case s[i] == ' ':
			if in {
				out = append(out, word)
			}
			word, in = "", false
		default:
			word, in = word+string(s[i]), true
		}
	}
	if in {
		out = append(out, word)
	}
	return out
}

// TestDumpRoundTrip: parse(dump(parse(x))) == parse(x), settings included, and
// a dump of the dump is the same text but for the line numbers in its comments.
func TestDumpRoundTrip(t *testing.T) {
	for _, file := range append(samples(t, "testdata/valid/*.conf", 20), "testdata/lab/drbd.conf") {
		t.Run(filepath.Base(file), func(t *testing.T) {
			first, err := Load(OS{}, file)
			if err != nil {
				t.Fatal(err)
			}
			text := first.Dump()
			second := mustParse(t, text)
			if w := second.Warnings; slices.ContainsFunc(w, func(w Warning) bool { return strings.Contains(w.Text, "deprecated") }) {
				t.Errorf("the dump uses deprecated spellings: %v", w)
			}
			if a, b := dump(first.forget()), dump(second.forget()); a != b {
				t.Errorf("before:\n%s\nafter:\n%s\ntext:\n%s", a, b, text)
			}
		})
	}
}
