package replication

import (
	"testing"

	"github.com/replblk/replblk/replication/state"
)

// Before version 96 the source counts for itself what is left to copy. If that is nothing, it
// must not be done with the resync before a target whose disk hangs has begun: it would
// write on without it, and the target would call itself UpToDate when its disk answers.
func TestOldSourceOfNothingAwaitsItsTarget(t *testing.T) {
	c := testConfig()
	c.MaxVersion = 95
	p := newPair(c, testConfig())
	a, b := establish(t, p)
	p.apart = true
	p.cut()
	p.tick(2)
	b.watch = func() { b.stuck = b.stuck || b.r.State(0).Conn == state.WFSyncUUID }
	p.apart = false
	p.tick(3)
	id := a.request(OpWrite, 8, 4096, 6)
	p.tick(3)
	if s, o := a.r.State(0), a.outcome[id]; s.Conn != state.SyncSource || o != OK || b.data[8] != 6 {
		t.Fatalf("source is %v, write %v, target has %d\n%s", s, o, b.data[8], p.take())
	}
	b.watch = nil
	b.unstick()
	p.tick(3)
	p.resynced(t)
}
