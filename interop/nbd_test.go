//go:build interop

package interop

import (
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestKernelNBD: E08. The kernel's nbd driver has a device on replblk, whose daemon is killed
// as Primary under load. With dead_conn_timeout and a timeout, and somebody who connects again,
// the device waits, what was in flight is sent again, and nothing that was acknowledged is
// lost. Without them its requests fail.
func TestKernelNBD(t *testing.T) {
	c := &aoeClient{t: t, vm: machine, device: "/dev/nbd0"}
	c.install(goBuild(t, t.TempDir(), "./lab/nbd"))
	c.install(goBuild(t, t.TempDir(), "./lab/ledger"))
	k, d := daemonPair(t, options{})
	k.allowed = slices.Clone(noticed)
	promote := func() {
		t.Helper()
		for end := time.Now().Add(waitTimeout); d.command("primary", "r0").Run() != nil; time.Sleep(100 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("not promoted: %s", d.must("proc"))
			}
		}
	}
	attach := func(options string) {
		t.Helper()
		c.sh(fmt.Sprintf("modprobe nbd; rm -f /tmp/nbd.out; /tmp/nbd -server %s:10809 -export kernel %s >/tmp/nbd.out 2>&1 & echo $! >/tmp/nbd.pid; "+
			"for i in $(seq 600); do grep -q attached /tmp/nbd.out && exit 0; sleep 0.1; done; cat /tmp/nbd.out; exit 1", peerIP, options))
	}
	detach := func() {
		t.Helper()
		c.sh("kill $(cat /tmp/nbd.pid) 2>/dev/null; for i in $(seq 600); do [ $(cat /sys/block/nbd0/size) = 0 ] && exit 0; sleep 0.1; done; exit 1")
	}

	t.Cleanup(func() {
		if t.Failed() {
			out, _, err := machine.run("cat /tmp/nbd.out; ps | grep tmp/", commandTimeout)
			t.Logf("who attaches says %q, %v", out, err)
		}
	})

	promote()
	attach("-timeout 3s -dead 2m")
	books := c.guest("", func() {
		for range 2 {
			time.Sleep(time.Second)
			d.signal(syscall.SIGKILL)
			time.Sleep(time.Second)
			d.start()
			promote()
		}
		time.Sleep(5 * time.Second) // longer than the timeout of what was in flight
	})
	c.guest(books, func() { time.Sleep(time.Second) })
	if n := strings.Count(c.sh("cat /tmp/nbd.out"), "attached"); n != 3 {
		t.Errorf("attached %d times, want 3", n)
	}
	detach()

	attach("")
	d.signal(syscall.SIGKILL)
	// It fails, or finds nothing if the kernel has let the device go by then.
	if out := c.sh("dd if=/dev/nbd0 of=/dev/null bs=4096 count=1 iflag=direct 2>&1 || echo failed"); !strings.Contains(out, "failed") && !strings.Contains(out, "0+0 records in") {
		t.Errorf("a read from a server that is gone: %s", out)
	}
	d.start()
	promote()
}
