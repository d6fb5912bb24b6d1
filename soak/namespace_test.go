package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/replblk/replblk/internal/chaos"
	"github.com/replblk/replblk/internal/nbdclient"
)

func contextFor(t *testing.T, d time.Duration) (context.Context, context.CancelFunc) {
	t.Helper()
	return context.WithTimeout(t.Context(), d)
}

// N01, N02: the network between two namespaces goes away, in all ways that the kernel
// has, without a word to either daemon. Writes go on after the peer was given up;
// when the network is back the copies become equal.
func TestPartitions(t *testing.T) {
	if testing.Short() {
		t.Skip("real programs only: nothing of ours runs in this process")
	}
	id := os.Getpid() % 100000
	ns := [2]string{fmt.Sprintf("ra%d", id), fmt.Sprintf("rb%d", id)}
	veth := [2]string{fmt.Sprintf("va%d", id), fmt.Sprintf("vb%d", id)}
	for _, n := range ns {
		command(t, "ip", "netns", "add", n)
		t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", n).Run() })
	}
	command(t, "ip", "link", "add", veth[0], "netns", ns[0], "type", "veth", "peer", "name", veth[1], "netns", ns[1])
	in := func(side int, args ...string) {
		t.Helper()
		command(t, append([]string{"ip", "-n", ns[side]}, args...)...)
	}
	for i := range ns {
		in(i, "addr", "add", fmt.Sprintf("10.213.0.%d/24", i+1), "dev", veth[i])
		in(i, "link", "set", veth[i], "up")
		in(i, "link", "set", "lo", "up")
	}
	p := newTestPair(t, chaos.Options{Address: [2]string{"10.213.0.1:7789", "10.213.0.2:7789"}})
	for i, h := range p.Hosts {
		h.Wrap = []string{"ip", "netns", "exec", ns[i]}
	}
	begin(t, p)
	l := nbdclient.NewLedger()
	c := dial(t, p.Hosts[0])
	for _, tc := range []struct {
		name     string
		down, up []string
		side     int
	}{
		{"the link is down", []string{"link", "set", veth[1], "down"}, []string{"link", "set", veth[1], "up"}, 1},
		{"what the Primary sends is lost", []string{"route", "add", "blackhole", "10.213.0.2/32"}, []string{"route", "del", "blackhole", "10.213.0.2/32"}, 0},
		{"what the Secondary sends is lost", []string{"route", "add", "blackhole", "10.213.0.1/32"}, []string{"route", "del", "blackhole", "10.213.0.1/32"}, 1},
		{"the Primary's address is gone", []string{"addr", "del", "10.213.0.1/24", "dev", veth[0]}, []string{"addr", "add", "10.213.0.1/24", "dev", veth[0]}, 0},
	} {
		in(tc.side, tc.down...)
		began := time.Now()
		if err := l.Fill(t.Context(), c, 0, 2048, 200); err != nil {
			t.Fatalf("%s: %v", tc.name, err)
		}
		if d := time.Since(began); d > patience {
			t.Errorf("%s: writes went on after %v", tc.name, d)
		}
		if _, err := p.Hosts[1].WaitFor(t.Context(), patience, "loss of the Primary", chaos.Lost); err != nil {
			t.Errorf("%s: %v", tc.name, err)
		}
		in(tc.side, tc.up...)
		inSyncAndEqual(t, p, l)
	}
}
