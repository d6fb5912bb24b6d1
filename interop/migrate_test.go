//go:build interop

package interop

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Addresses of the machines' interfaces on the bridge (see nic).
const (
	firstMAC  = "52:54:00:00:00:01"
	secondMAC = "52:54:00:00:00:02"
)

// newSecondClient boots another machine with the driver.
func newSecondClient(t *testing.T, mtu int) *aoeClient {
	t.Helper()
	disk := filepath.Join(t.TempDir(), "programs.img")
	if err := newImage(disk, 16<<20); err != nil {
		t.Fatal(err)
	}
	v := secondMachine(t, "second", "true", append(fromRAM(os.Getenv(insideEnv), "machine=second"),
		"-m", "448", "-drive", "file="+disk+",if=virtio,format=raw,cache=writeback")...)
	v.disk = disk
	return newAoEClient(t, v, "eth0", mtu)
}

// reserve sets the reserve list as this machine.
func (c *aoeClient) reserve(macs ...string) {
	c.t.Helper()
	want := strings.Join(macs, "\n")
	if got := c.sh(fmt.Sprintf("/tmp/reserve -if %s %s", c.name, strings.Join(macs, " "))); got != want {
		c.t.Fatalf("reserve %v: the list is %q", macs, got)
	}
}

// stray begins a write of a block that must wait until this machine is let in.
func (c *aoeClient) stray(block int) {
	c.sh(fmt.Sprintf("(yes stray | dd of=%s bs=4096 count=1 iflag=fullblock oflag=direct seek=%d; echo $? >/tmp/stray.%d) >/dev/null 2>&1 &", c.device, block, block))
}

// guest runs the ledger on this machine for a while, during event: what a live migration
// moves from machine to machine is its books.
func (c *aoeClient) guest(books string, event func()) string {
	c.t.Helper()
	c.sh(fmt.Sprintf("rm -f /tmp/books; [ -z '%s' ] || echo '%s' >/tmp/books", books, books))
	c.sh(fmt.Sprintf("rm -f /tmp/ledger.ready; /tmp/ledger -dev %s -blocks 500 -workers 4 -books /tmp/books >/tmp/ledger.out & echo $! >/tmp/ledger.pid", c.device))
	c.ready() // before that it does not know what a signal means
	event()
	out := c.sh("sleep 0.5; read -r pid </tmp/ledger.pid; kill $pid; for i in $(seq 900); do kill -0 $pid 2>/dev/null || break; pause 0.1; done; cat /tmp/ledger.out")
	if !strings.Contains(out, `"Error":""`) {
		c.t.Fatalf("ledger: %s", out)
	}
	c.t.Logf("%s: %s", filepath.Base(c.vm.dir), out)
	return c.sh("cat /tmp/books")
}

// block returns a block of a node's disk.
func (n *aoeNode) block(number int) []byte {
	n.t.Helper()
	f, err := os.Open(n.file("img"))
	if err != nil {
		n.t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, 4096)
	if _, err := io.ReadFull(io.NewSectionReader(f, int64(number)*4096, 4096), b); err != nil {
		n.t.Fatal(err)
	}
	return b
}

// TestAoEMigration: two machines have e1.1 open, and a guest moves from one to the other and
// back, as a live migration does: its memory says what the disk must hold. The reserve list
// goes with it. What the machine that is not on the list writes waits, before and after
// the active end of the mirror is killed, and reaches the disk when it is let in.
func TestAoEMigration(t *testing.T) {
	nodes := aoePair(t, aoeOptions{mtu: 1500, export: "permit reserve;"})
	a := newAoEClient(t, machine, "eth1", 1500)
	b := newSecondClient(t, 1500)
	ledger, reserve := goBuild(t, t.TempDir(), "./lab/ledger"), goBuild(t, t.TempDir(), "./lab/reserve")
	for _, c := range []*aoeClient{a, b} {
		c.install(ledger)
		c.install(reserve)
	}
	zeroes := make([]byte, 4096)
	outside := func(c *aoeClient, block int) {
		t.Helper()
		for _, n := range nodes {
			if !bytes.Equal(n.block(block), zeroes) {
				t.Errorf("block %d of %s was written from outside the reserve list", block, n.name)
			}
		}
		if got := c.sh(fmt.Sprintf("cat /tmp/stray.%d 2>/dev/null || echo waits", block)); got != "waits" {
			t.Errorf("the write from outside has ended: %s", got)
		}
	}
	letIn := func(c *aoeClient, block int) {
		t.Helper()
		c.sh(fmt.Sprintf("for i in $(seq 900); do [ -e /tmp/stray.%d ] && exit $(cat /tmp/stray.%d); pause 0.1; done; exit 99", block, block))
		if got := nodes[0].block(block); !bytes.HasPrefix(got, []byte("stray\n")) {
			t.Errorf("what was let in wrote % x", got[:8])
		}
	}

	a.reserve(firstMAC)
	books := a.guest("", func() {
		b.stray(4000)
		if out, code, err := b.vm.run("/tmp/reserve -if eth0 "+secondMAC, commandTimeout); err != nil || code == 0 || !strings.Contains(out, "aoe error 6") {
			t.Errorf("a machine outside the list made itself a member: %q, %v", out, err)
		}
		time.Sleep(time.Second)
	})
	outside(b, 4000)

	a.reserve(secondMAC)
	letIn(b, 4000)
	books = b.guest(books, func() {
		a.stray(4100)
		// A driver that has heard few answers repeats a lost frame only after 15 s.
		time.Sleep(2 * time.Second)
		nodes[0].kill()
		nodes[1].takeover()
		time.Sleep(time.Second)
	})
	nodes[0].start()
	nodes[0].must("wait-sync", "--timeout", "60s", "r0")
	outside(a, 4100)

	b.reserve(firstMAC)
	letIn(a, 4100)
	a.guest(books, func() { time.Sleep(500 * time.Millisecond) })
	a.reserve()
	for _, n := range nodes {
		n.must("down", "r0")
	}
	sameDisks(t, nodes[0].file("img"), nodes[1].file("img"), diskSize-1<<20)
}
