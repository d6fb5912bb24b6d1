package main

import (
	"regexp"
	"strings"
	"testing"

	"github.com/replblk/replblk/internal/control"
	"github.com/replblk/replblk/internal/nbdclient"
)

// TestAdjust changes drbd.conf under a pair in use: what can change does so on both nodes
// without a new connection, and the answer says what cannot.
func TestAdjust(t *testing.T) {
	t.Parallel()
	a, b := newPair(t, pairOptions{raced: true, pace: "ping-timeout 100; timeout 301;"})
	a.editRes(func(s string) string { return s }) // a file of its own from the start
	a.start()
	b.start()
	a.must("wait-connect", "--timeout", patientOption, "r0")
	a.must("new-current-uuid", "--clear-bitmap", "r0")
	a.must("primary", "r0")
	c := a.dial()
	defer func() { _ = c.Close() }()
	l := nbdclient.NewLedger()
	if err := l.Fill(t.Context(), c, 0, 20, 20); err != nil {
		t.Fatal(err)
	}
	if out := a.must("adjust", "r0"); out != "" {
		t.Errorf("nothing has changed, but adjust says %q", out)
	}
	a.editRes(func(s string) string {
		s = strings.Replace(s, "timeout 301;", `timeout 302; protocol A; after-sb-0pri discard-local; ping-int 3; sndbuf-size 1M; shared-secret "x";`, 1)
		s = strings.Replace(s, "disk { ", "disk { c-max-rate 20M; al-extents 101; on-io-error pass_on; ", 1)
		s = regexp.MustCompile(`(on b \{ address \S+):\d+`).ReplaceAllString(s, "$1:6999")
		return strings.Replace(s, "/dev/drbd7", "/dev/drbd8", 1)
	})
	out := a.must("adjust", "r0")
	for _, want := range []string{
		"r0: net protocol: the default to A\n", "r0: net timeout: 301 to 302\n", "r0: net after-sb-0pri: the default to discard-local\n",
		"r0: disk c-max-rate: the default to 20M\n", "r0: disk on-io-error: the default to pass_on\n",
		"r0: disk al-extents: the default to 101 (from the next attachment on: replblk detach, attach)\n",
		"r0: net sndbuf-size: the default to 1M (from the next connection on: replblk disconnect, connect)\n",
		"r0: net shared-secret: changed (from the next connection on: replblk disconnect, connect)\n",
		"r0: volume 0: device: /dev/drbd7 to /dev/drbd8 (not changed: replblk down, then restart the daemon)\n",
	} {
		if !strings.Contains(out+"\n", want) {
			t.Errorf("adjust does not say %q, but\n%s", want, out)
		}
	}
	if want := regexp.MustCompile(`r0: peer's address: ipv4:\S+ to ipv4:\S+:6999 \(not changed: replblk down, then restart the daemon\)`); !want.MatchString(out) {
		t.Errorf("adjust does not say that the address has not changed, but\n%s", out)
	}
	b.waitFor("protocol A", func(r *control.Resource) bool { return r.Protocol == "A" && r.Connection == "Connected" })
	if r := a.snapshot(); r.Protocol != "A" || r.Reconnects != 0 || r.Connection != "Connected" {
		t.Errorf("after adjust: %+v", r)
	}
	if err := l.Fill(t.Context(), c, 20, 20, 20); err != nil {
		t.Fatal(err)
	}
	a.editRes(func(s string) string { return strings.Replace(s, "timeout 302", "timeout soon", 1) })
	a.refused(control.ExitConfig, "nothing was changed", "adjust", "r0")
	_ = c.Close()
	a.check(l)
	a.demote()
	b.must("primary", "r0")
	b.check(l)
}
