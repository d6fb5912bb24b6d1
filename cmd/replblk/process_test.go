package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/replblk/replblk/internal/control"
	"github.com/replblk/replblk/internal/nbdclient"
)

func TestStatusForms(t *testing.T) {
	t.Parallel()
	a, b := synced(t, pairOptions{})
	a.must("primary", "r0")
	for _, c := range []struct{ args, want string }{
		{"status", "r0 role:Primary\n  disk:UpToDate\n  b role:Secondary\n    peer-disk:UpToDate\n\n"},
		{"role r0", "Primary/Secondary\n"},
		{"cstate r0", "Connected\n"},
		{"dstate r0", "UpToDate/UpToDate\n"},
		{"sh-resources", "r0\n"},
		{"sh-dev r0", "/dev/drbd7\n"},
	} {
		if got := a.must(strings.Fields(c.args)...); got != c.want {
			t.Errorf("%s:\n%s\nwant\n%s", c.args, got, c.want)
		}
	}
	if got := b.must("role", "r0"); got != "Secondary/Primary\n" {
		t.Errorf("role on b: %s", got)
	}
	proc := regexp.MustCompile(`^version: 8\.4\.11 \(api:1/proto:86-101\)\n.*\n\n 7: cs:Connected ro:Primary/Secondary ds:UpToDate/UpToDate C r-----\n` +
		`    ns:\d+ nr:\d+ dw:\d+ dr:\d+ al:\d+ bm:0 lo:\d+ pe:\d+ ua:\d+ ap:\d+ ep:1 wo:f oos:0\n$`)
	if got := a.must("proc"); !proc.MatchString(got) {
		t.Errorf("proc:\n%s", got)
	}
	var list []jsonResource
	decode(t, a.must("status", "--json"), &list)
	if len(list) != 1 || list[0].Role != "Primary" || list[0].Devices[0].DiskState != "UpToDate" ||
		list[0].Connections[0].State != "Connected" || list[0].Connections[0].PeerDevices[0].ReplicationState != "Established" {
		t.Errorf("json: %+v", list)
	}
	events := a.must("events", "--now")
	for _, want := range []string{"exists resource name:r0 role:Primary", "exists connection name:r0", "exists peer-device", "exists -\n"} {
		if !strings.Contains(events, want) {
			t.Errorf("events lack %q:\n%s", want, events)
		}
	}
	gi := regexp.MustCompile(`^([0-9A-F]{16}:){4}1:1:1:1:0:0:0\n$`)
	if got := a.must("get-gi", "r0"); !gi.MatchString(got) {
		t.Errorf("get-gi: %s", got)
	}
}

func TestExitCodes(t *testing.T) {
	t.Parallel()
	a, b := newPair(t, pairOptions{pace: "ping-timeout 30;"}) // so long a promotion waits for a Primary to resign
	a.refused(control.ExitUsage, "no daemon at", "status")
	a.start()
	a.refused(control.ExitNoData, "(-2) Need access to UpToDate data", "primary", "r0")
	a.refused(control.ExitConfig, "(158) Unknown resource", "primary", "r9")
	a.refused(control.ExitConfig, "no such volume", "detach", "r0/5")
	a.refused(control.ExitUsage, "is not a number", "detach", "r0/x")
	a.refused(control.ExitRefused, "(-15) Need a connection", "invalidate-remote", "r0")
	b.start()
	a.must("wait-connect", "--timeout", patientOption, "r0")
	a.must("new-current-uuid", "--clear-bitmap", "r0")
	a.must("primary", "r0")
	b.refused(control.ExitRefused, "(-1) Multiple primaries not allowed by config", "primary", "r0")
	b.refused(control.ExitRefused, "(-6) Refusing to be Outdated while Connected", "outdate", "r0")
	a.must("down", "r0")
	a.refused(control.ExitConfig, "(158) Unknown resource", "primary", "r0")
	if got := a.must("role", "r0"); got != "Unconfigured\n" {
		t.Errorf("role when down: %q", got)
	}
	if got := a.must("status"); got != "# No currently configured DRBD found.\n" {
		t.Errorf("status when down: %q", got)
	}
	a.must("up", "r0")
	a.must("up", "r0") // is up already
	a.waitFor("up again", func(r *control.Resource) bool { return inSync([]control.Resource{*r}) })
}

