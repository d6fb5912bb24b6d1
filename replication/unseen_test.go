package replication

import (
	"testing"

	"github.com/replblk/replblk/metadata"
	"github.com/replblk/replblk/replication/state"
)

// TestFailedDiskDoesNotComeBackAsGood: a write fails here, is answered because the peer has
// it, and the connection is lost before the peer hears of the disk. The generations are
// equal, but the disk lacks the write: it must not serve.
func TestFailedDiskDoesNotComeBackAsGood(t *testing.T) {
	p := newPair()
	a, _ := establish(t, p)
	p.apart = true
	a.request(OpRead, 4096, 4096, 0)
	ev := a.inbox[0]
	a.inbox = nil
	a.step(&ev)
	slow := a.inbox[0] // as long as this read is on the disk, that is Failed and not Diskless
	a.inbox = nil
	a.failing[OpWrite] = true
	id := a.request(OpWrite, 8, 4096, 7)
	for n := 0; n < 1000 && len(a.outcome) == 0; n++ {
		for _, n := range p.nodes {
			n.next()
		}
	}
	if o, ok := a.outcome[id]; !ok || o != OK {
		t.Fatalf("write: %v, %v", o, ok)
	}
	p.cut()
	p.tick(2)
	a.post(slow)
	p.tick(2)
	a.failing[OpWrite] = false
	a.attach()
	p.tick(2)
	if s := a.r.State(0); s.Disk == state.UpToDate {
		t.Errorf("the disk that lacks the write is %v", s)
	}
}

// TestDiskThatFailedUnderAPrimaryIsTarget: the same with what was in the cache of the disk, and the
// node ceases to be Primary before its disk is back. No kernel, and no old version, says that its
// copy has lost nothing.
func TestDiskThatFailedUnderAPrimaryIsTarget(t *testing.T) {
	c := testConfig()
	c.MaxVersion = 95
	p := newPair(c, c)
	a, b := establish(t, p)
	id := a.request(OpWrite, 8, 4096, 7)
	p.tick(1)
	a.hung = true
	a.request(OpWrite, 16, 4096, 8)
	p.tick(1)
	clear(a.data[8:16])
	for _, io := range a.owed {
		a.post(Event{Kind: EvDisk, IO: io, Err: DiskIOError})
	}
	a.hung, p.apart = false, true
	p.cut()
	p.tick(2)
	if o, ok := a.outcome[id]; !ok || o != OK || b.data[8] != 7 {
		t.Fatalf("write: %v, %v", o, ok)
	}
	a.admin(Admin{Kind: AdminSecondary})
	p.apart = false
	p.tick(15)
	a.attach()
	p.tick(30)
	p.states(t, "Connected Secondary/Secondary UpToDate/UpToDate", "Connected Secondary/Secondary UpToDate/UpToDate")
	p.equal(t)
	if b.data[8] != 7 {
		t.Error("an answered write is lost")
	}
}

// TestHeirOfANodeWithoutDisk: a node without a disk is promoted, and the connection breaks before the
// peer has told the generation that it begins then. Its data are not unrelated.
func TestHeirOfANodeWithoutDisk(t *testing.T) {
	p := newPair()
	a, b := establish(t, p)
	a.admin(Admin{Kind: AdminSecondary})
	p.tick(2)
	a.admin(Admin{Kind: AdminDetach})
	p.tick(30)
	b.stuck = true
	a.admin(Admin{Kind: AdminPrimary})
	p.tick(1)
	p.states(t, "Connected Primary/Secondary Diskless/UpToDate", "Connected Secondary/Primary UpToDate/Diskless")
	p.apart = true
	p.cut()
	p.settle()
	b.unstick()
	p.apart = false
	p.tick(20)
	p.states(t, "Connected Primary/Secondary Diskless/UpToDate", "Connected Secondary/Primary UpToDate/Diskless")
}

// TestOutrunDiskIsTheLastOne: the same, but the peer's copy is no good any more when the disk is
// back (simulator, seed 171001). What there is has to do.
func TestOutrunDiskIsTheLastOne(t *testing.T) {
	p := newPair()
	a, b := establish(t, p)
	current := a.r.vols[0].disk.sb.UUIDs.Current()
	a.admin(Admin{Kind: AdminSecondary})
	p.settle()
	a.admin(Admin{Kind: AdminDetach})
	p.settle()
	b.admin(Admin{Kind: AdminDisconnect, Force: true})
	p.settle()
	b.admin(Admin{Kind: AdminInvalidate})
	b.admin(Admin{Kind: AdminConnect})
	p.tick(15)
	p.states(t, "Connected Secondary/Secondary Diskless/Inconsistent", "Connected Secondary/Secondary Inconsistent/Diskless")
	a.r.vols[0].outrun = current
	a.attach()
	p.tick(60)
	p.states(t, "Connected Secondary/Secondary UpToDate/UpToDate", "Connected Secondary/Secondary UpToDate/UpToDate")
	p.equal(t)
}

