package state

import (
	"errors"
	"math/rand/v2"
	"strings"
	"testing"
)

func TestNamesAreDRBDs(t *testing.T) {
	roles := strings.Fields("Unknown Primary Secondary Role(3)")
	for i, want := range roles {
		if got := Role(i).String(); got != want {
			t.Errorf("role %d: %s, want %s", i, got, want)
		}
	}
	disks := strings.Fields("Diskless Attaching Failed Negotiating Inconsistent Outdated DUnknown Consistent UpToDate Disk(9)")
	for i, want := range disks {
		if got := Disk(i).String(); got != want {
			t.Errorf("disk %d: %s, want %s", i, got, want)
		}
	}
	conns := strings.Fields("StandAlone Disconnecting Unconnected Timeout BrokenPipe NetworkFailure ProtocolError TearDown " +
		"WFConnection WFReportParams Connected StartingSyncS StartingSyncT WFBitMapS WFBitMapT WFSyncUUID SyncSource " +
		"SyncTarget VerifyS VerifyT PausedSyncS PausedSyncT Ahead Behind Conn(24)")
	for i, want := range conns {
		if got := Conn(i).String(); got != want {
			t.Errorf("conn %d: %s, want %s", i, got, want)
		}
	}
}

// goldenWords are the state words of spec 5.1, 5.2, 13.9 and of the golden
// streams that a kernel 8.4.11 sent.
var goldenWords = []struct {
	word Word
	want State
	text string
}{
	{0x0000c882, State{Role: Secondary, Conn: WFConnection, Disk: Inconsistent, PeerDisk: DUnknown}, "WFConnection Secondary/Unknown Inconsistent/DUnknown"},
	{0x0000d081, State{Role: Primary, Conn: WFConnection, Disk: UpToDate, PeerDisk: DUnknown}, "WFConnection Primary/Unknown UpToDate/DUnknown"},
	{0x0000d082, State{Role: Secondary, Conn: WFConnection, Disk: UpToDate, PeerDisk: DUnknown}, "WFConnection Secondary/Unknown UpToDate/DUnknown"},
	{0x0000ca82, State{Role: Secondary, Conn: WFConnection, Disk: Outdated, PeerDisk: DUnknown}, "WFConnection Secondary/Unknown Outdated/DUnknown"},
	{0x000110a6, State{Role: Secondary, Peer: Primary, Conn: Connected, Disk: UpToDate, PeerDisk: UpToDate}, "Connected Secondary/Primary UpToDate/UpToDate"},
	{0x000110a9, State{Role: Primary, Peer: Secondary, Conn: Connected, Disk: UpToDate, PeerDisk: UpToDate}, "Connected Primary/Secondary UpToDate/UpToDate"},
	{0x000110aa, State{Role: Secondary, Peer: Secondary, Conn: Connected, Disk: UpToDate, PeerDisk: UpToDate}, "Connected Secondary/Secondary UpToDate/UpToDate"},
	{0x0000f0d9, State{Role: Primary, Peer: Secondary, Conn: WFBitMapS, Disk: UpToDate, PeerDisk: Consistent}, "WFBitMapS Primary/Secondary UpToDate/Consistent"},
	{0x00010ae6, State{Role: Secondary, Peer: Primary, Conn: WFBitMapT, Disk: Outdated, PeerDisk: UpToDate}, "WFBitMapT Secondary/Primary Outdated/UpToDate"},
	{0x000090d9, State{Role: Primary, Peer: Secondary, Conn: WFBitMapS, Disk: UpToDate, PeerDisk: Inconsistent}, "WFBitMapS Primary/Secondary UpToDate/Inconsistent"},
	{0x000108e6, State{Role: Secondary, Peer: Primary, Conn: WFBitMapT, Disk: Inconsistent, PeerDisk: UpToDate}, "WFBitMapT Secondary/Primary Inconsistent/UpToDate"},
	{0x0014d082, State{Role: Secondary, Conn: WFConnection, Disk: UpToDate, PeerDisk: DUnknown, AftrIsp: true, UserIsp: true}, "WFConnection Secondary/Unknown UpToDate/DUnknown aftr_isp user_isp"},
}

func TestWordGolden(t *testing.T) {
	for _, g := range goldenWords {
		if got := g.word.State(); got != g.want {
			t.Errorf("%#08x decodes to %v, want %v", uint32(g.word), got, g.want)
		}
		if got := g.want.Word(); got != g.word {
			t.Errorf("%v encodes to %#08x, want %#08x", g.want, uint32(got), uint32(g.word))
		}
		if got := g.want.String(); got != g.text {
			t.Errorf("%#08x prints %q, want %q", uint32(g.word), got, g.text)
		}
	}
}

