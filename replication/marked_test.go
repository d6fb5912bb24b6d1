package replication

import (
	"testing"

	"github.com/replblk/replblk/metadata"
	"github.com/replblk/replblk/replication/state"
	"github.com/replblk/replblk/replication/wire"
)

// reboot takes a node's memory away. Its connection is gone before.
func (n *testNode) reboot(c Config) {
	n.r = New(c)
	n.inbox, n.wants, n.up = nil, false, false
	n.attach()
	n.admin(Admin{Kind: AdminConnect})
}

// TestSuspendedPrimaryForgetsItsDebt: a Primary that waits for its peer to be fenced is demoted,
// and restarted. Nothing but its bitmap says that the peer lacks a write.
func TestSuspendedPrimaryForgetsItsDebt(t *testing.T) {
	for _, version := range []int{0, 99} { // the latter stands for a kernel
		c := fencingConfig()
		c.MaxVersion = version
		p := newPair(fencingConfig(), c)
		a, b := establish(t, p)
		a.request(OpWrite, 8, 4096, 5)
		p.settle() // both have it, but the epoch is not confirmed
		p.apart = true
		p.cut()
		p.settle()
		token := a.admin(Admin{Kind: AdminSecondary})
		p.tick(2)
		if v := a.r.vols[0]; !a.replies[token].OK() || v.disk.bm.Weight() == 0 || v.disk.sb.UUIDs.Bitmap() != 0 {
			t.Fatalf("demotion %v, %d bits, %x", a.replies[token], v.disk.bm.Weight(), v.disk.sb.UUIDs)
		}
		p.apart = false
		clear(b.data[8:16]) // it loses its power
		a.reboot(fencingConfig())
		b.reboot(c)
		p.tick(60)
		p.states(t, "Connected Secondary/Secondary UpToDate/UpToDate", "Connected Secondary/Secondary UpToDate/UpToDate")
		p.equal(t)
		if b.data[8] != 5 {
			t.Errorf("version %d: a write is lost", version)
		}
	}
}

// TestGrownApartAndForgotten: both nodes are restarted after their disks have grown apart.
// The new space is marked on both, and no generation says so.
func TestGrownApartAndForgotten(t *testing.T) {
	for _, version := range []int{0, 99} {
		c := testConfig()
		c.MaxVersion = version
		p := newPair(c, c)
		a, b := establish(t, p)
		a.admin(Admin{Kind: AdminSecondary})
		p.tick(3)
		p.dirtyEnd(a.r.vols[0].size)
		for range 2 {
			p.cut()
			for _, n := range p.nodes {
				if n.moves == 0 {
					n.growOffline(t, 20000)
				}
				n.reboot(c)
			}
			p.settle()
		}
		p.tick(3)
		if a.r.vols[0].disk.bm.Weight() == 0 {
			t.Error("did not wait for a Primary, and nobody knows whose copy is right")
		}
		b.admin(Admin{Kind: AdminPrimary})
		p.tick(100)
		p.sized(t, a.layout.DataSectors)
		p.states(t, "Connected Secondary/Primary UpToDate/UpToDate", "Connected Primary/Secondary UpToDate/UpToDate")
		p.equal(t)
	}
}

