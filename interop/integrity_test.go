//go:build interop

package interop

import (
	"testing"

	"github.com/replblk/replblk/block"
	"github.com/replblk/replblk/replication"
	"github.com/replblk/replblk/replication/state"
)

// TestIntegrity has a digest with all data: writes, resyncs and reads of a node without a
// disk, in both directions, and discards and zeroes, which have none.
func TestIntegrity(t *testing.T) {
	for _, c := range []struct {
		alg   string
		proto byte
	}{{"sha1", 'A'}, {"crc32c", 'C'}} {
		t.Run(c.alg, func(t *testing.T) {
			o := outage()
			o.protocol = c.proto
			o.kernelNet += " data-integrity-alg " + c.alg + ";"
			base := o.core
			o.core = func(k *replication.Config) { base(k); k.IntegrityAlg = c.alg }
			k, p := established(t, o)
			k.sh("drbdadm primary r0")
			k.fio("8m")
			k.small()
			k.sh("blkdiscard -o 50331648 -l 8388608 /dev/drbd0")
			broken(k, p, func() { k.dd(7, 1024, 2048) })
			settled(k, p)
			k.sh("drbdadm secondary r0")
			p.wait("the kernel is Secondary", peerSecondary)

			p.kind(replication.AdminPrimary)
			p.scribble(6, 20)
			p.submit(block.Discard, 0, 4096, 2048)
			p.submit(block.WriteZeroes, 0, 16384, 4096)
			p.submit(block.WriteZeroes, block.NoHole, 30000, 777)
			broken(k, p, func() { p.scribble(7, 15) })
			settled(k, p)

			k.allowed = append(k.allowed, upgraded)
			p.do(replication.Admin{Kind: replication.AdminDetach})
			k.wait("replblk is Diskless", func(s procState) bool { return s.ds == "UpToDate/Diskless" })
			b := make([]byte, 1<<20)
			if err := block.ReadAt(p.Volume(0), b, 4096); err != nil {
				t.Errorf("replblk: read without a disk: %v", err)
			}
			p.scribble(8, 5)
			p.attach()
			settled(k, p)
			k.sh("drbdadm detach r0")
			p.wait("the kernel is Diskless", func(s state.State) bool { return s.PeerDisk == state.Diskless })
			p.kind(replication.AdminSecondary)
			k.wait("replblk is Secondary", func(s procState) bool { return s.ro == "Secondary/Secondary" })
			k.sh("drbdadm primary r0 && dd if=/dev/drbd0 of=/dev/null bs=1M count=16 iflag=direct && drbdadm secondary r0 && drbdadm attach r0")
		})
	}
}
