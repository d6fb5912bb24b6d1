package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/replblk/replblk/internal/control"
	"github.com/replblk/replblk/internal/loopback"
	"github.com/replblk/replblk/internal/nbdclient"
)

// These tests run two daemons as two processes on loopback, with files as disks.

// binary is the replblk under test, built once. operator is the one that gives its daemons their
// commands: without the race detector, with which every command would cost a second.
var binary, operator string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "replblk-test-")
	if err != nil {
		panic(err)
	}
	binary = filepath.Join(dir, "replblk")
	operator = binary
	build(binary, "CGO_ENABLED=0", "-race=false")
	if raceEnabled {
		binary = filepath.Join(dir, "replblk-race")
		build(binary, "CGO_ENABLED=1", "-race")
		_ = os.Setenv("GORACE", "atexit_sleep_ms=100") // a second otherwise, at every end
	}
	code := m.Run()
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

func build(path, env, race string) {
	c := exec.Command("go", "build", race, "-o", path, ".")
	c.Env = append(os.Environ(), env)
	if out, err := c.CombinedOutput(); err != nil {
		panic(fmt.Sprintf("go build: %v\n%s", err, out))
	}
}

// unraced leaves a test out under the race detector (-short): whatever happens at the same time
// in its daemons does so in another test too, and everything costs ten times as much there.
func unraced(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("under the race detector others do the same")
	}
}

const (
	diskMiB = 64
	// patient is how long a test waits for what must come. It is far above what it takes:
	// all packages are tested at once, on two cores.
	patient       = 2 * time.Minute
	patientOption = "120s"
	// patientNet is the net section. Who dies is noticed at once, and who only gets no
	// processor is not given up: that would be another test.
	patientNet = "ping-timeout 100; timeout 300;"
	// cutNet notices within some seconds what says nothing of itself: a cable, a peer that
	// stands still.
	cutNet = "ping-int 1; ping-timeout 30;"
)

// host is one node of a pair.
type host struct {
	t    *testing.T
	dir  string
	name string
	cmd  *exec.Cmd // nil: not running
	done chan error
	env  []string // nil: that of the test
	ns   string   // network namespace, "" is that of the test
}

type pairOptions struct {
	raced bool   // the test runs under the race detector too
	pace  string // of the net section: when a peer is given up; "" is patientNet
	net   string // more of the net section
	disk  string // more of the disk section
	rest  string // more of replblk.conf
}

// newPair makes two nodes with fresh metadata; the daemons do not run yet.
func newPair(t *testing.T, o pairOptions) (a, b *host) {
	t.Helper()
	if !o.raced {
		unraced(t)
	}
	if o.pace == "" {
		o.pace = patientNet
	}
	dir := t.TempDir()
	a, b = &host{t: t, dir: dir, name: "a"}, &host{t: t, dir: dir, name: "b"}
	res := "resource r0 {\n device /dev/drbd7;\n meta-disk internal;\n net { connect-int 1; " + o.pace + " " + o.net + " }\n disk { " + o.disk + " }\n"
	for _, h := range []*host{a, b} {
		res += fmt.Sprintf(" on %s { address %s; disk %q; }\n", h.name, loopback.Address(), h.disk())
		if err := os.WriteFile(h.disk(), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Mkdir(h.path(".sizes"), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(h.disk(), diskMiB<<20); err != nil {
			t.Fatal(err)
		}
		conf := fmt.Sprintf("control { socket %q; }\nlog { level debug; }\nnbd r0 { listen \"unix:%s\"; resource r0; }\n%s", h.path(".ctl"), h.path(".nbd"), o.rest)
		if err := os.WriteFile(h.path(".conf"), []byte(conf), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "r0.res"), []byte(res+"}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, h := range []*host{a, b} {
		h.must("create-md", "--force", "r0")
		t.Cleanup(func() {
			h.end(syscall.SIGKILL)
			if h.logged("DATA RACE") {
				t.Errorf("%s: data race", h.name)
			}
			if t.Failed() {
				log, _ := os.ReadFile(h.path(".log"))
				lines := bytes.Split(log, []byte("\n"))
				t.Logf("log of %s:\n%s", h.name, bytes.Join(lines[max(0, len(lines)-90):], []byte("\n")))
			}
		})
	}
	return a, b
}

// synced starts a pair whose disks were declared equal.
func synced(t *testing.T, o pairOptions) (a, b *host) {
	t.Helper()
	a, b = newPair(t, o)
	a.start()
	b.start()
	a.must("wait-connect", "--timeout", patientOption, "r0")
	a.must("new-current-uuid", "--clear-bitmap", "r0")
	a.waitFor("both up to date", func(r *control.Resource) bool { return inSync([]control.Resource{*r}) })
	return a, b
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	_ = l.Close()
	return port
}

func (h *host) path(suffix string) string { return filepath.Join(h.dir, h.name+suffix) }

// res is the drbd.conf of the node: the one that both share, unless it was edited.
func (h *host) res() string {
	if _, err := os.Stat(h.path(".res")); err == nil {
		return h.path(".res")
	}
	return filepath.Join(h.dir, "r0.res")
}

// editRes gives the node a drbd.conf of its own.
func (h *host) editRes(edit func(string) string) {
	h.t.Helper()
	text, err := os.ReadFile(h.res())
	if err != nil {
		h.t.Fatal(err)
	}
	if err := os.WriteFile(h.path(".res"), []byte(edit(string(text))), 0o600); err != nil {
		h.t.Fatal(err)
	}
}

// eventually waits until a condition holds.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(patient); !cond(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal(what)
		}
	}
}

