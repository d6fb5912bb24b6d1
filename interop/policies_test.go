//go:build interop

package interop

import (
	"fmt"
	"testing"

	"github.com/replblk/replblk/replication"
	"github.com/replblk/replblk/replication/state"
)

// splitBrain is a pair that parted from genB on; was says who was Primary then, of the
// kernel and of replblk, and the rest what they are now.
func splitBrain(was string, kernelBits, ourBits uint64) (kernel, ours side) {
	kernel, ours = set(genA, genB, genC, 0), set(genD, genB, genC, 0)
	kernel.bits, ours.bits = kernelBits, ourBits
	if was == "kernel" || was == "both" {
		kernel.gi[1] |= 1
	}
	if was == "replblk" || was == "both" {
		ours.gi[1] |= 1
	}
	return kernel, ours
}

// policyWords are replblk's numbers for the words.
var policyWords = map[string]replication.Policy{
	"disconnect": replication.SBDisconnect, "discard-younger-primary": replication.SBDiscardYoungerPrimary,
	"discard-older-primary": replication.SBDiscardOlderPrimary, "discard-zero-changes": replication.SBDiscardZeroChanges,
	"discard-least-changes": replication.SBDiscardLeastChanges, "discard-local": replication.SBDiscardLocal,
	"discard-remote": replication.SBDiscardRemote, "consensus": replication.SBConsensus,
	"discard-secondary": replication.SBDiscardSecondary, "call-pri-lost-after-sb": replication.SBCallHelper,
	"violently-as0p": replication.SBViolently,
}

// policyCase is a split brain that policies decide.
type policyCase struct {
	asb   [3]string // the kernel's; replblk's have local and remote exchanged
	was   string    // Primary when they parted
	bits  [2]uint64 // of the kernel and of replblk
	is    string    // Primary now
	want  string    // what the kernel is to be; "tie": one of both, "": refused
	asbp  bool      // always-asbp, and no common base
	rr    string    // rr-conflict
	mine  bool      // replblk's operator discards
	yours bool      // the kernel's operator discards
	stays bool      // the kernel refuses all the same, see docs/interop.md
}

func (pc policyCase) run(c *court) (kernel, replblk verdict) {
	theirs, ours := splitBrain(pc.was, pc.bits[0], pc.bits[1])
	if pc.asbp { // rule 100
		theirs.gi[1], ours.gi[1] = 0, 0
	}
	theirs.primary, ours.primary = pc.is == "kernel" || pc.is == "both", pc.is == "replblk" || pc.is == "both"
	theirs.discard, ours.discard = pc.yours, pc.mine
	if pc.asbp && (theirs.primary || ours.primary) {
		panic("a promotion would begin a new generation")
	}
	c.net = fmt.Sprintf("--after-sb-0pri=%s --after-sb-1pri=%s --after-sb-2pri=%s", pc.asb[0], pc.asb[1], pc.asb[2])
	if pc.rr != "" {
		c.net += " --rr-conflict=" + pc.rr
	}
	if pc.asbp {
		c.net += " --always-asbp=yes"
	}
	c.o.core = func(cfg *replication.Config) {
		quickConfig(cfg)
		for i, word := range pc.asb {
			cfg.AfterSB[i] = policyWords[word]
			switch word {
			case "discard-local":
				cfg.AfterSB[i] = replication.SBDiscardRemote
			case "discard-remote":
				cfg.AfterSB[i] = replication.SBDiscardLocal
			}
		}
		cfg.AlwaysASBP = pc.asbp
		cfg.RRConflict = map[string]replication.RRConflict{"violently": replication.RRViolently, "call-pri-lost": replication.RRCallPriLost}[pc.rr]
	}
	c.kernelIs(theirs)
	return c.judge(theirs, ours)
}

func noPrimary(policy string) [3]string { return [3]string{policy, "disconnect", "disconnect"} }
func onePrimary(zero, one string) [3]string {
	return [3]string{zero, one, "disconnect"}
}
func twoPrimaries(zero, two string) [3]string {
	return [3]string{zero, "disconnect", two}
}

