package main

import (
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/replblk/replblk/internal/control"
	"github.com/replblk/replblk/internal/nbdclient"
)

// grow makes the disk of a host larger.
func (h *host) grow(mib int64) {
	h.t.Helper()
	if err := os.Truncate(h.disk(), mib<<20); err != nil {
		h.t.Fatal(err)
	}
}

func (h *host) waitForSize(more uint64) uint64 {
	h.t.Helper()
	r := h.waitFor("grown and in sync", func(r *control.Resource) bool {
		return r.Volumes[0].Size > more && r.Volumes[0].OutOfSync == 0 && inSync([]control.Resource{*r})
	})
	return r.Volumes[0].Size
}

// TestResize grows both disks under a client, which keeps the size that it was told; the next
// one has the new size. The metadata is where drbdmeta looks for it.
func TestResize(t *testing.T) {
	t.Parallel()
	a, b := synced(t, pairOptions{raced: true, net: "allow-two-primaries no;"})
	a.refused(control.ExitConfig, "(131) Need one Primary node to resize", "resize", "r0")
	a.must("primary", "r0")
	c := a.dial()
	before := c.Size()
	l := nbdclient.NewLedger()
	if err := l.Fill(t.Context(), c, 0, 1000, 200); err != nil {
		t.Fatal(err)
	}
	a.grow(80)
	b.grow(96)
	a.must("resize", "r0")
	size := a.waitForSize(before)
	if got := b.waitForSize(before); got != size || size <= before+15<<20 {
		t.Fatalf("sizes %d and %d, it was %d", size, got, before)
	}
	if c.Size() != before || l.Fill(t.Context(), c, 0, 1000, 50) != nil {
		t.Error("the old client is not served any more")
	}
	late := a.dial()
	if late.Size() != size {
		t.Errorf("a new client is told %d, the size is %d", late.Size(), size)
	}
	if err := l.Fill(t.Context(), late, size/4096-100, 100, 100); err != nil {
		t.Error(err)
	}
	a.check(l)
	a.refused(control.ExitConfig, "(170) Implicit device shrinking", "resize", "--size", "40M", "r0")
	a.refused(control.ExitConfig, "(111) Low.dev. smaller", "resize", "--size", "1G", "r0")
	_, _ = c.Close(), late.Close()
	a.unused()
	for _, h := range []*host{a, b} {
		h.must("down", "r0")
		h.must("apply-al", "r0")
		if out := h.must("dump-md", "r0"); !strings.Contains(out, "la-size-sect") {
			t.Errorf("dump-md: %s", out)
		}
	}
	equalDisks(t, a, b, size)
}

// TestGrownWhileDown grows the disks while nobody uses them: check-resize, or the daemon at
// its start, moves the metadata, and nothing is lost.
func TestGrownWhileDown(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM} {
		t.Run(sig.String(), func(t *testing.T) {
			t.Parallel()
			grownWhileDown(t, sig)
		})
	}
}

func grownWhileDown(t *testing.T, sig syscall.Signal) {
	a, b := synced(t, pairOptions{})
	a.must("primary", "r0")
	c := a.dial()
	l := nbdclient.NewLedger()
	if err := l.Fill(t.Context(), c, 0, 1000, 200); err != nil {
		t.Fatal(err)
	}
	before := c.Size()
	c.Abort()
	if err := a.end(sig); err != nil && sig == syscall.SIGTERM {
		t.Fatal(err)
	}
	if err := b.end(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	a.grow(100)
	b.grow(100)
	if out := a.must("check-resize", "r0"); !strings.Contains(out, "moved") {
		t.Errorf("check-resize: %q", out)
	}
	if out := a.must("check-resize", "r0"); out != "" {
		t.Errorf("second check-resize: %q", out)
	}
	if err := os.Remove(b.path(".sizes") + "/drbd-minor-7.lkbd"); err != nil {
		t.Fatal(err)
	}
	b.refused(control.ExitConfig, "not known how large the device was", "check-resize", "r0")
	b.must("check-resize", "--old-size", "64M", "r0")
	a.start()
	b.start()
	a.waitFor("connected", func(r *control.Resource) bool { return r.Volumes[0].State == "Connected" })
	a.must("primary", "r0") // only a Primary begins the generation that has the new space copied
	size := a.waitForSize(before)
	b.waitForSize(before)
	a.check(l)
	a.must("down", "--force", "r0")
	b.must("down", "r0")
	equalDisks(t, a, b, size)
}
