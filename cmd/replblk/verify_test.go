package main

import (
	"os"
	"strings"
	"testing"

	"github.com/replblk/replblk/internal/control"
)

// decay changes a byte of each of some blocks behind the daemon's back.
func (h *host) decay(blocks ...int64) {
	h.t.Helper()
	f, err := os.OpenFile(h.disk(), os.O_WRONLY, 0)
	if err != nil {
		h.t.Fatal(err)
	}
	defer f.Close()
	for _, n := range blocks {
		if _, err := f.WriteAt([]byte("rot"), n<<12|99); err != nil {
			h.t.Fatal(err)
		}
	}
}

// TestVerifyAndRepair goes through what an operator does about copies that differ.
func TestVerifyAndRepair(t *testing.T) {
	a, b := synced(t, pairOptions{raced: true, net: "verify-alg sha256;", disk: "c-plan-ahead 0; resync-rate 100M;"})
	a.must("primary", "r0")
	b.decay(3, 4, 1000, 9000)

	b.must("verify", "--wait", "--start", "1M", "--stop", "3M", "r0/0")
	_, code, text := b.run("verify", "--wait", "--start", "0", "r0")
	if code != exitDiffers || !strings.Contains(text, "r0/0: 16374 blocks compared, 4 differ") || !strings.Contains(text, "verify: ") {
		t.Fatalf("exit %d: %s", code, text)
	}
	for _, h := range []*host{a, b} {
		r := h.waitFor("verified", func(r *control.Resource) bool { return r.Volumes[0].OutOfSync == 4<<12 })
		if v := r.Volumes[0]; v.Disk != "UpToDate" || v.PeerDisk != "UpToDate" || v.State != "Connected" {
			t.Errorf("%s: %s", h.name, summary([]control.Resource{*r}))
		}
	}
	a.waitForLog("out-of-sync-blocks=4")
	a.must("verify", "--repair", "r0")
	for _, h := range []*host{a, b} {
		h.waitFor("repaired", func(r *control.Resource) bool {
			return inSync([]control.Resource{*r}) && r.Volumes[0].OutOfSync == 0
		})
	}
	equalDisks(t, a, b, a.snapshot().Volumes[0].Size)
	a.must("verify", "--wait", "--start", "0", "r0")

	a.refused(control.ExitUsage, "beyond the end", "verify", "--start", "1T", "r0")
	a.refused(control.ExitUsage, "not after", "verify", "--start", "800", "--stop", "800s", "r0")
	a.refused(control.ExitUsage, "want a number of sectors", "verify", "--start", "12x", "r0")
}

func TestParseSectors(t *testing.T) {
	for text, want := range map[string]uint64{"": 0, "0": 0, "17": 17, "17s": 17, "4K": 8, "4k": 8, "1M": 2048, "2G": 4 << 20, "1T": 2 << 30} {
		if got, err := parseSectors("start", text); err != nil || got != want {
			t.Errorf("%q: %d, %v, want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"s", "K", "-1", "1.5M", "0x10", "99999999999T"} {
		if got, err := parseSectors("start", text); err == nil {
			t.Errorf("%q is %d", text, got)
		}
	}
}
