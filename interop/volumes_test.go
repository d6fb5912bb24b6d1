//go:build interop

package interop

import (
	"sync"
	"testing"

	"github.com/replblk/replblk/replication"
	"github.com/replblk/replblk/replication/state"
)

// both runs a and b at the same time.
func both(a, b func()) {
	var wg sync.WaitGroup
	wg.Go(a)
	wg.Go(b)
	wg.Wait()
}

// scribbleBoth writes to both volumes at once.
func (p *peer) scribbleBoth(seed uint64, n int) {
	both(func() { p.scribble(seed, n) },
		func() { p.scribbleOn(p.Volume(1), seed+1000, n, 0, p.Volume(1).Geometry().Sectors) })
}

// ddBoth is dd on both volumes at once.
func (k *kernel) ddBoth(seed, at, n int) {
	k.t.Helper()
	write := func(vol string) string {
		return "yes 'both " + vol + "' | dd of=/dev/drbd" + vol + " bs=64k iflag=fullblock oflag=direct conv=notrunc count=128 2>/dev/null"
	}
	k.sh("(" + write("1") + ") & " + write("0") + "; wait")
	k.ddOn(1, seed, at, n)
	k.ddOn(0, seed+1, at, n)
}

// TestVolumes has a resource with two volumes: both share the connection, its barriers and
// its loss, and nothing else. Either node is Primary and writes to both at once; resyncs of
// both run side by side; one volume loses its disk, is thrown away and compared while the
// other one is in use.
func TestVolumes(t *testing.T) {
	for _, proto := range []byte{'C', 'A'} {
		t.Run("protocol "+string(proto), func(t *testing.T) {
			o := outage()
			o.two, o.protocol = true, proto
			o.kernelNet += " verify-alg crc32c;"
			o.kernelDisk = brisk().kernelDisk
			base := o.core
			o.core = func(c *replication.Config) {
				base(c)
				c.VerifyAlg = "crc32c"
				for i := range c.Volumes {
					c.Volumes[i].PlanAheadTenths, c.Volumes[i].ResyncRateKiB = 0, 60<<10
				}
			}
			k, p := established(t, o)
			k.sh("drbdadm primary r0")
			p.wait("the kernel is Primary", peerPrimary)
			k.ddBoth(1, 1024, 2048)
			settled(k, p)
			broken(k, p, func() { k.ddBoth(3, 8192, 1024) })
			settled(k, p)
			k.ddBoth(5, 4096, 1024)
			k.oneVolume(p)
			k.sh("drbdadm secondary r0")
			p.wait("the kernel is Secondary", peerSecondary)

			p.kind(replication.AdminPrimary)
			p.scribbleBoth(1, 15)
			settled(k, p)
			broken(k, p, func() { p.scribbleBoth(2, 10) })
			settled(k, p)
			broken(k, p, func() { p.scribbleOn(p.Volume(1), 3, 10, 0, 60000) }) // volume 0 has nothing to resync
			settled(k, p)
			k.sh("drbdadm detach r0/1")
			p.waitFor(1, "the kernel has no disk 1", func(s state.State) bool { return s.PeerDisk == state.Diskless })
			p.scribbleBoth(4, 10)
			k.sh("drbdadm attach r0/1")
			settled(k, p)
			p.scribbleBoth(5, 10)
		})
	}
}

// oneVolume does what concerns volume 1 alone while the kernel is Primary.
func (k *kernel) oneVolume(p *peer) {
	k.t.Helper()
	k.allowed = append(k.allowed, upgraded)
	p.do(replication.Admin{Kind: replication.AdminDetach, Vol: 1})
	k.waitFor(1, "replblk has no disk 1", func(s procState) bool { return s.ds == "UpToDate/Diskless" })
	k.ddOn(0, 7, 2048, 1024) // not both at once: the kernel expects the other one's writes in a P_BARRIER_ACK
	k.ddOn(1, 8, 2048, 1024)
	p.attachVolume(1, secondDisk())
	settled(k, p)

	k.sh("drbdadm detach r0/1")
	p.waitFor(1, "the kernel has no disk 1", func(s state.State) bool { return s.PeerDisk == state.Diskless })
	k.ddBoth(9, 3072, 1024)
	k.sh("drbdadm attach r0/1")
	settled(k, p)

	p.do(replication.Admin{Kind: replication.AdminInvalidate, Vol: 1})
	k.ddOn(0, 11, 512, 512)
	settled(k, p)
	runs := p.Status().Volumes[1].Verify.Completed
	k.sh("drbdadm verify r0/1")
	k.ddOn(0, 12, 512, 512)
	p.waitFor(1, "verified", func(s state.State) bool { return p.Status().Volumes[1].Verify.Completed > runs })
	if n := p.Status().Volumes[1].Verify.Found; n != 0 {
		k.t.Errorf("verify of volume 1 has found %d blocks", n)
	}
	settled(k, p)
}
