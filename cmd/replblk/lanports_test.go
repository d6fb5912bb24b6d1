package main

import (
	"bytes"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/replblk/replblk/aoe"
	"github.com/replblk/replblk/aoe/aoetest"
	"github.com/replblk/replblk/internal/control"
)

// cables make interface lan1 of node a, of one kind after the other, and connects it with
// cli1 of the client. What a kernel cannot make is left out.
//
//	a lan1 (a bridge, a bond, … on wire) ── cli1 of the client
var cables = []struct {
	kind string
	mtu  int
	a    []string // in a, after "wire" is there
	c    []string // in the client, after "wire" is there
}{
	{"veth", 1500, []string{"link set wire name lan1"}, []string{"link set wire name cli1"}},
	{"veth again, jumbo", 9000, []string{"link set wire name lan1"}, []string{"link set wire name cli1"}},
	{"bridge", 1500, []string{"link add lan1 type bridge forward_delay 0", "link set wire master lan1", "link set wire up"}, []string{"link set wire name cli1"}},
	{"macvlan", 1500, []string{"link set wire up", "link add link wire name lan1 type macvlan mode passthru"}, []string{"link set wire name cli1"}},
	{"vlan", 1500, []string{"link set wire up", "link add link wire name lan1 type vlan id 7"}, []string{"link set wire up", "link add link wire name cli1 type vlan id 7"}},
	{"bond", 1500, []string{"link add lan1 type bond", "link set wire master lan1"}, []string{"link set wire name cli1"}},
}

// TestAoEInterfaces: a target on two interfaces. One of them is not there at the start, and
// then comes, goes and comes again, as something else each time, while a client is served
// on the other one and notices nothing. What is written through one is read through the
// other.
func TestAoEInterfaces(t *testing.T) {
	n := newLAN(t, 1500)
	a, b := n.pair(t, "", "interface lan1;")
	s := n.station(t, 2)
	kinds := 0
	l := s.load(aoetest.NewLinux(int(s.config.Buffers)), 8, 6*time.Second, func() {
		for i, c := range cables {
			ip(t, fmt.Sprintf("-n %s link add wire mtu %d type veth peer name wire netns %s mtu %d", n.a, c.mtu, n.client, c.mtu))
			if !n.can(n.client, c.c) || !n.can(n.a, c.a) {
				t.Logf("%s: this kernel cannot make it", c.kind)
				_ = exec.Command("ip", "-n", n.a, "link", "del", "lan1").Run() // it may have got that far
				ip(t, "-n "+n.a+" link del wire")
				continue
			}
			kinds++
			ip(t, "-n "+n.client+" link set cli1 up")
			ip(t, "-n "+n.a+" link set lan1 up")
			n.through(t, s, c.kind, 70000+uint64(i), aoe.AdvertisedSectors(c.mtu))
			ip(t, "-n "+n.a+" link set lan1 down")
			ip(t, "-n "+n.a+" link set lan1 up")
			n.through(t, s, c.kind+", down and up", 70100+uint64(i), aoe.AdvertisedSectors(c.mtu))
			_ = exec.Command("ip", "-n", n.a, "link", "del", "lan1").Run()
			_ = exec.Command("ip", "-n", n.a, "link", "del", "wire").Run() // lan1 itself, or gone with it
			a.waitFor("loss of lan1", func(r *control.Resource) bool { return !r.AoE[0].Links[1].Up })
		}
	})
	ip(t, "-n "+n.a+" link add wire type veth peer name cli1 netns "+n.client)
	ip(t, "-n "+n.a+" link add link wire name lan1 type macvlan mode bridge")
	a.waitForLog("a macvlan receives for its own address only")
	if kinds < 4 {
		t.Errorf("%d kinds of interfaces were tried", kinds)
	}
	t.Logf("on the interface that stays: no answer for %v, %d repeats, %d written, %d read", l.Frozen, l.Repeats, s.ledger.Written, s.ledger.Read)
	if l.Frozen > servedSoon {
		t.Errorf("the client of the other interface waited %v", l.Frozen)
	}
	s.verify()
	a.demote()
	b.must("primary", "r0") // which has no lan1 at all
	s.verify()
}

// can carries out commands in a namespace and says whether all were possible.
func (n lan) can(ns string, commands []string) bool {
	for _, c := range commands {
		if exec.Command("ip", append([]string{"-n", ns}, strings.Fields(c)...)...).Run() != nil {
			return false
		}
	}
	return true
}

// through finds the target through lan1, writes a sector there, and reads it through lan0.
func (n lan) through(t *testing.T, s *station, when string, lba uint64, sectors uint8) {
	t.Helper()
	link, err := aoetest.OpenIn(n.client, "cli1")
	if err != nil {
		t.Fatal(err)
	}
	defer link.Close()
	c := aoetest.NewClient(link, 1, 1)
	cfg, err := find(c)
	if want := aoe.VirtualMAC(1, 1, 1); err != nil || c.Target != want || cfg.Sectors != sectors {
		t.Fatalf("%s: found at %v with %d sectors, %v; want %v with %d", when, c.Target, cfg.Sectors, err, want, sectors)
	}
	data := bytes.Repeat([]byte{byte(lba), 0x5a}, 256)
	c.Timeout = patient
	if _, _, err := c.ATA(aoe.ATA{Flags: aoe.ATAFlagWrite | aoe.ATAFlagExt, Count: 1, Command: aoe.ATAWriteExt, LBA: lba}, data); err != nil {
		t.Fatalf("%s: write: %v", when, err)
	}
	side, err := aoetest.OpenIn(n.client, "cli")
	if err != nil {
		t.Fatal(err)
	}
	defer side.Close()
	o := aoetest.NewClient(side, 1, 1)
	o.Target, o.Timeout = s.target, patient
	_, got, err := o.ATA(aoe.ATA{Flags: aoe.ATAFlagExt, Count: 1, Command: aoe.ATAReadExt, LBA: lba}, nil)
	if err != nil || !bytes.Equal(got[:512], data) {
		t.Fatalf("%s: what lan1 has written is not what lan0 reads: %v", when, err)
	}
}
