package replication

import (
	"testing"

	"github.com/replblk/replblk/metadata"
)

// UUIDs for the tests, told apart at a glance. Bit 0 is left to the cases.
const (
	uA = 0xa000000000000000
	uB = 0xb000000000000000
	uC = 0xc000000000000000
	uD = 0xd000000000000000
	uE = 0xe000000000000000
	uS = uB + metadata.SyncIncrement
)

// The rows of the table that a live kernel was seen to agree with (spec 7.4 and 15).
func TestCompareFollowsTheTable(t *testing.T) {
	type set = metadata.UUIDs
	for _, tc := range []struct {
		name         string
		self, peer   set
		selfC, peerC bool
		resolve      bool
		rule         int
		want         verdict
		correction   correction
	}{
		{"both just created", set{4}, set{4}, false, false, false, 10, noSync, noCorrection},
		{"own just created", set{4}, set{uA, 0, uB}, false, false, false, 20, targetFull, noCorrection},
		{"own zero", set{0}, set{uA}, false, false, false, 20, targetFull, noCorrection},
		{"peer just created", set{uA, 0, uB}, set{4}, false, false, false, 30, sourceFull, noCorrection},
		{"own end of resync missed", set{uA, uB, uC}, set{uA, 0, uB, uC}, false, false, false, 34, source, ownClearBitmap},
		{"peer did not store the sync UUID", set{uA, uB, uC}, set{uA, 0, uD, uE}, false, false, false, 36, source, noCorrection},
		{"peer missed the end of its resync", set{uA, 0, uB, uC}, set{uA, uB, uC}, false, false, false, 35, target, peerClearBitmap},
		{"we did not store the sync UUID", set{uA, 0, uD, uE}, set{uA, uB, uC}, false, false, false, 37, target, noCorrection},
		{"equal and clean", set{uA, 0, uB}, set{uA | 1, 0, uB}, false, false, false, 40, noSync, noCorrection},
		{"own crashed", set{uA}, set{uA}, true, false, false, 40, source, noCorrection},
		{"peer crashed", set{uA}, set{uA}, false, true, false, 40, target, noCorrection},
		{"both crashed, we resolve", set{uA}, set{uA}, true, true, true, 40, target, noCorrection},
		{"both crashed, peer resolves", set{uA}, set{uA}, true, true, false, 40, source, noCorrection},
		{"peer continued alone", set{uA, 0, uC}, set{uD, uA | 1, uC}, false, false, false, 50, target, noCorrection},
		{"peer's sync UUID got lost", set{uB, 0, uD}, set{uA, uS, uB, uD}, false, false, false, 51, target, peerUndoSyncUUID},
		{"two generations behind", set{uC}, set{uA, uB, uD, uC}, false, false, false, 60, targetFull, noCorrection},
		{"we continued alone", set{uD, uA | 1, uC}, set{uA, 0, uC}, false, false, false, 70, source, noCorrection},
		{"our sync UUID got lost", set{uA, uS, uB, uD}, set{uB, 0, uD}, false, false, false, 71, source, ownUndoSyncUUID},
		{"peer two generations behind", set{uA, uB, uD, uC}, set{uC}, false, false, false, 80, sourceFull, noCorrection},
		{"both continued alone", set{uA, uB, uD}, set{uC, uB, uD}, false, false, false, 90, splitAuto, noCorrection},
		{"related by history", set{uA, uB, uD}, set{uC, uE, uD}, false, false, false, 100, split, noCorrection},
		{"empty histories", set{uA}, set{uC}, false, false, false, 100, split, noCorrection},
		{"unrelated", set{uA, 0, 0x10, 0x20}, set{uC, 0, 0x30, 0x40}, false, false, false, 110, unrelated, noCorrection},
	} {
		got := compare(generations{UUIDs: tc.self, crashed: tc.selfC}, generations{UUIDs: tc.peer, crashed: tc.peerC}, 101, true, tc.resolve)
		if want := (comparison{tc.want, tc.rule, tc.correction}); got != want {
			t.Errorf("%s: %+v, want %+v", tc.name, got, want)
		}
	}
}

func TestCompareRule41(t *testing.T) {
	u := metadata.UUIDs{uA}
	for _, tc := range []struct {
		selfPrimary, peerPrimary, feature bool
		want                              verdict
	}{{true, false, true, source}, {false, true, true, target}, {true, true, true, split}, {true, false, false, needs101}} {
		got := compare(generations{UUIDs: u, crashed: true, primary: tc.selfPrimary}, generations{UUIDs: u, primary: tc.peerPrimary}, 101, tc.feature, true)
		if got.verdict != tc.want || got.rule != 41 {
			t.Errorf("%+v: %+v", tc, got)
		}
	}
}