func TestSecondaryRefusesClients(t *testing.T) {
	t.Parallel()
	a, b := synced(t, pairOptions{})
	if _, err := nbdclient.Dial(t.Context(), "unix:"+a.path(".nbd"), "r0"); err == nil || !strings.Contains(err.Error(), "Secondary") {
		t.Errorf("export of a Secondary: %v", err)
	}
	a.must("primary", "r0")
	if _, err := nbdclient.Dial(t.Context(), "unix:"+b.path(".nbd"), "r0"); err == nil || !strings.Contains(err.Error(), "a is Primary") {
		t.Errorf("export of the other Secondary: %v", err)
	}
	c := a.dial()
	if err := c.Write(make([]byte, 4096), 0, true); err != nil {
		t.Fatal(err)
	}
	a.refused(control.ExitRefused, "(-12) Device is held open by someone", "secondary", "r0")
	if err := c.Flush(); err != nil {
		t.Errorf("a refused demotion cut the client off: %v", err)
	}
	a.must("secondary", "--force", "r0")
	if err := c.Flush(); err == nil {
		t.Error("the client is still served after a forced demotion")
	}
	b.must("primary", "r0")
}

// fill writes with several clients until the host is killed, and returns when all of
// them have noticed.
func fillAndKill(t *testing.T, h *host, l *nbdclient.Ledger, d time.Duration) {
	t.Helper()
	var wg sync.WaitGroup
	for i := range uint64(4) {
		c := h.dial()
		wg.Go(func() {
			if err := l.Fill(t.Context(), c, i*512, 512, 0); err == nil {
				t.Error("a client of a killed daemon saw no error")
			}
		})
	}
	time.Sleep(d)
	h.end(syscall.SIGKILL)
	wg.Wait()
}

func TestKillPrimary(t *testing.T) {
	t.Parallel()
	a, b := synced(t, pairOptions{raced: true})
	l := nbdclient.NewLedger()
	hosts := []*host{a, b}
	a.must("primary", "r0")
	rounds := 4
	if testing.Short() {
		rounds = 2
	}
	for round := range rounds { // the roles change sides with every round
		p, s := hosts[round%2], hosts[1-round%2]
		fillAndKill(t, p, l, 400*time.Millisecond)
		s.waitFor("peer lost", func(r *control.Resource) bool { return r.Connection != "Connected" })
		s.must("primary", "r0")
		s.check(l)
		c := s.dial()
		if err := l.Fill(t.Context(), c, 3000, 2000, 200); err != nil {
			t.Fatal(err)
		}
		_ = c.Close()
		p.start()
		p.must("wait-sync", "--timeout", patientOption, "r0")
		r := p.snapshot()
		if got, limit := r.Volumes[0].Counters.Received, r.Volumes[0].Size*3/4; got > limit {
			t.Errorf("round %d: the resync received %d bytes of a disk of %d", round, got, r.Volumes[0].Size)
		}
		if r.PeerRole != "Primary" || r.Volumes[0].OutOfSync != 0 {
			t.Errorf("round %d: after the resync: %+v", round, r)
		}
	}
	a.check(l) // a is Primary after an even number of rounds
	size := a.snapshot().Volumes[0].Size
	for _, h := range hosts {
		if err := h.end(syscall.SIGTERM); err != nil {
			t.Errorf("%s: end: %v", h.name, err)
		}
	}
	equalDisks(t, a, b, size)
}

func TestKillSecondary(t *testing.T) {
	t.Parallel()
	a, b := synced(t, pairOptions{})
	a.must("primary", "r0")
	l := nbdclient.NewLedger()
	c := a.dial()
	for range 3 {
		done := make(chan error, 1)
		go func() { done <- l.Fill(t.Context(), c, 0, 2000, 3000) }()
		time.Sleep(100 * time.Millisecond)
		b.end(syscall.SIGKILL)
		if err := <-done; err != nil {
			t.Fatalf("the loss of the Secondary reached the client: %v", err)
		}
		a.waitFor("peer lost", func(r *control.Resource) bool { return r.Connection != "Connected" })
		b.start()
		a.must("wait-sync", "--timeout", patientOption, "r0")
	}
	_ = c.Close()
	a.demote()
	b.must("primary", "r0")
	b.check(l)
}

