//go:build interop

package interop

import (
	"os/exec"
	"testing"

	"github.com/replblk/replblk/replication"
	"github.com/replblk/replblk/replication/state"
)

// forced is what the kernel says when its operator decides whose data are good.
const forced = "Forced to consider local data as UpToDate!"

// TestFullSyncFromKernel has replblk receive everything, while the kernel writes.
func TestFullSyncFromKernel(t *testing.T) {
	k, p := start(t, options{})
	k.allowed = []string{forced}
	k.sh("drbdadm primary --force r0")
	k.fio("16m")
	k.dd(3, 65536, 16384)
	p.kind(replication.AdminConnect)
	p.wait("resync", func(s state.State) bool { return s.Conn == state.SyncTarget })
	k.dd(4, 1024, 8192)
	k.sh("blkdiscard -o 50331648 -l 8388608 /dev/drbd0")
	settled(k, p)
	k.sh("drbdadm secondary r0")
}

// TestFullSyncFromReplblk has the kernel receive everything, while replblk writes.
func TestFullSyncFromReplblk(t *testing.T) {
	k, p := start(t, options{})
	p.do(replication.Admin{Kind: replication.AdminPrimary, Force: true})
	p.scribble(3, 40)
	p.kind(replication.AdminConnect)
	p.wait("resync", func(s state.State) bool { return s.Conn == state.SyncSource })
	p.scribble(4, 40)
	settled(k, p)
	p.kind(replication.AdminSecondary)
}

// TestForcedByKernelWhileConnected decides after the connection whose data are good.
func TestForcedByKernelWhileConnected(t *testing.T) {
	k, p := start(t, options{small: true})
	connect(k, p)
	k.allowed = []string{forced}
	k.sh("drbdadm primary --force r0")
	k.dd(5, 0, 4096)
}

// TestForcedByReplblkWhileConnected is the same from the other side.
func TestForcedByReplblkWhileConnected(t *testing.T) {
	o := brisk()
	o.small = true
	k, p := start(t, o)
	connect(k, p)
	p.do(replication.Admin{Kind: replication.AdminPrimary, Force: true})
	p.scribble(5, 10)
}

// outage are the options of pairs that shall notice soon that the other one is gone.
func outage() options {
	return options{
		kernelNet: "ping-int 1; timeout 30; connect-int 1; ko-count 2;",
		core:      func(c *replication.Config) { c.PingIntSeconds, c.TimeoutTenths, c.KoCount = 1, 30, 2 },
	}
}

// brisk are the options of pairs whose resyncs do not wait for the controller of a target,
// which begins slowly.
func brisk() options {
	return options{kernelDisk: "c-plan-ahead 0; resync-rate 60M;", core: func(c *replication.Config) {
		c.Volumes[0].PlanAheadTenths, c.Volumes[0].ResyncRateKiB = 0, 60<<10
	}}
}

// noticed are the kernel's messages when its connection ends under it. Which of them it says
// depends on what it was about: reading a header or what follows one, sending, or waiting.
var noticed = []string{
	"PingAck did not arrive in time", "timed out", "sock_sendmsg time expired", // silence
	"shut down by peer", "reset by peer", "sock_recvmsg returned", "short read", // reading
	"sock_sendmsg returned", "_drbd_send_page: ", "drbd_send_block() failed", // sending
}

// cable plugs the machine's network in or out.
func cable(t *testing.T, up string) {
	t.Helper()
	if out, err := exec.Command("ip", "link", "set", tapName, up).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

// broken runs during between the loss of the network and its return.
func broken(k *kernel, p *peer, during func()) {
	k.t.Helper()
	k.allowed = append(k.allowed, noticed...)
	cable(k.t, "down")
	defer cable(k.t, "up")
	p.wait("the kernel is gone", func(s state.State) bool { return s.Conn < state.Connected })
	k.wait("replblk is gone", func(s procState) bool { return s.cs != "Connected" && s.cs[:4] != "Sync" })
	during()
}

// TestOutageKernelPrimary resyncs replblk by bitmap, then again after another outage in
// which nothing was written.
func TestOutageKernelPrimary(t *testing.T) {
	k, p := established(t, outage())
	k.sh("drbdadm primary r0")
	k.dd(6, 0, 65536)
	broken(k, p, func() {
		k.dd(7, 1024, 2048)
		k.dd(8, 90*1024, 1024)
		k.small()
	})
	settled(k, p)
	broken(k, p, func() {})
	settled(k, p)
	k.dd(9, 0, 512)
}

// TestOutageReplblkPrimary resyncs the kernel by bitmap.
func TestOutageReplblkPrimary(t *testing.T) {
	k, p := established(t, outage())
	p.kind(replication.AdminPrimary)
	p.scribble(6, 40)
	broken(k, p, func() { p.scribble(7, 15) })
	settled(k, p)
	broken(k, p, func() {})
	settled(k, p)
	p.scribble(8, 15)
}

// TestOutageUnderLoad takes the network away while the Primary writes, so that writes
// that the other one has not confirmed are resynced, too.
func TestOutageUnderLoad(t *testing.T) {
	t.Run("kernel Primary", func(t *testing.T) {
		k, p := established(t, outage())
		k.sh("drbdadm primary r0")
		k.sh("(dd if=/dev/urandom of=/dev/drbd0 bs=64k count=1600 oflag=direct >/tmp/dd.log 2>&1; echo $? >>/tmp/dd.log) &")
		broken(k, p, func() {})
		k.sh("while [ \"$(tail -n1 /tmp/dd.log)\" != 0 ]; do sleep 0.2; done; sync")
	})
	t.Run("replblk Primary", func(t *testing.T) {
		k, p := established(t, outage())
		p.kind(replication.AdminPrimary)
		done := make(chan struct{})
		go func() { p.scribble(9, 800); close(done) }()
		broken(k, p, func() {})
		<-done
	})
}
