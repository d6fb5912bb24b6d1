package replication

import (
	"testing"

	"github.com/replblk/replblk/replication/state"
	"github.com/replblk/replblk/replication/wire"
)

func (p *pair) states(t *testing.T, a, b string) {
	t.Helper()
	for i, want := range []string{a, b} {
		if got := p.nodes[i].r.State(0).String(); got != want {
			t.Fatalf("%s is %q, want %q\n%s", p.nodes[i].name, got, want, p.take())
		}
	}
}

func (p *pair) equal(t *testing.T) {
	t.Helper()
	size := p.nodes[0].r.vols[0].size
	for s := range size {
		if p.nodes[0].data[s] != p.nodes[1].data[s] {
			t.Fatalf("sector %d: a has %d, b has %d", s, p.nodes[0].data[s], p.nodes[1].data[s])
		}
	}
	for _, n := range p.nodes {
		if w := n.r.vols[0].disk.bm.Weight(); w != 0 {
			t.Fatalf("%s has %d bits set", n.name, w)
		}
		if len(n.bufs) != 0 {
			t.Fatalf("%s: %d buffers are not freed", n.name, len(n.bufs))
		}
		if n.r.ios.inUse() != 0 || n.r.peer.used != 0 {
			t.Fatalf("%s: %d requests, %d peer requests left", n.name, n.r.ios.inUse(), n.r.peer.used)
		}
	}
}

// establish makes a connected pair with a as Primary of fresh data.
func establish(t *testing.T, p *pair) (a, b *testNode) {
	t.Helper()
	a, b = p.nodes[0], p.nodes[1]
	p.bringUp()
	p.settle()
	p.states(t, "Connected Secondary/Secondary Inconsistent/Inconsistent", "Connected Secondary/Secondary Inconsistent/Inconsistent")
	a.admin(Admin{Kind: AdminNewCurrentUUID, ClearBitmap: true})
	p.settle()
	p.states(t, "Connected Secondary/Secondary UpToDate/UpToDate", "Connected Secondary/Secondary UpToDate/UpToDate")
	a.admin(Admin{Kind: AdminPrimary})
	p.settle()
	p.states(t, "Connected Primary/Secondary UpToDate/UpToDate", "Connected Secondary/Primary UpToDate/UpToDate")
	return a, b
}

// What the peer has sent before it hears that the two disks were declared equal does not make its
// disk Inconsistent again: it says nothing more.
func TestDeclaredEqualBeforeItsState(t *testing.T) {
	p := newPair()
	a := p.nodes[0]
	p.bringUp()
	p.settle()
	a.admin(Admin{Kind: AdminNewCurrentUUID, ClearBitmap: true})
	late := state.State{Role: state.Secondary, Peer: state.Secondary, Conn: state.Connected, Disk: state.Inconsistent, PeerDisk: state.Inconsistent}
	word := wire.StateWord{State: late.Word()}
	a.hears(wire.CmdState, DataSocket, word.AppendTo(nil))
	p.settle()
	p.states(t, "Connected Secondary/Secondary UpToDate/UpToDate", "Connected Secondary/Secondary UpToDate/UpToDate")
}

func TestFullSyncAfterForcedPromotion(t *testing.T) {
	p := newPair()
	a := p.nodes[0]
	p.bringUp()
	p.settle()
	a.data[8] = 42
	a.admin(Admin{Kind: AdminPrimary, Force: true})
	p.settle()
	for range 600 {
		p.tick(1)
		if a.r.State(0).Conn == state.Connected {
			break
		}
	}
	p.states(t, "Connected Primary/Secondary UpToDate/UpToDate", "Connected Secondary/Primary UpToDate/UpToDate")
	p.equal(t)
	if !a.r.vols[0].disk.sb.UUIDs.Same(&p.nodes[1].r.vols[0].disk.sb.UUIDs) {
		t.Fatalf("UUIDs differ: %x %x", a.r.vols[0].disk.sb.UUIDs, p.nodes[1].r.vols[0].disk.sb.UUIDs)
	}
}

func TestWriteReachesBothDisks(t *testing.T) {
	p := newPair()
	a, b := establish(t, p)
	p.take()
	id := a.request(OpWrite, 8, 4096, 7)
	p.settle()
	if o, ok := a.outcome[id]; !ok || o != OK {
		t.Fatalf("write: outcome %v %v\n%s", o, ok, p.take())
	}
	if b.data[8] != 7 || a.data[15] != 7 {
		t.Fatalf("data is not on both disks\n%s", p.take())
	}
	flush := a.request(OpFlush, 0, 0, 0)
	p.settle()
	if _, ok := a.outcome[flush]; !ok {
		t.Fatalf("flush is not answered\n%s", p.take())
	}
	p.tick(3)
	p.equal(t)
}

