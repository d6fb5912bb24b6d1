package replication

import (
	"testing"

	"github.com/replblk/replblk/metadata"
)

// H04: a frozen Primary owes a generation when its peer comes back before anybody has fenced
// it. The own UUID changes in the middle of the handshake, and the peer gets what it lacks.
func TestOwedGenerationIsPaidInTheHandshake(t *testing.T) {
	p := newPair(fencingConfig(), fencingConfig())
	a, b := establish(t, p)
	before := a.r.vols[0].disk.sb.UUIDs
	b.asleep = true
	a.request(OpWrite, 8, 4096, 5)
	p.settle() // it is on this disk, the peer never sees it
	p.cut()
	b.inbox, b.asleep = b.inbox[len(b.inbox)-1:], false
	p.apart = true
	p.settle()
	if !a.r.vols[0].owing || !a.r.State(0).SuspFen {
		t.Fatalf("nothing is owed: %v\n%s", a.r.State(0), p.take())
	}
	p.apart = false
	p.tick(60)
	p.states(t, "Connected Primary/Secondary UpToDate/UpToDate", "Connected Secondary/Primary UpToDate/UpToDate")
	p.equal(t)
	if now := a.r.vols[0].disk.sb.UUIDs; b.data[8] != 5 || metadata.SameUUID(now.Current(), before.Current()) || a.r.vols[0].owing {
		t.Errorf("b has %d, generations %x after %x", b.data[8], now, before)
	}
}
