package replication

import (
	"strings"
	"testing"

	"github.com/replblk/replblk/replication/state"
)

// Every protocol becomes every other one under load, at either end of the data stream, and
// nothing is confused by what is still on its way under the old one.
func TestAdjustProtocolUnderLoad(t *testing.T) {
	for _, from := range []Protocol{ProtocolA, ProtocolB, ProtocolC} {
		for _, to := range []Protocol{ProtocolA, ProtocolB, ProtocolC} {
			for peer := range 2 {
				p := newPair(withProtocol(from), withProtocol(from))
				a, b := establish(t, p)
				var ids []ReqID
				load := func(base uint64) {
					for i := range uint64(40) {
						ids = append(ids, a.request(OpWrite, i*8, 4096, base+i))
					}
				}
				load(100)
				next := withProtocol(to)
				token := p.nodes[peer].admin(Admin{Kind: AdminAdjust, Config: &next})
				load(200)
				p.tick(1)
				load(300)
				flush := a.request(OpFlush, 0, 0, 0)
				p.tick(5)
				for _, id := range append(ids, flush) {
					if o, ok := a.outcome[id]; !ok || o != OK {
						t.Fatalf("%d to %d at node %d: request %d: %v %v\n%s", from, to, peer, id, ok, o, p.take())
					}
				}
				if p.nodes[peer].replies[token] != state.Success || a.r.conn.protocol != to || b.r.conn.protocol != to {
					t.Fatalf("%d to %d at node %d: %v, protocols %d and %d", from, to, peer, p.nodes[peer].replies[token], a.r.conn.protocol, b.r.conn.protocol)
				}
				p.states(t, "Connected Primary/Secondary UpToDate/UpToDate", "Connected Secondary/Primary UpToDate/UpToDate")
				p.equal(t)
			}
		}
	}
}

func TestAdjustTellsThePeer(t *testing.T) {
	p := newPair()
	a, b := establish(t, p)
	next := testConfig()
	next.AfterSB = [3]Policy{SBDiscardLocal, SBConsensus, SBViolently}
	next.VerifyAlg = "sha256"
	next.Volumes[0].MaxRateKiB, next.Volumes[0].ALExtents, next.Volumes[0].Fencing = 4000, 1237, state.ResourceOnly
	next.Name, next.Seed = "other", 1
	p.take()
	a.admin(Admin{Kind: AdminAdjust, Config: &next})
	p.tick(1)
	if got := b.r.cfg.AfterSB; got != [3]Policy{SBDiscardRemote, SBConsensus, SBViolently} {
		t.Errorf("peer's policies: %v", got)
	}
	if b.r.cfg.VerifyAlg != "sha256" || b.r.vols[0].cfg.MaxRateKiB != 4000 {
		t.Errorf("peer: verify-alg %q, c-max-rate %d", b.r.cfg.VerifyAlg, b.r.vols[0].cfg.MaxRateKiB)
	}
	if v := a.r.vols[0].cfg; v.Fencing != state.ResourceOnly || v.ALExtents != 67 || a.r.cfg.Name != "r0" {
		t.Errorf("own: %+v", v)
	}
	log := p.take()
	a.admin(Admin{Kind: AdminAdjust, Config: &next})
	p.tick(1)
	if again := p.take(); strings.Contains(again, "protocol_update") || strings.Contains(again, "SyncParam") || !strings.Contains(log, "protocol_update") {
		t.Errorf("first:\n%s\nagain:\n%s", log, again)
	}
	p.cut()
	p.tick(20)
	p.states(t, "Connected Primary/Secondary UpToDate/UpToDate", "Connected Secondary/Primary UpToDate/UpToDate")
}