func TestWordRoundTrip(t *testing.T) {
	for w := range MaskAll + 1 {
		if got := w.State().Word(); got != w {
			t.Fatalf("%#08x becomes %#08x", uint32(w), uint32(got))
		}
	}
	if got := Word(0xff800000).State(); got != (State{}) {
		t.Errorf("reserved bits decode to %+v", got)
	}
}

func TestResultText(t *testing.T) {
	for r := Result(-21); r <= 4; r++ {
		if text := r.String(); strings.HasPrefix(text, "Unknown result") != (r == -3) {
			t.Errorf("%d: %q", int32(r), text)
		}
	}
	for _, r := range []Result{-1 << 31, -22, -3, 5, 1<<31 - 1} {
		if !strings.HasPrefix(r.String(), "Unknown result ") {
			t.Errorf("%d: %q", int32(r), r.String())
		}
	}
	var refusal Refusal
	if err := NoUpToDateDisk.Err(); !errors.As(err, &refusal) || refusal.Result() != -2 || err.Error() != "Need access to UpToDate data" {
		t.Errorf("error of -2: %v", err)
	}
	if UnknownError.Err() == nil {
		t.Error("result 0 counts as success")
	}
	for r := Success; r <= NoNegotiation; r++ {
		if err := r.Err(); err != nil {
			t.Errorf("%d: %v", int32(r), err)
		}
	}
}

// request returns the state that a request for val under mask wants.
func request(s State, mask, val Word) State { return s.Apply(mask, val) }

var (
	secondary = Word(0x000110aa).State() // Connected, both Secondary and UpToDate
	primary   = Word(0x000110a9).State() // the same, we are Primary
	rules101  = Rules{Version: 101, VerifyAlg: true}
)

func TestNext(t *testing.T) {
	standAlone := Initial()
	lonely := State{Role: Primary, Conn: WFConnection, Disk: UpToDate, PeerDisk: DUnknown}
	for _, c := range []struct {
		name      string
		old       State
		mask, val Word
		hard      bool
		rules     Rules
		want      Result
		becomes   Word // if want is Success
	}{
		{"promote while connected", secondary, 3, 1, false, rules101, Success, 0x110a9},
		{"promote a Primary", primary, 3, 1, false, rules101, NothingToDo, 0},
		{"promote beside a Primary", Word(0x110a6).State(), 3, 1, false, rules101, TwoPrimaries, 0},
		{"promote beside a Primary with two primaries", Word(0x110a6).State(), 3, 1, false, Rules{Version: 101, TwoPrimaries: true}, Success, 0x110a5},
		{"promote while another volume has a Primary peer", secondary, 3, 1, false, Rules{Version: 101, OtherVolumePeerPrimary: true}, OtherVolumePeerPrimary, 0},
		{"demote while open", primary, 3, 2, false, Rules{Version: 101, Open: true}, DeviceInUse, 0},
		{"promote alone and Inconsistent", Word(0xc882).State(), 3, 1, false, rules101, NoUpToDateDisk, 0},
		{"promote alone with fencing", Word(0xd082).State(), 3, 1, false, Rules{Version: 101, Fencing: ResourceOnly}, PrimaryNeedsOutdatedPeer, 0},
		{"promote during handshake", secondary, 3, 1, false, Rules{Version: 101, HandshakeInProgress: true}, InTransientState, 0},
		{"disconnect", secondary, MaskConn, 0x10, false, rules101, Success, 0xd012},
		{"disconnect StandAlone", standAlone, MaskConn, 0x10, false, rules101, AlreadyStandAlone, 0},
		{"disconnect Unconnected", State{Role: Secondary, Conn: Unconnected, PeerDisk: DUnknown}, MaskConn, 0x10, false, rules101, InTransientState, 0},
		{"detach the only good disk of a Primary", lonely, MaskDisk, 0x400, false, rules101, NoUpToDateDisk, 0},
		{"lose the only good disk of a Primary", lonely, MaskDisk, 0x400, true, rules101, Success, 0xc481},
		{"fail a disk that is gone", standAlone, MaskDisk, 0x400, true, rules101, IsDiskless, 0},
		{"outdate while connected", secondary, MaskDisk, Word(Outdated) << 9, false, rules101, NothingToDo, 0},
		{"verify", secondary, MaskConn, Word(VerifyS) << 4, false, rules101, Success, 0x1112a},
		{"verify without algorithm", secondary, MaskConn, Word(VerifyS) << 4, false, Rules{Version: 101}, NoVerifyAlg, 0},
		{"verify with an old peer", secondary, MaskConn, Word(VerifyS) << 4, false, Rules{Version: 87, VerifyAlg: true}, NotSupported, 0},
		{"verify with the oldest peer that can", secondary, MaskConn, Word(VerifyS) << 4, false, Rules{Version: 88, VerifyAlg: true}, Success, 0x1112a},
		{"verify during verify", Word(0x1112a).State(), MaskConn, Word(VerifyT) << 4, false, rules101, ResyncRunning, 0},
		{"invalidate", secondary, MaskConn, Word(StartingSyncT) << 4, false, rules101, Success, 0x10aca},
		{"link lost", primary, MaskConn, Word(NetworkFailure) << 4, true, rules101, Success, 0xd051},
		{"link lost with stonith", primary, MaskConn, Word(NetworkFailure) << 4, true, Rules{Version: 101, Fencing: ResourceAndStonith}, Success, 0x40d051},
		{"connect without trying", Word(0xd052).State(), MaskConn, Word(Connected) << 4, true, rules101, NeedConnection, 0},
		{"skip Unconnected after a failure", Word(0xd052).State(), MaskConn, Word(WFConnection) << 4, true, rules101, InTransientState, 0},
		{"an old breach does not forbid another change", State{Role: Primary, Conn: WFConnection, Disk: Inconsistent, PeerDisk: DUnknown}, MaskUserIsp, MaskUserIsp, false, rules101, Success, 0x10c881},
		{"the way is judged nevertheless", State{Role: Primary, Conn: WFConnection, Disk: Diskless, PeerDisk: DUnknown}, MaskDisk, Word(Inconsistent) << 9, false, rules101, IsDiskless, 0},
	} {
		got, result := Next(c.old, request(c.old, c.mask, c.val), c.hard, c.rules, Negotiation{})
		becomes := c.old
		if c.want == Success {
			becomes = c.becomes.State()
		}
		if result != c.want || got != becomes {
			t.Errorf("%s: %d %v\n  state %#x %v\n  want  %d %#x %v", c.name, result, result, uint32(got.Word()), got, c.want, uint32(becomes.Word()), becomes)
		}
	}
}

