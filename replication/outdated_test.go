package replication

import (
	"testing"

	"github.com/replblk/replblk/metadata"
	"github.com/replblk/replblk/replication/state"
)

// TestOutdatedPrimaryIsNoSource: both nodes have been Primary and died with one generation, and
// one of them knows that the other was to be its source.
func TestOutdatedPrimaryIsNoSource(t *testing.T) {
	for i := range 2 { // by rule 40 the second node would be the source
		p := newPair()
		a, b := establish(t, p)
		p.cut()
		behind, good := p.nodes[i], p.nodes[1-i]
		good.data[80], behind.data[80] = newer, older
		for _, n := range p.nodes {
			var sb metadata.Superblock
			if err := sb.Decode(n.super); err != nil {
				t.Fatal(err)
			}
			sb.Flags |= metadata.PrimaryInd
			if n == behind {
				sb.Flags &^= metadata.WasUpToDate
			}
			n.super = sb.AppendTo(nil)
			page := make([]byte, 4096)
			page[1] = 4 // block 10
			n.pages[n.layout.Bitmap] = page
		}
		a.reboot(testConfig())
		b.reboot(testConfig())
		p.tick(20)
		p.states(t, "Connected Secondary/Secondary UpToDate/UpToDate", "Connected Secondary/Secondary UpToDate/UpToDate")
		p.equal(t)
		if a.data[80] != newer {
			t.Errorf("%s is behind, and was the source", behind.name)
		}
	}
}

// TestPromotionFlushesWhatItStandsFor: the superblock that says that a survivor is Primary is
// not on disk before what the dead Primary wrote to it.
func TestPromotionFlushesWhatItStandsFor(t *testing.T) {
	p := newPair()
	a, b := establish(t, p)
	p.apart = true
	p.cut()
	p.tick(2)
	b.flushes = 0
	before := b.r.vols[0].disk.sb.UUIDs
	b.writing = func(sector uint64, block []byte) {
		var sb metadata.Superblock
		if sector != b.layout.Superblock || sb.Decode(block) != nil {
			return
		}
		if b.flushes == 0 && (sb.Flags.Has(metadata.PrimaryInd) || !metadata.SameUUID(sb.UUIDs.Current(), before.Current())) {
			t.Error("the promotion is on disk before the data")
		}
	}
	token := b.admin(Admin{Kind: AdminPrimary})
	p.tick(2)
	if !b.replies[token].OK() || b.flushes != 1 || b.r.State(0).Role != state.Primary || a.r.State(0).Role != state.Primary {
		t.Errorf("promotion %v, %d flushes", b.replies[token], b.flushes)
	}
}
