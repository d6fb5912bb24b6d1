package replication

import (
	"github.com/replblk/replblk/metadata"
	"github.com/replblk/replblk/replication/state"
)

// verdict is the outcome of a comparison of generation UUIDs, from the own point
// of view: positive, this node's data win; negative, the peer's do.
type verdict int

// Verdicts (spec 7.4). The magnitude says how much must be copied.
const (
	noSync     verdict = 0
	source     verdict = 1 // by the bitmap
	sourceFull verdict = 2
	target     verdict = -1
	targetFull verdict = -2
	splitAuto  verdict = 100  // split brain; the after-sb policies may decide
	split      verdict = -100 // split brain
	unrelated  verdict = -1000
	needs91    verdict = -1091 // the rule that matches needs protocol 91
	needs101   verdict = -1101 // the rule that matches needs protocol 101
)

// full says whether every block must be copied, and not those of the bitmaps.
func (v verdict) full() bool { return v == sourceFull || v == targetFull }

// contradicts says whether two nodes that come to these verdicts, each from its own point
// of view, would not do the same. The table has such pairs among the sets that nobody but
// an operator can make: both nodes would be sources, or both targets.
func (v verdict) contradicts(peer verdict) bool {
	decided := func(x verdict) bool { return x >= targetFull && x <= sourceFull }
	return decided(v) && decided(peer) && v.leadsTo() != (-peer).leadsTo()
}

// leadsTo returns the connection state that a decided verdict leads to.
func (v verdict) leadsTo() state.Conn {
	switch {
	case v > 0:
		return state.WFBitMapS
	case v < 0:
		return state.WFBitMapT
	default:
		return state.Connected
	}
}

// correction is what a rule wants changed in one of the two UUID sets before it
// takes effect: a message of an earlier resync got lost.
type correction uint8

const (
	noCorrection     correction = iota
	ownClearBitmap              // rule 34: we missed that our resync as source had ended
	peerClearBitmap             // rule 35: the peer missed it (only our copy of its set changes)
	peerUndoSyncUUID            // rule 51: the peer's last sync UUID never arrived here
	ownUndoSyncUUID             // rules 71 and 80: our last sync UUID never arrived there
)

// generations is what one node contributes to the comparison.
type generations struct {
	metadata.UUIDs
	crashed  bool   // was Primary when it went down
	primary  bool   // is Primary now
	kept     bool   // has lost nothing since the copies were equal (FeatureSurvivor)
	outdated bool   // has been told, or found, that its data are behind (FeatureSurvivor)
	marked   uint64 // blocks that its bitmap calls out of sync, of a disk that is not Inconsistent (FeatureSurvivor)
}

// comparison is a verdict, the number of the rule in the table of spec 7.4 that
// gave it, and the correction that comes with it.
type comparison struct {
	verdict    verdict
	rule       int
	correction correction
}

// compare applies the decision table of spec 7.4: first hit wins. Both nodes run
// it with mirrored inputs and must come to mirrored verdicts.
func compare(self, peer generations, version int, rule41, resolveConflicts bool) comparison {
	s, p := masked(self.UUIDs), masked(peer.UUIDs)
	switch {
	case s[metadata.SlotCurrent] == metadata.JustCreated && p[metadata.SlotCurrent] == metadata.JustCreated:
		return comparison{noSync, 10, noCorrection}
	case (s[metadata.SlotCurrent] == metadata.JustCreated || s[metadata.SlotCurrent] == 0) && p[metadata.SlotCurrent] != metadata.JustCreated:
		return comparison{targetFull, 20, noCorrection}
	case s[metadata.SlotCurrent] != metadata.JustCreated && (p[metadata.SlotCurrent] == metadata.JustCreated || p[metadata.SlotCurrent] == 0):
		return comparison{sourceFull, 30, noCorrection}
	}
	if s[metadata.SlotCurrent] == p[metadata.SlotCurrent] {
		return compareEqual(self, peer, version, rule41, resolveConflicts)
	}
	return compareDifferent(s, p, version)
}

