//go:build interop

package interop

import (
	"strings"
	"testing"
	"time"

	"github.com/replblk/replblk/block"
	"github.com/replblk/replblk/replication"
	"github.com/replblk/replblk/replication/state"
)

// TestIdle leaves a connection alone for longer than ping-int, so that both must ask
// and answer.
func TestIdle(t *testing.T) {
	k, p := established(t, options{kernelNet: "ping-int 2;", core: func(c *replication.Config) { c.PingIntSeconds = 2 }})
	time.Sleep(9 * time.Second)
	agreed(k, p)
}

// TestInvalidate has each operator throw away each copy while connected.
func TestInvalidate(t *testing.T) {
	for i, c := range []struct {
		name string
		do   func(k *kernel, p *peer)
	}{
		{"the kernel its own", func(k *kernel, p *peer) { k.sh("drbdadm invalidate r0") }},
		{"the kernel replblk's", func(k *kernel, p *peer) { k.sh("drbdadm invalidate-remote r0") }},
		{"replblk its own", func(k *kernel, p *peer) { p.kind(replication.AdminInvalidate) }},
		{"replblk the kernel's", func(k *kernel, p *peer) { p.kind(replication.AdminInvalidateRemote) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := brisk()
			o.small = true
			k, p := start(t, o)
			connect(k, p)
			if i%2 == 0 { // who declared it knows less of the other one's generations
				k.sh("drbdadm -- --clear-bitmap new-current-uuid r0/0")
			} else {
				p.do(replication.Admin{Kind: replication.AdminNewCurrentUUID, ClearBitmap: true})
			}
			settled(k, p)
			k.sh("drbdadm primary r0")
			k.dd(1, 0, 8192)
			k.sh("drbdadm secondary r0")
			p.wait("the kernel is Secondary", peerSecondary)
			before := k.gi()
			c.do(k, p)
			settled(k, p)
			if after := k.gi(); after == before {
				t.Errorf("kernel: UUIDs are still %v: there was no resync", after)
			}
		})
	}
}

// TestPauseSync has each operator pause a full resync and resume it, with either node as its
// source.
func TestPauseSync(t *testing.T) {
	for _, source := range []string{"kernel", "replblk"} {
		t.Run(source+" source", func(t *testing.T) {
			o := options{kernelDisk: "c-plan-ahead 0; resync-rate 4M;", core: func(c *replication.Config) {
				c.Volumes[0].PlanAheadTenths, c.Volumes[0].ResyncRateKiB = 0, 4<<10
			}}
			k, p := start(t, o)
			connect(k, p)
			k.allowed = []string{forced}
			paused := map[string]state.Conn{"kernel": state.PausedSyncT, "replblk": state.PausedSyncS}[source]
			if source == "kernel" {
				k.sh("drbdadm primary --force r0")
			} else {
				p.do(replication.Admin{Kind: replication.AdminPrimary, Force: true})
			}
			p.wait("resync", func(s state.State) bool { return s.Conn.Resync() })
			k.sh("drbdadm pause-sync r0")
			p.wait("paused", func(s state.State) bool { return s.Conn == paused && s.PeerIsp })
			k.wait("paused", func(s procState) bool { return strings.HasPrefix(s.cs, "PausedSync") })
			p.kind(replication.AdminPauseSync)
			k.wait("paused by replblk, too", func(s procState) bool { return strings.HasPrefix(s.flags, "r-pu") })
			left := p.whenQuiet()
			k.sh("drbdadm resume-sync r0")
			p.wait("resumed by the kernel", func(s state.State) bool { return s.Conn == paused && !s.PeerIsp })
			if n := p.whenQuiet(); n != left {
				t.Errorf("%d blocks were left, %d are after a pause", left, n)
			}
			hasten(k, p, o)
			p.kind(replication.AdminResumeSync)
		})
	}
}

