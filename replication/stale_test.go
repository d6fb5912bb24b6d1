package replication

import (
	"slices"
	"strings"
	"testing"

	"github.com/replblk/replblk/replication/state"
)

// TestLateSuperblockIsNotForTheNextConnection: the superblock with the sync UUID is written
// when the connection is gone. On the next one it must not start a resync before the
// bitmaps are exchanged. This is the source; a target does not connect again before (see
// TestAdoptedUUIDsAreDurableBeforeTheNextConnection).
func TestLateSuperblockIsNotForTheNextConnection(t *testing.T) {
	p := newPair()
	a, b := establish(t, p)
	b.admin(Admin{Kind: AdminDisconnect})
	p.settle()
	for i := range uint64(20) {
		a.request(OpWrite, i*4096, 4096, 100+i)
	}
	p.tick(3)
	n := a
	var late []Event
	hold := func() {
		kept := n.inbox[:0]
		for _, ev := range n.inbox {
			if ev.Kind == EvMeta && ev.IO.class() == classSuper {
				late = append(late, ev)
			} else {
				kept = append(kept, ev)
			}
		}
		n.inbox = kept
	}
	waits := state.WFBitMapS
	b.admin(Admin{Kind: AdminConnect})
	for range 2000 {
		for _, n := range p.nodes {
			hold()
			n.next()
		}
		hold()
		p.link()
	}
	if c := n.r.State(0).Conn; c != waits {
		t.Fatalf("%s is %v, want %v\n%s", n.name, c, waits, p.take())
	}
	p.cut()
	p.take()
	held := true
	for range 2000 { // the next handshake, until the bitmaps are due
		for _, n := range p.nodes {
			n.next()
		}
		if c := n.r.State(0).Conn; held && (c == state.WFBitMapS || c == state.WFSyncUUID) {
			held = false
			n.inbox = append(late, n.inbox...)
		}
		p.link()
	}
	p.tick(30)
	p.states(t, "Connected Primary/Secondary UpToDate/UpToDate", "Connected Secondary/Primary UpToDate/UpToDate")
	p.equal(t)
	if log := p.take(); strings.Contains(log, NoteProtocolError.String()) {
		t.Errorf("%s had the slow disk: %s", n.name, log)
	}
	if n := len(late); n == 0 || held {
		t.Errorf("%d superblocks were late, held %v", n, held)
	}
}

// TestSourceIsNamedBeforeItIsWritten: a survivor is promoted while it waits to become the source
// of the Primary that has crashed. What is written to it then is answered when its sync UUID
// is on disk: until then the two copies look equal, and if it crashed too, the other one might
// be the source (found by the simulator, plan promoted-before-its-resync).
func TestSourceIsNamedBeforeItIsWritten(t *testing.T) {
	p := newPair(fastResync(), fastResync())
	a, b := establish(t, p)
	a.request(OpWrite, 8, 4096, 5)
	p.tick(3)
	p.cut()
	a.r, a.inbox, a.wants = New(fastResync()), nil, false
	b.silent = true
	a.attach()
	a.admin(Admin{Kind: AdminConnect})
	p.tick(12)
	if s := b.r.State(0); s.Conn != state.WFBitMapS {
		t.Fatalf("b is %v\n%s", s, p.take())
	}
	promoted := b.admin(Admin{Kind: AdminPrimary})
	id := b.request(OpWrite, 80, 4096, 6)
	p.tick(3)
	if o, ok := b.outcome[id]; ok || !b.replies[promoted].OK() || b.r.vols[0].disk.sb.UUIDs.Bitmap() != 0 {
		t.Fatalf("write answered %v %v, promotion %v\n%s", ok, o, b.replies[promoted], p.take())
	}
	b.stuck, b.silent = true, false // the superblock does not get to the disk yet
	b.post(Event{Kind: EvHandler, IO: ioFor(classVeto, 0)})
	p.tick(3)
	if _, ok := b.outcome[id]; ok {
		t.Fatalf("answered before the sync UUID is durable\n%s", p.take())
	}
	b.stuck = false
	for _, io := range b.unsaid {
		b.post(Event{Kind: EvMeta, IO: io})
	}
	p.tick(30)
	if b.outcome[id] != OK || a.data[80] != 6 {
		t.Fatalf("write: %v, %d\n%s", b.outcome[id], a.data[80], p.take())
	}
	p.states(t, "Connected Secondary/Primary UpToDate/UpToDate", "Connected Primary/Secondary UpToDate/UpToDate")
	p.equal(t)
}