func TestBitmapResyncAfterOutage(t *testing.T) {
	p := newPair()
	a, b := establish(t, p)
	a.request(OpWrite, 0, 4096, 1)
	p.tick(2)
	b.admin(Admin{Kind: AdminDisconnect})
	p.settle()
	if s := b.r.State(0); s.Conn != state.StandAlone {
		t.Fatalf("b is %v\n%s", s, p.take())
	}
	if s := a.r.State(0); s.Conn != state.WFConnection {
		t.Fatalf("a is %v\n%s", s, p.take())
	}
	for i := range uint64(20) {
		a.request(OpWrite, i*4096, 4096, 100+i)
	}
	p.tick(2)
	if w := a.r.vols[0].disk.bm.Weight(); w != 20 {
		t.Fatalf("%d bits set, want 20", w)
	}
	b.admin(Admin{Kind: AdminConnect})
	p.tick(30)
	p.states(t, "Connected Primary/Secondary UpToDate/UpToDate", "Connected Secondary/Primary UpToDate/UpToDate")
	p.equal(t)
	if b.data[4096] != 101 {
		t.Fatal("b misses a write")
	}
}

func TestSplitBrainIsRefusedAndResolved(t *testing.T) {
	p := newPair()
	a, b := establish(t, p)
	for _, n := range []*testNode{b, a} {
		n.admin(Admin{Kind: AdminDisconnect, Force: true})
	}
	p.settle()
	b.admin(Admin{Kind: AdminPrimary})
	p.settle()
	a.request(OpWrite, 0, 4096, 1)
	b.request(OpWrite, 80, 4096, 2)
	p.tick(2)
	b.admin(Admin{Kind: AdminSecondary})
	p.tick(2)
	a.admin(Admin{Kind: AdminConnect})
	b.admin(Admin{Kind: AdminConnect})
	p.tick(12)
	p.states(t, "StandAlone Primary/Unknown UpToDate/DUnknown", "StandAlone Secondary/Unknown UpToDate/DUnknown")
	if a.data[0] != 1 || b.data[80] != 2 {
		t.Fatal("a data set was touched")
	}
	b.admin(Admin{Kind: AdminConnect, DiscardMyData: true})
	a.admin(Admin{Kind: AdminConnect})
	p.tick(30)
	p.states(t, "Connected Primary/Secondary UpToDate/UpToDate", "Connected Secondary/Primary UpToDate/UpToDate")
	p.equal(t)
	if b.data[80] == 2 {
		t.Fatal("b kept what it discarded")
	}
}

// What a disk had still to read when it failed is read from the peer, even if it comes back well: a
// failed flush may have dropped newer data before.
func TestReadOfADiskThatHasFailed(t *testing.T) {
	p := newPair()
	a, _ := establish(t, p)
	a.request(OpWrite, 8, 4096, 5)
	p.tick(3)
	a.hung = true // and does not carry out what it is asked
	id := a.request(OpRead, 8, 4096, 0)
	p.settle()
	a.metaErr = DiskIOError
	a.request(OpWrite, 4<<13, 4096, 6) // an extent that is not in the log
	p.tick(2)
	if s := a.r.State(0).Disk; s > state.Failed {
		t.Fatalf("the disk is %v\n%s", s, p.take())
	}
	a.unhang()
	p.tick(2)
	a.answered(t, id, OK)
	if got := a.reqs[id][0]; got != 5 {
		t.Errorf("read %d, want what the peer has\n%s", got, p.take())
	}
}

func TestReadsComeFromThePeerWithoutADisk(t *testing.T) {
	p := newPair()
	a, b := establish(t, p)
	a.request(OpWrite, 8, 4096, 5)
	p.tick(2)
	a.admin(Admin{Kind: AdminDetach})
	p.tick(1)
	p.states(t, "Connected Primary/Secondary Diskless/UpToDate", "Connected Secondary/Primary UpToDate/Diskless")
	id := a.request(OpRead, 8, 4096, 0)
	w := a.request(OpWrite, 16, 4096, 6)
	p.tick(2)
	if a.outcome[id] != OK || a.reqs[id][0] != 5 {
		t.Fatalf("read: %v %v\n%s", a.outcome[id], a.reqs[id][0], p.take())
	}
	if o, ok := a.outcome[w]; !ok || o != OK || b.data[16] != 6 {
		t.Fatalf("write: %v %v\n%s", o, ok, p.take())
	}
	a.attach()
	p.tick(30)
	p.states(t, "Connected Primary/Secondary UpToDate/UpToDate", "Connected Secondary/Primary UpToDate/UpToDate")
	p.equal(t)
}

func TestFailedDiskIsDetachedAndServedByThePeer(t *testing.T) {
	p := newPair()
	a, b := establish(t, p)
	a.failing[OpWrite] = true
	id := a.request(OpWrite, 8, 4096, 5)
	p.tick(2)
	if o, ok := a.outcome[id]; !ok || o != OK || b.data[8] != 5 {
		t.Fatalf("write: %v %v\n%s", o, ok, p.take())
	}
	p.states(t, "Connected Primary/Secondary Diskless/UpToDate", "Connected Secondary/Primary UpToDate/Diskless")
}

