package main

import (
	"slices"
	"testing"
	"time"

	"github.com/replblk/replblk/internal/control"
)

// TestResyncSparesTheApplication copies a whole disk, with nothing about the rate in the
// configuration, once beside a quiet application and once beside one that writes all the
// time. It logs what that means for both (docs/performance.md has figures of a quiet
// machine); it fails if the resync keeps the application from its work, or the other way round.
func TestResyncSparesTheApplication(t *testing.T) {
	a, b := synced(t, pairOptions{}) // not in parallel: it looks at the time
	a.must("primary", "r0")
	c := a.dial()
	defer func() { _ = c.Close() }()
	block := make([]byte, 4096)
	write := func(until func() bool) (took []time.Duration) {
		for i := 0; !until(); i++ {
			block[0] = byte(i)
			start := time.Now()
			if err := c.Write(block, uint64(i*37%4096)*4096, false); err != nil {
				t.Fatal(err)
			}
			took = append(took, time.Since(start))
			time.Sleep(100 * time.Microsecond)
		}
		slices.Sort(took)
		return took
	}
	over := func() bool { return inSync([]control.Resource{*b.snapshot()}) }
	mib := float64(a.snapshot().Volumes[0].Size) / (1 << 20)

	start := time.Now()
	b.must("invalidate", "r0")
	b.waitFor("resync", func(r *control.Resource) bool { return inSync([]control.Resource{*r}) })
	quiet := time.Since(start)

	deadline := time.Now().Add(2 * time.Second)
	alone := write(func() bool { return time.Now().After(deadline) })
	b.must("invalidate", "r0")
	start = time.Now()
	checked := start
	beside := write(func() bool {
		if time.Since(checked) < 20*time.Millisecond {
			return false
		}
		checked = time.Now()
		return over() || time.Since(start) > 3*patient
	})
	busy := time.Since(start)
	if busy > 3*patient {
		t.Fatalf("the resync is not over after %v beside the application", busy)
	}
	at := func(list []time.Duration, permille int) time.Duration { return list[len(list)*permille/1000] }
	t.Logf("resync of %.0f MiB: %.0f MiB/s while the application is quiet, %.0f while it writes", mib, mib/quiet.Seconds(), mib/busy.Seconds())
	t.Logf("write of 4 KiB, 500th and 990th of a thousand: %v and %v without a resync (%d), %v and %v beside one (%d)",
		at(alone, 500), at(alone, 990), len(alone), at(beside, 500), at(beside, 990), len(beside))
	if limit := 50*at(alone, 500) + 100*time.Millisecond; at(beside, 500) > limit {
		t.Errorf("half of the writes took more than %v beside a resync", at(beside, 500))
	}
}
