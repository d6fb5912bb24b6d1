package replication

import (
	"testing"

	"github.com/replblk/replblk/replication/state"
)

// TestDiskThatWasPassed: a disk goes out of service, the peer goes on without it, and the disk is
// attached while the two nodes are apart. Its flags know nothing of that, but the node does:
// to be promoted would be to go on beside the peer's newer generation, and two nodes that are
// both right agree on nothing (simulator, seed 65187). A disk that was taken away
// in good order, where nobody was Primary, has missed nothing.
func TestDiskThatWasPassed(t *testing.T) {
	detach := func(p *pair, a, _ *testNode) { a.admin(Admin{Kind: AdminDetach}); p.tick(3) }
	for name, tc := range map[string]struct {
		fail func(p *pair, a, b *testNode)
		good bool
	}{
		"failed": {fail: func(p *pair, a, _ *testNode) { a.admin(Admin{Kind: AdminDetach, Force: true}); p.tick(3) }},
		"failed, and the peer's generation was not told": {fail: func(p *pair, a, b *testNode) {
			b.stuck = true
			a.admin(Admin{Kind: AdminDetach, Force: true})
			p.tick(1)
		}},
		"under a Primary": {fail: func(p *pair, a, b *testNode) {
			a.admin(Admin{Kind: AdminPrimary})
			p.tick(1)
			detach(p, a, b)
			a.admin(Admin{Kind: AdminSecondary})
			p.tick(2)
		}},
		"under the peer as Primary": {fail: func(p *pair, a, b *testNode) {
			b.admin(Admin{Kind: AdminPrimary})
			p.tick(1)
			detach(p, a, b)
			b.admin(Admin{Kind: AdminSecondary})
			p.tick(2)
		}},
		"before the peer was promoted": {fail: func(p *pair, a, b *testNode) {
			detach(p, a, b)
			b.admin(Admin{Kind: AdminPrimary})
			p.tick(2)
		}},
		"in good order": {detach, true},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPair()
			a, b := establish(t, p)
			a.admin(Admin{Kind: AdminSecondary})
			p.tick(2)
			tc.fail(p, a, b)
			p.apart = true
			p.cut()
			p.tick(2)
			if s := a.r.State(0); s.Disk != state.Diskless {
				t.Fatalf("a is %v", s)
			}
			a.attach()
			p.settle()
			if s := a.r.State(0); (s.Disk == state.UpToDate) != tc.good || !tc.good && s.Disk != state.Outdated {
				t.Errorf("a is %v", s)
			}
			if got := p.command(t, a, Admin{Kind: AdminPrimary}); got.OK() != tc.good {
				t.Errorf("promotion: %v", got)
			}
			b.unstick()
			p.apart = false
			p.tick(60)
			for _, n := range p.nodes {
				if s := n.r.State(0); s.Conn != state.Connected || s.Disk != state.UpToDate || s.PeerDisk != state.UpToDate {
					t.Errorf("%s is %v", n.name, s)
				}
			}
			p.equal(t)
		})
	}
}