// compareEqual handles equal current UUIDs: rules 34 to 41. Whether a bitmap UUID
// is present is asked of the unmasked value.
func compareEqual(self, peer generations, version int, rule41, resolveConflicts bool) comparison {
	s, p := masked(self.UUIDs), masked(peer.UUIDs)
	switch ownBase, peerBase := self.UUIDs[metadata.SlotBitmap] != 0, peer.UUIDs[metadata.SlotBitmap] != 0; {
	case ownBase != peerBase && version < 91:
		return comparison{needs91, 34, noCorrection}
	case ownBase && !peerBase:
		if s[metadata.SlotBitmap] == p[metadata.SlotHistory1] && s[metadata.SlotHistory1] == p[metadata.SlotHistory2] {
			return comparison{source, 34, ownClearBitmap}
		}
		return comparison{source, 36, noCorrection}
	case !ownBase && peerBase:
		if s[metadata.SlotHistory1] == p[metadata.SlotBitmap] && s[metadata.SlotHistory2] == p[metadata.SlotHistory1] {
			return comparison{target, 35, peerClearBitmap}
		}
		return comparison{target, 37, noCorrection}
	}
	return compareCrashed(self, peer, rule41, resolveConflicts)
}

// compareCrashed decides between copies of one generation by who went down as
// Primary: rules 40 and 41.
func compareCrashed(self, peer generations, rule41, resolveConflicts bool) comparison {
	if !self.crashed && !peer.crashed {
		if v := marks(self, peer); v != noSync {
			return comparison{v, ruleMarked, noCorrection}
		}
		return comparison{noSync, 40, noCorrection}
	}
	if self.primary || peer.primary {
		switch {
		case !rule41:
			return comparison{needs101, 41, noCorrection}
		case self.primary && peer.primary:
			return comparison{split, 41, noCorrection}
		case self.primary:
			return comparison{source, 41, noCorrection}
		default:
			return comparison{target, 41, noCorrection}
		}
	}
	if v := survivor(self, peer); v != noSync {
		return comparison{v, ruleSurvivor, noCorrection}
	}
	if v := notOutdated(self, peer); v != noSync {
		return comparison{v, ruleOutdated, noCorrection}
	}
	if self.crashed && !peer.crashed || self.crashed && !resolveConflicts {
		return comparison{source, 40, noCorrection}
	}
	return comparison{target, 40, noCorrection}
}

// The numbers of replblk's own rules: ruleSurvivor and ruleOutdated come before the second half
// of rule 40, ruleMarked in the place of the first.
const (
	ruleSurvivor = 42
	ruleMarked   = 43
	ruleOutdated = 44
)

// bitmapUUID says whether either node tracks its bitmap against an older generation. Rules 42 to
// 44 say nothing then: the end of a resync may have been missed, and the equal generations say
// less than they seem to.
func bitmapUUID(self, peer generations) bool {
	return self.Bitmap() != 0 || peer.Bitmap() != 0
}

// survivor decides between a Primary that has crashed and a node that was in sync with it
// and has run ever since: the crashed one may have lost what it had acknowledged and not
// flushed, the other one has it (reliability specification 4.7).
func survivor(self, peer generations) verdict {
	switch {
	case bitmapUUID(self, peer) || self.kept == peer.kept:
		return noSync
	case self.kept && !self.crashed && peer.crashed:
		return source
	case peer.kept && !peer.crashed && self.crashed:
		return target
	default:
		return noSync
	}
}

// notOutdated decides between two nodes that have both been Primary and died, of which one had
// already given up its claim: the other one was chosen as the source of a resync, or has
// fenced it, and became Primary, but died before a sync UUID or a generation of its own
// was on disk. It had flushed what it held when it was promoted (promoted), while the older
// Primary may have lost it with its power.
func notOutdated(self, peer generations) verdict {
	switch {
	case bitmapUUID(self, peer) || !self.crashed || !peer.crashed || self.outdated == peer.outdated:
		return noSync
	case self.outdated:
		return target
	default:
		return source
	}
}