func TestKillDuringResync(t *testing.T) {
	t.Parallel()
	slow := "c-max-rate 300K; c-min-rate 300K; resync-rate 300K;" // forty seconds, to be looked at
	for _, victim := range []string{"source", "target"} {
		t.Run(victim, func(t *testing.T) {
			a, b := synced(t, pairOptions{disk: slow})
			a.must("primary", "r0")
			b.end(syscall.SIGKILL)
			a.waitFor("peer lost", func(r *control.Resource) bool { return r.Connection != "Connected" })
			l := nbdclient.NewLedger()
			c := a.dial()
			if err := l.Fill(t.Context(), c, 0, 4000, 6000); err != nil {
				t.Fatal(err)
			}
			_ = c.Close()
			b.start()
			a.waitFor("resync", func(r *control.Resource) bool {
				return r.Volumes[0].Resync != nil && r.Volumes[0].Resync.DonePermille() > 20
			})
			if out := a.must("status"); !strings.Contains(out, "replication:SyncSource peer-disk:Inconsistent done:") {
				t.Errorf("status of a resync:\n%s", out)
			}
			if out := b.must("proc"); !regexp.MustCompile(`cs:SyncTarget .*\n.*\n\t\[=*>\.*\] sync'ed: *\d+\.\d% \(\d+/\d+\)K\n\tfinish: \d+:\d\d:\d\d speed: [0-9,]+ \([0-9,]+\).* K/sec`).MatchString(out) {
				t.Errorf("proc of a resync:\n%s", out)
			}
			text, err := os.ReadFile(a.res()) // which is b's too
			if err == nil {
				err = os.WriteFile(a.res(), bytes.ReplaceAll(text, []byte("300K"), []byte("300M")), 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
			if victim == "source" {
				a.end(syscall.SIGKILL)
				b.waitFor("peer lost", func(r *control.Resource) bool { return r.Connection != "Connected" })
				b.refused(control.ExitNoData, "(-2) Need access to UpToDate data", "primary", "r0")
				b.must("adjust", "r0")
				a.start()
			} else {
				b.end(syscall.SIGKILL)
				a.must("adjust", "r0")
				b.start()
			}
			b.must("wait-sync", "--timeout", patientOption, "r0")
			if victim == "target" {
				a.demote()
			}
			b.must("primary", "r0")
			b.check(l)
		})
	}
}

func TestSplitBrain(t *testing.T) {
	t.Parallel()
	a, b := synced(t, pairOptions{})
	a.must("disconnect", "r0")
	la, lb := nbdclient.NewLedger(), nbdclient.NewLedger()
	for h, l := range map[*host]*nbdclient.Ledger{a: la, b: lb} {
		h.must("primary", "--force", "r0")
		c := h.dial()
		if err := l.Fill(t.Context(), c, 0, 100, 100); err != nil {
			t.Fatal(err)
		}
		_ = c.Close()
		h.demote()
	}
	a.must("connect", "r0") // b has been waiting for it all the time
	for _, h := range []*host{a, b} {
		h.waitFor("refusal", func(r *control.Resource) bool { return r.Connection == "StandAlone" })
		log, _ := os.ReadFile(h.path(".log"))
		if !strings.Contains(string(log), "split brain detected") {
			t.Errorf("%s: the log does not say what happened", h.name)
		}
		_, code, _ := h.run("wait-sync", "r0")
		if code != exitTimeout {
			t.Errorf("%s: wait-sync of a StandAlone resource ends with %d", h.name, code)
		}
	}
	if out := a.must("explain", "r0"); !strings.Contains(out, "SPLIT BRAIN") || !strings.Contains(out, "have changed since 2") ||
		!strings.Contains(out, "blocks of 4 KiB had, as it said at 2") || !strings.Contains(out, "replblk connect --discard-my-data r0") {
		t.Errorf("explain:\n%s", out)
	}
	// Both data sets are kept.
	for h, l := range map[*host]*nbdclient.Ledger{a: la, b: lb} {
		h.must("primary", "r0")
		h.check(l)
		h.demote()
	}
	a.must("connect", "--discard-my-data", "r0")
	b.must("connect", "r0")
	a.must("wait-sync", "--timeout", patientOption, "r0")
	a.must("primary", "r0")
	a.check(lb)
}

func TestStopUnderLoad(t *testing.T) {
	t.Parallel()
	a, b := synced(t, pairOptions{raced: true})
	a.must("primary", "r0")
	l := nbdclient.NewLedger()
	var wg sync.WaitGroup
	for i := range uint64(3) {
		c := a.dial()
		wg.Go(func() { _ = l.Fill(t.Context(), c, i*512, 512, 0) })
	}
	time.Sleep(200 * time.Millisecond)
	if err := a.end(syscall.SIGTERM); err != nil {
		t.Errorf("end: %v", err)
	}
	wg.Wait()
	r := b.waitFor("an orderly farewell", func(r *control.Resource) bool { return r.Connection != "Connected" })
	if r.Volumes[0].OutOfSync != 0 {
		t.Errorf("%d bytes out of sync after an orderly end", r.Volumes[0].OutOfSync)
	}
	b.must("primary", "r0")
	b.check(l)
	a.start()
	a.must("wait-sync", "--timeout", patientOption, "r0")
	if got := a.snapshot().Volumes[0].Counters.Received; got > 1<<20 {
		t.Errorf("the reconnect after an orderly end received %d bytes", got)
	}
}

func TestDetachAttach(t *testing.T) {
	t.Parallel()
	a, b := synced(t, pairOptions{})
	a.must("primary", "r0")
	a.must("detach", "r0")
	l := nbdclient.NewLedger()
	c := a.dial()
	if err := l.Fill(t.Context(), c, 0, 500, 300); err != nil {
		t.Fatalf("a diskless Primary must write to its peer: %v", err)
	}
	a.check(l)
	a.must("attach", "r0")
	a.must("wait-sync", "--timeout", patientOption, "r0")
	if err := l.Fill(t.Context(), c, 0, 500, 300); err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
	a.demote()
	b.must("primary", "r0")
	b.check(l)
	b.demote()
	a.must("invalidate", "r0")
	a.must("wait-sync", "--timeout", patientOption, "r0")
	size := a.snapshot().Volumes[0].Size
	a.must("down", "r0")
	b.must("down", "r0")
	equalDisks(t, a, b, size)
}

func TestSuspendPause(t *testing.T) {
	t.Parallel()
	a, _ := synced(t, pairOptions{})
	a.must("primary", "r0")
	c := a.dial()
	a.must("suspend-io", "r0")
	done := make(chan error, 1)
	go func() { done <- c.Write(make([]byte, 4096), 0, false) }()
	select {
	case err := <-done:
		t.Errorf("a write to a suspended resource was answered: %v", err)
	case <-time.After(200 * time.Millisecond):
	}
	if out := a.must("status"); !strings.Contains(out, "suspended:user") {
		t.Errorf("status of a suspended resource:\n%s", out)
	}
	a.must("resume-io", "r0")
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestMetadataAgrees(t *testing.T) {
	t.Parallel()
	drbdmeta, err := exec.LookPath("drbdmeta")
	if err != nil {
		t.Skip("drbdmeta (drbd-utils) is not installed")
	}
	a, b := synced(t, pairOptions{})
	a.must("primary", "r0")
	l := nbdclient.NewLedger()
	c := a.dial()
	if err := l.Fill(t.Context(), c, 0, 500, 300); err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
	a.refused(control.ExitUsage, "in use", "dump-md", "r0")
	b.end(syscall.SIGTERM)
	a.demote()
	a.end(syscall.SIGTERM)
	a.refused(1, "unclean", "dump-md", "r0") // as after any attachment (spec 2.7)
	a.must("apply-al", "r0")
	ours := a.must("dump-md", "r0")
	raw, err := exec.Command(drbdmeta, "--force", "7", "v08", a.disk(), "internal", "dump-md").Output()
	if err != nil {
		t.Fatalf("drbdmeta dump-md: %v", err)
	}
	comment := regexp.MustCompile(`(?m)^#.*\n`)
	if x, y := comment.ReplaceAllString(ours, ""), comment.ReplaceAllString(string(raw), ""); x != y {
		t.Errorf("dump-md:\n%s\ndrbdmeta:\n%s", x, y)
	}
	gi, err := exec.Command(drbdmeta, "--force", "7", "v08", a.disk(), "internal", "get-gi").Output()
	if err != nil {
		t.Fatal(err)
	}
	if got := a.must("get-gi", "r0"); got != string(gi) {
		t.Errorf("get-gi %s, drbdmeta %s", got, gi)
	}
	// A dump goes back.
	file := a.path(".dump")
	if err := os.WriteFile(file, []byte(ours), 0o600); err != nil {
		t.Fatal(err)
	}
	a.must("wipe-md", "--force", "r0")
	a.refused(1, "no valid meta data found", "dump-md", "r0")
	a.must("restore-md", "--force", file, "r0")
	a.start()
	b.start()
	a.must("wait-sync", "--timeout", patientOption, "r0")
	a.must("primary", "r0")
	a.check(l)
}

// A listener sees the changes in order, each with what identifies it.
func TestEvents(t *testing.T) {
	t.Parallel()
	a, b := synced(t, pairOptions{raced: true})
	var seen []string
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	lines := make(chan string, 100)
	go func() {
		c := control.Client{Path: a.path(".ctl")}
		_ = c.Do(ctx, control.Request{Command: "events", Resource: "r0"}, func(raw json.RawMessage) error {
			var s string
			decode(t, string(raw), &s)
			lines <- s[len(eventTime)+1:]
			return nil
		})
		close(lines)
	}()
	for l := range lines {
		if l == "exists -" {
			break
		}
	}
	a.must("primary", "r0")
	b.end(syscall.SIGKILL)
	a.waitFor("peer lost", func(r *control.Resource) bool { return r.Connection != "Connected" })
	a.must("down", "r0")
	for l := range lines {
		seen = append(seen, l)
		if l == "destroy resource name:r0" {
			stop()
		}
	}
	all := strings.Join(seen, "\n")
	at := 0
	for _, want := range []string{
		"change resource name:r0 role:Primary suspended:no",
		"change connection name:r0 peer-node-id:",
		"connection:Connecting role:Unknown",
		"change device name:r0 volume:0 minor:7 disk:Diskless",
		"destroy resource name:r0",
	} {
		i := strings.Index(all[at:], want)
		if i < 0 {
			t.Fatalf("no %q after %d in\n%s", want, at, all)
		}
		at += i
	}
}

// Mistakes end the daemon before it touches a disk, and say where they are.
func TestConfigurationErrors(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		o    pairOptions
		code int
		want string
	}{
		"unknown option": {pairOptions{net: "prtocol C;"}, exitConfig, "r0.res:4:"},
		"unknown export": {pairOptions{rest: "nbd x { listen \"unix:/tmp/x\"; resource r9; }\n"}, exitConfig, "r9"},
		"tls":            {pairOptions{rest: "tls { certificate \"/c\"; key \"/k\"; }\nnbd x { listen \"unix:/tmp/x\"; resource r0; tls require; }\n"}, control.ExitUsage, "tls"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			h := &host{t: t, dir: dir, name: "a"}
			res := "resource r0 {\n device /dev/drbd7;\n meta-disk internal;\n net { " + c.o.net + " }\n" +
				" on a { address 127.0.0.1:7001; disk /dev/null; }\n on b { address 127.0.0.1:7002; disk /dev/null; }\n}\n"
			if err := os.WriteFile(dir+"/r0.res", []byte(res), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(h.path(".conf"), []byte("control { socket \""+h.path(".ctl")+"\"; }\n"+c.o.rest), 0o600); err != nil {
				t.Fatal(err)
			}
			h.refused(c.code, c.want, "run")
		})
	}
}
