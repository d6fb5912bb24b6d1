package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/replblk/replblk/aoe"
	"github.com/replblk/replblk/aoe/aoetest"
	"github.com/replblk/replblk/aoe/packet"
	"github.com/replblk/replblk/internal/control"
)

// lan is three network namespaces on one bridge: two nodes and a client. The nodes
// have a cable of their own for the replication.
//
//	a ─lan0─┐        ┌─ client, cli
//	│       br (ns) ─┘
//	b ─lan0─┘
type lan struct{ a, b, client, bridge string }

func newLAN(t *testing.T, mtu int) lan {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root, for network namespaces and raw sockets")
	}
	id := fmt.Sprintf("rb%d", os.Getpid()%100000)
	n := lan{id + "a", id + "b", id + "c", id + "x"}
	for _, ns := range []string{n.a, n.b, n.client, n.bridge} {
		ip(t, "netns add "+ns)
		t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", ns).Run() })
		ip(t, "-n "+ns+" link set lo up")
	}
	ip(t, "-n "+n.bridge+" link add bridge0 type bridge forward_delay 0")
	ip(t, "-n "+n.bridge+" link set bridge0 up")
	for ns, name := range map[string]string{n.a: "lan0", n.b: "lan0", n.client: "cli"} {
		ip(t, fmt.Sprintf("-n %s link add %s mtu %d type veth peer name %s netns %s mtu %d", ns, name, mtu, ns, n.bridge, mtu))
		ip(t, "-n "+n.bridge+" link set "+ns+" master bridge0 up")
		ip(t, "-n "+ns+" link set "+name+" up")
	}
	ip(t, fmt.Sprintf("-n %s link add repl type veth peer name repl netns %s", n.a, n.b))
	for ns, addr := range map[string]string{n.a: "10.9.0.1/24", n.b: "10.9.0.2/24"} {
		ip(t, "-n "+ns+" addr add "+addr+" dev repl")
		ip(t, "-n "+ns+" link set repl up")
	}
	return n
}

func ip(t *testing.T, args string) {
	t.Helper()
	if out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput(); err != nil {
		t.Fatalf("ip %s: %v: %s", args, err, out)
	}
}

