//go:build interop

package interop

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/replblk/replblk/replication"
	"github.com/replblk/replblk/replication/state"
)

// option is one that changes at run time, as the kernel's file says it and as replblk has it.
// Without change it is no business of replblk's.
type option struct {
	net, disk string
	change    func(*replication.Config)
}

func diskOption(text string, change func(*replication.VolumeConfig)) option {
	o := option{disk: text}
	if change != nil {
		o.change = func(c *replication.Config) { change(&c.Volumes[0]) }
	}
	return o
}

// runTimeOptions are the options that adjust changes while the nodes are connected.
func runTimeOptions() []option {
	type (
		conf = replication.Config
		disk = replication.VolumeConfig
	)
	return []option{
		{net: "timeout 50;", change: func(c *conf) { c.TimeoutTenths = 50 }},
		{net: "ping-int 7;", change: func(c *conf) { c.PingIntSeconds = 7 }},
		{net: "ping-timeout 29;", change: func(c *conf) { c.PingTimeoutTenths = 29 }},
		{net: "connect-int 4;"},
		{net: "ko-count 5;", change: func(c *conf) { c.KoCount = 5 }},
		{net: "max-buffers 4000;", change: func(c *conf) { c.MaxBuffers = 4000 }},
		{net: "max-epoch-size 30;", change: func(c *conf) { c.MaxEpochSize = 30 }},
		{net: "sndbuf-size 300k; rcvbuf-size 300k;"},
		{net: "tcp-cork no;"},
		{net: "after-sb-0pri discard-least-changes;", change: func(c *conf) { c.AfterSB[0] = replication.SBDiscardLeastChanges }},
		{net: "after-sb-1pri discard-secondary;", change: func(c *conf) { c.AfterSB[1] = replication.SBDiscardSecondary }},
		{net: "after-sb-2pri call-pri-lost-after-sb;", change: func(c *conf) { c.AfterSB[2] = replication.SBCallHelper }},
		{net: "always-asbp yes;", change: func(c *conf) { c.AlwaysASBP = true }},
		{net: "rr-conflict call-pri-lost;", change: func(c *conf) { c.RRConflict = replication.RRCallPriLost }},
		{net: "on-congestion pull-ahead; congestion-fill 1G; congestion-extents 1000; protocol A;", change: func(c *conf) {
			c.Protocol, c.OnCongestion, c.CongestionFill, c.CongestionExtents = replication.ProtocolA, replication.CongestionPullAhead, 1<<21, 1000
		}},
		{net: "csums-alg md5;", change: func(c *conf) { c.CsumsAlg = "md5" }},
		{net: "csums-alg sha1; csums-after-crash-only yes;", change: func(c *conf) { c.CsumsAlg, c.CsumsAfterCrash = "sha1", true }},
		{net: "verify-alg sha1;", change: func(c *conf) { c.VerifyAlg = "sha1" }},
		{net: "use-rle no;", change: func(c *conf) { c.UseRLE = false }},
		{net: "allow-two-primaries yes;", change: func(c *conf) { c.TwoPrimaries = true }},
		{net: "data-integrity-alg crc32c;", change: func(c *conf) { c.IntegrityAlg = "crc32c" }},
		{net: "data-integrity-alg sha1;", change: func(c *conf) { c.IntegrityAlg = "sha1" }},
		diskOption("on-io-error pass_on;", func(d *disk) { d.OnIOError = replication.OnErrorPassOn }),
		diskOption("fencing resource-only;", func(d *disk) { d.Fencing = state.ResourceOnly }),
		diskOption("disk-flushes no; md-flushes no;", func(d *disk) { d.DiskFlushes, d.MDFlushes = false, false }),
		diskOption("resync-rate 9M; c-plan-ahead 0;", func(d *disk) { d.ResyncRateKiB, d.PlanAheadTenths = 9<<10, 0 }),
		diskOption("c-plan-ahead 10; c-fill-target 1M; c-delay-target 5; c-max-rate 50M; c-min-rate 1M;", func(d *disk) {
			d.PlanAheadTenths, d.FillTargetSector, d.DelayTargetTenth, d.MaxRateKiB, d.MinRateKiB = 10, 2048, 5, 50<<10, 1<<10
		}),
		diskOption("al-extents 257;", func(d *disk) { d.ALExtents = 257 }),
		diskOption("al-updates no;", func(d *disk) { d.ALUpdates = false }),
		diskOption("rs-discard-granularity 65536;", func(d *disk) { d.DiscardGranularity = 64 << 10 }),
		diskOption("disk-timeout 100;", func(d *disk) { d.DiskTimeoutTenths = 100 }),
		diskOption("read-balancing round-robin;", nil),
		diskOption("discard-zeroes-if-aligned no;", nil),
		diskOption("disable-write-same yes;", nil),
	}
}

// TestAdjustOptions changes every option that may change while the nodes are connected, one after
// the other, in turn by either operator first, while the kernel writes; and takes it back. The
// connection survives all of that, and the data arrive.
func TestAdjustOptions(t *testing.T) {
	k, p := established(t, options{})
	a := &adjustable{k: k, p: p}
	var connections atomic.Int32
	defer p.Watch(countConnections(&connections))()
	k.sh("drbdadm primary r0")
	p.wait("the kernel is Primary", peerPrimary)
	stop := k.keepWriting(50 * time.Millisecond)
	for i, opt := range runTimeOptions() {
		kernel := func() { a.kernel('C', opt.net, opt.disk) }
		replblk := func() { a.replblk('C', opt.change) }
		if i%2 == 1 {
			kernel, replblk = replblk, kernel
		}
		kernel()
		if n := connections.Load(); n > 0 || p.State(0).Conn != state.Connected {
			t.Fatalf("%s%s: %d new connections, state %+v", opt.net, opt.disk, n, p.State(0))
		}
		replblk()
		k.small()
		if s := p.State(0); connections.Load() > 0 || s.Conn != state.Connected {
			t.Fatalf("%s%s: new connections: %d, state %+v", opt.net, opt.disk, connections.Load(), s)
		}
	}
	a.kernel('C', "", "")
	a.replblk('C', nil)
	stop()
}