// I10: what one node calls source, the other calls target. It holds for sets that share
// a past, as operation makes them; the sets here are all combinations of four
// generations in every slot in which no node knows a generation twice.
func TestCompareIsMirrored(t *testing.T) {
	sets := operational()
	for _, s := range sets {
		for _, p := range sets {
			for flags := range 16 {
				a := generations{UUIDs: s, crashed: flags&1 != 0, kept: flags&4 != 0}
				b := generations{UUIDs: p, crashed: flags&2 != 0, kept: flags&8 != 0}
				x, y := compare(a, b, 101, true, true), compare(b, a, 101, true, false)
				if !mirrors(x.verdict, y.verdict) && related(s, p) {
					t.Fatalf("%x and %x, flags %d: %+v against %+v", s, p, flags, x, y)
				}
			}
		}
	}
}

func mirrors(a, b verdict) bool {
	switch a {
	case splitAuto, split, unrelated, noSync:
		return a == b
	default:
		return a == -b
	}
}

// operational returns sets along one line of generations 1 to 6: current, maybe the base
// it grew from, and the two before.
func operational() []metadata.UUIDs {
	gen := func(i int) uint64 { return uint64(i) << 60 }
	var list []metadata.UUIDs
	for c := 3; c <= 6; c++ {
		list = append(list, metadata.UUIDs{gen(c), 0, gen(c - 1), gen(c - 2)})
		list = append(list, metadata.UUIDs{gen(c), gen(c - 1), gen(c - 2), gen(c) ^ 1<<40})
	}
	return list
}

// related: the pair can arise: not both tracked a bitmap from different bases.
func related(s, p metadata.UUIDs) bool { return s[1] == 0 || p[1] == 0 || s[1] == p[1] }

// S01: verdicts of the policies are mirror images for every row.
func TestSplitBrainPoliciesAreMirrored(t *testing.T) {
	for p0 := SBDisconnect; p0 <= SBDiscardLeastChanges; p0++ {
		for p1 := SBDisconnect; p1 <= SBViolently; p1++ {
			for p2 := SBDisconnect; p2 <= SBViolently; p2++ {
				for row := range 16 * 9 {
					c := contest{selfPrimaryThen: row&1 != 0, peerPrimaryThen: row&2 != 0, selfPrimary: row&4 != 0,
						peerPrimary: row&8 != 0, selfChanges: uint64(row / 16 % 3), peerChanges: uint64(row / 48 % 3), resolve: true}
					m := contest{selfPrimaryThen: c.peerPrimaryThen, peerPrimaryThen: c.selfPrimaryThen, selfPrimary: c.peerPrimary,
						peerPrimary: c.selfPrimary, selfChanges: c.peerChanges, peerChanges: c.selfChanges, resolve: false}
					policies := [3]Policy{p0, p1, p2}
					if x, y := c.recover(policies), m.recover(policies); !mirrors(x, y) {
						t.Fatalf("%+v with %v: %v against %v", c, policies, x, y)
					}
					if p0 == SBDisconnect && p1 == SBDisconnect && p2 == SBDisconnect && c.recover(policies) != split {
						t.Fatal("the default discards something")
					}
				}
			}
		}
	}
}

// U13: sets made by hand for which the table has both nodes copy, or none of them.
func TestContradictionIsFound(t *testing.T) {
	self, peer := generations{UUIDs: metadata.UUIDs{uA, uB}}, generations{UUIDs: metadata.UUIDs{uB, uA}} // each was made from the other
	x, y := compare(self, peer, 101, true, true), compare(peer, self, 101, true, false)
	if x.verdict != target || y.verdict != target || !x.verdict.contradicts(y.verdict) {
		t.Errorf("verdicts %+v and %+v", x, y)
	}
	for _, tc := range [][2]verdict{{source, target}, {sourceFull, target}, {noSync, noSync}, {split, source}, {unrelated, unrelated}, {splitAuto, splitAuto}} {
		if tc[0].contradicts(tc[1]) || tc[1].contradicts(tc[0]) {
			t.Errorf("%v contradicts", tc)
		}
	}
}