// whenQuiet waits until a paused resync has copied what was on its way, and returns how many blocks are
// left.
func (p *peer) whenQuiet() uint64 {
	p.t.Helper()
	for left, deadline := uint64(0), time.Now().Add(waitTimeout); ; {
		n := p.Status().Volumes[0].OutOfSync
		if n == left {
			return n
		}
		if time.Now().After(deadline) {
			p.t.Fatalf("replblk: %d blocks are left, still fewer and fewer", n)
		}
		left = n
		time.Sleep(time.Second)
	}
}

// upgraded is how the kernel puts that its own disk, Negotiating until then, will be the
// target of a resync.
const upgraded = "Implicitly upgraded disk"

// TestDetach has each node lose its disk in turn while the kernel is Primary, and get it
// back.
func TestDetach(t *testing.T) {
	k, p := established(t, options{})
	k.allowed = []string{upgraded}
	k.sh("drbdadm primary r0")
	k.dd(1, 0, 4096)
	p.do(replication.Admin{Kind: replication.AdminDetach})
	k.wait("replblk is Diskless", func(s procState) bool { return s.ds == "UpToDate/Diskless" })
	k.dd(2, 2048, 4096)
	p.attach()
	settled(k, p)

	sum := k.sh("dd if=/dev/drbd0 bs=1M iflag=direct 2>/dev/null | sha1sum")
	k.sh("drbdadm detach r0")
	p.wait("the kernel is Diskless", func(s state.State) bool { return s.PeerDisk == state.Diskless })
	if got := k.sh("dd if=/dev/drbd0 bs=1M iflag=direct 2>/dev/null | sha1sum"); got != sum {
		t.Errorf("kernel: without a disk it reads %s, with it %s", got, sum)
	}
	k.dd(3, 16384, 4096)
	k.small()
	k.sh("drbdadm attach r0")
}

// TestDetachReplblkPrimary is the same with replblk as Primary.
func TestDetachReplblkPrimary(t *testing.T) {
	k, p := established(t, options{})
	k.allowed = []string{upgraded}
	p.kind(replication.AdminPrimary)
	p.scribble(1, 10)
	k.sh("drbdadm detach r0")
	p.wait("the kernel is Diskless", func(s state.State) bool { return s.PeerDisk == state.Diskless })
	p.scribble(2, 10)
	k.sh("drbdadm attach r0")
	settled(k, p)

	p.do(replication.Admin{Kind: replication.AdminDetach})
	k.wait("replblk is Diskless", func(s procState) bool { return s.ds == "UpToDate/Diskless" })
	p.scribble(3, 10)
	b := make([]byte, 1<<20)
	if err := block.ReadAt(p.Volume(0), b, 4096); err != nil {
		t.Errorf("replblk: read without a disk: %v", err)
	}
	p.attach()
}

// TestSplitBrain has both nodes write while they are apart, and each operator in turn
// give up what he has.
func TestSplitBrain(t *testing.T) {
	for _, victim := range []string{"kernel", "replblk"} {
		t.Run(victim, func(t *testing.T) {
			k, p := established(t, options{})
			k.sh("drbdadm disconnect r0")
			p.kind(replication.AdminDisconnect)
			k.sh("drbdadm primary r0")
			k.dd(1, 0, 4096)
			k.sh("drbdadm secondary r0")
			p.kind(replication.AdminPrimary)
			p.scribble(1, 10)
			p.kind(replication.AdminSecondary)
			k.allowed = append([]string{"Split-Brain detected", "error receiving ReportState"}, noticed...)
			p.kind(replication.AdminConnect)
			k.sh("drbdadm connect r0")
			k.wait("split brain", procState.alone)
			p.wait("split brain", func(s state.State) bool { return alone(s) || waiting(s) })
			if victim == "kernel" {
				if alone(p.State(0)) {
					p.kind(replication.AdminConnect)
				}
				k.sh("drbdadm connect --discard-my-data r0")
			} else {
				if !alone(p.State(0)) {
					p.kind(replication.AdminDisconnect)
				}
				k.sh("drbdadm connect r0")
				p.do(replication.Admin{Kind: replication.AdminConnect, DiscardMyData: true})
			}
		})
	}
}
