package replication

import (
	"testing"

	"github.com/replblk/replblk/replication/state"
)

func (n *testNode) follow(wait bool) {
	size := uint32(0)
	if wait {
		size = 1
	}
	n.post(Event{Kind: EvFollow, Size: size})
}

// TestResyncWaitsForAnother: a resync that has to come after another starts paused on both
// nodes, with the flag that says why, and goes on when it may.
func TestResyncWaitsForAnother(t *testing.T) {
	for _, waits := range []string{"source", "target", "both"} {
		t.Run(waits, func(t *testing.T) {
			p, a, b := outdated(t)
			if waits != "target" {
				a.follow(true)
			}
			if waits != "source" {
				b.follow(true)
			}
			p.tick(5)
			sa, sb := a.r.State(0), b.r.State(0)
			if sa.Conn != state.PausedSyncS || sb.Conn != state.PausedSyncT || b.data[0] != 0 {
				t.Fatalf("a is %v, b is %v, data %d; want a paused resync", sa, sb, b.data[0])
			}
			if sa.AftrIsp != (waits != "target") || sb.AftrIsp != (waits != "source") || sa.PeerIsp != sb.AftrIsp || sb.PeerIsp != sa.AftrIsp {
				t.Errorf("a is %v, b is %v", sa, sb)
			}
			a.follow(false)
			if waits == "both" {
				p.tick(5)
				if s := b.r.State(0); s.Conn != state.PausedSyncT {
					t.Fatalf("b is %v although it has to wait", s)
				}
			}
			b.follow(false)
			p.tick(5)
			p.resynced(t)
		})
	}
}

// TestRunningResyncIsPausedForAnother: the other one may begin later.
func TestRunningResyncIsPausedForAnother(t *testing.T) {
	c := testConfig()
	c.Volumes[0].PlanAheadTenths, c.Volumes[0].ResyncRateKiB = 0, 400
	p := newPair(c, c)
	a, b := establish(t, p)
	b.admin(Admin{Kind: AdminInvalidate})
	p.tick(5)
	if s := b.r.State(0); s.Conn != state.SyncTarget {
		t.Fatalf("b is %v", s)
	}
	a.follow(true)
	p.tick(2)
	left := b.r.vols[0].disk.bm.Weight()
	p.tick(10)
	if now := b.r.vols[0].disk.bm.Weight(); now != left || b.r.State(0).Conn != state.PausedSyncT {
		t.Errorf("%d blocks left, then %d; b is %v", left, now, b.r.State(0))
	}
	a.follow(false)
	p.tick(3)
	if now := b.r.vols[0].disk.bm.Weight(); now >= left {
		t.Errorf("%d blocks left, then %d", left, now)
	}
}

// TestFollowerOutlastsItsConnection: who has to wait is not told again after every
// connection, and a diskless Secondary that stands alone has nothing to wait with.
func TestFollowerOutlastsItsConnection(t *testing.T) {
	p := newPair(fastResync(), fastResync())
	a, b := p.nodes[0], p.nodes[1]
	b.follow(true)
	p.settle()
	if b.r.State(0).AftrIsp {
		t.Errorf("b is %v", b.r.State(0))
	}
	b.follow(false)
	establish(t, p)
	b.follow(true)
	p.settle()
	for range 2 {
		b.admin(Admin{Kind: AdminDisconnect})
		p.settle()
		a.request(OpWrite, 0, 4096, 7)
		p.tick(2)
		b.admin(Admin{Kind: AdminConnect})
		p.tick(5)
		if sa, sb := a.r.State(0), b.r.State(0); sa.Conn != state.PausedSyncS || !sa.PeerIsp || !sb.AftrIsp {
			t.Fatalf("a is %v, b is %v", sa, sb)
		}
	}
}
