//go:build interop

package interop

import (
	"fmt"
	"strings"
	"testing"

	"github.com/replblk/replblk/replication"
	"github.com/replblk/replblk/replication/state"
)

// TestChecksumResync has each node throw its copy away and get back what really differs.
func TestChecksumResync(t *testing.T) {
	o := options{
		kernelNet:  "csums-alg sha1;",
		kernelDisk: "c-plan-ahead 0; resync-rate 60M;",
		core: func(c *replication.Config) {
			c.CsumsAlg = "sha1"
			c.Volumes[0].PlanAheadTenths, c.Volumes[0].ResyncRateKiB = 0, 60<<10
		},
	}
	k, p := established(t, o)
	k.sh("drbdadm primary r0")
	k.dd(1, 0, 32768)
	k.sh("drbdadm secondary r0")
	p.wait("the kernel is Secondary", peerSecondary)
	p.decay(0, 5, 6, 7000, 20000, int64(p.sectors()-1)/8)

	var same uint64
	p.kind(replication.AdminInvalidate)
	p.wait("end", func(s state.State) bool {
		same = max(same, p.Status().Volumes[0].ResyncSame)
		return inSync(s)
	})
	settled(k, p)
	if same < p.sectors()/8/2 {
		t.Errorf("replblk as target: %d blocks were equal", same)
	}
	k.heed()
	k.sh("drbdadm invalidate r0")
	p.wait("resync", func(s state.State) bool { return s.Conn == state.SyncSource })
	settled(k, p)
	if log := k.heed(); !strings.Contains(log, "99 % had equal checksums") && !strings.Contains(log, "100 % had equal checksums") {
		t.Errorf("the kernel as target found nothing equal: %s", log)
	}
}

// TestThinResync copies a mostly empty disk in both directions, with requests that may be
// answered with "no data".
func TestThinResync(t *testing.T) {
	const granularity = 64 << 10
	o := options{
		kernelDisk: "rs-discard-granularity 65536; c-plan-ahead 0; resync-rate 60M;",
		core: func(c *replication.Config) {
			c.Volumes[0].DiscardGranularity = granularity
			c.Volumes[0].PlanAheadTenths, c.Volumes[0].ResyncRateKiB = 0, 60<<10
		},
	}
	k, p := established(t, o)
	k.sh("drbdadm primary r0")
	k.dd(1, 0, 1024)
	k.dd(2, 64<<10, 1024)
	k.sh("drbdadm secondary r0")
	p.wait("the kernel is Secondary", peerSecondary)
	p.decay(3000, 4000, 5000) // data where there should be none
	sent := func() string { return k.sh("sed -n 's/.*ns:\\([0-9]*\\) nr:\\([0-9]*\\).*/\\1 \\2/p' /proc/drbd") }
	before := sent()
	p.kind(replication.AdminInvalidate)
	p.wait("resync", func(s state.State) bool { return s.Conn == state.SyncTarget })
	settled(k, p)
	t.Logf("KiB that the kernel has sent and received: %s before, %s after replblk was the target", before, sent())
	if n := networkKiB(t, before, sent(), 0); n > 8<<10 {
		t.Errorf("replblk as target: %d KiB were sent", n)
	}
	before = sent()
	k.sh("drbdadm invalidate r0")
	p.wait("resync", func(s state.State) bool { return s.Conn == state.SyncSource })
	settled(k, p)
	t.Logf("KiB that the kernel has sent and received: %s before, %s after it was the target", before, sent())
	if n := networkKiB(t, before, sent(), 1); n > 8<<10 {
		t.Errorf("the kernel as target: %d KiB were sent", n)
	}
}

// networkKiB is by how much counter i of two samples differs.
func networkKiB(t *testing.T, before, after string, i int) int {
	t.Helper()
	var a, b [2]int
	_, errA := fmt.Sscan(before, &a[0], &a[1])
	_, errB := fmt.Sscan(after, &b[0], &b[1])
	if errA != nil || errB != nil {
		t.Fatalf("counters %q and %q: %v, %v", before, after, errA, errB)
	}
	return b[i] - a[i]
}