// policyCases is the list of TestAfterSplitBrain.
func policyCases() []policyCase {
	list := []policyCase{
		{asb: noPrimary("disconnect")},
		{asb: noPrimary("discard-younger-primary"), was: "kernel", bits: [2]uint64{5, 3}, want: "source"},
		{asb: noPrimary("discard-younger-primary"), was: "replblk", bits: [2]uint64{5, 3}, want: "target"},
		{asb: noPrimary("discard-younger-primary"), was: "both", bits: [2]uint64{5, 3}, want: "source"},
		{asb: noPrimary("discard-younger-primary"), bits: [2]uint64{5, 0}, want: "source"},
		{asb: noPrimary("discard-older-primary"), was: "kernel", bits: [2]uint64{5, 3}, want: "target"},
		{asb: noPrimary("discard-older-primary"), was: "replblk", bits: [2]uint64{5, 3}, want: "source"},
		{asb: noPrimary("discard-older-primary"), was: "both", bits: [2]uint64{3, 5}, want: "target"},
		{asb: noPrimary("discard-older-primary"), bits: [2]uint64{0, 0}, want: "tie"},
		{asb: noPrimary("discard-zero-changes"), bits: [2]uint64{0, 0}, want: "tie"},
		{asb: noPrimary("discard-zero-changes"), bits: [2]uint64{5, 0}, want: "source"},
		{asb: noPrimary("discard-zero-changes"), bits: [2]uint64{0, 3}, want: "target"},
		{asb: noPrimary("discard-zero-changes"), bits: [2]uint64{5, 3}},
		{asb: noPrimary("discard-least-changes"), bits: [2]uint64{5, 3}, want: "source"},
		{asb: noPrimary("discard-least-changes"), bits: [2]uint64{3, 5}, want: "target"},
		{asb: noPrimary("discard-least-changes"), bits: [2]uint64{3, 3}, want: "tie"},
		{asb: noPrimary("discard-local"), want: "target"},
		{asb: noPrimary("discard-remote"), want: "source"},
		{asb: noPrimary("discard-least-changes"), bits: [2]uint64{5, 3}, asbp: true, want: "source"},
		{asb: noPrimary("discard-least-changes"), bits: [2]uint64{3, 5}, asbp: true, want: "target"},
		{asb: noPrimary("disconnect"), asbp: true},
		{asb: noPrimary("disconnect"), yours: true, want: "target"},
		{asb: noPrimary("disconnect"), mine: true, want: "source"},
		{asb: twoPrimaries("discard-remote", "disconnect"), is: "both"},
		{asb: twoPrimaries("discard-remote", "violently-as0p"), is: "both", rr: "violently", want: "source"},
		{asb: twoPrimaries("discard-local", "violently-as0p"), is: "both", rr: "violently", want: "target"},
	}
	for _, primary := range []string{"kernel", "replblk"} {
		for _, zero := range []string{"discard-local", "discard-remote"} {
			loser, zeroSays := zero == "discard-local", map[string]string{"discard-local": "target", "discard-remote": "source"}[zero]
			fits := (primary == "kernel") != loser // the Primary's data win
			list = append(list,
				policyCase{asb: onePrimary(zero, "disconnect"), is: primary},
				policyCase{asb: onePrimary(zero, "discard-secondary"), is: primary, want: map[string]string{"kernel": "source", "replblk": "target"}[primary]},
				policyCase{asb: onePrimary(zero, "consensus"), is: primary, want: map[bool]string{true: zeroSays}[fits]},
				policyCase{asb: onePrimary(zero, "violently-as0p"), is: primary, rr: "violently", want: zeroSays},
				policyCase{asb: onePrimary(zero, "call-pri-lost-after-sb"), is: primary, want: zeroSays, stays: loser && primary == "kernel"})
		}
	}
	return list
}

// TestAfterSplitBrain has every policy decide, with the kernel and with replblk on either
// end of it: both nodes come to mirrored verdicts, and to what the specification says.
func TestAfterSplitBrain(t *testing.T) {
	c := newCourt(t)
	for _, pc := range policyCases() {
		kernel, replblk := pc.run(c)
		want := verdict{rule: kernel.rule, result: kernel.result, outcome: pc.want, full: pc.asbp && pc.want != ""}
		if pc.want == "tie" && (kernel.outcome == "source" || kernel.outcome == "target") {
			want.outcome = kernel.outcome
		}
		ours := want.mirrored()
		if pc.stays {
			want.outcome = ""
		}
		if kernel != want || replblk != ours {
			t.Errorf("%+v: kernel %+v, want %+v; replblk %+v, want %+v", pc, kernel, want, replblk, ours)
		}
	}
}

// TestRRConflict has a Primary meet data that grew from its own.
func TestRRConflict(t *testing.T) {
	c := newCourt(t)
	old, young := set(genA, genB, genC, 0), set(genD, genA, genB, 0)
	old.primary = true
	for _, rr := range []string{"disconnect", "call-pri-lost", "violently"} {
		c.net = "--rr-conflict=" + rr
		c.o.core = func(cfg *replication.Config) {
			quickConfig(cfg)
			cfg.RRConflict = map[string]replication.RRConflict{"violently": replication.RRViolently, "call-pri-lost": replication.RRCallPriLost}[rr]
		}
		lost := map[bool]string{true: "target"}[rr == "violently"]
		c.kernelIs(old)
		if kernel, _ := c.judge(old, young); kernel.rule != 50 || kernel.outcome != lost {
			t.Errorf("%s: kernel as Primary: %+v, want %q", rr, kernel, lost)
		}
		c.kernelIs(young)
		if _, replblk := c.judge(young, old); replblk.rule != 50 || replblk.outcome != lost {
			t.Errorf("%s: replblk as Primary: %+v, want %q", rr, replblk, lost)
		}
	}
}

// TestSplitBrainByPolicy has both nodes write alone and the policies bring them together
// again, in earnest: the fewer changes go, though their node is still Primary.
func TestSplitBrainByPolicy(t *testing.T) {
	for _, loser := range []string{"kernel", "replblk"} {
		t.Run(loser, func(t *testing.T) {
			k, p := established(t, options{
				kernelNet: "after-sb-0pri discard-least-changes; after-sb-1pri call-pri-lost-after-sb;",
				core: func(c *replication.Config) {
					c.AfterSB = [3]replication.Policy{replication.SBDiscardLeastChanges, replication.SBCallHelper, replication.SBDisconnect}
				},
			})
			k.allowed = append([]string{"automatically solved"}, noticed...)
			k.sh("drbdadm disconnect r0")
			p.kind(replication.AdminDisconnect)
			k.sh("drbdadm primary r0")
			p.kind(replication.AdminPrimary)
			if loser == "kernel" {
				k.dd(1, 0, 64)
				p.scribble(1, 10)
			} else {
				k.dd(1, 0, 32768)
				p.scribble(1, 1)
			}
			k.sh("drbdadm secondary r0") // a kernel that loses would not by itself
			p.kind(replication.AdminConnect)
			k.sh("drbdadm connect r0")
			settled(k, p)
			if role := p.State(0).Role; (role == state.Primary) != (loser == "kernel") {
				t.Errorf("replblk is %v", role)
			}
		})
	}
}