// TestResyncReadWaitsForThePeersWrite: under protocol A a Primary loses its disk while the peer's
// disk still has a write of it. When the Primary's disk is back it is resynced from the peer,
// which must not read the block before that write is done: what came then was older, and the
// newer contents stayed on one disk only (found by the simulator, seed 202263).
func TestResyncReadWaitsForThePeersWrite(t *testing.T) {
	cfg := fastResync()
	cfg.Protocol = ProtocolA
	p := newPair(cfg, cfg)
	a, b := establish(t, p)
	a.request(OpWrite, 8, 4096, 5)
	p.tick(3)
	a.failing[OpWrite], b.hung = true, true
	id := a.request(OpWrite, 8, 4096, 6)
	p.settle()
	if s := a.r.State(0); a.outcome[id] != OK || len(b.owed) != 1 || s.Disk != state.Diskless {
		t.Fatalf("write %v, the peer's disk has %d, a is %v\n%s", a.outcome[id], len(b.owed), s, p.take())
	}
	a.failing[OpWrite], b.hung = false, false
	a.attach()
	p.tick(5)
	if s := a.r.State(0); s.Conn != state.SyncTarget || a.r.vols[0].disk.bm.Weight() == 0 {
		t.Fatalf("a is %v, %d bits, before the write is done\n%s", s, a.r.vols[0].disk.bm.Weight(), p.take())
	}
	for i := range uint64(8) {
		b.data[8+i] = 6
	}
	b.post(Event{Kind: EvDisk, IO: b.owed[0]})
	p.tick(30)
	p.states(t, "Connected Primary/Secondary UpToDate/UpToDate", "Connected Secondary/Primary UpToDate/UpToDate")
	p.equal(t)
	if a.data[8] != 6 {
		t.Errorf("a has %d", a.data[8])
	}
}

// TestEndOfResyncIsDurableFirst: at the end of a resync its source forgets what made it the source.
// Until that is on disk it would be the source again after a crash, whatever the target has got
// since, so it answers nothing (found by the simulator, seed 513 of d658fce).
func TestEndOfResyncIsDurableFirst(t *testing.T) {
	p, a, b := outdated(t)
	var late []Event
	hold := func() {
		a.inbox = slices.DeleteFunc(a.inbox, func(ev Event) bool {
			if ev.Kind != EvMeta || ev.IO.class() != classSuper {
				return false
			}
			late = append(late, ev)
			return true
		})
	}
	for step := 0; len(late) == 0; step++ {
		if step == 1e5 {
			t.Fatalf("a is %v\n%s", a.r.State(0), p.take())
		}
		source := a.r.State(0).Conn == state.SyncSource
		progress := p.link()
		for _, n := range p.nodes {
			progress = n.next() || progress
		}
		if source && a.r.State(0).Conn == state.Connected {
			hold()
		}
		if !progress {
			p.now += 100 * Millisecond
			a.post(Event{Kind: EvTick})
			b.post(Event{Kind: EvTick})
		}
	}
	id := a.request(OpWrite, 800, 4096, 6)
	p.settle()
	hold()
	if o, ok := a.outcome[id]; ok {
		t.Fatalf("answered %v\n%s", o, p.take())
	}
	for _, ev := range late {
		a.post(ev)
	}
	p.tick(3)
	if o, ok := a.outcome[id]; !ok || o != OK || b.data[800] != 6 {
		t.Fatalf("write: %v %v, %d\n%s", ok, o, b.data[800], p.take())
	}
}

// TestAdoptedUUIDsAreDurableBeforeTheNextConnection: a target that has taken its source's sync
// UUID, and loses the connection before it is on its disk, must not tell it in the next: after a
// power loss it would come back with an older one, which the source has forgotten by then.
func TestAdoptedUUIDsAreDurableBeforeTheNextConnection(t *testing.T) {
	p, _, b := outdated(t)
	b.stuck = true
	p.tick(2)
	if s := b.r.State(0); s.Conn != state.WFSyncUUID || s.Disk != state.Inconsistent {
		t.Fatalf("b is %v\n%s", s, p.take())
	}
	p.apart = true
	p.cut()
	p.tick(5)
	if s := b.r.State(0); s.Conn >= state.WFConnection {
		t.Errorf("b is %v before the sync UUID is durable", s)
	}
	b.stuck = false
	for _, io := range b.unsaid {
		b.post(Event{Kind: EvMeta, IO: io})
	}
	b.unsaid = nil
	p.apart = false
	p.tick(5)
	p.resynced(t)
}

