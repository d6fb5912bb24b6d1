package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"sync/atomic"
	"testing"
	"time"

	"github.com/replblk/replblk/internal/chaos"
	"github.com/replblk/replblk/internal/nbdclient"
)

func contextFor(t *testing.T, d time.Duration) (context.Context, context.CancelFunc) {
	t.Helper()
	return context.WithTimeout(t.Context(), d)
}

// cable is two network namespaces with a veth pair, whose ends are called "wire" in both.
type cable struct {
	t  *testing.T
	ns [2]string
}

var cables atomic.Int32 // that were made

func newCable(t *testing.T) *cable {
	t.Helper()
	if testing.Short() {
		t.Skip("real programs only: nothing of ours runs in this process")
	}
	id := fmt.Sprintf("%d-%d", os.Getpid(), cables.Add(1))
	c := &cable{t, [2]string{"ra" + id, "rb" + id}}
	for _, n := range c.ns {
		command(t, "ip", "netns", "add", n)
		t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", n).Run() })
	}
	command(t, "ip", "link", "add", "wire", "netns", c.ns[0], "type", "veth", "peer", "name", "wire", "netns", c.ns[1])
	for i := range c.ns {
		c.ip(i, "link", "set", "wire", "up")
		c.ip(i, "link", "set", "lo", "up")
	}
	return c
}

// ip changes something on one side.
func (c *cable) ip(side int, args ...string) {
	c.t.Helper()
	command(c.t, append([]string{"ip", "-n", c.ns[side]}, args...)...)
}

// pair makes a pair whose daemons run at the ends.
func (c *cable) pair(o chaos.Options) *chaos.Pair {
	c.t.Helper()
	o.Net = soakNet // nothing else tells that a cable is cut
	p := newTestPair(c.t, o)
	for i, h := range p.Hosts {
		h.Wrap = []string{"ip", "netns", "exec", c.ns[i]}
	}
	return p
}

// N14: the address of a node is not there yet when its daemon starts, is bound to a link, or
// comes back late. The daemons try until it is.
func TestLateAddresses(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ listen, own [2]string }{
		"IPv4":            {[2]string{"10.213.0.1:7789", "10.213.0.2:7789"}, [2]string{"10.213.0.1/24", "10.213.0.2/24"}},
		"IPv6 link-local": {[2]string{"ipv6 [fe80::d1%wire]:7789", "ipv6 [fe80::d2%wire]:7789"}, [2]string{"fe80::d1/64", "fe80::d2/64"}},
	} {
		t.Run(name, func(t *testing.T) {
			n := newCable(t)
			p := n.pair(chaos.Options{Address: c.listen})
			for i, h := range p.Hosts {
				if err := h.Start(nil); err != nil {
					t.Fatal(err)
				}
				if _, err := h.WaitFor(t.Context(), patience, "start", chaos.Lost); err != nil {
					t.Fatal(err)
				}
				n.ip(i, "addr", "add", c.own[i], "dev", "wire")
			}
			if err := p.Declare(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := p.Hosts[0].Primary(t.Context()); err != nil {
				t.Fatal(err)
			}
			l := nbdclient.NewLedger()
			client := dial(t, p.Hosts[0])
			n.ip(1, "addr", "del", c.own[1], "dev", "wire")
			if err := l.Fill(t.Context(), client, 0, 512, 200); err != nil {
				t.Fatal(err)
			}
			for _, h := range p.Hosts {
				if _, err := h.WaitFor(t.Context(), patience, "loss of the peer", chaos.Lost); err != nil {
					t.Fatal(err)
				}
			}
			n.ip(1, "addr", "add", c.own[1], "dev", "wire")
			inSyncAndEqual(t, p, l)
		})
	}
}

// N01, N02: the network between two namespaces goes away, in all ways that the kernel
// has, without a word to either daemon. Writes go on after the peer was given up;
// when the network is back the copies become equal.
func TestPartitions(t *testing.T) {
	n := newCable(t)
	for i := range n.ns {
		n.ip(i, "addr", "add", fmt.Sprintf("10.213.0.%d/24", i+1), "dev", "wire")
	}
	p := n.pair(chaos.Options{Address: [2]string{"10.213.0.1:7789", "10.213.0.2:7789"}})
	begin(t, p)
	l := nbdclient.NewLedger()
	c := dial(t, p.Hosts[0])
	for _, tc := range []struct {
		name     string
		down, up []string
		side     int
	}{
		{"the link is down", []string{"link", "set", "wire", "down"}, []string{"link", "set", "wire", "up"}, 1},
		{"what the Primary sends is lost", []string{"route", "add", "blackhole", "10.213.0.2/32"}, []string{"route", "del", "blackhole", "10.213.0.2/32"}, 0},
		{"what the Secondary sends is lost", []string{"route", "add", "blackhole", "10.213.0.1/32"}, []string{"route", "del", "blackhole", "10.213.0.1/32"}, 1},
		{"the Primary's address is gone", []string{"addr", "del", "10.213.0.1/24", "dev", "wire"}, []string{"addr", "add", "10.213.0.1/24", "dev", "wire"}, 0},
	} {
		n.ip(tc.side, tc.down...)
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
		n.ip(tc.side, tc.up...)
		inSyncAndEqual(t, p, l)
	}
}
