package main

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/replblk/replblk/internal/chaos"
	"github.com/replblk/replblk/internal/loopback"
	"github.com/replblk/replblk/internal/nbdclient"
)

// neighbours is a pair in sync with a second resource, r1, whose connections go through
// proxies and last for as long as they are silent. Node a is Primary of both.
func neighbours(t *testing.T) (a, b *host, links [2]*chaos.Proxy) {
	t.Helper()
	a, b = newPair(t, pairOptions{})
	hosts := [2]*host{a, b}
	var own, dialled [2]string
	for i := range hosts {
		own[i] = loopback.Address()
		var err error
		if links[i], err = chaos.NewProxy(own[i]); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(links[i].Close)
		dialled[i] = links[i].Address()
	}
	for i, h := range hosts {
		img := h.path(".img1")
		if err := os.WriteFile(img, make([]byte, 8<<20), 0o600); err != nil {
			t.Fatal(err)
		}
		conf, err := os.OpenFile(h.path(".conf"), os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(conf, "nbd r1 { listen \"unix:%s\"; resource r1; }\n", h.path(".nbd1"))
		if err := conf.Close(); err != nil {
			t.Fatal(err)
		}
		h.editRes(func(s string) string {
			return s + fmt.Sprintf("resource r1 {\n device /dev/drbd8;\n meta-disk internal;\n net { connect-int 1; ping-int 120; ping-timeout 300; timeout 600; }\n"+
				" on %s { address %s; disk %q; }\n on %s { address %s; disk %q; }\n}\n",
				h.name, own[i], img, hosts[1-i].name, dialled[1-i], img)
		})
		h.must("create-md", "--force", "r1")
	}
	a.start()
	b.start()
	for _, r := range []string{"r0", "r1"} {
		a.must("wait-connect", "--timeout", patientOption, r)
		a.must("new-current-uuid", "--clear-bitmap", r)
		a.must("wait-sync", "--timeout", patientOption, r)
		a.must("primary", r)
	}
	return a, b, links
}

// N16: of two resources between the same nodes one is stuck. The other one is served, changes
// its role and tells its state, and when the link is back the stuck one goes on.
func TestStuckNeighbour(t *testing.T) {
	t.Parallel()
	a, b, links := neighbours(t)
	c, err := nbdclient.Dial(t.Context(), "unix:"+a.path(".nbd1"), "r1")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Abort()
	for _, p := range links {
		p.Set(chaos.Forth, chaos.Weather{Stall: true})
		p.Set(chaos.Back, chaos.Weather{Stall: true})
	}
	stuck := make(chan error, 1)
	go func() { stuck <- c.Write(make([]byte, 4096), 0, false) }()
	l := nbdclient.NewLedger()
	for p, s := a, b; ; p, s = s, p {
		d := p.dial()
		if err := l.Fill(t.Context(), d, 0, 500, 200); err != nil {
			t.Fatal(err)
		}
		_ = d.Close()
		if p == b {
			break
		}
		p.demote()
		s.must("primary", "r0")
	}
	b.check(l)
	if out := a.must("status", "r1"); !strings.Contains(out, "r1 role:Primary") || !strings.Contains(out, "disk:UpToDate") {
		t.Errorf("status of the stuck one:\n%s", out)
	}
	select {
	case err := <-stuck:
		t.Fatalf("the stuck write has ended: %v", err)
	default:
	}
	for _, p := range links {
		p.Heal()
	}
	if err := <-stuck; err != nil {
		t.Errorf("the stuck write: %v", err)
	}
	b.must("wait-sync", "--timeout", patientOption, "r1")
}
