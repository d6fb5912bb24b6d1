package replication

import (
	"slices"
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

// TestTargetIsNoCrashedPrimaryAnyMore: a Primary that has crashed is the target of a resync. From
// the superblock on that says that its data are as good as those of the source nothing
// of it is left: if the source does not hear of the end before the node dies again, it would
// be taken for a Primary that has written since (long run, seeds 285139 and 283305).
func TestTargetIsNoCrashedPrimaryAnyMore(t *testing.T) {
	p := newPair()
	a, b := establish(t, p)
	p.apart = true
	p.cut()
	a.reboot(testConfig()) // before it has noticed that it is alone
	b.admin(Admin{Kind: AdminPrimary})
	p.tick(2)
	b.request(OpWrite, 8, 4096, 5)
	p.tick(2)
	if !a.r.vols[0].crashed {
		t.Fatal("a did not crash as Primary")
	}
	sealed := false
	a.writing = func(sector uint64, block []byte) {
		var sb metadata.Superblock
		if sector != a.layout.Superblock || sb.Decode(block) != nil || !sb.Flags.Has(metadata.Consistent|metadata.WasUpToDate) ||
			!metadata.SameUUID(sb.UUIDs.Current(), b.r.vols[0].disk.sb.UUIDs.Current()) {
			return
		}
		sealed = true
		if sb.Flags.Has(metadata.CrashedPrimary) {
			t.Error("the resync is over, and the target still a crashed Primary")
		}
	}
	p.apart = false
	p.tick(30)
	p.states(t, "Connected Secondary/Primary UpToDate/UpToDate", "Connected Primary/Secondary UpToDate/UpToDate")
	if !sealed {
		t.Error("no superblock says that the resync is over")
	}
	p.equal(t)
}

// The end of a resync is recorded by the target when its bitmap says so (U20): a detached
// disk has had its bits written, and they must be gone before it has the generation of its source.
func TestBitmapIsDurableBeforeTheEnd(t *testing.T) {
	p := newPair()
	a, b := establish(t, p)
	p.apart = true
	p.cut()
	p.tick(3)
	a.request(OpWrite, 8, 4096, 5)
	a.admin(Admin{Kind: AdminPauseSync})
	p.tick(3)
	p.apart = false
	p.tick(10)
	b.admin(Admin{Kind: AdminDetach})
	p.tick(10)
	b.attach()
	p.tick(10)
	marked := func() bool {
		for _, page := range b.pages {
			if slices.ContainsFunc(page, func(x byte) bool { return x != 0 }) {
				return true
			}
		}
		return false
	}
	if !marked() {
		t.Fatalf("no bit is on disk\n%s", p.take())
	}
	sealed := false
	b.writing = func(sector uint64, block []byte) {
		var sb metadata.Superblock
		if sector != b.layout.Superblock || sb.Decode(block) != nil || !metadata.SameUUID(sb.UUIDs.Current(), a.r.vols[0].disk.sb.UUIDs.Current()) {
			return
		}
		if sealed = true; marked() {
			t.Errorf("the generation of the source is on disk before the bitmap\n%s", p.take())
		}
	}
	a.admin(Admin{Kind: AdminResumeSync})
	p.tick(60)
	if !sealed {
		t.Errorf("the generation of the source was not written\n%s", p.take())
	}
	p.states(t, "Connected Primary/Secondary UpToDate/UpToDate", "Connected Secondary/Primary UpToDate/UpToDate")
	p.equal(t)
}
