package main

import (
	"bytes"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/replblk/replblk/aoe"
	"github.com/replblk/replblk/aoe/aoetest"
)

// TestStartLine compares the line at start-up with Debian's, for every option.
func TestStartLine(t *testing.T) {
	unraced(t)
	ours := build(t)
	n, path := newNets(t, 1500), image(t, sectors)
	pid := regexp.MustCompile(`pid \d+`)
	for _, opts := range []string{"", "-r", "-s", "-d", "-dsr", "-b 5 -o 8 -l 100", "-o0x10", "-l 010", "-m 02:00:00:00:00:02,020000000003"} {
		args := append(strings.Fields(opts), "11", "1", "srv", path)
		var lines []string
		for _, bin := range []string{debian, ours} {
			s := n.start(t, bin, args...)
			lines = append(lines, pid.ReplaceAllString(s.line, "pid N"))
			if err := s.stop(t); err != nil && bin == ours {
				t.Errorf("%q: SIGTERM: %v %s", opts, err, s.stderr)
			}
		}
		if lines[0] != lines[1] {
			t.Errorf("%q: %q, Debian's %q", opts, lines[1], lines[0])
		}
	}
}

func TestUsageErrors(t *testing.T) {
	unraced(t)
	ours, path := build(t), image(t, 16)
	for args, want := range map[string]string{
		"":                       "got 0 arguments",
		"-z 1 1 lo " + path:      "invalid option -- 'z'",
		"-b":                     "option requires an argument -- 'b'",
		"-b x 1 1 lo " + path:    `option -b: "x" is not a number`,
		"-m 12 1 1 lo " + path:   `option -m: invalid ethernet address "12"`,
		"65535 1 lo " + path:     `shelf "65535" is not between 0 and 65534`,
		"1 255 lo " + path:       `slot "255" is not between 0 and 254`,
		"1 x lo " + path:         `slot "x" is not`,
		"1 1 lo /nonexistent/f":  "open /nonexistent/f: no such file",
		"-o 16 1 1 lo " + path:   "offset 16 too large for 16-sector export",
		"-l 17 1 1 lo " + path:   "length 17 does not fit, 16 sectors follow offset 0",
		"1 1 lo " + os.DevNull:   "neither a file nor a block device",
		"1 1 lo " + path + " -x": "invalid option -- 'x'",
	} {
		cmd := exec.Command(ours, strings.Fields(args)...)
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		err := cmd.Run()
		if cmd.ProcessState.ExitCode() != 1 || !strings.Contains(stderr.String(), want) {
			t.Errorf("%q: %v: %q, want %q", args, err, stderr.String(), want)
		}
	}
}

// TestOffsetAndLength: the export is a window of the file, and writes stay in it.
func TestOffsetAndLength(t *testing.T) {
	unraced(t)
	both(t, func(t *testing.T, bin string) {
		n, path := newNets(t, 1500), image(t, 64)
		n.start(t, bin, "-o", "8", "-l", "40", "1", "1", "srv", path)
		c := n.initiator(t, 1, 1)
		if _, err := find(c); err != nil {
			t.Fatal(err)
		}
		_, b, err := c.ATA(aoe.ATA{Command: aoe.ATARead, Count: 2, LBA: 38}, nil)
		if err != nil || !bytes.Equal(b[:1024], pattern(46, 2)) {
			t.Errorf("read: %v, wrong data", err)
		}
		r, _, err := c.ATA(aoe.ATA{Command: aoe.ATAWrite, Count: 2, LBA: 39}, make([]byte, 1024))
		if err != nil || r.Feature != aoe.ATANotFound {
			t.Errorf("write across the end: %+v, %v", r, err)
		}
		if _, _, err = c.ATA(aoe.ATA{Command: aoe.ATAWrite, Count: 1, LBA: 39}, make([]byte, 512)); err != nil {
			t.Error(err)
		}
		want := append(append(pattern(0, 47), make([]byte, 512)...), pattern(48, 16)...)
		if got, _ := os.ReadFile(path); !bytes.Equal(got, want) {
			t.Error("the file is not what was written")
		}
	})
}

func TestReadOnly(t *testing.T) {
	unraced(t)
	both(t, func(t *testing.T, bin string) {
		n, path := newNets(t, 1500), image(t, 64)
		n.start(t, bin, "-r", "1", "1", "srv", path)
		c := n.initiator(t, 1, 1)
		if _, err := find(c); err != nil {
			t.Fatal(err)
		}
		r, _, err := c.ATA(aoe.ATA{Command: aoe.ATAWrite, Count: 1}, make([]byte, 512))
		if err != nil || r.Command != 0x41 || r.Feature != aoe.ATAAbort {
			t.Errorf("write: %+v, %v", r, err)
		}
		if got, _ := os.ReadFile(path); !bytes.Equal(got, pattern(0, 64)) {
			t.Error("the file has changed")
		}
	})
}

