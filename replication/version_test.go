package replication

import (
	"fmt"
	"testing"

	"github.com/replblk/replblk/replication/state"
	"github.com/replblk/replblk/replication/wire"
)

// TestEveryVersion goes through the life of a pair in each protocol version, one node being
// the old one.
func TestEveryVersion(t *testing.T) {
	for version := wire.VersionMin; version <= wire.VersionMax; version++ {
		for old := range 2 {
			proto := []Protocol{ProtocolC, ProtocolA, ProtocolB}[(version+old)%3]
			t.Run(fmt.Sprintf("%d on %c, protocol %c", version, 'a'+old, 'A'+proto-1), func(t *testing.T) {
				life(t, version, old, proto)
			})
		}
	}
}

func life(t *testing.T, version, old int, proto Protocol) {
	var c [2]Config
	for i := range c {
		c[i] = fastResync()
		c[i].Protocol, c[i].VerifyAlg, c[i].CsumsAlg, c[i].IntegrityAlg = proto, "sha1", "md5", "crc32c"
	}
	c[old].MaxVersion = version
	p := newPair(c[:]...)
	a, b := p.nodes[0], p.nodes[1]
	for i := range b.data {
		b.data[i] = 5
	}
	p.bringUp()
	p.settle()
	a.admin(Admin{Kind: AdminPrimary, Force: true})
	p.settle()
	p.resynced(t)
	if got := a.r.Status().Version; got != version {
		t.Fatalf("version %d", got)
	}
	ids := []ReqID{
		a.request(OpWrite, 3, 1<<20, 7), a.request(OpWrite, 5000, 512, 8), a.request(OpDiscard, 8192, 4<<20, 0),
		a.request(OpZeroes, 20480, 1<<20+512, 0),
	}
	fua := a.request(OpWrite, 40960, 300<<10, 9)
	a.inbox[len(a.inbox)-1].FUA = true
	ids = append(ids, fua, a.request(OpFlush, 0, 0, 0), a.request(OpRead, 3, 1<<20, 0))
	p.tick(3)
	for i, id := range ids {
		if o, ok := a.outcome[id]; !ok || o != OK {
			t.Fatalf("request %d: %v, %v\n%s", i, o, ok, p.take())
		}
	}
	if b.data[2050] != 7 || b.data[8192] != 0 || b.data[41559] != 9 {
		t.Error("the peer misses a write")
	}
	p.resynced(t)

	b.admin(Admin{Kind: AdminDisconnect})
	p.tick(12)
	p.states(t, "WFConnection Primary/Unknown UpToDate/DUnknown", "StandAlone Secondary/Unknown UpToDate/DUnknown")
	a.request(OpWrite, 3, 1<<20, 17)
	p.tick(1)
	b.admin(Admin{Kind: AdminConnect})
	p.tick(1)
	a.request(OpWrite, 100, 1<<20, 18)
	p.tick(3)
	p.resynced(t)

	token := b.admin(Admin{Kind: AdminVerify})
	b.data[77]++
	p.settle()
	if got := b.replies[token]; got.OK() != (version >= 88) {
		t.Errorf("verify: %v", got)
	}
	if version >= 88 {
		p.finished(t, 1)
		if a.r.Status().Volumes[0].Verify.Completed != 1 {
			t.Error("a did not see the end of the verify")
		}
		b.admin(Admin{Kind: AdminRepair})
		p.tick(15)
	} else {
		b.data[77]--
	}
	p.resynced(t)

	a.admin(Admin{Kind: AdminDetach})
	p.tick(2)
	read := a.request(OpRead, 90, 1<<20, 1)
	p.tick(1)
	if o, ok := a.outcome[read]; !ok || o != OK || a.reqs[read][9] != 17 || a.reqs[read][2047] != 18 {
		t.Errorf("read from the peer: %v, %v, %v", o, ok, a.reqs[read][2047])
	}
	for _, n := range p.nodes {
		for _, e := range n.notes {
			if e.Note == NoteProtocolError || e.Note == NoteCorrupt || e.Note == NotePeerSilent {
				t.Errorf("%s: %v", n.name, e.Note)
			}
		}
	}
	if s := a.r.State(0); s.Conn != state.Connected || len(a.bufs) != 0 || len(a.r.parts.free) != len(a.r.parts.list) {
		t.Errorf("%v, %d buffers, %d of %d cut requests left", s, len(a.bufs), len(a.r.parts.list)-len(a.r.parts.free), len(a.r.parts.list))
	}
}

func TestOldVersionsHaveOneVolume(t *testing.T) {
	c := testConfig()
	c.Volumes = append(c.Volumes, c.Volumes[0])
	c.Volumes[1].Number = 1
	if got := New(c).ownFeatures().Min; got != 100 {
		t.Errorf("two volumes from version %d on", got)
	}
	c.Volumes = c.Volumes[1:]
	if got := New(c).ownFeatures().Min; got != 100 {
		t.Errorf("volume 1 from version %d on", got)
	}
}

func TestTentativeNeedsAVersion(t *testing.T) {
	for version, want := range map[int]state.Conn{91: state.StandAlone, 92: state.StandAlone} {
		c := testConfig()
		c.MaxVersion = version
		p := newPair(c, testConfig())
		a, b := establish(t, p)
		a.admin(Admin{Kind: AdminDisconnect})
		p.tick(12)
		b.notes, a.notes = nil, nil
		a.admin(Admin{Kind: AdminConnect, Tentative: true})
		p.tick(15)
		if got := a.r.State(0).Conn; got != want {
			t.Errorf("version %d: %v", version, got)
		}
		refused := false
		for _, n := range a.notes {
			refused = refused || n.Note == NoteNoDryRun
		}
		if refused != (version < 92) {
			t.Errorf("version %d: refused %v", version, refused)
		}
	}
}

// TestRuleTooNewIsNamed: nodes that do have a common version are not told that they have none.
func TestRuleTooNewIsNamed(t *testing.T) {
	for _, tt := range []struct {
		cmp     comparison
		note    Note
		rule    uint64
		version uint32
	}{
		{compareEqual(generations{UUIDs: [4]uint64{8, 6}}, generations{UUIDs: [4]uint64{8}}, 90, false, true), NoteRuleTooNew, 34, 91},
		{compareCrashed(generations{crashed: true}, generations{primary: true}, false, true), NoteRuleTooNew, 41, 101},
		{comparison{unrelated, 110, noCorrection}, NoteUnrelated, 0, 0},
	} {
		r := New(testConfig())
		r.fx = &Effects{}
		r.refusal(r.vols[0], tt.cmp)
		if e := r.fx.List[0]; e.Note != tt.note || e.Token != tt.rule || e.Size != tt.version {
			t.Errorf("%+v: note %v, rule %d, version %d; want %v, %d, %d", tt.cmp, e.Note, e.Token, e.Size, tt.note, tt.rule, tt.version)
		}
	}
}