func TestSanitizeNegotiation(t *testing.T) {
	negotiating := State{Role: Secondary, Conn: WFConnection, Disk: Negotiating, PeerDisk: DUnknown}
	got := Sanitize(negotiating, negotiating, rules101, Negotiation{Matches: true, Disk: UpToDate, PeerDisk: Outdated})
	if got.Disk != UpToDate || got.PeerDisk != Outdated {
		t.Errorf("matching data: %v", got)
	}
	got = Sanitize(negotiating, negotiating, rules101, Negotiation{Disk: UpToDate, PeerDisk: Outdated})
	if got.Disk != Diskless || got.PeerDisk != DUnknown {
		t.Errorf("other data: %v", got)
	}
}

// TestSanitizeForgetsDependency: a volume that is not in use waits for nothing.
func TestSanitizeForgetsDependency(t *testing.T) {
	idle := Initial()
	idle.AftrIsp = true
	if got := Sanitize(idle, idle, rules101, Negotiation{}); got != Initial() {
		t.Errorf("idle: %v", got)
	}
	for _, busy := range []State{
		{Role: Primary, PeerDisk: DUnknown, AftrIsp: true},
		{Role: Secondary, Disk: UpToDate, PeerDisk: DUnknown, AftrIsp: true},
		{Role: Secondary, Conn: WFConnection, PeerDisk: DUnknown, AftrIsp: true},
	} {
		if got := Sanitize(busy, busy, rules101, Negotiation{}); got != busy {
			t.Errorf("%v becomes %v", busy, got)
		}
	}
}

func TestSanitizeSuspendsOnce(t *testing.T) {
	r := Rules{Version: 101, SuspendOnNoData: true, Fencing: ResourceAndStonith}
	lost := primary.Apply(MaskConn, Word(Timeout)<<4).Apply(MaskDisk, Word(Failed)<<9)
	s := Sanitize(primary, lost, r, Negotiation{})
	if !s.SuspNod || !s.SuspFen {
		t.Fatalf("not suspended: %v", s)
	}
	resumed := s
	resumed.SuspNod, resumed.SuspFen = false, false
	if got := Sanitize(s, resumed, r, Negotiation{}); got != resumed {
		t.Errorf("suspended again although nothing got worse: %v", got)
	}
}

// TestSanitizeIdempotent: a second pass changes nothing, except after the two
// steps that look back: the negotiation's end and the resume of a paused resync.
func TestSanitizeIdempotent(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	r := Rules{Version: 101, SuspendOnNoData: true, Fencing: ResourceAndStonith}
	for range 300_000 {
		old, want := (Word(rnd.Uint32()) & MaskAll).State(), (Word(rnd.Uint32()) & MaskAll).State()
		once := Sanitize(old, want, r, Negotiation{})
		if want.Disk == Negotiating && want.Conn < Connected || once.Conn != want.Conn && once.Conn.Resync() {
			continue
		}
		if twice := Sanitize(old, once, r, Negotiation{}); twice != once {
			t.Fatalf("%v from %v\n once  %v\n twice %v", want, old, once, twice)
		}
	}
}

