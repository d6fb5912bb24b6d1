package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/replblk/replblk/aoe"
	"github.com/replblk/replblk/aoe/aoetest"
	"github.com/replblk/replblk/aoe/packet"
	"github.com/replblk/replblk/internal/control"
)

// veth makes a pair of connected interfaces.
func veth(t *testing.T) (server, client string) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root, for a veth pair and raw sockets")
	}
	server, client = fmt.Sprintf("rbs%d", os.Getpid()%100000), fmt.Sprintf("rbc%d", os.Getpid()%100000)
	for _, args := range [][]string{
		{"link", "add", server, "type", "veth", "peer", "name", client}, {"link", "set", server, "up"}, {"link", "set", client, "up"},
	} {
		if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
			t.Fatalf("ip %v: %v: %s", args, err, out)
		}
	}
	t.Cleanup(func() { _ = exec.Command("ip", "link", "del", server).Run() })
	return server, client
}

// find asks for the target until it answers.
func find(c *aoetest.Client) (a aoe.ConfigArg, err error) {
	c.Timeout = 100 * time.Millisecond
	for end := time.Now().Add(patient); ; time.Sleep(10 * time.Millisecond) {
		if a, err = c.Discover(); err == nil || time.Now().After(end) {
			return a, err
		}
	}
}

// An AoE target answers while its resource is Primary, and is not there otherwise.
func TestAoE(t *testing.T) {
	t.Parallel()
	unraced(t)
	server, client := veth(t)
	a, b := newPair(t, pairOptions{})
	// Only a has the interface.
	conf, err := os.OpenFile(a.path(".conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(conf, "aoe r0 { shelf 5; slot 1; interface %s; resource r0; }\n", server)
	_ = conf.Close()
	a.start()
	b.start()
	a.must("wait-connect", "--timeout", patientOption, "r0")
	a.must("new-current-uuid", "--clear-bitmap", "r0")

	link, err := packet.Open(client, packet.Options{Filter: packet.Filter{Everything: true}})
	if err != nil {
		t.Fatal(err)
	}
	defer link.Close()
	c := aoetest.NewClient(link, 5, 1)
	c.Timeout = 300 * time.Millisecond
	if _, err := c.Discover(); !errors.Is(err, aoetest.ErrSilent) {
		t.Errorf("a Secondary was discovered: %v", err)
	}
	a.must("primary", "r0")
	if _, err := find(c); err != nil {
		t.Fatal(err)
	}
	c.Timeout = patient
	data := bytes.Repeat([]byte{0xa5, 0x5a}, 512)
	if _, _, err := c.ATA(aoe.ATA{Flags: aoe.ATAFlagWrite | aoe.ATAFlagExt, Count: 2, Command: aoe.ATAWriteExt, LBA: 100}, data); err != nil {
		t.Fatal(err)
	}
	_, got, err := c.ATA(aoe.ATA{Flags: aoe.ATAFlagExt, Count: 2, Command: aoe.ATAReadExt, LBA: 100}, nil)
	if err != nil || !bytes.Equal(got, data) {
		t.Errorf("read: %v, equal %v", err, bytes.Equal(got, data))
	}
	r := a.snapshot()
	if len(r.AoE) != 1 || !r.AoE[0].Serving || r.AoE[0].Writes != 1 || r.AoE[0].ReadBytes != 1024 {
		t.Errorf("counters: %+v", r.AoE)
	}
	a.must("secondary", "r0")
	c.Timeout = 300 * time.Millisecond
	if _, _, err := c.ATA(aoe.ATA{Flags: aoe.ATAFlagExt, Count: 2, Command: aoe.ATAReadExt, LBA: 100}, nil); !errors.Is(err, aoetest.ErrSilent) {
		t.Errorf("a Secondary answers: %v", err)
	}
	// NBD on the other node shows what AoE wrote on this one.
	b.must("primary", "r0")
	n := b.dial()
	back := make([]byte, 4096)
	if err := n.Read(back, 48*1024); err != nil || !bytes.Equal(back[2*1024:3*1024], data) {
		t.Errorf("through NBD on the other node: %v, %x", err, back[2*1024:2*1024+8])
	}
	a.waitFor("quiet", func(r *control.Resource) bool { return !r.AoE[0].Serving })
}
