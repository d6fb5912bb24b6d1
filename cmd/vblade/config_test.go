package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/replblk/replblk/aoe"
	"github.com/replblk/replblk/aoe/aoetest"
)

// TestConfigFile: one process serves two files, one of them on two interfaces, of which
// one goes away.
func TestConfigFile(t *testing.T) {
	n := newNets(t, 1500)
	ip(t, "-n", n.target, "link", "add", "srv2", "type", "veth", "peer", "name", "cli2", "netns", n.client)
	ip(t, "-n", n.target, "link", "set", "srv2", "up")
	ip(t, "-n", n.client, "link", "set", "cli2", "up")
	both, one := image(t, 64), image(t, 32)
	conf := filepath.Join(t.TempDir(), "replblk.conf")
	text := fmt.Sprintf(`
aoe both { shelf 1; slot 1; interface srv; interface srv2; file %q; config-string "both"; }
aoe one  { shelf 1; slot 2; interface srv; file %q; read-only; }
aoe drbd { shelf 1; slot 3; interface srv; resource r0; }
`, both, one)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	s := n.start(t, build(t), "--config", conf)
	client := func(name string) *aoetest.Client {
		t.Helper()
		link, err := aoetest.OpenIn(n.client, name)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = link.Close() })
		return newClient(link, 1, 1)
	}
	first, second := client("cli"), client("cli2")
	for _, at := range []struct {
		c      *aoetest.Client
		slot   uint8
		served bool
	}{{first, 3, false}, {second, 2, false}, {first, 2, true}, {first, 1, true}, {second, 1, true}} {
		at.c.Slot = at.slot
		if at.served {
			answers(t, s, at.c, "at the start", 2)
		} else if !unanswered(at.c, func() error { _, err := at.c.Discover(); return err }) {
			t.Errorf("e1.%d was found where it is not served", at.slot)
		}
	}
	data := bytes.Repeat([]byte{0x5a}, 512)
	if _, _, err := second.ATA(aoe.ATA{Command: aoe.ATAWrite, Count: 1, LBA: 7}, data); err != nil {
		t.Fatal(err)
	}
	ip(t, "-n", n.target, "link", "del", "srv2")
	if _, got, err := first.ATA(aoe.ATA{Command: aoe.ATARead, Count: 1, LBA: 7}, nil); err != nil || !bytes.Equal(got[:512], data) {
		t.Errorf("what one interface has written the other reads as % x, %v", got[:8], err)
	}
	if cfg, err := first.Config(aoe.ConfigRead, ""); err != nil || string(cfg.String) != "both" {
		t.Errorf("config string %q, %v", cfg.String, err)
	}
	first.Slot = 2
	if r, _, err := first.ATA(aoe.ATA{Command: aoe.ATAWrite, Count: 1}, data); err != nil || r.Feature != aoe.ATAAbort {
		t.Errorf("write to what is read-only: %+v, %v", r, err)
	}
	if err := s.stop(t); err != nil {
		t.Errorf("SIGTERM: %v: %s", err, s.stderr)
	}
	if got, _ := os.ReadFile(both); !bytes.Equal(got[7*512:8*512], data) {
		t.Error("the file does not hold what was written")
	}
}

func TestConfigFileErrors(t *testing.T) {
	for text, want := range map[string]string{
		"": "has no aoe section with a file",
		"aoe a { shelf 1; slot 1; interface lo; resource r0; }":           "has no aoe section with a file",
		"aoe a { shelf 1; slot 1; interface lo; file /nonexistent/f; }":   "open /nonexistent/f: no such file",
		"aoe a { shelf 1; slot 1; interface lo; file f; }":                "an absolute path",
		"aoe a { shelf 1; slot 1; interface lo; }":                        "nothing to serve",
		"aoe a { shelf 1; slot 1; interface lo; interface lo; file /f; }": "on interface lo",
		"aoe a { shelf 1; slot 1; interface lo; file /f; permit mask; }":  "permit is for resources",
		"aoe a { shelf 1; slot 1; interface lo; file /f; address own; }":  "address is for resources",
		"aoe a { shelf 1; slot 1; interface lo; file /f; resource r0; }":  "both resource and file",
	} {
		path := filepath.Join(t.TempDir(), "c")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		err := run(t.Context(), []string{"--config", path}, os.Stdout, os.Stderr)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}