// TestNextAnyWords: whatever a peer sends, nothing panics, a refusal leaves the
// state alone, and a hard change is never refused for a reason of taste.
func TestNextAnyWords(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	for range 300_000 {
		old, want := (Word(rnd.Uint32()) & MaskAll).State(), (Word(rnd.Uint32()) & MaskAll).State()
		r := Rules{
			TwoPrimaries: rnd.IntN(2) == 0, Fencing: Fencing(rnd.IntN(3)), SuspendOnNoData: rnd.IntN(2) == 0,
			VerifyAlg: rnd.IntN(2) == 0, Version: 86 + rnd.IntN(16), Open: rnd.IntN(2) == 0,
			OtherVolumePeerPrimary: rnd.IntN(2) == 0, HandshakeInProgress: rnd.IntN(2) == 0,
		}
		neg := Negotiation{Matches: rnd.IntN(2) == 0, Disk: Disk(rnd.IntN(9)), PeerDisk: Disk(rnd.IntN(9))}
		soft, softResult := Next(old, want, false, r, neg)
		hard, hardResult := Next(old, want, true, r, neg)
		if !softResult.OK() && soft != old || !hardResult.OK() && hard != old {
			t.Fatalf("%v → %v: refused (%v, %v) but changed", old, want, softResult, hardResult)
		}
		if softResult.OK() && soft != hard {
			t.Fatalf("%v → %v: soft %v, hard %v", old, want, soft, hard)
		}
		if softResult == Success && !CheckState(soft, r).OK() && CheckState(old, r).OK() {
			t.Fatalf("%v → %v: a wish broke %v", old, want, CheckState(soft, r))
		}
		_ = NeedsPeer(old, want)
		_ = hard.String()
	}
}

func TestNeedsPeer(t *testing.T) {
	alone := Word(0xd082).State()
	for _, c := range []struct {
		name      string
		old       State
		mask, val Word
		want      bool
	}{
		{"promotion", secondary, 3, 1, true},
		{"demotion", primary, 3, 2, false},
		{"promotion alone", alone, 3, 1, false},
		{"invalidate", secondary, MaskConn, Word(StartingSyncT) << 4, true},
		{"invalidate-remote", secondary, MaskConn, Word(StartingSyncS) << 4, true},
		{"detach", secondary, MaskDisk, Word(Failed) << 9, true},
		{"detach alone", alone, MaskDisk, Word(Failed) << 9, false},
		{"disconnect", secondary, MaskConn, Word(Disconnecting) << 4, true},
		{"disconnect alone", alone, MaskConn, Word(Disconnecting) << 4, false},
		{"verify", secondary, MaskConn, Word(VerifyS) << 4, true},
		{"delete minor", secondary, MaskConn, Word(WFReportParams) << 4, true},
		{"promotion and link lost", secondary, 3 | MaskConn, 1 | Word(Timeout)<<4, false},
		{"pause", secondary, MaskUserIsp, MaskUserIsp, false},
	} {
		if got := NeedsPeer(c.old, c.old.Apply(c.mask, c.val)); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

func TestMirror(t *testing.T) {
	for _, c := range []struct {
		name                string
		mask, val           Word
		wantMask, wantValue Word
	}{
		{"promotion", 0x3, 0x1, 0xc, 0x4},
		{"graceful detach", 0x1e00, 0x400, 0x1e000, 0x4000},
		{"disconnect", 0x1f0, 0x10, 0x1f0, 0x70},
		{"disconnect outdating the peer", 0x1e1f0, 0xa010, 0x1ff0, 0xa70},
		{"disconnect outdating itself", 0x1ff0, 0xa10, 0x1e1f0, 0xa070},
		{"invalidate", 0x1f0, 0xc0, 0x1f0, 0xb0},
		{"invalidate-remote", 0x1f0, 0xb0, 0x1f0, 0xc0},
		{"verify", 0x1f0, 0x120, 0x1f0, 0x130},
		{"pause", 0x100000, 0x100000, 0x180000, 0x180000},
		{"a state nobody requests", 0x1f0, 0x110, 0x1f0, 0},
	} {
		mask, val := Mirror(c.mask, c.val)
		if mask != c.wantMask || val != c.wantValue {
			t.Errorf("%s: mask %#x value %#x, want %#x %#x", c.name, uint32(mask), uint32(val), uint32(c.wantMask), uint32(c.wantValue))
		}
	}
}