// pair makes two nodes in the namespaces that serve e1.1, in sync; a is Primary. More is for
// the target's section, pace as in pairOptions.
func (n lan) pair(t *testing.T, pace, more string) (a, b *host) {
	t.Helper()
	a, b = newPair(t, pairOptions{raced: true, pace: pace, rest: "aoe e11 { shelf 1; slot 1; interface lan0; resource r0; " + more + " }\n"})
	own := regexp.MustCompile(`(on (\w) \{ address )127\.\S+:\d+`)
	for _, h := range []*host{a, b} {
		h.ns = map[string]string{"a": n.a, "b": n.b}[h.name]
		conf, err := os.ReadFile(h.path(".conf"))
		if err == nil {
			err = os.WriteFile(h.path(".conf"), bytes.ReplaceAll(conf, []byte("NODE"), []byte(h.name)), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		h.editRes(func(s string) string {
			return own.ReplaceAllStringFunc(s, func(m string) string {
				sub := own.FindStringSubmatch(m)
				return sub[1] + map[string]string{"a": "10.9.0.1:7789", "b": "10.9.0.2:7789"}[sub[2]]
			})
		})
		h.start()
	}
	a.must("wait-connect", "--timeout", patientOption, "r0")
	a.must("new-current-uuid", "--clear-bitmap", "r0")
	a.waitFor("both up to date", func(r *control.Resource) bool { return inSync([]control.Resource{*r}) })
	a.must("primary", "r0")
	return a, b
}

// station is the client's end of the LAN with the books of what it wrote.
type station struct {
	t      *testing.T
	link   *packet.Socket
	target aoe.MAC
	ledger *aoetest.Ledger
	config aoe.ConfigArg
}

// station discovers the target.
func (n lan) station(t *testing.T, sectors int) *station {
	t.Helper()
	return n.stationOn(t, "cli", sectors)
}

// stationOn is station on another interface of the client's namespace.
func (n lan) stationOn(t *testing.T, name string, sectors int) *station {
	t.Helper()
	link, err := aoetest.OpenIn(n.client, name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = link.Close() })
	s := &station{t: t, link: link, ledger: aoetest.NewLedger(2000, sectors, 30, 1)}
	c := aoetest.NewClient(link, 1, 1)
	if s.config, err = find(c); err != nil {
		t.Fatal(err)
	}
	s.target = c.Target
	return s
}

// load runs a load for a while, with an event in the middle, and returns it with its
// counters. Every answer is checked.
func (s *station) load(timer aoetest.Timer, window int, d time.Duration, event func()) *aoetest.Load {
	s.t.Helper()
	end := time.Now().Add(d)
	l := &aoetest.Load{
		Link: s.link, Shelf: 1, Slot: 1, Target: s.target, Timer: timer, Window: window, Sectors: s.ledger.Sectors,
		Next: func(place int, r *aoetest.Request) bool { return time.Now().Before(end) && s.ledger.Next(place, r) },
		Done: s.ledger.Done,
	}
	done := make(chan error, 1)
	ctx, cancel := context.WithTimeout(s.t.Context(), d+5*patient) // the event may take that long
	defer cancel()
	go func() { done <- l.Run(ctx) }()
	time.Sleep(d / 4)
	event()
	if err := <-done; err != nil {
		s.t.Fatal(err)
	}
	if ctx.Err() != nil {
		s.t.Fatal("not everything was answered")
	}
	return l
}

// verify reads back everything.
func (s *station) verify() {
	s.t.Helper()
	l := &aoetest.Load{
		Link: s.link, Shelf: 1, Slot: 1, Target: s.target, Timer: aoetest.Fixed{After: 200 * time.Millisecond, Size: 16}, Window: 16,
		Sectors: s.ledger.Sectors, Next: s.ledger.All(), Done: s.ledger.Done,
	}
	if err := l.Run(s.t.Context()); err != nil {
		s.t.Fatal(err)
	}
}

// takeover makes a node Primary as soon as it has noticed the loss of the other.
func (h *host) takeover() {
	h.t.Helper()
	for end := time.Now().Add(patient); ; time.Sleep(5 * time.Millisecond) {
		if _, code, text := h.run("primary", "r0"); code == 0 {
			return
		} else if time.Now().After(end) {
			h.t.Fatalf("%s: primary: %s", h.name, text)
		}
	}
}

// TestAoEFailover: a client on the LAN writes and reads all the time while the active
// node is killed, comes back and takes over again. No acknowledged write is lost and
// no read is from the past.
func TestAoEFailover(t *testing.T) {
	unraced(t)
	n := newLAN(t, 1500)
	a, b := n.pair(t, "", "")
	s := n.station(t, 2)
	if want := aoe.VirtualMAC(1, 1, 0); s.target != want {
		t.Errorf("found at %v, want %v", s.target, want)
	}
	timer := aoetest.NewLinux(int(s.config.Buffers))
	nodes := []*host{a, b}
	for round := range aoeRounds {
		p, o := nodes[round%2], nodes[1-round%2]
		var promoted time.Duration
		lost := timer.Limit() // what a lost frame costs at the most
		l := s.load(timer, 16, 1500*time.Millisecond, func() {
			began := time.Now()
			p.end(syscall.SIGKILL)
			o.takeover()
			promoted = time.Since(began)
		})
		t.Logf("kill %d: promoted after %v, no answer for %v, slowest request %v, %d repeats, %d written, %d read",
			round, promoted, l.Frozen, s.ledger.Slowest, l.Repeats, s.ledger.Written, s.ledger.Read)
		if l.Frozen > promoted+lost+servedSoon {
			t.Errorf("the client waited %v, %v after the promotion", l.Frozen, l.Frozen-promoted)
		}
		s.ledger.Slowest = 0
		s.verify()
		p.start()
		p.must("wait-sync", "--timeout", patientOption, "r0")
	}
}

// aoeRounds is how often the role moves in these tests.
const aoeRounds = 4

// servedSoon is how long a client may wait that has lost nothing. It is far above what it
// takes, and below what a lost frame costs a coldTimer.
const servedSoon = 8 * time.Second

// coldTimer is a driver that has heard no answer yet: a lost frame costs it 16 s.
type coldTimer struct{ *aoetest.Linux }

func (coldTimer) Heard(time.Duration) {}

// TestAoESwitch: a planned switch and back under load. A client that would wait
// long for a lost frame loses none.
func TestAoESwitch(t *testing.T) {
	n := newLAN(t, 9000)
	a, b := n.pair(t, "", "")
	s := n.station(t, 16)
	cold := aoetest.NewLinux(16)
	warm := aoetest.NewLinux(int(s.config.Buffers))
	nodes := []*host{a, b}
	for round := range 2 * aoeRounds {
		p, o := nodes[round%2], nodes[1-round%2]
		var timer aoetest.Timer = coldTimer{cold}
		if round >= aoeRounds {
			timer = warm
		}
		var switched time.Duration
		l := s.load(timer, 16, 600*time.Millisecond, func() {
			began := time.Now()
			p.must("secondary", "r0")
			o.must("primary", "r0")
			switched = time.Since(began)
		})
		x := p.snapshot().AoE[0]
		t.Logf("switch %d: %v, no answer for %v, %d repeats, %d handed over so far, %d superseded", round, switched, l.Frozen, l.Repeats, x.HandedOver, o.snapshot().AoE[0].Dropped["superseded"])
		if l.Frozen > switched+servedSoon {
			t.Errorf("the client waited %v for a switch of %v", l.Frozen, switched)
		}
		s.verify()
	}
}

// TestAoEListsSurvive: a full reserve list, a mask and the config string that a client has set
// are there after the active node was killed, and after both nodes were restarted. The disk
// says the same of itself all the time: a client must not take it for another one.
func TestAoEListsSurvive(t *testing.T) {
	unraced(t)
	n := newLAN(t, 9000)
	dir := t.TempDir()
	a, b := n.pair(t, "", "permit reserve; permit mask; permit config-string; state-file \""+dir+"/NODE.json\";")
	s := n.station(t, 2)
	c := newMember(s)
	own := c.mac
	all := []aoe.MAC{own}
	for i := range aoe.MaxMACs - 1 {
		all = append(all, aoe.MAC{2, 1, 1, 1, 0, byte(i)})
	}
	if err := c.reserve(all...); err != nil {
		t.Fatal(err)
	}
	add := func() error {
		_, err := c.Mask(aoe.MaskEdit, aoe.Directive{Command: aoe.DirectiveAdd, MAC: own})
		return err
	}
	if err := c.patiently(add); err != nil {
		t.Fatal(err)
	}
	if err := c.patiently(func() error { _, err := c.Config(aoe.ConfigForceSet, "who uses it"); return err }); err != nil {
		t.Fatal(err)
	}
	identify := func() (block []byte) {
		t.Helper()
		err := c.patiently(func() (err error) {
			_, block, err = c.ATA(aoe.ATA{Command: aoe.ATAIdentify, Count: 1}, nil)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return block
	}
	disk := identify()
	check := func(when string) {
		t.Helper()
		var r aoe.ReserveArg
		err := c.patiently(func() (err error) { r, err = c.Reserve(aoe.ReserveRead); return err })
		if err != nil || !slices.Equal(r.MACs, all) {
			t.Errorf("%s: %d reserved, %v", when, len(r.MACs), err)
		}
		var m aoe.MaskArg
		err = c.patiently(func() (err error) { m, err = c.Mask(aoe.MaskRead); return err })
		if err != nil || len(m.Directives) != 1 || m.Directives[0].MAC != own {
			t.Errorf("%s: mask %+v, %v", when, m, err)
		}
		var cfg aoe.ConfigArg
		err = c.patiently(func() (err error) { cfg, err = c.Config(aoe.ConfigRead, ""); return err })
		if err != nil || string(cfg.String) != "who uses it" {
			t.Errorf("%s: config string %q, %v", when, cfg.String, err)
		}
		if now := identify(); !bytes.Equal(now, disk) {
			t.Errorf("%s: the disk says that it is\n%x, it was\n%x", when, now, disk)
		}
	}
	a.end(syscall.SIGKILL)
	b.takeover()
	check("after the failover")
	b.end(syscall.SIGTERM)
	b.start()
	b.takeover()
	check("after a restart")
}

// TestAoECut: the active node loses its cables, not its life. The other one takes over,
// and when the cables are back the old one asks before it says a word, and is silent:
// the clients' frames never go to it, although it is Primary still.
func TestAoECut(t *testing.T) {
	unraced(t)
	n := newLAN(t, 1500)
	a, b := n.pair(t, cutNet, "")
	s := n.station(t, 2)
	cables := func(state string) {
		ip(t, "-n "+n.a+" link set repl "+state)
		ip(t, "-n "+n.bridge+" link set "+n.a+" "+state)
	}
	l := s.load(aoetest.NewLinux(int(s.config.Buffers)), 16, 8*time.Second, func() {
		cables("down")
		b.waitFor("peer lost", func(r *control.Resource) bool { return r.Connection != "Connected" })
		b.takeover()
		cables("up")
		a.waitFor("silence", func(r *control.Resource) bool { return r.Role == "Primary" && r.AoE[0].Mode == "silent" })
	})
	t.Logf("no answer for %v, %d repeats, %d written, %d read", l.Frozen, l.Repeats, s.ledger.Written, s.ledger.Read)
	s.verify()
	if r := b.snapshot(); !r.AoE[0].Serving {
		t.Errorf("the new end does not serve: %+v", r.AoE[0])
	}
}
