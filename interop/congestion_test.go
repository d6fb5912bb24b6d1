//go:build interop

package interop

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/replblk/replblk/node"
	"github.com/replblk/replblk/replication"
	"github.com/replblk/replblk/replication/state"
)

// TestPullAhead has each node write more than may be on its way: it stops to replicate, its peer
// is behind, and is resynced when the link is idle.
func TestPullAhead(t *testing.T) {
	for _, primary := range []string{"kernel", "replblk"} {
		t.Run(primary, func(t *testing.T) {
			k, p := established(t, options{protocol: 'A',
				kernelNet: "on-congestion pull-ahead; congestion-fill 64k;",
				core: func(c *replication.Config) {
					c.OnCongestion, c.CongestionFill = replication.CongestionPullAhead, 128
				}})
			var behind, ahead atomic.Bool
			defer p.Watch(func(c node.Change) {
				behind.Store(behind.Load() || c.New.Conn == state.Behind)
				ahead.Store(ahead.Load() || c.New.Conn == state.Ahead)
			})()
			k.overran = true
			k.allowed = []string{"Congestion-fill threshold reached"}
			if primary == "kernel" {
				k.sh("drbdadm primary r0")
				for i := range 5 {
					k.dd(i, i*2048, 8192)
				}
			} else {
				p.kind(replication.AdminPrimary)
				for i := range uint64(4) {
					p.scribble(i, 30)
				}
			}
			time.Sleep(2 * time.Second)
			settled(k, p)
			if primary == "kernel" && !behind.Load() || primary == "replblk" && !ahead.Load() {
				t.Errorf("behind %v, ahead %v: the link was never congested", behind.Load(), ahead.Load())
			}
		})
	}
}
