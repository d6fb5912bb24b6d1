//go:build interop

package interop

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/replblk/replblk/replication"
	"github.com/replblk/replblk/replication/state"
)

// verifying are the options of a pair with an algorithm for online verify.
func verifying(alg string) options {
	return options{
		kernelNet:  "verify-alg " + alg + ";",
		kernelDisk: "c-plan-ahead 0; resync-rate 40M;",
		core: func(c *replication.Config) {
			c.VerifyAlg = alg
			c.Volumes[0].PlanAheadTenths, c.Volumes[0].ResyncRateKiB = 0, 40<<10
		},
	}
}

// decay changes single bytes in blocks of the peer's disk.
func (p *peer) decay(blocks ...int64) {
	p.t.Helper()
	f, err := os.OpenFile(p.disk, os.O_RDWR, 0)
	if err != nil {
		p.t.Fatal(err)
	}
	defer f.Close()
	for i, n := range blocks {
		var b [1]byte
		at := n<<12 + int64(i*517)%4096
		if _, err := f.ReadAt(b[:], at); err != nil {
			p.t.Fatal(err)
		}
		b[0] ^= 0x40
		if _, err := f.WriteAt(b[:], at); err != nil {
			p.t.Fatal(err)
		}
	}
}

// verified waits until a verify that found n blocks has ended on both nodes. The kernel
// counts in KiB.
func verified(k *kernel, p *peer, n int) {
	k.t.Helper()
	want := strconv.Itoa(4 * n)
	p.wait("verified", func(s state.State) bool { return s.Conn == state.Connected })
	k.wait("verified", func(s procState) bool { return s.connected() && s.oos == want })
	if got := p.Status().Volumes[0]; got.OutOfSync != uint64(n) || got.Verify.Found != uint64(n) || got.Verify.Left != 0 {
		k.t.Errorf("replblk: %d bits set, verify %+v, want %d blocks", got.OutOfSync, got.Verify, n)
	}
}

// differs is what the kernel says when it has found differences.
var differs = []string{"Out of sync: start=", "out of sync!"}

// TestVerify compares the copies from either side with the usual algorithms while the
// kernel writes, then finds planted differences, and repairs them from either side.
func TestVerify(t *testing.T) {
	for i, alg := range []string{"crc32c", "md5", "sha1", "sha256"} {
		who := [...]string{"kernel", "replblk"}[i%2]
		t.Run(alg+" by "+who, func(t *testing.T) {
			o := verifying(alg)
			o.small = true
			k, p := established(t, o)
			k.allowed = differs
			k.sh("drbdadm primary r0")
			k.dd(1, 0, 16384)
			last := int64(p.sectors()-1) / 8
			p.decay(0, 5, 6, 3000, 7900, last)
			verify := func(n int) {
				began := time.Now()
				runs := p.Status().Volumes[0].Verify.Completed
				if who == "kernel" {
					k.sh("drbdadm verify r0")
				} else {
					p.kind(replication.AdminVerify)
				}
				k.sh("yes load | dd of=/dev/drbd0 bs=64k iflag=fullblock seek=300 count=64 oflag=direct conv=notrunc")
				p.wait("end of the verify", func(s state.State) bool { return p.Status().Volumes[0].Verify.Completed > runs })
				verified(k, p, n)
				t.Logf("%d MiB in %v", p.sectors()>>11, time.Since(began))
			}
			verify(6)
			p.kind(replication.AdminRepair)
			p.wait("repair", func(s state.State) bool { return inSync(s) && p.Status().Volumes[0].OutOfSync == 0 })
			settled(k, p)
			verify(0)
		})
	}
}

// TestVerifyRange starts and stops a verify somewhere in between.
func TestVerifyRange(t *testing.T) {
	k, p := established(t, verifying("sha1"))
	k.allowed = differs
	p.decay(99, 100, 199, 200, 300)
	k.sh("drbdsetup verify 0 --start=805s --stop=1600s")
	p.wait("end", func(s state.State) bool { return p.Status().Volumes[0].Verify.Completed == 1 })
	verified2 := func(oos int) {
		t.Helper()
		k.wait("verified", func(s procState) bool { return s.connected() && s.oos == fmt.Sprint(4*oos) })
		if got := p.Status().Volumes[0].OutOfSync; got != uint64(oos) {
			t.Errorf("replblk: %d bits set, want %d", got, oos)
		}
	}
	verified2(2) // blocks 100 and 199
	p.do(replication.Admin{Kind: replication.AdminVerify, Start: 1599, Stop: 1608})
	p.wait("end", func(s state.State) bool { return p.Status().Volumes[0].Verify.Completed == 2 })
	verified2(3) // 199 and 200
	k.sh("drbdsetup verify 0 --start=2400s")
	p.wait("end", func(s state.State) bool { return p.Status().Volumes[0].Verify.Completed == 3 })
	verified2(4)
	p.decay(99) // as it was: a verify that did not see it repairs nothing
	p.kind(replication.AdminRepair)
}

// TestVerifyInterrupted cancels a verify of either side, by the operator and by the loss of
// the connection, and resumes it.
func TestVerifyInterrupted(t *testing.T) {
	slow := verifying("sha1")
	slow.kernelDisk = "c-plan-ahead 0; resync-rate 4M;"
	slow.kernelNet += outage().kernelNet
	fast := slow.core
	slow.core = func(c *replication.Config) {
		outage().core(c)
		fast(c)
		c.Volumes[0].ResyncRateKiB = 4 << 10
	}
	k, p := established(t, slow)
	p.kind(replication.AdminVerify)
	k.wait("verify", func(s procState) bool { return s.cs == "VerifyT" })
	time.Sleep(time.Second)
	p.kind(replication.AdminStopVerify)
	p.wait("stopped", connected)
	k.wait("stopped", procState.connected)
	at := p.Status().Volumes[0].Verify
	if at.Resume == 0 || at.Left == 0 {
		t.Errorf("stopped at %+v", at)
	}
	p.do(replication.Admin{Kind: replication.AdminVerify, Resume: true})
	k.wait("verify", func(s procState) bool { return s.cs == "VerifyT" })
	if got := p.Status().Volumes[0].Verify; got.Total > at.Left {
		t.Errorf("resumed: %+v, after %+v", got, at)
	}
	broken(k, p, func() {})
	settled(k, p)
	k.sh("drbdadm verify r0")
	p.wait("verify", func(s state.State) bool { return s.Conn == state.VerifyT })
	time.Sleep(time.Second)
	p.kind(replication.AdminDisconnect)
	k.wait("alone", procState.waiting)
	p.kind(replication.AdminConnect)
	settled(k, p)
	if log := k.sh("dmesg"); !strings.Contains(log, "Online") {
		t.Error("the kernel never verified")
	}
}
