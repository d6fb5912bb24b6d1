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

// TestOldSourceGrowsFirst: before version 96 the source of a resync has come to its end, and grows, while
// its target has still to settle that. What the source writes to the new space waits there (simulator,
// seed 95910).
func TestOldSourceGrowsFirst(t *testing.T) {
	cfg := fastResync()
	cfg.MaxVersion = 91
	p := newPair(cfg, cfg)
	a, b := establish(t, p)
	a.request(OpWrite, 8, 4096, 5)
	p.tick(3)
	b.admin(Admin{Kind: AdminInvalidate})
	b.watch = func() { b.stuck = b.stuck || b.r.vols[0].targetFinishing() }
	for n := 0; n < 100 && !b.stuck; n++ {
		p.tick(1)
	}
	p.tick(3)
	if s, peer := a.r.State(0), b.r.State(0); s.Conn != state.Connected || peer.Conn != state.SyncTarget {
		t.Fatalf("a is %v, b is %v", s, peer)
	}
	before, gen := a.r.vols[0].size, a.gen
	for _, n := range p.nodes {
		n.grow(40000)
	}
	a.r.vols[0].peerSectors = a.sectors // as if b had grown before the last handshake
	a.admin(Admin{Kind: AdminResize})
	p.settle()
	id := a.request(OpWrite, before+8, 4096, 7)
	p.settle()
	b.watch = nil
	b.unstick()
	p.tick(100)
	if o, done := a.outcome[id]; !done || o != OK || a.gen != gen {
		t.Fatalf("write %v %v, a is %v, b is %v\n%s", done, o, a.r.State(0), b.r.State(0), p.take())
	}
	p.sized(t, a.layout.DataSectors)
	p.equal(t)
}