// TestBroadcastWrite: O05; Debian's vblade executes it.
func TestBroadcastWrite(t *testing.T) {
	unraced(t)
	n, path := newNets(t, 1500), image(t, 64)
	n.start(t, build(t), "1", "1", "srv", path)
	c := n.initiator(t, aoe.AnyShelf, aoe.AnySlot)
	if !unanswered(c, func() error {
		_, _, err := c.ATA(aoe.ATA{Command: aoe.ATAWrite, Count: 1}, make([]byte, 512))
		return err
	}) {
		t.Error("a write to everybody was answered")
	}
	if _, b, err := c.ATA(aoe.ATA{Command: aoe.ATARead, Count: 1}, nil); err != nil || !bytes.Equal(b[:512], pattern(0, 1)) {
		t.Errorf("read: %v", err)
	}
}

// TestLateInterface: there is none at the start.
func TestLateInterface(t *testing.T) {
	unraced(t)
	n, path, ours := newNets(t, 1500), image(t, 64), build(t)
	ip(t, "-n", n.target, "link", "del", "srv")
	s := n.launch(t, ours, "1", "1", "srv", path)
	eventually(t, "it does not say what it waits for", func() bool { return strings.Contains(s.stderr.String(), "does not exist yet") })
	n.link(t, 1500)
	s.started(t)
	c := n.initiator(t, 1, 1)
	answers(t, s, c, "after the interface has come", 2)
	if err := s.stop(t); err != nil {
		t.Error(err)
	}
}

// TestXenRename: the interface that vblade was started on is renamed, becomes a port
// of a bridge, and the bridge gets its name and address, as Xen's network-bridge does
// with a bond after the servers have started.
func TestXenRename(t *testing.T) {
	unraced(t)
	n, path := newNets(t, 1500), image(t, 64)
	ns := func(args ...string) { t.Helper(); ip(t, append([]string{"-n", n.target}, args...)...) }
	ns("link", "set", "srv", "name", "bond0")
	s := n.start(t, build(t), "-s", "1", "1", "bond0", path)
	c := n.initiator(t, 1, 1)
	answers(t, s, c, "before", 2)

	ns("link", "set", "bond0", "down")
	ns("link", "set", "bond0", "name", "pbond0")
	ns("link", "add", "bond0", "address", "02:00:00:00:00:01", "type", "bridge", "forward_delay", "0")
	ns("link", "set", "pbond0", "master", "bond0")
	ns("link", "set", "pbond0", "up")
	ns("link", "set", "bond0", "up")
	answers(t, s, c, "with the bridge in its place", 2)

	// And back, as Xen's script does when it is stopped.
	ns("link", "del", "bond0")
	ns("link", "set", "pbond0", "down")
	ns("link", "set", "pbond0", "name", "bond0")
	ns("link", "set", "bond0", "up")
	answers(t, s, c, "with the interface back", 2)
	if err := s.stop(t); err != nil {
		t.Errorf("SIGTERM: %v: %s", err, s.stderr)
	}
}

// answers waits until the target is found and can be read.
func answers(t *testing.T, s *server, c *aoetest.Client, when string, want uint8) {
	t.Helper()
	a, err := find(c)
	if err != nil || a.Sectors != want {
		t.Fatalf("%s: %+v, %v, want %d sectors; %s", when, a, err, want, s.stderr)
	}
	read := func() error { _, _, err := c.ATA(aoe.ATA{Command: aoe.ATARead, Count: want}, nil); return err }
	if err := repeated(c, read); err != nil {
		t.Fatalf("%s: read: %v", when, err)
	}
}

// TestInterfaceTroubles: down and up, another MTU, removed and made again.
func TestInterfaceTroubles(t *testing.T) {
	n, path := newNets(t, 1500), image(t, 64)
	s := n.start(t, build(t), "-s", "1", "1", "srv", path)
	c := n.initiator(t, 1, 1)
	works := func(when string, want uint8) { t.Helper(); answers(t, s, c, when, want) }
	works("at start", 2)
	ip(t, "-n", n.target, "link", "set", "srv", "down")
	time.Sleep(50 * time.Millisecond)
	ip(t, "-n", n.target, "link", "set", "srv", "up")
	works("after down and up", 2)
	ip(t, "-n", n.client, "link", "set", "cli", "mtu", "9000")
	ip(t, "-n", n.target, "link", "set", "srv", "mtu", "9000")
	works("with larger MTU", 16)
	ip(t, "-n", n.target, "link", "del", "srv")
	time.Sleep(50 * time.Millisecond)
	n.link(t, 1500)
	c = n.initiator(t, 1, 1)
	works("made again", 2)
	if err := s.stop(t); err != nil {
		t.Errorf("SIGTERM: %v: %s", err, s.stderr)
	}
}
