package state

import (
	"bytes"
	"flag"
	"fmt"
	"hash"
	"hash/fnv"
	"os"
	"path/filepath"
	"testing"
)

var update = flag.Bool("update", false, "rewrite the golden tables in testdata")

// TestRulesGolden prints the rules over the full cross product of states. A
// change of a rule is a visible diff of the table; the reviewer reads it.
func TestRulesGolden(t *testing.T) {
	var out bytes.Buffer
	printConnTransitions(&out)
	printSoft(&out)
	printStates(&out)
	printHashes(&out)
	path := filepath.Join("testdata", "rules.txt")
	if *update {
		if err := os.WriteFile(path, out.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	got, exp := bytes.Split(out.Bytes(), []byte("\n")), bytes.Split(want, []byte("\n"))
	for i := range min(len(got), len(exp)) {
		if !bytes.Equal(got[i], exp[i]) {
			t.Fatalf("line %d:\n got  %s\n want %s\nrun with -update and read the diff", i+1, got[i], exp[i])
		}
	}
	if len(got) != len(exp) {
		t.Fatalf("%d lines, want %d", len(got), len(exp))
	}
}

func printConnTransitions(out *bytes.Buffer) {
	fmt.Fprintf(out, "# CheckTransition: from (rows) to connection state 0..23 (columns), both disks UpToDate\n")
	for from := range Behind + 1 {
		fmt.Fprintf(out, "%-15v", from)
		for to := range Behind + 1 {
			fmt.Fprintf(out, " %3d", CheckTransition(State{Conn: from, Disk: UpToDate}, State{Conn: to, Disk: UpToDate}))
		}
		fmt.Fprintln(out)
	}
}

func printSoft(out *bytes.Buffer) {
	fmt.Fprintf(out, "\n# CheckSoft: the same, Secondary, both disks UpToDate\n")
	for from := range Behind + 1 {
		fmt.Fprintf(out, "%-15v", from)
		for to := range Behind + 1 {
			a := State{Role: Secondary, Conn: from, Disk: UpToDate, PeerDisk: UpToDate}
			b := a
			b.Conn = to
			fmt.Fprintf(out, " %3d", CheckSoft(a, b, rules101))
		}
		fmt.Fprintln(out)
	}
	fmt.Fprintf(out, "\n# CheckSoft: own disk from (rows) to 0..8 (columns), Connected, peer UpToDate; then the same while being promoted\n")
	for from := range UpToDate + 1 {
		fmt.Fprintf(out, "%-15v", from)
		for _, role := range []Role{Secondary, Primary} {
			for to := range UpToDate + 1 {
				a := State{Role: Secondary, Conn: Connected, Disk: from, PeerDisk: UpToDate}
				b := a
				b.Role, b.Disk = role, to
				fmt.Fprintf(out, " %3d", CheckSoft(a, b, rules101))
			}
			fmt.Fprint(out, " |")
		}
		fmt.Fprintln(out)
	}
}

// printStates prints one cell per (conn, disk, pdsk): what Sanitize makes of it
// as conn.disk/pdsk, and the results of CheckState for the sanitized state as
// Secondary/Secondary and as Primary/Secondary.
func printStates(out *bytes.Buffer) {
	fmt.Fprintf(out, "\n# conn disk: for pdsk 0..8 Sanitize as conn.disk/pdsk, then CheckState as Secondary,Primary\n")
	for conn := range Behind + 1 {
		for disk := range UpToDate + 1 {
			fmt.Fprintf(out, "%-15v%-13v", conn, disk)
			for pdsk := range UpToDate + 1 {
				sec := State{Role: Secondary, Peer: Secondary, Conn: conn, Disk: disk, PeerDisk: pdsk}
				pri := sec
				pri.Role = Primary
				sec = Sanitize(sec, sec, rules101, Negotiation{})
				pri = Sanitize(pri, pri, rules101, Negotiation{})
				fmt.Fprintf(out, " %d.%d/%d:%d,%d", sec.Conn, sec.Disk, sec.PeerDisk, CheckState(sec, rules101), CheckState(pri, rules101))
			}
			fmt.Fprintln(out)
		}
	}
}

// printHashes covers what would be too long to print: every state under every
// kind of request and rule, one hash per pair.
func printHashes(out *bytes.Buffer) {
	requests := []struct {
		name      string
		mask, val Word
		hard      bool
	}{
		{"none", 0, 0, false},
		{"promote", MaskRole, 1, false},
		{"demote", MaskRole, 2, false},
		{"peer promoted", MaskPeer, 1 << 2, false},
		{"disconnect", MaskConn, Word(Disconnecting) << 4, false},
		{"detach", MaskDisk, Word(Failed) << 9, false},
		{"disk failed", MaskDisk, Word(Failed) << 9, true},
		{"peer detaches", MaskPeerDisk, Word(Failed) << 13, false},
		{"link lost", MaskConn, Word(NetworkFailure) << 4, true},
		{"invalidate", MaskConn, Word(StartingSyncT) << 4, false},
		{"verify", MaskConn, Word(VerifyS) << 4, false},
		{"connected", MaskConn, Word(Connected) << 4, false},
		{"sync source", MaskConn, Word(SyncSource) << 4, false},
		{"outdate", MaskDisk, Word(Outdated) << 9, false},
		{"pause", MaskUserIsp, MaskUserIsp, false},
	}
	rules := []struct {
		name string
		Rules
	}{
		{"plain", rules101},
		{"two-primaries", Rules{Version: 101, TwoPrimaries: true, VerifyAlg: true}},
		{"strict", Rules{Version: 101, Fencing: ResourceAndStonith, SuspendOnNoData: true, Open: true}},
		{"handshake", Rules{Version: 86, Fencing: ResourceOnly, HandshakeInProgress: true, OtherVolumePeerPrimary: true}},
	}
	fmt.Fprintf(out, "\n# Next over all states: request, rules, successes, FNV-1a of all results\n")
	for _, req := range requests {
		for _, r := range rules {
			h, successes := fnv.New64a(), 0
			for w := range allStates {
				s, result := Next(w, w.Apply(req.mask, req.val), req.hard, r.Rules, Negotiation{Matches: true, Disk: Consistent, PeerDisk: Outdated})
				writeWord(h, uint32(s.Word()))
				writeWord(h, uint32(result))
				if result.OK() {
					successes++
				}
			}
			fmt.Fprintf(out, "%-14s %-14s %6d %016x\n", req.name, r.name, successes, h.Sum64())
		}
	}
}

// allStates yields the cross product of roles, connection and disk states.
func allStates(yield func(State) bool) {
	for role := range Secondary + 1 {
		for peer := range Secondary + 1 {
			for conn := range Behind + 1 {
				for disk := range UpToDate + 1 {
					for pdsk := range UpToDate + 1 {
						if !yield(State{Role: role, Peer: peer, Conn: conn, Disk: disk, PeerDisk: pdsk}) {
							return
						}
					}
				}
			}
		}
	}
}

func writeWord(h hash.Hash, w uint32) {
	_, _ = h.Write([]byte{byte(w >> 24), byte(w >> 16), byte(w >> 8), byte(w)})
}