// U06: the survivor of a Primary's power loss is the source, if it can prove that it is one.
func TestSurvivorIsSource(t *testing.T) {
	u := metadata.UUIDs{uA, 0, uB}
	tracking := metadata.UUIDs{uA, uD, uB}
	for _, tc := range []struct {
		name       string
		self, peer generations
		want       verdict
		rule       int
	}{
		{"survivor", generations{UUIDs: u, kept: true}, generations{UUIDs: u, crashed: true}, source, 42},
		{"crashed Primary", generations{UUIDs: u, crashed: true}, generations{UUIDs: u, kept: true}, target, 42},
		{"DRBD's rule", generations{UUIDs: u}, generations{UUIDs: u, crashed: true}, target, 40},
		{"nobody crashed", generations{UUIDs: u, kept: true}, generations{UUIDs: u, kept: true}, noSync, 40},
		{"both crashed", generations{UUIDs: u, crashed: true, kept: true}, generations{UUIDs: u, crashed: true}, target, 40},
		{"a resync's end was missed", generations{UUIDs: tracking, kept: true}, generations{UUIDs: tracking, crashed: true}, target, 40},
		{"the source's bitmap first", generations{UUIDs: u, kept: true}, generations{UUIDs: tracking, crashed: true}, target, 37},
		{"the source that missed the end went on alone", generations{UUIDs: metadata.UUIDs{uA, 0, uD, uB}, kept: true}, generations{UUIDs: tracking, crashed: true}, target, 35},
		{"both crashed, this one is behind", generations{UUIDs: u, crashed: true, outdated: true}, generations{UUIDs: u, crashed: true}, target, 44},
		{"both crashed, the other is behind", generations{UUIDs: u, crashed: true}, generations{UUIDs: u, crashed: true, outdated: true}, source, 44},
		{"both are behind", generations{UUIDs: u, crashed: true, outdated: true}, generations{UUIDs: u, crashed: true, outdated: true}, target, 40},
		{"behind, and never Primary", generations{UUIDs: u, outdated: true}, generations{UUIDs: u, crashed: true}, target, 40},
		{"crashed, and behind", generations{UUIDs: u, crashed: true, outdated: true}, generations{UUIDs: u}, source, 40},
		{"Primary again", generations{UUIDs: u, crashed: true, primary: true}, generations{UUIDs: u, kept: true}, source, 41},
	} {
		got := compare(tc.self, tc.peer, 101, true, true)
		if got.verdict != tc.want || got.rule != tc.rule {
			t.Errorf("%s: %+v, want %v by rule %d", tc.name, got, tc.want, tc.rule)
		}
	}
}

// TestLostSyncUUIDsAreForgotten loses the sync UUID of one connection after the other
// (simulator, seed 4490): the generation of the target stays in the history of the source,
// in versions that have no rule for it, too; and that of one that has missed the end of a
// resync before, for which no version has a rule (seed 144092).
func TestLostSyncUUIDsAreForgotten(t *testing.T) {
	for _, dst := range []metadata.UUIDs{{uB, 0, uE}, {uC, 0, uE}} {
		for version := 91; version <= 101; version++ {
			src := metadata.UUIDs{uA, uB, uC, uD}
			for range 5 {
				v := volume{disk: &disk{}}
				v.disk.sb.UUIDs = src
				cmp := compare(generations{UUIDs: src}, generations{UUIDs: dst}, version, true, true)
				mirror := compare(generations{UUIDs: dst}, generations{UUIDs: src}, version, true, false)
				if cmp.verdict < source || cmp.verdict > sourceFull || mirror.verdict != -cmp.verdict {
					t.Fatalf("version %d: %+v, at the peer %+v: %x and %x", version, cmp, mirror, src, dst)
				}
				v.correct(cmp.correction)
				src = v.disk.sb.UUIDs
				src.RotateSet(metadata.SlotBitmap, src[metadata.SlotBitmap]+metadata.SyncIncrement, false)
			}
		}
	}
}

// TestVerdictOnAnAttachedDisk: the node whose peer attaches a disk judges before it says what the
// other one judges by, and must judge by the same.
func TestVerdictOnAnAttachedDisk(t *testing.T) {
	for _, marked := range [][2]uint64{{0, 0}, {3, 3}, {3, 5}, {5, 3}, {3, 0}, {0, 3}} {
		p := newPair()
		a, b := establish(t, p)
		a.admin(Admin{Kind: AdminSecondary})
		p.tick(2)
		for i, n := range p.nodes {
			n.r.vols[0].disk.bm.SetRange(0, marked[i])
		}
		b.admin(Admin{Kind: AdminDetach})
		p.tick(2)
		b.attach()
		p.tick(30)
		want := "Connected Secondary/Secondary UpToDate/UpToDate"
		p.states(t, want, want)
	}
}