// TestDiskBesideAGoodOne: a node attaches its disk while the peer's is good, and the connection
// breaks before they have been compared (simulator, seed 175528). Nobody knows how far the peer
// went on, so the node is not promoted.
func TestDiskBesideAGoodOne(t *testing.T) {
	p := newPair()
	a, b := establish(t, p)
	b.admin(Admin{Kind: AdminDetach})
	p.tick(3)
	a.asleep = true
	b.attach()
	p.settle()
	if s := b.r.State(0); s.Disk != state.Negotiating {
		t.Fatalf("b is %v", s)
	}
	p.apart = true
	p.cut()
	p.settle()
	if s := b.r.State(0); s.Disk != state.Outdated {
		t.Errorf("b is %v", s)
	}
	if got := p.command(t, b, Admin{Kind: AdminPrimary}); got.OK() {
		t.Error("b is promoted beside a, with older data")
	}
	a.asleep, p.apart = false, false
	p.tick(30)
	p.states(t, "Connected Primary/Secondary UpToDate/UpToDate", "Connected Secondary/Primary UpToDate/UpToDate")
	p.equal(t)
}

// TestPromotionAndLossOfTheDisk: a node loses its disk while its peer has still to agree that it is
// promoted. The peer hears afterwards of a Secondary without a disk; that this is Primary it
// must hear too, or it would neither keep books of its writes nor refuse to be promoted itself.
func TestPromotionAndLossOfTheDisk(t *testing.T) {
	p := newPair()
	a, b := establish(t, p)
	a.admin(Admin{Kind: AdminSecondary})
	p.tick(2)
	b.asleep = true
	a.admin(Admin{Kind: AdminPrimary})
	a.alone()
	a.admin(Admin{Kind: AdminDetach, Force: true})
	a.alone()
	b.asleep = false
	p.tick(3)
	p.states(t, "Connected Primary/Secondary Diskless/UpToDate", "Connected Secondary/Primary UpToDate/Diskless")
}

// TestBooksOfAPeerWithoutDisk: from the moment on at which only this node has what the peer's
// application writes, its activity log counts; but after a crash only if the superblock says
// so. No such write may reach the disk before that is durable, also where the log need not be
// written because the extent is hot from the time when this node was Primary.
func TestBooksOfAPeerWithoutDisk(t *testing.T) {
	p := newPair()
	a, b := establish(t, p)
	a.admin(Admin{Kind: AdminSecondary})
	p.settle()
	b.admin(Admin{Kind: AdminPrimary})
	p.settle()
	b.request(OpWrite, 8, 4096, 5)
	p.tick(3)
	b.admin(Admin{Kind: AdminSecondary})
	p.tick(3)
	a.admin(Admin{Kind: AdminPrimary})
	p.settle()
	b.stuck = true
	a.admin(Admin{Kind: AdminDetach, Force: true})
	p.settle()
	id := a.request(OpWrite, 8, 4096, 7)
	p.settle()
	if _, ok := a.outcome[id]; ok || b.data[8] != 5 {
		t.Fatalf("before the mark of a Primary is durable: answered %v, sector 8 is %d\n%s", ok, b.data[8], p.take())
	}
	b.stuck = false
	for _, io := range b.unsaid {
		b.post(Event{Kind: EvMeta, IO: io})
	}
	b.unsaid = nil
	p.settle()
	if o, ok := a.outcome[id]; !ok || o != OK || b.data[8] != 7 {
		t.Errorf("answered %v with %v, sector 8 is %d", ok, o, b.data[8])
	}
	if !b.decoded(t).Flags.Has(metadata.PrimaryInd) {
		t.Error("b has no mark of a Primary")
	}
}

// TestAttachedDiskAwaitsItsVerdict: the peer has sent its state before it hears of the disk that
// this node attaches. That says nothing of the disk (spec 7.5): it is decided with the
// generations that the peer sends when it has heard.
func TestAttachedDiskAwaitsItsVerdict(t *testing.T) {
	p := newPair()
	a, b := establish(t, p)
	b.admin(Admin{Kind: AdminDetach})
	p.tick(3)
	b.asleep = true
	a.admin(Admin{Kind: AdminSecondary})
	p.tick(2)
	news := b.hold(EvPacket)
	a.asleep, b.asleep = true, false
	b.attach()
	b.alone()
	b.inbox = append(b.inbox, news...)
	b.alone()
	if s := b.r.State(0); s.Disk != state.Negotiating || s.Peer != state.Secondary {
		t.Errorf("%v, by what a had said before", s)
	}
	a.asleep = false
	p.tick(30)
	p.states(t, "Connected Secondary/Secondary UpToDate/UpToDate", "Connected Secondary/Secondary UpToDate/UpToDate")
}