// waitForLog waits until the daemon has logged a text.
func (h *host) waitForLog(text string) {
	h.t.Helper()
	eventually(h.t, fmt.Sprintf("%s: the log has no %q", h.name, text), func() bool { return h.logged(text) })
}

// logged says whether the daemon has logged a text.
func (h *host) logged(text string) bool {
	log, _ := os.ReadFile(h.path(".log"))
	return bytes.Contains(log, []byte(text))
}

func (h *host) disk() string { return h.path(".img") }

// start runs the daemon and waits until it answers.
func (h *host) start() {
	h.t.Helper()
	log, err := os.OpenFile(h.path(".log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		h.t.Fatal(err)
	}
	defer log.Close()
	h.cmd = exec.Command(binary, h.args("run")...)
	if h.ns != "" { // ip becomes the daemon, under its process id
		h.cmd = exec.Command("ip", append([]string{"netns", "exec", h.ns, binary}, h.args("run")...)...)
	}
	h.cmd.Stderr, h.cmd.Env = log, h.env
	if err := h.cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	done, cmd := make(chan error, 1), h.cmd
	h.done = done
	go func() { done <- cmd.Wait() }()
	for end := time.Now().Add(patient); ; time.Sleep(10 * time.Millisecond) {
		c := control.Client{Path: h.path(".ctl")}
		if list, err := c.Snapshot(h.t.Context(), "r0"); err == nil && list[0].Up && !list[0].Changing {
			return
		}
		if time.Now().After(end) {
			h.t.Fatalf("%s does not answer", h.name)
		}
	}
}

// end sends a signal and waits; it returns how the daemon ended.
func (h *host) end(sig syscall.Signal) error {
	if h.cmd == nil {
		return nil
	}
	_ = h.cmd.Process.Signal(sig)
	select {
	case err := <-h.done:
		h.cmd = nil
		return err
	case <-time.After(2 * patient):
		_ = h.cmd.Process.Kill()
		return errors.New("did not end")
	}
}

func (h *host) args(args ...string) []string {
	return append([]string{"-c", h.res(), "--config", h.path(".conf"), "--node", h.name, "--size-dir", h.path(".sizes")}, args...)
}

// run carries out a command.
func (h *host) run(args ...string) (out string, code int, stderr string) {
	h.t.Helper()
	var o, e bytes.Buffer
	ctx, cancel := context.WithTimeout(h.t.Context(), 2*patient)
	defer cancel()
	c := exec.CommandContext(ctx, operator, h.args(args...)...)
	c.Stdout, c.Stderr = &o, &e
	err := c.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		h.t.Fatal(err)
	}
	return o.String(), c.ProcessState.ExitCode(), e.String()
}

// must carries out a command that must succeed.
func (h *host) must(args ...string) string {
	h.t.Helper()
	out, code, text := h.run(args...)
	if code != 0 {
		h.t.Fatalf("%s: replblk %v: exit %d: %s", h.name, args, code, text)
	}
	return out
}

// refused carries out a command that must be refused with a code and a text.
func (h *host) refused(code int, text string, args ...string) {
	h.t.Helper()
	_, got, stderr := h.run(args...)
	if got != code || !strings.Contains(stderr, text) {
		h.t.Errorf("%s: replblk %v: exit %d: %q, want exit %d and %q", h.name, args, got, stderr, code, text)
	}
}

func (h *host) snapshot() *control.Resource {
	h.t.Helper()
	c := control.Client{Path: h.path(".ctl")}
	list, err := c.Snapshot(h.t.Context(), "r0")
	if err != nil {
		h.t.Fatal(err)
	}
	return &list[0]
}

// waitFor waits for a state.
func (h *host) waitFor(what string, cond func(*control.Resource) bool) *control.Resource {
	h.t.Helper()
	for end := time.Now().Add(patient); ; time.Sleep(10 * time.Millisecond) {
		r := h.snapshot()
		if cond(r) {
			return r
		}
		if time.Now().After(end) {
			h.t.Fatalf("%s: %s: state is %s", h.name, what, summary([]control.Resource{*r}))
		}
	}
}

// unused waits until the daemon knows that its clients have left.
func (h *host) unused() {
	h.t.Helper()
	h.waitFor("no clients", func(r *control.Resource) bool {
		return !slices.ContainsFunc(r.NBD, func(e control.NBD) bool { return e.Active > 0 })
	})
}

// demote makes the node Secondary when its clients, which have closed their connections, are
// gone: it does not send them away.
func (h *host) demote() {
	h.t.Helper()
	h.unused()
	h.must("secondary", "r0")
}

func (h *host) dial() *nbdclient.Client {
	h.t.Helper()
	c, err := nbdclient.Dial(h.t.Context(), "unix:"+h.path(".nbd"), "r0")
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(c.Abort)
	return c
}

// check reads everything that the ledger knows.
func (h *host) check(l *nbdclient.Ledger) {
	h.t.Helper()
	c := h.dial()
	defer c.Close()
	if err := l.Check(c); err != nil {
		h.t.Fatalf("%s: %v", h.name, err)
	}
}

// equalDisks compares the data of both disks.
func equalDisks(t *testing.T, a, b *host, size uint64) {
	t.Helper()
	x, err := os.ReadFile(a.disk())
	if err != nil {
		t.Fatal(err)
	}
	y, err := os.ReadFile(b.disk())
	if err != nil {
		t.Fatal(err)
	}
	for off := uint64(0); off < size; off += 4096 {
		if !bytes.Equal(x[off:off+4096], y[off:off+4096]) {
			t.Fatalf("disks differ at %d", off)
		}
	}
}

func decode(t *testing.T, text string, v any) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), v); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
}
