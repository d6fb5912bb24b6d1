package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/replblk/replblk/internal/control"
	"github.com/replblk/replblk/internal/loopback"
	"github.com/replblk/replblk/internal/nbdclient"
)

const volumes = 3

// volumeDisk is the disk of a volume of the host.
func (h *host) volumeDisk(n int) string { return h.path(fmt.Sprintf(".img%d", n)) }

func (h *host) dialVolume(n int) *nbdclient.Client {
	h.t.Helper()
	c, err := nbdclient.Dial(h.t.Context(), "unix:"+h.path(".nbd"), fmt.Sprintf("v%d", n))
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(c.Abort)
	return c
}

func (h *host) checkVolume(n int, l *nbdclient.Ledger) {
	h.t.Helper()
	c := h.dialVolume(n)
	defer c.Close()
	if err := l.Check(c); err != nil {
		h.t.Fatalf("%s: volume %d: %v", h.name, n, err)
	}
}

// volumesPair starts a pair in sync with three volumes, each with an export; raced as in
// pairOptions.
func volumesPair(t *testing.T, raced bool) (a, b *host) {
	t.Helper()
	rest := ""
	for n := 1; n < volumes; n++ {
		rest += fmt.Sprintf("nbd v%d { listen \"unix:@SOCKET@\"; resource r0; volume %d; }\n", n, n)
	}
	a, b = newPair(t, pairOptions{raced: raced})
	res := "resource r0 {\n net { connect-int 1; " + patientNet + " }\n"
	for _, h := range []*host{a, b} {
		res += fmt.Sprintf(" on %s { address %s;\n", h.name, loopback.Address())
		for n := range volumes {
			if err := os.WriteFile(h.volumeDisk(n), nil, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Truncate(h.volumeDisk(n), diskMiB<<20); err != nil {
				t.Fatal(err)
			}
			res += fmt.Sprintf("  volume %d { device /dev/drbd%d; disk %q; meta-disk internal; disk { } }\n", n, 20+n, h.volumeDisk(n))
		}
		res += " }\n"
		conf, err := os.ReadFile(h.path(".conf"))
		if err != nil {
			t.Fatal(err)
		}
		text := strings.Replace(string(conf), "nbd r0 {", "nbd v0 {", 1) + strings.ReplaceAll(rest, "@SOCKET@", h.path(".nbd"))
		if err := os.WriteFile(h.path(".conf"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(a.dir, "r0.res"), []byte(res+"}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, h := range []*host{a, b} {
		h.editRes(func(s string) string { return s }) // a file of its own from the start
		h.must("create-md", "--force", "r0")
		h.start()
	}
	a.must("wait-connect", "--timeout", patientOption, "r0")
	a.must("new-current-uuid", "--clear-bitmap", "r0")
	a.waitFor("all up to date", func(r *control.Resource) bool { return len(r.Volumes) == volumes && inSync([]control.Resource{*r}) })
	return a, b
}

// TestVolumeLosesItsDisk: one of several volumes loses its disk under a Primary in use. The
// others notice nothing, its clients neither; it gets a new disk, which is filled while the
// others are written.
func TestVolumeLosesItsDisk(t *testing.T) {
	t.Parallel()
	a, b := volumesPair(t, true)
	a.must("primary", "r0")
	var ledgers [volumes]*nbdclient.Ledger
	var clients [volumes]*nbdclient.Client
	for n := range volumes {
		ledgers[n], clients[n] = nbdclient.NewLedger(), a.dialVolume(n)
		if err := ledgers[n].Fill(t.Context(), clients[n], 0, 8000, 300); err != nil {
			t.Fatalf("volume %d: %v", n, err)
		}
	}
	if err := os.Truncate(a.volumeDisk(1), 0); err != nil { // from now on it cannot be read
		t.Fatal(err)
	}
	a.checkVolume(1, ledgers[1])
	r := a.waitFor("volume 1 detached", func(r *control.Resource) bool { return r.Volumes[1].Disk == "Diskless" })
	if r.Volumes[0].Disk != "UpToDate" || r.Volumes[2].Disk != "UpToDate" || r.Connection != "Connected" {
		t.Errorf("the other volumes: %+v", r)
	}
	var list []jsonResource
	decode(t, a.must("status", "--json"), &list)
	for n, want := range [volumes]string{"UpToDate", "Diskless", "UpToDate"} {
		if got := list[0].Devices[n].DiskState; got != want {
			t.Errorf("status --json: volume %d is %s, want %s", n, got, want)
		}
	}
	a.waitForLog(`msg="local disk failed" resource=r0 volume=1`)
	for n := range volumes {
		if err := ledgers[n].Fill(t.Context(), clients[n], 0, 8000, 200); err != nil {
			t.Fatalf("volume %d after the loss: %v", n, err)
		}
	}

	if err := os.Truncate(a.volumeDisk(1), diskMiB<<20); err != nil {
		t.Fatal(err)
	}
	a.must("create-md", "--force", "r0/1")
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for n := range volumes {
		wg.Go(func() {
			if err := ledgers[n].Fill(ctx, clients[n], 0, 8000, 0); err != nil && ctx.Err() == nil {
				t.Errorf("volume %d beside the resync: %v", n, err)
			}
		})
	}
	a.must("attach", "r0/1")
	a.must("wait-sync", "--timeout", patientOption, "r0")
	stop()
	wg.Wait()
	for n := range volumes {
		_ = clients[n].Close()
	}
	a.waitFor("all up to date", func(r *control.Resource) bool { return inSync([]control.Resource{*r}) })
	a.demote()
	b.must("primary", "r0")
	for n := range volumes {
		b.checkVolume(n, ledgers[n])
	}
	b.demote()
	a.must("primary", "r0")
	a.checkVolume(1, ledgers[1])
}

// setDisk changes the disk section of a volume of both nodes in the configuration of one, and
// has it adjusted.
func (h *host) setDisk(n int, options string) (told string) {
	h.t.Helper()
	section := regexp.MustCompile(fmt.Sprintf(`(volume %d \{[^{}]*disk) \{[^}]*\}`, n))
	h.editRes(func(s string) string { return section.ReplaceAllString(s, "$1 { "+options+" }") })
	return h.must("adjust", "r0")
}

// TestResyncAfter orders the resyncs of two volumes at run time.
func TestResyncAfter(t *testing.T) {
	t.Parallel()
	a, b := volumesPair(t, false)
	const slow = "c-plan-ahead 0; resync-rate 1M; " // a minute, to be looked at
	const fast = "c-plan-ahead 0; resync-rate 200M; "
	for _, h := range []*host{a, b} {
		h.setDisk(2, slow)
		if out := h.setDisk(0, slow+"resync-after r0/2;"); !strings.Contains(out, "resync-after, volume 0: the default to r0/2") {
			t.Errorf("adjust:\n%s", out)
		}
	}
	a.must("primary", "r0")
	b.must("invalidate", "r0/0")
	b.must("invalidate", "r0/2")
	b.waitFor("order", func(r *control.Resource) bool {
		return r.Volumes[0].State == "PausedSyncT" && r.Volumes[0].PausedDependency && r.Volumes[2].State == "SyncTarget"
	})
	a.waitFor("the same at the source", func(r *control.Resource) bool {
		return r.Volumes[0].State == "PausedSyncS" && r.Volumes[2].State == "SyncSource"
	})
	b.setDisk(0, slow)
	if r := a.snapshot(); r.Volumes[0].State != "PausedSyncS" { // it has still to wait there
		t.Errorf("volume 0 of a: %+v", r.Volumes[0])
	}
	b.setDisk(2, fast)
	b.waitFor("volume 2 first", func(r *control.Resource) bool {
		return r.Volumes[2].Disk == "UpToDate" && r.Volumes[0].Disk != "UpToDate"
	})
	b.setDisk(0, fast)
	b.must("wait-sync", "--timeout", patientOption, "r0")
}
