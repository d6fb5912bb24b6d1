package replication

import (
	"testing"

	"github.com/replblk/replblk/metadata"
)

// The new size holds when the superblock that has it is durable, and not when it is written.
func TestResizeWaitsForTheSuperblock(t *testing.T) {
	p, a, _ := grown(t, 4096)
	before := a.r.vols[0].size
	written := false
	a.writing = func(sector uint64, block []byte) {
		var sb metadata.Superblock
		if sector == a.layout.Superblock && sb.Decode(block) == nil && sb.LASizeSectors > before {
			a.stuck, written = true, true
		}
	}
	token := a.admin(Admin{Kind: AdminResize})
	p.tick(2)
	if !written || a.r.vols[0].size != before {
		t.Fatalf("written %v, %d sectors, %d before\n%s", written, a.r.vols[0].size, before, p.take())
	}
	a.writing = nil
	a.unstick()
	p.tick(60)
	ok(t, p, a, token)
	p.sized(t, a.layout.DataSectors)
	p.equal(t)
}

// Metadata does not move while a write is on its way to the disk.
func TestMoveWaitsForWrites(t *testing.T) {
	p := newPair()
	a, _ := establish(t, p)
	a.request(OpWrite, 8, 4096, 1) // its extent is in the log now
	p.tick(3)
	for _, n := range p.nodes {
		n.grow(4096)
	}
	id := a.request(OpWrite, 8, 4096, 5)
	token := a.admin(Admin{Kind: AdminResize})
	a.next() // the write
	a.next() // the command
	slow := a.hold(EvDisk)
	p.tick(3)
	if a.moves != 0 || len(slow) != 1 {
		t.Fatalf("moved %d times, %d writes on the disk", a.moves, len(slow))
	}
	a.inbox = append(a.inbox, slow...)
	p.tick(60)
	ok(t, p, a, token)
	if o, done := a.outcome[id]; !done || o != OK || a.moves != 1 {
		t.Errorf("write %v %v, moved %d times", done, o, a.moves)
	}
	p.equal(t)
}

// hold takes the events of a kind out of the inbox.
func (n *testNode) hold(kind EventKind) (held []Event) {
	n.inbox = dropped(n.inbox, func(ev *Event) bool {
		if ev.Kind == kind {
			held = append(held, *ev)
			return true
		}
		return false
	})
	return held
}

// unhang answers the data operations that were kept back.
func (n *testNode) unhang() {
	for _, io := range n.owed {
		n.post(Event{Kind: EvDisk, IO: io})
	}
	n.owed, n.hung = nil, false
}

// unstick gives the answers of metadata operations that were kept back.
func (n *testNode) unstick() {
	n.stuck = false
	for _, io := range n.unsaid {
		n.post(Event{Kind: EvMeta, IO: io, Err: n.metaErr})
	}
	n.unsaid = nil
}

// A write that both disks have is held because a resize drains, and the connection is lost
// before its barrier is acknowledged. That the peer may lack it is marked at once.
func TestHeldWriteIsMarked(t *testing.T) {
	p := newPair()
	a, b := establish(t, p)
	a.request(OpWrite, 8, 4096, 1) // its extent is in the log now
	p.tick(3)
	for _, n := range p.nodes {
		n.grow(4096)
	}
	b.hung = true
	id := a.request(OpWrite, 8, 4096, 5)
	p.settle()
	a.stuck = true // the resize does not end
	a.admin(Admin{Kind: AdminResize})
	p.settle()
	b.unhang()
	p.settle()
	v := a.r.vols[0]
	if _, done := a.outcome[id]; done || v.disk.bm.Weight() != 0 {
		t.Fatalf("answered %v, %d bits\n%s", done, v.disk.bm.Weight(), p.take())
	}
	p.apart = true
	p.cut()
	p.settle()
	if v.disk.bm.Weight() != 1 {
		t.Errorf("%d bits after the connection was lost\n%s", v.disk.bm.Weight(), p.take())
	}
}

// TestSourceOfNewSpaceFails: the disk of a Primary fails when both nodes have grown, and before the
// new space is named. Its peer has everything but that, and the application goes on with it
// (simulator, seed 56352).
func TestSourceOfNewSpaceFails(t *testing.T) {
	p, a, b := grown(t, 20000)
	a.admin(Admin{Kind: AdminResize})
	p.holdNewSpace(t)
	a.failing[OpWrite] = true
	id := a.request(OpWrite, 8, 4096, 5)
	p.tick(3)
	p.states(t, "Connected Primary/Secondary Diskless/UpToDate", "Connected Secondary/Primary UpToDate/Diskless")
	if o, ok := a.outcome[id]; !ok || o != OK || b.data[8] != 5 {
		t.Fatalf("write: %v %v, b has %d\n%s", ok, o, b.data[8], p.take())
	}
	clear(a.failing)
	p.freeNewSpace(t)
	a.attach()
	p.tick(200)
	p.states(t, "Connected Primary/Secondary UpToDate/UpToDate", "Connected Secondary/Primary UpToDate/UpToDate")
	p.equal(t)
	if a.data[8] != 5 {
		t.Fatal("an answered write is lost")
	}
}

// TestWriteToNewSpaceAwaitsTheAnswer: both operators resize, and each node asks what the other
// has room for before it hears the other's question. The Primary has grown, and its writes to
// the new space arrive at a node that waits for an answer before it grows (simulator, seed
// 279425). The answer must not wait for these writes, although there is more room by then.
func TestWriteToNewSpaceAwaitsTheAnswer(t *testing.T) {
	for _, heardFirst := range []bool{false, true} {
		p, a, b := grown(t, 40000)
		before, gen := a.r.vols[0].size, a.gen
		a.r.vols[0].peerSectors = before + 20000 // what b had room for when a last heard of it
		b.asleep = true
		token := a.admin(Admin{Kind: AdminResize})
		if heardFirst {
			a.stuck = true // it has still to grow when it hears b
		}
		a.alone()
		var id ReqID
		if !heardFirst {
			id = a.request(OpWrite, before+8, 4096, 7)
			a.alone()
		}
		late := b.hold(EvPacket)
		a.asleep, b.asleep = true, false
		b.admin(Admin{Kind: AdminResize})
		b.alone()
		b.inbox = append(b.inbox, late...)
		a.asleep = false
		if heardFirst {
			b.asleep = true
			a.alone()
			a.unstick()
			a.alone()
			id = a.request(OpWrite, before+8, 4096, 7)
			a.alone()
			b.asleep = false
		}
		p.tick(3)
		if o, done := a.outcome[id]; !done || o != OK || a.gen != gen {
			t.Fatalf("heard first %v: write %v %v, %v and %v\n%s", heardFirst, done, o, a.r.State(0), b.r.State(0), p.take())
		}
		p.tick(200)
		ok(t, p, a, token)
		p.sized(t, a.layout.DataSectors)
		p.states(t, "Connected Primary/Secondary UpToDate/UpToDate", "Connected Secondary/Primary UpToDate/UpToDate")
		p.equal(t)
	}
}
