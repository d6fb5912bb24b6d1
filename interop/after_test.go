//go:build interop

package interop

import (
	"strings"
	"testing"

	"github.com/replblk/replblk/node"
	"github.com/replblk/replblk/replication"
	"github.com/replblk/replblk/replication/state"
)

// TestResyncAfter has two volumes of which the second is to be resynced after the first, because
// the kernel's operator says so, or replblk's: both pause the second one's resync until the
// first one's is over.
func TestResyncAfter(t *testing.T) {
	for _, by := range []string{"kernel", "replblk"} {
		t.Run("order of "+by, func(t *testing.T) {
			o := outage()
			o.two = true
			o.kernelDisk = "c-plan-ahead 0; resync-rate 3M;"
			quick := o.core
			o.core = func(c *replication.Config) {
				quick(c)
				for i := range c.Volumes {
					c.Volumes[i].PlanAheadTenths, c.Volumes[i].ResyncRateKiB = 0, 3<<10
				}
			}
			k, p := established(t, o)
			paused := func(s state.State) bool { return s.Conn == state.PausedSyncT && s.PeerIsp }
			if by == "kernel" {
				k.sh(setup84 + "disk-options 1 --resync-after=0")
			} else {
				order := node.NewOrder()
				order.Follow(1, 0)
				t.Cleanup(order.Join(p.Resource, map[uint16]uint32{0: 0, 1: 1}))
				paused = func(s state.State) bool { return s.Conn == state.PausedSyncT && s.AftrIsp }
			}
			k.sh("drbdadm primary r0")
			broken(k, p, func() { k.ddBoth(1, 8192, 1024) })
			p.waitFor(1, "volume 1 waits", paused)
			k.waitFor(1, "volume 1 waits", func(s procState) bool {
				return s.cs == "PausedSyncS" && strings.ContainsRune(s.flags, map[string]rune{"kernel": 'a', "replblk": 'p'}[by])
			})
			if s := p.State(0); s.Conn != state.SyncTarget {
				t.Errorf("volume 1 waits for volume 0, which is %v", s.Conn)
			}
			p.waitFor(1, "volume 1 may run", func(s state.State) bool { return s.Conn == state.SyncTarget })
			if s := p.State(0); s.Conn != state.Connected {
				t.Errorf("volume 1 runs, volume 0 is %v", s.Conn)
			}
		})
	}
}
