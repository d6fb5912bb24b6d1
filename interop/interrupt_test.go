//go:build interop

package interop

import (
	"strings"
	"testing"
	"time"

	"github.com/replblk/replblk/replication"
	"github.com/replblk/replblk/replication/state"
)

// TestResyncInterrupted has a full resync end early several times: by the loss of the network,
// by either operator, and while it is paused by both; with plain bitmaps and with compressed
// ones. Every time it goes on where it was, while the Primary writes.
func TestResyncInterrupted(t *testing.T) {
	for _, c := range []struct {
		source string
		rle    bool
	}{{"kernel", false}, {"kernel", true}, {"replblk", false}, {"replblk", true}} {
		name := c.source + " source, plain bitmaps"
		if c.rle {
			name = c.source + " source, compressed bitmaps"
		}
		t.Run(name, func(t *testing.T) {
			o := outage()
			o.kernelDisk = "c-plan-ahead 0; resync-rate 8M;"
			word := map[bool]string{false: "no", true: "yes"}[c.rle]
			o.kernelNet += " use-rle " + word + ";"
			base := o.core
			o.core = func(cfg *replication.Config) {
				base(cfg)
				cfg.UseRLE = c.rle
				cfg.Volumes[0].PlanAheadTenths, cfg.Volumes[0].ResyncRateKiB = 0, 8<<10
			}
			k, p := start(t, o)
			k.allowed = []string{forced}
			r := &interruption{k: k, p: p, kernelIsSource: c.source == "kernel"}
			if r.kernelIsSource {
				k.sh("drbdadm primary --force r0")
			} else {
				p.do(replication.Admin{Kind: replication.AdminPrimary, Force: true})
			}
			p.kind(replication.AdminConnect)
			r.running()
			broken(k, p, func() { r.write(1) })
			r.running()
			k.sh("drbdadm disconnect r0")
			p.wait("the kernel has gone", waiting)
			r.write(2)
			k.sh("drbdadm connect r0")
			r.running()
			p.kind(replication.AdminDisconnect)
			k.wait("replblk has gone", procState.waiting)
			p.kind(replication.AdminConnect)
			r.running()
			k.sh("drbdadm pause-sync r0")
			p.kind(replication.AdminPauseSync)
			k.wait("paused by both", func(s procState) bool { return strings.HasPrefix(s.cs, "Paused") && strings.HasPrefix(s.flags, "r-pu") })
			broken(k, p, func() { r.write(3) })
			p.wait("paused as before", func(s state.State) bool { return s.Conn.Resync() && s.UserIsp && s.PeerIsp })
			p.kind(replication.AdminResumeSync)
			k.sh("drbdadm resume-sync r0")
			hasten(k, p, o)
		})
	}
}

// hasten has both operators let a resync at a fixed rate run as fast as brisk ones.
func hasten(k *kernel, p *peer, o options) {
	k.t.Helper()
	a := &adjustable{k: k, p: p, o: o}
	a.kernel('C', o.kernelNet, brisk().kernelDisk)
	a.replblk('C', func(cfg *replication.Config) {
		o.core(cfg)
		brisk().core(cfg)
	})
}

// interruption is a resync that is interrupted.
type interruption struct {
	k              *kernel
	p              *peer
	kernelIsSource bool
	left           uint64 // blocks that were to be copied when it was interrupted
}

// write has the Primary write, somewhere else each time.
func (r *interruption) write(n int) {
	r.k.t.Helper()
	if r.kernelIsSource {
		r.k.dd(n, 16384*n, 512)
	} else {
		r.p.scribbleAt(uint64(n), 5, uint64(32768*n), 8192)
	}
}

// running waits until the resync has made some progress, in which it must not begin again.
func (r *interruption) running() {
	r.k.t.Helper()
	r.p.wait("resync", func(s state.State) bool { return s.Conn.Resync() })
	r.k.wait("resync", func(s procState) bool { return strings.HasPrefix(s.cs, "Sync") })
	began := r.p.Status().Volumes[0].OutOfSync
	const written = 2048 // blocks at most, between two resyncs
	if r.left != 0 && began > r.left+written {
		r.k.t.Errorf("resync began with %d blocks, %d were left", began, r.left)
	}
	for deadline := time.Now().Add(waitTimeout); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if r.left = r.p.Status().Volumes[0].OutOfSync; r.left+1024 <= began {
			return
		}
	}
	r.k.t.Fatalf("resync makes no progress: %d blocks are left of %d", r.left, began)
}
