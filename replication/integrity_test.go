package replication

import (
	"strings"
	"testing"

	"github.com/replblk/replblk/replication/state"
	"github.com/replblk/replblk/replication/wire"
)

func withIntegrity(proto Protocol) Config {
	c := testConfig()
	c.IntegrityAlg, c.Protocol = "sha1", proto
	return c
}

// TestIntegrity: data that changes on its way, in each of the packets that carry some, ends
// the connection and reaches no disk and no application.
func TestIntegrity(t *testing.T) {
	for _, proto := range []Protocol{ProtocolA, ProtocolB, ProtocolC} {
		p := newPair(withIntegrity(proto), withIntegrity(proto))
		a, b := establish(t, p)
		if a.r.session().Features.Has(wire.FeatureWriteZeroes) {
			t.Error("zeroes would be sent as P_ZEROES, where a kernel expects a digest")
		}
		ok := func(what string) {
			t.Helper()
			for n := 0; n < 100 && a.r.State(0).Conn != state.Connected; n++ {
				p.tick(1)
			}
			p.tick(3)
			p.states(t, "Connected Primary/Secondary UpToDate/UpToDate", "Connected Secondary/Primary UpToDate/UpToDate")
			log := p.take()
			if got := strings.Count(log, NoteCorrupt.String()); got != 1 {
				t.Fatalf("%s: noticed %d times\n%s", what, got, log)
			}
			p.equal(t)
		}
		p.take()
		p.corrupt = wire.CmdData
		id := a.request(OpWrite, 8, 4096, 7)
		a.request(OpZeroes, 4096, 1<<20, 0)
		ok("P_DATA")
		if o, done := a.outcome[id]; !done || o != OK || b.data[15] != 7 {
			t.Errorf("write: %v, %v, the peer has %d", o, done, b.data[15])
		}

		b.admin(Admin{Kind: AdminDisconnect})
		p.settle()
		a.request(OpWrite, 80, 8192, 9)
		p.settle()
		p.take()
		p.corrupt = wire.CmdRSDataReply
		b.admin(Admin{Kind: AdminConnect})
		p.tick(30)
		ok("P_RS_DATA_REPLY")

		a.admin(Admin{Kind: AdminDetach})
		p.settle()
		p.take()
		p.corrupt = wire.CmdDataReply
		read := a.request(OpRead, 80, 8192, 1)
		p.tick(1)
		if o, done := a.outcome[read]; done {
			if o == OK && a.reqs[read][15] != 9 {
				t.Errorf("read: outcome %v, data %d", o, a.reqs[read][15])
			}
		}
		if got := strings.Count(p.take(), NoteCorrupt.String()); got != 1 {
			t.Errorf("P_DATA_REPLY: noticed %d times", got)
		}
	}
}

func TestIntegrityMustMatch(t *testing.T) {
	p := newPair(withIntegrity(ProtocolC), testConfig())
	p.bringUp()
	p.tick(15)
	for _, n := range p.nodes {
		if c := n.r.State(0).Conn; c != state.StandAlone {
			t.Fatalf("%s is %v", n.name, c)
		}
	}
}

// TestIntegrityChangesAtRunTime: each node's operator turns the digest on, another one, and
// off again; it holds for what his node sends, from that point of the stream on.
func TestIntegrityChangesAtRunTime(t *testing.T) {
	p := newPair()
	a, b := establish(t, p)
	value := uint64(1)
	for _, alg := range []string{"crc32c", "sha512", ""} {
		for _, n := range []*testNode{b, a} {
			for range 20 {
				value++
				a.request(OpWrite, value*8%4096, 4096, value)
			}
			a.request(OpZeroes, 0, 64<<10, 0)
			c := testConfig()
			c.IntegrityAlg = alg
			n.admin(Admin{Kind: AdminAdjust, Config: &c})
			for range 20 {
				value++
				a.request(OpWrite, value*8%4096, 4096, value)
			}
			a.request(OpZeroes, 0, 64<<10, 0)
			p.tick(2)
			p.states(t, "Connected Primary/Secondary UpToDate/UpToDate", "Connected Secondary/Primary UpToDate/UpToDate")
		}
		p.tick(2)
		p.equal(t)
	}
	if log := p.take(); strings.Contains(log, NoteProtocolError.String()) || strings.Contains(log, "WFConnection Secondary/Unknown UpToDate") {
		t.Errorf("a connection was lost: %s", log)
	}
}
