//go:build interop

package interop

import (
	"bytes"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/replblk/replblk/block"
	"github.com/replblk/replblk/node"
	"github.com/replblk/replblk/replication"
	"github.com/replblk/replblk/replication/state"
)

// TestPullAhead has each node write more than may be on its way, or to more places than may be
// in the activity log: it stops to replicate, its peer is behind, and is resynced when the link
// is idle.
func TestPullAhead(t *testing.T) {
	for _, primary := range []string{"kernel", "replblk"} {
		for _, what := range []string{"bytes", "extents"} {
			t.Run(primary+", "+what, func(t *testing.T) {
				o := congested(replication.CongestionPullAhead, what)
				o.big = what == "extents" // an extent of the activity log is 4 MiB
				k, p := established(t, o)
				var behind, ahead atomic.Bool
				defer p.Watch(func(c node.Change) {
					behind.Store(behind.Load() || c.New.Conn == state.Behind)
					ahead.Store(ahead.Load() || c.New.Conn == state.Ahead)
				})()
				k.overran = true
				k.allowed = []string{"Congestion-"}
				k.flood(p, primary, what)
				time.Sleep(2 * time.Second)
				if what == "extents" && primary == "kernel" {
					k.small() // it has gone Ahead again in the middle of the resync, and waits for a write to end that
				}
				settled(k, p)
				if primary == "kernel" && !behind.Load() || primary == "replblk" && !ahead.Load() {
					t.Errorf("behind %v, ahead %v: the link was never congested", behind.Load(), ahead.Load())
				}
			})
		}
	}
}

// TestCongestedDisconnect is the same with on-congestion disconnect: replblk as Primary goes on
// alone, and the kernel gets the rest by its bitmap. (The kernel as Primary is in Disconnecting for
// good, see docs/interop.md.)
func TestCongestedDisconnect(t *testing.T) {
	k, p := established(t, congested(replication.CongestionDisconnect, "bytes"))
	k.allowed = noticed
	k.flood(p, "replblk", "bytes")
	p.wait("has left", alone)
	k.wait("replblk has gone", procState.waiting)
	p.kind(replication.AdminConnect)
}

// congested are the options of a pair with a narrow link, by bytes or by extents.
func congested(do replication.OnCongestion, what string) options {
	word := map[replication.OnCongestion]string{replication.CongestionPullAhead: "pull-ahead", replication.CongestionDisconnect: "disconnect"}[do]
	o := brisk()
	o.protocol = 'A'
	o.kernelNet = "on-congestion " + word + "; congestion-fill 64k;"
	if what == "extents" {
		o.kernelNet = "on-congestion " + word + "; congestion-extents 70;"
	}
	fixed := o.core
	o.core = func(c *replication.Config) {
		fixed(c)
		c.OnCongestion, c.CongestionFill = do, 128
		if what == "extents" {
			c.CongestionFill, c.CongestionExtents = 0, 70
		}
	}
	return o
}

// flood has a Primary write more than the link takes.
func (k *kernel) flood(p *peer, primary, what string) {
	k.t.Helper()
	if primary == "kernel" {
		k.sh("drbdadm primary r0")
	} else {
		p.kind(replication.AdminPrimary)
	}
	switch {
	case primary == "kernel" && what == "bytes":
		for i := range 5 {
			k.dd(i, i*2048, 8192)
		}
	case primary == "kernel":
		k.sh("fio --name=flood --filename=/dev/drbd0 --rw=randwrite --bs=4k --direct=1 --ioengine=libaio --iodepth=200 --size=4000m --io_size=6m --minimal")
	case what == "bytes":
		for i := range uint64(4) {
			p.scribble(i, 30)
		}
	default:
		var wg sync.WaitGroup
		for i := range uint64(200) {
			wg.Go(func() {
				for at := i << 13; at < 1<<23; at += 200 << 13 {
					if err := block.WriteAt(p.Volume(0), bytes.Repeat([]byte{byte(i)}, 4096), at); err != nil {
						k.t.Error(err)
					}
				}
			})
		}
		wg.Wait()
	}
}
