package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/replblk/replblk/aoe"
	"github.com/replblk/replblk/aoe/aoetest"
	"github.com/replblk/replblk/aoe/packet"
)

// debian is Debian's vblade, the reference of the differential tests.
const debian = "/usr/sbin/vblade"

// nets is a pair of network namespaces with a veth between them: the target's
// end is "srv" in target, the initiator's "cli" in client.
type nets struct{ target, client string }

var netCount atomic.Int32

// newNets makes namespaces that no other test run uses.
func newNets(t testing.TB, mtu int) nets {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("network namespaces need root")
	}
	id := fmt.Sprintf("aoe%d-%d", os.Getpid(), netCount.Add(1))
	n := nets{target: id + "s", client: id + "c"}
	for _, ns := range []string{n.target, n.client} {
		ip(t, "netns", "add", ns)
		t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", ns).Run() })
	}
	n.link(t, mtu)
	return n
}

// link makes the veth pair; the ends have the same addresses every time.
func (n nets) link(t testing.TB, mtu int) {
	t.Helper()
	size := fmt.Sprint(mtu)
	ip(t, "-n", n.target, "link", "add", "srv", "address", "02:00:00:00:00:01", "mtu", size, "type", "veth",
		"peer", "name", "cli", "netns", n.client, "address", "02:00:00:00:00:02", "mtu", size)
	ip(t, "-n", n.target, "link", "set", "srv", "up")
	ip(t, "-n", n.client, "link", "set", "cli", "up")
}

func ip(t testing.TB, args ...string) {
	t.Helper()
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		t.Fatalf("ip %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// socket opens a socket on the initiator's end.
func (n nets) socket(t testing.TB) *packet.Socket {
	t.Helper()
	s, err := aoetest.OpenIn(n.client, "cli")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// Times that tests wait for.
const (
	patience = 2 * time.Minute        // for what must come: far above what it takes
	silence  = 200 * time.Millisecond // for what must not
)

// initiator is a client on the initiator's end.
func (n nets) initiator(t testing.TB, shelf uint16, slot uint8) *aoetest.Client {
	t.Helper()
	return newClient(n.socket(t), shelf, slot)
}

func newClient(link aoetest.Link, shelf uint16, slot uint8) *aoetest.Client {
	c := aoetest.NewClient(link, shelf, slot)
	c.Timeout = patience
	return c
}

// find asks for the target until it answers: its interface may not be up yet, and Debian's
// vblade prints its line before it listens.
func find(c *aoetest.Client) (a aoe.ConfigArg, err error) {
	err = repeated(c, func() error { a, err = c.Discover(); return err })
	return a, err
}

// repeated sends a request again while it is not answered, as initiators do.
func repeated(c *aoetest.Client, request func() error) error {
	before := c.Timeout
	c.Timeout = silence
	defer func() { c.Timeout = before }()
	for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		if err := request(); err == nil || time.Now().After(end) {
			return err
		}
	}
}

// unanswered runs a request that must not be answered.
func unanswered(c *aoetest.Client, request func() error) bool {
	before := c.Timeout
	c.Timeout = silence
	defer func() { c.Timeout = before }()
	return errors.Is(request(), aoetest.ErrSilent)
}

// eventually waits until a condition holds.
func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !cond(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal(what)
		}
	}
}

// output is what a process has written so far.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer // guarded by mu
}

// Write implements io.Writer.
func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

// String implements fmt.Stringer.
func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// server is a running vblade.
type server struct {
	cmd    *exec.Cmd
	line   string // the start-up line
	stdout *bufio.Reader
	stderr *output
	exited chan error
}

var startLine = regexp.MustCompile(`^pid \d+: e\d+\.\d+, \d+ sectors O_RD(WR|ONLY)$`)

// start runs a vblade in the target's namespace and waits for its line.
func (n nets) start(t testing.TB, binary string, args ...string) *server {
	t.Helper()
	s := n.launch(t, binary, args...)
	s.started(t)
	return s
}

// launch runs a vblade and waits for nothing.
func (n nets) launch(t testing.TB, binary string, args ...string) *server {
	t.Helper()
	// Debian's vblade buffers its output when it is not a terminal.
	full := append([]string{"netns", "exec", n.target, "stdbuf", "-oL", binary}, args...)
	s := &server{cmd: exec.Command("ip", full...), stderr: &output{}, exited: make(chan error, 1)}
	s.cmd.Stderr = s.stderr
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.cmd.Process.Kill() })
	s.stdout = bufio.NewReader(out)
	return s
}

// started waits for the line.
func (s *server) started(t testing.TB) {
	t.Helper()
	line, err := s.stdout.ReadString('\n')
	if err != nil {
		_ = s.cmd.Wait()
		t.Fatalf("%v: no start-up line: %s", s.cmd.Args, s.stderr)
	}
	s.line = strings.TrimSuffix(line, "\n")
	go func() { s.exited <- s.cmd.Wait() }()
}

// stop sends SIGTERM and returns how the process ended.
func (s *server) stop(t testing.TB) error {
	t.Helper()
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case err := <-s.exited:
		return err
	case <-time.After(patience):
		t.Fatalf("still running %v after SIGTERM", patience)
		return nil
	}
}

// program is our vblade, built once, with the race detector if the tests are.
var program string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "vblade-test-")
	if err != nil {
		panic(err)
	}
	program = filepath.Join(dir, "vblade")
	args := []string{"build", "-o", program, "."}
	if raceEnabled {
		args = append([]string{"build", "-race"}, args[1:]...)
		_ = os.Setenv("GORACE", "atexit_sleep_ms=100") // a second otherwise, at every end
	}
	if out, err := exec.Command("go", args...).CombinedOutput(); err != nil {
		panic(fmt.Sprintf("go build: %v\n%s", err, out))
	}
	code := m.Run()
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

// build returns a copy of our vblade in a folder of the test's own.
func build(t testing.TB) string {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "vblade")
	if err := os.Link(program, bin); err != nil {
		t.Fatal(err)
	}
	return bin
}

// unraced leaves a test out under the race detector (-short): whatever happens at the same time
// in a vblade does so in another test too.
func unraced(t testing.TB) {
	t.Helper()
	if testing.Short() {
		t.Skip("under the race detector others do the same")
	}
}

// both runs a test against our vblade and against Debian's.
func both(t *testing.T, f func(t *testing.T, binary string)) {
	t.Helper()
	if _, err := os.Stat(debian); errors.Is(err, os.ErrNotExist) {
		t.Fatalf("%s is missing: apt-get install vblade", debian)
	}
	ours := build(t)
	t.Run("replblk", func(t *testing.T) { f(t, ours) })
	t.Run("debian", func(t *testing.T) { f(t, debian) })
}

// image makes a file of sectors, each filled with a pattern of its number.
func image(t testing.TB, sectors int) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk.img")
	if err := os.WriteFile(path, pattern(0, sectors), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// pattern is the contents of image.
func pattern(first, sectors int) []byte {
	b := make([]byte, 0, sectors*512)
	for s := first; s < first+sectors; s++ {
		b = append(b, bytes.Repeat([]byte{byte(s), byte(s >> 8), 0xa0, 0xe0}, 128)...)
	}
	return b
}