// marks decides between copies of one generation of which a bitmap says that they differ, and
// nothing else does. DRBD leaves them as they are. The application has seen the copy of a
// Primary; else whoever alone has marked blocks has what the other one lacks: it wrote them as
// a Primary that was suspended when it lost its peer, and was demoted before it could begin a
// generation. If both have marked some (a verify has found them, or both disks have grown)
// nobody knows which copy is right, and it waits for a Primary (freshSpace).
func marks(self, peer generations) verdict {
	switch {
	case bitmapUUID(self, peer) || self.marked == 0 && peer.marked == 0,
		self.primary && peer.primary,
		!self.primary && !peer.primary && self.marked > 0 && peer.marked > 0:
		return noSync
	case self.primary || !peer.primary && self.marked > 0:
		return source
	default:
		return target
	}
}

// compareDifferent handles different current UUIDs: rules 50 to 110.
func compareDifferent(s, p metadata.UUIDs, version int) comparison {
	if s[metadata.SlotCurrent] == p[metadata.SlotBitmap] {
		return comparison{target, 50, noCorrection}
	}
	if s[metadata.SlotCurrent] == p[metadata.SlotHistory1] && lostSyncUUID(p, s, version) {
		if version < 91 {
			return comparison{needs91, 51, noCorrection}
		}
		return comparison{target, 51, peerUndoSyncUUID}
	}
	if s[metadata.SlotCurrent] == p[metadata.SlotHistory1] || s[metadata.SlotCurrent] == p[metadata.SlotHistory2] {
		return comparison{targetFull, 60, noCorrection}
	}
	if s[metadata.SlotBitmap] == p[metadata.SlotCurrent] {
		return comparison{source, 70, noCorrection}
	}
	if s[metadata.SlotHistory1] == p[metadata.SlotCurrent] && lostSyncUUID(s, p, version) {
		if version < 91 {
			return comparison{needs91, 71, noCorrection}
		}
		return comparison{source, 71, ownUndoSyncUUID}
	}
	if p[metadata.SlotCurrent] == s[metadata.SlotHistory1] || p[metadata.SlotCurrent] == s[metadata.SlotHistory2] {
		return comparison{sourceFull, 80, forgetSyncUUID(s, p)}
	}
	if s[metadata.SlotBitmap] == p[metadata.SlotBitmap] && s[metadata.SlotBitmap] != 0 {
		return comparison{splitAuto, 90, noCorrection}
	}
	for _, h := range s[metadata.SlotHistory1:] {
		if h == p[metadata.SlotHistory1] || h == p[metadata.SlotHistory2] { // zero equals zero too, as in DRBD
			return comparison{split, 100, noCorrection}
		}
	}
	return comparison{unrelated, 110, noCorrection}
}

// lostSyncUUID says whether the source src rotated its bitmap UUID into a sync UUID
// that its target dst never stored.
func lostSyncUUID(src, dst metadata.UUIDs, version int) bool {
	if version < 96 {
		return dst[metadata.SlotHistory1] == src[metadata.SlotHistory2]
	}
	return metadata.SameUUID(src[metadata.SlotHistory1]+metadata.SyncIncrement, src[metadata.SlotBitmap])
}

// forgetSyncUUID keeps a source from collecting sync UUIDs that never arrived at a target whose
// generation is in the history of src: three of them would push it out, and then the data would
// be called unrelated. Rule 71 does so for a target that is one behind, from version 96 on.
// One that is two behind has missed the end of a resync before, and has still that one's
// sync UUID.
func forgetSyncUUID(src, dst metadata.UUIDs) correction {
	if lostSyncUUID(src, dst, 96) {
		return ownUndoSyncUUID
	}
	return noCorrection
}

func masked(u metadata.UUIDs) metadata.UUIDs {
	for i := range u {
		u[i] &^= 1 // the role is not part of the identity
	}
	return u
}