func TestFailedPeerDiskIsRecordedBeforeTheAnswer(t *testing.T) {
	p := newPair()
	a, b := establish(t, p)
	before := a.r.vols[0].disk.sb.UUIDs.Current()
	b.failing[OpWrite] = true
	id := a.request(OpWrite, 8, 4096, 5)
	p.tick(2)
	if o, ok := a.outcome[id]; !ok || o != OK {
		t.Fatalf("write: %v %v\n%s", o, ok, p.take())
	}
	if now := a.r.vols[0].disk.sb.UUIDs.Current(); now == before {
		t.Fatal("no new data generation")
	}
	if a.r.vols[0].disk.bm.Weight() != 1 {
		t.Fatal("the write is not marked")
	}
}

func TestWritesWaitForTheNewGenerationToBeDurable(t *testing.T) {
	p := newPair()
	a, _ := establish(t, p)
	a.request(OpWrite, 8, 4096, 1) // its extent is in the log now, which is metadata too
	p.tick(3)
	a.stuck, p.apart = true, true
	p.cut()
	p.settle()
	id := a.request(OpWrite, 8, 4096, 5)
	p.settle()
	if _, ok := a.outcome[id]; ok {
		t.Fatal("answered before the new current UUID is on disk")
	}
	a.unstick()
	p.settle()
	a.answered(t, id, OK)
}

// A node that is promoted takes no write before it is on disk that it is Primary (P04).
func TestWritesWaitForThePromotionToBeDurable(t *testing.T) {
	p := newPair()
	a, _ := establish(t, p)
	a.request(OpWrite, 8, 4096, 1) // its extent is in the log now, which is metadata too
	p.tick(3)
	a.admin(Admin{Kind: AdminSecondary})
	p.tick(3)
	a.stuck = true
	a.admin(Admin{Kind: AdminPrimary})
	p.settle()
	id := a.request(OpWrite, 8, 4096, 5)
	p.settle()
	if _, ok := a.outcome[id]; ok || a.data[8] == 5 {
		t.Fatalf("answered %v, the disk has %d: the promotion is not on disk", ok, a.data[8])
	}
	a.unstick()
	p.tick(3)
	a.answered(t, id, OK)
	p.equal(t)
}

// Both ends of an exchange know then what either of them knew: the target that dies may come back
// without what was in its cache, or as the source (B09).
func TestBitmapsAreMergedAtBothEnds(t *testing.T) {
	p := newPair()
	a, b := establish(t, p)
	p.apart = true
	for _, n := range []*testNode{b, a} {
		n.admin(Admin{Kind: AdminDisconnect, Force: true})
	}
	p.settle()
	b.admin(Admin{Kind: AdminPrimary})
	p.settle()
	a.request(OpWrite, 0, 4096, 1)
	b.request(OpWrite, 80, 4096, 2)
	p.tick(2)
	b.admin(Admin{Kind: AdminSecondary})
	a.admin(Admin{Kind: AdminPauseSync})
	p.tick(2)
	p.apart = false
	b.admin(Admin{Kind: AdminConnect, DiscardMyData: true})
	a.admin(Admin{Kind: AdminConnect})
	p.tick(12)
	p.states(t, "PausedSyncS Primary/Secondary UpToDate/Inconsistent user_isp", "PausedSyncT Secondary/Primary Inconsistent/UpToDate peer_isp")
	for _, n := range p.nodes {
		if w := n.r.vols[0].disk.bm.Weight(); w != 2 {
			t.Errorf("%s: %d bits, want 2", n.name, w)
		}
	}
	a.admin(Admin{Kind: AdminResumeSync})
	p.tick(30)
	p.states(t, "Connected Primary/Secondary UpToDate/UpToDate", "Connected Secondary/Primary UpToDate/UpToDate")
	p.equal(t)
}

// The hot path must not allocate: a replicated write costs its packets and nothing else.
func TestWriteDoesNotAllocate(t *testing.T) {
	p := newPair()
	a, b := establish(t, p)
	p.quiet = true
	a.request(OpWrite, 8, 4096, 7)
	p.tick(3)
	var fx Effects
	scratch := make([]byte, 0, 64)
	step := func(n *testNode, ev Event) {
		fx.Reset()
		n.r.Step(&ev, &fx)
	}
	write := func() {
		step(a, Event{Kind: EvRequest, Op: OpWrite, Req: 1, Sector: 8, Size: 4096})
		body, local := append(scratch[:0], fx.Bytes(&fx.List[0])[16:]...), fx.List[1].IO
		step(b, Event{Kind: EvPacket, Gen: b.gen, Socket: DataSocket, Cmd: 0, Body: body, Buf: 1, Size: 4096})
		step(b, Event{Kind: EvDisk, IO: fx.List[0].IO})
		ack := append(scratch[:0], fx.Bytes(&fx.List[0])[16:]...)
		step(a, Event{Kind: EvDisk, IO: local})
		step(a, Event{Kind: EvPacket, Gen: a.gen, Socket: MetaSocket, Cmd: 0x16, Body: ack})
		if e := fx.List[0]; e.Kind != FxComplete || e.Outcome != OK {
			t.Fatalf("not completed: %+v", fx.List)
		}
	}
	for range 600 {
		write()
	}
	if n := testing.AllocsPerRun(400, write); n >= 1 {
		t.Fatalf("%v allocations per write", n)
	}
}