// TestRefusedWriteEndsTheWait: the target of a resync loses its disk and its connection while a
// block of the resync is on its way to the disk and a write of the peer waits for it. When the
// disk has done, nothing of the old connection is left, and a new one may come (found by the
// simulator, seeds 36140 and 36675: it never came).
func TestRefusedWriteEndsTheWait(t *testing.T) {
	p, a, b := outdated(t)
	b.hung = true
	for step := 0; len(b.owed) == 0; step++ {
		if step == 200 {
			t.Fatalf("no block is on its way to the disk, b is %v\n%s", b.r.State(0), p.take())
		}
		p.tick(1)
	}
	a.request(OpWrite, 0, 4096, 8) // the same block
	p.settle()
	if n := len(b.r.peer.queue); n != 1 {
		t.Fatalf("%d writes wait\n%s", n, p.take())
	}
	p.apart = true
	b.admin(Admin{Kind: AdminDetach, Force: true})
	b.next()
	p.cut()
	p.settle()
	b.hung = false
	for _, io := range b.owed {
		b.post(Event{Kind: EvDisk, IO: io})
	}
	b.owed = nil
	p.tick(3)
	if s := b.r.State(0); s.Conn != state.WFConnection {
		t.Errorf("b is %v, %d requests of the peer are in use", s, b.r.peer.used)
	}
}

// TestNegotiatingDiskTakesNoRequest: a Primary has lost its disk and has it back, and does not know
// yet that the peer's is newer. A verify that the peer asked for before it heard of the disk
// would take it for UpToDate (found by the simulator, seeds 212283 and 223085).
func TestNegotiatingDiskTakesNoRequest(t *testing.T) {
	cfg := fastResync()
	cfg.VerifyAlg = "crc32c"
	p := newPair(cfg, cfg)
	a, b := establish(t, p)
	a.request(OpWrite, 8, 4096, 5)
	p.tick(3)
	b.asleep = true // its process is stopped
	a.admin(Admin{Kind: AdminDetach, Force: true})
	p.settle()
	a.request(OpWrite, 8, 4096, 6)
	a.attach()
	p.settle()
	if d := a.r.State(0).Disk; d != state.Negotiating {
		t.Fatalf("a is %v\n%s", a.r.State(0), p.take())
	}
	verify := Event{Kind: EvAdmin, Admin: &Admin{Kind: AdminVerify, Token: 99}}
	b.inbox = append([]Event{verify}, b.inbox...) // before all that has happened meanwhile
	b.asleep = false
	b.next()
	b.asleep = true
	p.settle()
	if s := a.r.State(0); s.Disk != state.Negotiating || s.Conn != state.Connected {
		t.Fatalf("a is %v\n%s", s, p.take())
	}
	b.asleep = false
	p.tick(60)
	p.states(t, "Connected Primary/Secondary UpToDate/UpToDate", "Connected Secondary/Primary UpToDate/UpToDate")
	if p.equal(t); a.data[8] != 6 {
		t.Fatalf("a has %d", a.data[8])
	}
}

// A Primary has its peer declared invalid, and a write fails on its own disk before the answer comes.
// The peer agrees, and acknowledges that write: it is not answered, for the disk is attached again
// meanwhile, and is found to be the good one (simulator, seed 245694).
func TestPeerThatObeyedIsInvalid(t *testing.T) {
	p := newPair()
	a, b := establish(t, p)
	a.hung, b.asleep = true, true
	w := a.request(OpWrite, 8, 4096, 5)
	token := a.admin(Admin{Kind: AdminInvalidateRemote})
	p.settle()
	a.hung = false
	a.post(Event{Kind: EvDisk, IO: a.owed[0], Err: DiskIOError})
	p.tick(testConfig().TimeoutTenths + 2) // as long as the peer's new generation is waited for
	a.attach()
	p.settle()
	if s := a.r.State(0); s.Disk != state.Negotiating || s.PeerDisk != state.UpToDate {
		t.Fatalf("a is %v\n%s", s, p.take())
	}
	a.asleep, b.asleep = true, false
	p.settle()
	late := slices.DeleteFunc(slices.Clone(a.inbox), func(ev Event) bool { return ev.Socket == MetaSocket })
	a.inbox = slices.DeleteFunc(a.inbox, func(ev Event) bool { return ev.Socket == DataSocket })
	a.alone()
	if o, ok := a.outcome[w]; ok && o == OK || b.data[8] != 5 || a.data[8] == 5 {
		t.Fatalf("a is %v, the write is answered: %v %v; it is on a: %d, on b: %d\n%s", a.r.State(0), ok, o, a.data[8], b.data[8], p.take())
	}
	a.inbox, a.asleep = append(a.inbox, late...), false
	p.tick(20)
	a.attach() // it was refused as long as the peer's seemed good
	p.tick(100)
	p.states(t, "Connected Primary/Secondary UpToDate/UpToDate", "Connected Secondary/Primary UpToDate/UpToDate")
	p.equal(t)
	if o := a.outcome[w]; o != IOError || a.replies[token] != state.InTransientState {
		t.Fatalf("write: %v, the peer's invalidation: %v", o, a.replies[token])
	}
}
