//go:build interop

package interop

import (
	"fmt"
	"testing"

	"github.com/replblk/replblk/block"
	"github.com/replblk/replblk/replication"
	"github.com/replblk/replblk/replication/state"
)

// TestOldVersions has replblk be the older one, so that the kernel speaks as it does to its
// predecessors: full sync in both directions, writes, resync, reads without a disk.
func TestOldVersions(t *testing.T) {
	for i, version := range []int{86, 89, 94, 95, 96, 99, 100} {
		t.Run(fmt.Sprint(version), func(t *testing.T) {
			o := outage()
			o.protocol, o.small = "CAB"[i%3], true
			base := o.core
			o.kernelDisk = "c-plan-ahead 0; resync-rate 60M;"
			o.core = func(c *replication.Config) {
				base(c)
				c.MaxVersion = version
				c.Volumes[0].PlanAheadTenths, c.Volumes[0].ResyncRateKiB = 0, 60<<10
			}
			k, p := start(t, o)
			k.allowed = []string{forced}
			k.sh("drbdadm primary --force r0")
			k.dd(3, 16384, 4096)
			p.kind(replication.AdminConnect)
			settled(k, p)
			if got := p.Status().Version; got != version {
				t.Fatalf("version %d", got)
			}
			k.fio("4m")
			k.small()
			broken(k, p, func() { k.dd(7, 1024, 2048); k.small() })
			settled(k, p)
			k.sh("drbdadm secondary r0")
			p.wait("the kernel is Secondary", peerSecondary)

			p.kind(replication.AdminPrimary)
			p.scribble(6, 10)
			large := make([]byte, 1<<20)
			for i := range large {
				large[i] = byte(i >> 9)
			}
			if err := block.WriteAt(p.Volume(0), large, 4097); err != nil {
				t.Error(err)
			}
			p.submit(block.Discard, 0, 8192, 8192)
			p.submit(block.WriteZeroes, 0, 30000, 777)
			p.submit(block.Flush, 0, 0, 0)
			broken(k, p, func() { p.scribble(7, 5) })
			settled(k, p)
			k.allowed = append(k.allowed, forced, upgraded)
			p.do(replication.Admin{Kind: replication.AdminDetach})
			k.wait("replblk is Diskless", func(s procState) bool { return s.ds == "UpToDate/Diskless" })
			if err := block.ReadAt(p.Volume(0), make([]byte, 1<<20), 4096); err != nil {
				t.Errorf("replblk: read without a disk: %v", err)
			}
			p.attach()
			settled(k, p)
			p.kind(replication.AdminInvalidateRemote)
			p.wait("resync", func(s state.State) bool { return s.Conn == state.SyncSource })
		})
	}
}

// TestVersionsBetween has the rest of the versions, briefly, with every algorithm that can be
// named: writes, a resync by checksums where there are any, a verify of the end of the disk.
func TestVersionsBetween(t *testing.T) {
	for _, version := range []int{87, 88, 90, 91, 92, 93, 97, 98} {
		t.Run(fmt.Sprint(version), func(t *testing.T) {
			o := verifying("crc32c")
			o.small = true
			o.kernelNet += "csums-alg sha1; data-integrity-alg md5;"
			base := o.core
			o.core = func(c *replication.Config) {
				base(c)
				c.MaxVersion, c.CsumsAlg, c.IntegrityAlg = version, "sha1", "md5"
			}
			k, p := start(t, o)
			k.allowed = append(differs, forced)
			k.sh("drbdadm primary --force r0")
			p.kind(replication.AdminConnect)
			settled(k, p)
			if got := p.Status().Version; got != version {
				t.Fatalf("version %d", got)
			}
			k.dd(3, 0, 128)
			k.small()
			k.sh("drbdadm disconnect r0")
			p.wait("the kernel has gone", waiting)
			k.dd(4, 64, 256)
			k.sh("drbdadm connect r0")
			settled(k, p)
			if version >= 88 {
				last := int64(p.sectors()-1) / 8
				p.decay(last)
				k.sh(fmt.Sprintf("drbdsetup verify 0 --start=%ds", (last-9)*8))
				verified(k, p, 1)
				p.kind(replication.AdminRepair)
				settled(k, p)
			}
		})
	}
}