// TestGrownAloneIsNoDebt: both disks have grown apart, and the connection breaks when one node has
// taken the new size and the other one has not. In the next handshake the one has marked
// blocks that the other one knows nothing of, but nobody has written them (seed 223864).
func TestGrownAloneIsNoDebt(t *testing.T) {
	for _, version := range []int{0, 99, 95} {
		c := testConfig()
		c.MaxVersion = version
		p := newPair(c, c)
		a, b := establish(t, p)
		a.admin(Admin{Kind: AdminSecondary})
		p.tick(3)
		p.dirtyEnd(a.r.vols[0].size)
		p.cut()
		for _, n := range p.nodes {
			n.growOffline(t, 20000)
			n.reboot(c)
		}
		for range 100 { // a does not get as far as the sizes
			p.link()
			b.next()
			if len(a.inbox) > 0 && a.inbox[0].Cmd != wire.CmdSizes {
				a.next()
			}
		}
		before := b.r.vols[0].disk.sb.UUIDs.Current()
		if v := b.r.vols[0]; v.st.Conn != state.Connected || v.disk.bm.Weight() == 0 || a.r.vols[0].disk.bm.Weight() != 0 {
			t.Fatalf("version %d: b is %v, %d bits\n%s", version, v.st, v.disk.bm.Weight(), p.take())
		}
		p.cut()
		p.tick(30)
		p.states(t, "Connected Secondary/Secondary UpToDate/UpToDate", "Connected Secondary/Secondary UpToDate/UpToDate")
		if now := b.r.vols[0].disk.sb.UUIDs.Current(); version != 0 && now != before {
			t.Errorf("version %d: a Secondary begins generation %x after %x\n%s", version, now, before, p.take())
		}
		a.admin(Admin{Kind: AdminPrimary})
		p.tick(100)
		p.sized(t, a.layout.DataSectors)
		p.states(t, "Connected Primary/Secondary UpToDate/UpToDate", "Connected Secondary/Primary UpToDate/UpToDate")
		p.equal(t)
	}
}

// TestWhoHasMarkedIsSource: between equal generations, if the peer looks at it too.
func TestWhoHasMarkedIsSource(t *testing.T) {
	u := metadata.UUIDs{uA, 0, uB}
	tracking := metadata.UUIDs{uA, uD, uB}
	for _, tc := range []struct {
		name       string
		self, peer generations
		want       verdict
		rule       int
	}{
		{"nothing", generations{UUIDs: u}, generations{UUIDs: u}, noSync, 40},
		{"one has", generations{UUIDs: u, marked: 1}, generations{UUIDs: u}, source, 43},
		{"the other has", generations{UUIDs: u}, generations{UUIDs: u, marked: 1}, target, 43},
		{"both have", generations{UUIDs: u, marked: 9}, generations{UUIDs: u, marked: 8}, noSync, 40},
		{"both have, and one is Primary", generations{UUIDs: u, marked: 8, primary: true}, generations{UUIDs: u, marked: 9}, source, 43},
		{"a Primary", generations{UUIDs: u, primary: true}, generations{UUIDs: u, marked: 9}, source, 43},
		{"the other is Primary", generations{UUIDs: u, marked: 9}, generations{UUIDs: u, primary: true}, target, 43},
		{"two Primaries", generations{UUIDs: u, primary: true, marked: 9}, generations{UUIDs: u, primary: true}, noSync, 40},
		{"a crashed Primary first", generations{UUIDs: u, marked: 9}, generations{UUIDs: u, crashed: true, marked: 1}, target, 40},
		{"the source's bitmap first", generations{UUIDs: u, marked: 9}, generations{UUIDs: tracking}, target, 37},
		{"both track", generations{UUIDs: tracking, marked: 9}, generations{UUIDs: tracking}, noSync, 40},
	} {
		got := compare(tc.self, tc.peer, 101, true, true)
		if mirror := compare(tc.peer, tc.self, 101, true, false); got.verdict != tc.want || got.rule != tc.rule || mirror.verdict != -tc.want {
			t.Errorf("%s: %+v, want %v by rule %d; at the peer %+v", tc.name, got, tc.want, tc.rule, mirror)
		}
	}
}

// TestMarkedOfAnInconsistentDisk: a copy that is no good is not the source of anything, however
// much of it is marked.
func TestMarkedOfAnInconsistentDisk(t *testing.T) {
	p := newPair()
	establish(t, p)
	v := p.nodes[0].r.vols[0]
	v.announced, v.peerUUIDs.bits = 7, 8
	for _, tc := range []struct {
		mine, peer state.Disk
		want       bool
	}{{state.UpToDate, state.Consistent, true}, {state.Outdated, state.UpToDate, true}, {state.Inconsistent, state.UpToDate, false},
		{state.UpToDate, state.Inconsistent, false}, {state.Inconsistent, state.Inconsistent, false}} {
		self, peer := v.generations(state.Secondary, tc.mine, tc.peer)
		if self.marked != 0 != tc.want || peer.marked != 0 != tc.want {
			t.Errorf("%v and %v: %d and %d marked", tc.mine, tc.peer, self.marked, peer.marked)
		}
	}
}
