package main

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/replblk/replblk/internal/chaos"
	"github.com/replblk/replblk/internal/control"
	"github.com/replblk/replblk/internal/nbdclient"
)

// These tests take away what daemons live on: room on the disk, descriptors, memory, the
// network, the reader of their log.

// newTestPair makes a pair whose daemons do not run yet.
func newTestPair(t *testing.T, o chaos.Options) *chaos.Pair {
	t.Helper()
	if testing.Short() {
		t.Skip("real programs only: nothing of ours runs in this process")
	}
	if o.Binary = program; o.Dir == "" {
		o.Dir = memDir(t)
	}
	if o.SizeMiB == 0 {
		o.SizeMiB = killDiskMiB
	}
	if o.Net == "" { // who only gets no processor is not given up: that would be another test
		o.Net = killNet
	}
	p, err := chaos.NewPair(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = p.Close()
		for _, h := range p.Hosts {
			if log, _ := os.ReadFile(h.Path(".log")); t.Failed() {
				lines := bytes.Split(log, []byte("\n"))
				t.Logf("log of %s:\n%s", h.Name, bytes.Join(lines[max(0, len(lines)-40):], []byte("\n")))
			}
		}
	})
	return p
}

// begin starts a pair with host 0 as Primary.
func begin(t *testing.T, p *chaos.Pair) {
	t.Helper()
	if err := p.Begin(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := p.Hosts[0].Primary(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func dial(t *testing.T, h *chaos.Host) *nbdclient.Client {
	t.Helper()
	c, err := h.Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Abort)
	return c
}

// inSyncAndEqual waits for the end of the resync and compares everything.
func inSyncAndEqual(t *testing.T, p *chaos.Pair, l *nbdclient.Ledger) {
	t.Helper()
	if err := p.WaitInSync(t.Context(), patience); err != nil {
		t.Fatal(err)
	}
	if differ, err := p.Differences(); err != nil || len(differ) > 0 {
		t.Fatalf("%d blocks differ: %v", len(differ), err)
	}
	for _, h := range p.Hosts {
		d, err := h.OpenDisk()
		if err != nil {
			t.Fatal(err)
		}
		if err := l.Check(d); err != nil {
			t.Errorf("%s: %v", h.Name, err)
		}
		_ = d.Close()
	}
}

func command(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %v: %s", args, err, out)
	}
}

// D10: a thin disk has no room any more. Its node detaches it; clients do not
// notice, on either side. With room again it is brought up to date.
func TestDiskFull(t *testing.T) {
	for victim, name := range []string{"Primary", "Secondary"} {
		t.Run(name, func(t *testing.T) {
			p := newTestPair(t, chaos.Options{})
			full := filepath.Join(t.TempDir(), "small")
			if err := os.Mkdir(full, 0o700); err != nil {
				t.Fatal(err)
			}
			command(t, "mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", full)
			t.Cleanup(func() { _ = exec.Command("umount", "-l", full).Run() })
			h := p.Hosts[victim]
			img := filepath.Join(full, "img")
			command(t, "cp", "--sparse=always", h.Path(".img"), img)
			if err := os.Remove(h.Path(".img")); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink(img, h.Path(".img")); err != nil {
				t.Fatal(err)
			}
			begin(t, p)
			l := nbdclient.NewLedger()
			c := dial(t, p.Hosts[0])
			if err := l.Fill(t.Context(), c, 0, 2048, 1500); err != nil {
				t.Fatalf("a full disk reached the client: %v", err)
			}
			if _, err := h.WaitFor(t.Context(), patience, "loss of the disk", func(r *control.Resource) bool { return r.Volumes[0].Disk == "Diskless" }); err != nil {
				t.Fatal(err)
			}
			command(t, "mount", "-o", "remount,size=64m", full)
			if err := h.Do(t.Context(), control.Request{Command: "attach"}); err != nil {
				t.Fatal(err)
			}
			inSyncAndEqual(t, p, l)
		})
	}
}

// X05: without descriptors nobody new is served, everybody else is.
func TestDescriptorsExhausted(t *testing.T) {
	p := newTestPair(t, chaos.Options{})
	p.Hosts[0].Wrap = []string{"prlimit", "--nofile=40"}
	begin(t, p)
	l := nbdclient.NewLedger()
	c := dial(t, p.Hosts[0])
	var more []*nbdclient.Client
	for range 60 {
		ctx, cancel := contextFor(t, 300*time.Millisecond)
		x, err := p.Hosts[0].Dial(ctx)
		cancel()
		if err != nil {
			break
		}
		more = append(more, x)
	}
	if len(more) == 60 {
		t.Fatal("the limit of descriptors was not reached")
	}
	if err := l.Fill(t.Context(), c, 0, 512, 300); err != nil {
		t.Fatalf("a client that was there before: %v", err)
	}
	for _, x := range more {
		x.Abort()
	}
	again := dialEventually(t, p.Hosts[0])
	if err := l.Fill(t.Context(), again, 0, 512, 100); err != nil {
		t.Fatal(err)
	}
	inSyncAndEqual(t, p, l)
}

// dialEventually dials until the server has noticed that others have left.
func dialEventually(t *testing.T, h *chaos.Host) *nbdclient.Client {
	t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		c, err := h.Dial(t.Context())
		if err == nil {
			t.Cleanup(c.Abort)
			return c
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
	}
}

// X04: many clients with large requests and a small limit: the daemon stays
// small, and answers.
func TestMemoryIsBounded(t *testing.T) {
	const limitMiB = 96
	p := newTestPair(t, chaos.Options{})
	for _, h := range p.Hosts {
		h.Env = []string{"GOMEMLIMIT=64MiB"}
	}
	begin(t, p)
	var wg sync.WaitGroup
	for i := range 12 {
		c := dial(t, p.Hosts[0])
		wg.Go(func() {
			buf := bytes.Repeat([]byte{byte(i + 1)}, 1<<20)
			for k := range uint64(12) {
				if err := c.Write(buf, k<<20, false); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	for _, h := range p.Hosts {
		kib := memory(t, h)
		if kib > limitMiB<<10 {
			t.Errorf("%s: %d KiB at the most", h.Name, kib)
		}
		t.Logf("%s: %d MiB at the most", h.Name, kib>>10)
	}
	inSyncAndEqual(t, p, nbdclient.NewLedger())
}

// memory is what a daemon has used at the most, in KiB.
func memory(t *testing.T, h *chaos.Host) int {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", h.Pid()))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(status), "VmHWM:")
	kib, err := strconv.Atoi(strings.Fields(rest)[0])
	if err != nil {
		t.Fatal(err)
	}
	return kib
}

// F10, H08: strangers who connect, claim much, and stay. They cost at most 64 KiB each,
// the pair goes on, and a peer that comes again gets in beside them.
func TestStrangers(t *testing.T) {
	const strangers, limitKiB = 400, 64
	p := newTestPair(t, chaos.Options{Net: soakNet}) // which also says how long a stranger may stay
	begin(t, p)
	l := nbdclient.NewLedger()
	c := dial(t, p.Hosts[0])
	if err := l.Fill(t.Context(), c, 0, 512, 200); err != nil {
		t.Fatal(err)
	}
	before := memory(t, p.Hosts[0])
	p.Hosts[1].Signal(syscall.SIGKILL) // only who waits for its peer listens
	if _, err := p.Hosts[0].WaitFor(t.Context(), patience, "loss of the peer", chaos.Lost); err != nil {
		t.Fatal(err)
	}
	claims := [][]byte{
		bytes.Repeat([]byte{0xff}, 64),
		{0x83, 0x74, 0x02, 0x67, 0, 0, 0xff, 0xff}, // a first packet of the old header
		append([]byte{0x86, 0x20, 0xec, 0x20, 0, 0, 0, 0x8b, 0x7f, 0xff, 0xff, 0xff}, make([]byte, 20)...),
		nil,
	}
	for i := range strangers {
		network, addr := "tcp", p.Address[0]
		claim := claims[i%len(claims)]
		if i%2 == 1 { // an option of NBD that is longer than memory
			network, addr = "unix", p.Hosts[0].Path(".nbd")
			claim = append([]byte{0, 0, 0, 3}, "IHAVEOPT\x00\x00\x00\x07\xff\xff\xff\xff"...)
		}
		s, err := net.DialTimeout(network, addr, 2*time.Second)
		if err != nil {
			continue // refused: that is a limit too
		}
		defer s.Close()
		_, _ = s.Write(claim)
	}
	if kib := memory(t, p.Hosts[0]) - before; kib > strangers*limitKiB {
		t.Errorf("%d strangers cost %d KiB", strangers, kib)
	} else {
		t.Logf("%d strangers cost %d KiB", strangers, kib)
	}
	began := time.Now()
	if err := p.Hosts[1].Start(nil); err != nil {
		t.Fatal(err)
	}
	inSyncAndEqual(t, p, l)
	t.Logf("the peer was back after %v", time.Since(began))
}

// X15: a second daemon for the same resource does not start, and does no harm.
func TestSecondDaemon(t *testing.T) {
	p := newTestPair(t, chaos.Options{})
	begin(t, p)
	l := nbdclient.NewLedger()
	c := dial(t, p.Hosts[0])
	if err := l.Fill(t.Context(), c, 0, 512, 50); err != nil {
		t.Fatal(err)
	}
	if out, err := p.Hosts[0].Tool(t.Context(), "run"); err == nil {
		t.Fatalf("a second daemon runs: %s", out)
	}
	// Even one with sockets of its own does not get the disk.
	conf := filepath.Join(t.TempDir(), "other.conf")
	if err := os.WriteFile(conf, fmt.Appendf(nil, "control { socket %q; }\n", conf+".ctl"), 0o600); err != nil {
		t.Fatal(err)
	}
	other := exec.Command(program, "-c", p.Hosts[0].Path(".res"), "--config", conf, "--node", "a", "run")
	log, err := os.Create(conf + ".log")
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	other.Stderr = log
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		text, err := os.ReadFile(log.Name())
		if strings.Contains(string(text), "resource not up") {
			break
		}
		if time.Now().After(end) {
			t.Errorf("the log of the second daemon:\n%s (%v)", text, err)
			break
		}
	}
	_ = other.Process.Signal(syscall.SIGTERM)
	_ = other.Wait()
	if err := l.Fill(t.Context(), c, 0, 512, 50); err != nil {
		t.Fatal(err)
	}
	inSyncAndEqual(t, p, l)
}

// X03: the second SIGTERM changes nothing: the end is in order, under load.
func TestTwoTerminations(t *testing.T) {
	p := newTestPair(t, chaos.Options{})
	begin(t, p)
	l := nbdclient.NewLedger()
	c := dial(t, p.Hosts[0])
	done := make(chan struct{})
	go func() { _ = l.Fill(t.Context(), c, 0, 512, 0); close(done) }()
	time.Sleep(100 * time.Millisecond)
	p.Hosts[0].Signal(syscall.SIGTERM)
	if err := p.Hosts[0].End(syscall.SIGTERM); err != nil {
		t.Errorf("end: %v", err)
	}
	<-done
	if _, err := p.Hosts[1].WaitFor(t.Context(), patience, "farewell", chaos.Lost); err != nil {
		t.Fatal(err)
	}
	if err := p.Hosts[0].Start(nil); err != nil {
		t.Fatal(err)
	}
	inSyncAndEqual(t, p, l)
}

// X11: nobody reads the log, or there is no room for it. That is no reason to stop.
func TestLogThatHangs(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	reader, pipe, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	defer pipe.Close()
	p := newTestPair(t, chaos.Options{})
	fillPipe(t, pipe)
	p.Hosts[0].Log, p.Hosts[1].Log = pipe, full
	begin(t, p)
	l := nbdclient.NewLedger()
	c := dial(t, p.Hosts[0])
	for range 3 { // each time there is something to log
		_ = p.Hosts[1].End(syscall.SIGKILL)
		done := make(chan error, 1)
		go func() { done <- l.Fill(t.Context(), c, 0, 512, 100) }()
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
		case <-time.After(patience):
			t.Fatal("a write waits for the log")
		}
		if err := p.Hosts[1].Start(nil); err != nil {
			t.Fatal(err)
		}
		if err := p.WaitInSync(t.Context(), patience); err != nil {
			t.Fatal(err)
		}
	}
	inSyncAndEqual(t, p, l)
}

// fillPipe writes until there is no room.
func fillPipe(t *testing.T, w *os.File) {
	t.Helper()
	junk := bytes.Repeat([]byte("x"), 4096)
	for {
		if err := w.SetWriteDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(junk); err != nil {
			return
		}
	}
}

// X10: a daemon that stands still for less than ping-timeout is not given up.
func TestShortPause(t *testing.T) {
	p := newTestPair(t, chaos.Options{Net: "ping-timeout 100; timeout 200; ko-count 7; ping-int 1; connect-int 1;"})
	begin(t, p)
	l := nbdclient.NewLedger()
	c := dial(t, p.Hosts[0])
	done := make(chan error, 1)
	go func() { done <- l.Fill(t.Context(), c, 0, 512, 2000) }()
	for i := range 4 {
		h := p.Hosts[i%2]
		h.Signal(syscall.SIGSTOP)
		time.Sleep(time.Second)
		h.Signal(syscall.SIGCONT)
		time.Sleep(100 * time.Millisecond)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	for _, h := range p.Hosts {
		if r, err := h.Snapshot(t.Context()); err != nil || r.Reconnects != 0 || r.Connection != "Connected" {
			t.Errorf("%s: %v, %v", h.Name, chaos.Describe(r), err)
		}
	}
	inSyncAndEqual(t, p, l)
}
