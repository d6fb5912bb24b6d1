package replication

import (
	"testing"

	"github.com/replblk/replblk/metadata"
)

// TestTargetFlushesBeforeItsEnd: during a resync to a Primary what its application writes
// settles blocks as well. They are on stable storage before the superblock says that the
// disk is as good as that of the source.
func TestTargetFlushesBeforeItsEnd(t *testing.T) {
	p := newPair()
	a, b := establish(t, p)
	a.admin(Admin{Kind: AdminDetach})
	p.tick(2)
	a.request(OpWrite, 8, 4096, 5)
	p.tick(2)
	sealed := false
	a.flushes = 0
	a.writing = func(sector uint64, block []byte) {
		var sb metadata.Superblock
		if sector != a.layout.Superblock || sb.Decode(block) != nil || !sb.Flags.Has(metadata.Consistent) ||
			!metadata.SameUUID(sb.UUIDs.Current(), b.r.vols[0].disk.sb.UUIDs.Current()) {
			return
		}
		sealed = true
		if a.flushes == 0 {
			t.Error("the end of the resync is on disk, and nothing was flushed")
		}
	}
	a.attach()
	p.tick(1)
	p.resynced(t)
	if !sealed {
		t.Error("no superblock says that the resync is over")
	}
}
