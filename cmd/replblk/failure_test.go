package main

import (
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/replblk/replblk/internal/control"
	"github.com/replblk/replblk/internal/nbdclient"
)

// A peer that is there and does not answer is given up; when it wakes it is brought up
// to date.
func TestFrozenPeer(t *testing.T) {
	t.Parallel()
	a, b := synced(t, pairOptions{raced: true, pace: cutNet})
	a.must("primary", "r0")
	l := nbdclient.NewLedger()
	c := a.dial()
	if err := l.Fill(t.Context(), c, 0, 500, 200); err != nil {
		t.Fatal(err)
	}
	_ = b.cmd.Process.Signal(syscall.SIGSTOP)
	began := time.Now()
	if err := l.Fill(t.Context(), c, 0, 500, 200); err != nil {
		t.Fatalf("a frozen peer reached the client: %v", err)
	}
	if d := time.Since(began); d < 200*time.Millisecond || d > patient {
		t.Errorf("writes went on after %v", d)
	}
	if r := a.snapshot(); r.Connection == "Connected" || r.Volumes[0].OutOfSync == 0 {
		t.Errorf("a frozen peer: %s", summary([]control.Resource{*r}))
	}
	_ = b.cmd.Process.Signal(syscall.SIGCONT)
	a.must("wait-sync", "--timeout", patientOption, "r0")
	_ = c.Close()
	a.demote()
	b.must("primary", "r0")
	b.check(l)
}

// Both nodes lose power at once. What was acknowledged is on both, and what was not is
// made equal.
func TestKillBoth(t *testing.T) {
	t.Parallel()
	a, b := synced(t, pairOptions{})
	l := nbdclient.NewLedger()
	for round := range 3 {
		a.must("primary", "r0")
		var wg sync.WaitGroup
		for i := range uint64(4) {
			c := a.dial()
			wg.Go(func() { _ = l.Fill(t.Context(), c, i*512, 512, 0) })
		}
		time.Sleep(300 * time.Millisecond)
		_ = b.cmd.Process.Signal(syscall.SIGKILL)
		a.end(syscall.SIGKILL)
		b.end(syscall.SIGKILL)
		wg.Wait()
		if round%2 == 0 {
			a.start()
			b.start()
		} else {
			b.start()
			a.start()
		}
		a.must("wait-sync", "--timeout", patientOption, "r0")
		a.must("primary", "r0")
		a.check(l)
		a.demote()
	}
	b.must("primary", "r0")
	b.check(l)
	b.demote()
	size := a.snapshot().Volumes[0].Size
	a.must("down", "r0")
	b.must("down", "r0")
	equalDisks(t, a, b, size)
}

// The roles go to and fro under writing clients, which are sent away each time.
func TestSwitchPrimaries(t *testing.T) {
	t.Parallel()
	a, b := synced(t, pairOptions{raced: true})
	l := nbdclient.NewLedger()
	p, s := a, b
	for range 8 {
		p.must("primary", "r0")
		var wg sync.WaitGroup
		for i := range uint64(3) {
			c := p.dial()
			wg.Go(func() { _ = l.Fill(t.Context(), c, i*512, 512, 0) })
		}
		time.Sleep(50 * time.Millisecond)
		p.must("secondary", "--force", "r0")
		wg.Wait()
		p, s = s, p
	}
	p.must("primary", "r0")
	p.check(l)
	_ = s
}

// A peer with another secret is refused, and the log says why.
func TestWrongSecret(t *testing.T) {
	t.Parallel()
	a, b := newPair(t, pairOptions{net: `cram-hmac-alg sha1; shared-secret "right";`})
	b.editRes(func(s string) string { return strings.Replace(s, "right", "wrong", 1) })
	a.start()
	b.start()
	eventually(t, "neither log says that authentication failed", func() bool { // one of them may only see the other go
		return a.logged("peer authentication failed") || b.logged("peer authentication failed")
	})
	r := a.snapshot()
	if r.Connection == "Connected" {
		t.Error("connected with another secret")
	}
}

// Another protocol or other volumes are refused.
func TestOtherProtocol(t *testing.T) {
	t.Parallel()
	a, b := newPair(t, pairOptions{net: "protocol C;"})
	b.editRes(func(s string) string { return strings.Replace(s, "protocol C", "protocol A", 1) })
	a.start()
	b.start()
	b.waitForLog("peer is configured differently")
	a.waitFor("refusal", func(r *control.Resource) bool { return r.Connection == "StandAlone" })
}
