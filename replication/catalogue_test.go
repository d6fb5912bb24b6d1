package replication

import (
	"bytes"
	"strings"
	"testing"

	"github.com/replblk/replblk/metadata"
	"github.com/replblk/replblk/replication/state"
	"github.com/replblk/replblk/replication/wire"
)

// Scenarios of the fault catalogue (docs/catalogue.txt) that need a test of their own.

// restart ends a node without notice and starts it again with another configuration.
func (n *testNode) restart(cfg Config) {
	n.r, n.inbox, n.wants = New(cfg), nil, false
	n.attach()
}

// alone steps a node through what it knows, while the other one stands still.
func (n *testNode) alone() {
	for n.next() {
	}
}

// A11: a Primary that kept no activity log crashes. The log of the next session says
// nothing about it: everything is marked, and stays so until that is on disk.
func TestCrashWithoutActivityLog(t *testing.T) {
	cfg := testConfig()
	cfg.Volumes[0].ALUpdates = false
	p := newPair(cfg, cfg)
	a, b := establish(t, p)
	a.request(OpWrite, 8, 4096, 5)
	p.tick(2)
	p.apart = true
	p.cut()
	a.data[8], b.data[8] = 6, 7 // what a power loss may leave of a write in progress
	a.stuck = true
	a.restart(testConfig())
	p.settle()
	a.stuck = false
	a.restart(testConfig()) // at once again
	p.settle()
	v := a.r.vols[0]
	if all := v.disk.bm.Bits(); v.disk.bm.Weight() != all {
		t.Fatalf("%d of %d bits are set\n%s", v.disk.bm.Weight(), all, p.take())
	}
	a.admin(Admin{Kind: AdminConnect})
	p.apart = false
	p.tick(100)
	p.states(t, "Connected Secondary/Secondary UpToDate/UpToDate", "Connected Secondary/Secondary UpToDate/UpToDate")
	if p.equal(t); b.data[8] != 7 || a.data[8] != 7 { // b has run all the time, so its data counts
		t.Fatalf("a has %d, b %d; the survivor had 7", a.data[8], b.data[8])
	}
	a.admin(Admin{Kind: AdminPrimary})
	p.tick(2)
	p.take()
	a.request(OpWrite, 80, 4096, 9)
	p.tick(2)
	if log := p.take(); !strings.Contains(log, "a: log\n") {
		t.Fatalf("the first write is not logged\n%s", log)
	}
}

// X06: a Primary that was stopped for longer than its peer waits reads nothing before the
// connection has proved that it lives.
func TestPausedPrimaryDoubtsItsConnection(t *testing.T) {
	p := newPair()
	a, _ := establish(t, p)
	p.tick(2)
	p.now += 2 * Second
	deaf := a.request(OpRead, 8, 4096, 0) // the first thing that it hears of
	a.alone()
	if _, answered := a.outcome[deaf]; answered {
		t.Fatalf("a read is answered after a pause\n%s", p.take())
	}
	p.settle() // the peer answers the ping
	if o, answered := a.outcome[deaf]; !answered || o != OK {
		t.Fatalf("the connection lives, and a read is answered %v %v\n%s", answered, o, p.take())
	}
	p.tick(2)
	p.now += 2 * Second
	zombie := a.request(OpRead, 8, 4096, 0)
	a.alone()
	p.apart = true
	p.nodes[1].drop(true) // it has given us up; its end is read later than the request
	if _, answered := a.outcome[zombie]; answered {
		t.Fatal("a zombie reads")
	}
	a.drop(true)
	p.settle()
	if _, answered := a.outcome[zombie]; !answered {
		t.Fatal("without fencing it goes on alone, and does not")
	}
}

// hears delivers a packet to a node as if its peer had sent it.
func (n *testNode) hears(cmd wire.Command, socket Socket, body []byte) {
	n.post(Event{Kind: EvPacket, Gen: n.gen, Cmd: cmd, Socket: socket, Body: body})
	n.alone()
}

// N11, N13: an answer that fits nothing that was asked ends the connection. The write is
// answered then, marked, and copied when the peer is back.
func TestAnswersThatFitNothing(t *testing.T) {
	ack := func(change func(*wire.BlockAck)) func(*testNode, wire.BlockAck, wire.BarrierAck) {
		return func(n *testNode, p wire.BlockAck, _ wire.BarrierAck) {
			change(&p)
			n.hears(wire.CmdWriteAck, MetaSocket, p.AppendTo(nil))
		}
	}
	barrier := func(change func(*wire.BarrierAck)) func(*testNode, wire.BlockAck, wire.BarrierAck) {
		return func(n *testNode, _ wire.BlockAck, p wire.BarrierAck) {
			change(&p)
			n.hears(wire.CmdBarrierAck, MetaSocket, p.AppendTo(nil))
		}
	}
	for name, lie := range map[string]func(*testNode, wire.BlockAck, wire.BarrierAck){
		"a block that was never sent":    ack(func(p *wire.BlockAck) { p.BlockID += 1 << 40 }),
		"another place":                  ack(func(p *wire.BlockAck) { p.Sector += 8 }),
		"a barrier that was never sent":  barrier(func(p *wire.BarrierAck) { p.Handle += 7 }),
		"fewer writes than in the epoch": barrier(func(p *wire.BarrierAck) { p.Count = 0 }),
		"more writes than in the epoch":  barrier(func(p *wire.BarrierAck) { p.Count += 5 }),
		"a barrier before its writes":    barrier(func(*wire.BarrierAck) {}),
	} {
		t.Run(name, func(t *testing.T) {
			p := newPair()
			a, b := establish(t, p)
			write := a.request(OpWrite, 8, 4096, 5)
			for range 25 { // until the epoch is old enough for a barrier
				a.post(Event{Kind: EvTick})
				a.alone()
				p.now += 100 * Millisecond
			}
			var want wire.BlockAck
			var number wire.BarrierAck
			for i := range b.inbox { // what b would answer
				switch ev := &b.inbox[i]; ev.Cmd {
				case wire.CmdData:
					r := wire.NewReader(ev.Cmd, ev.Body)
					var d wire.Data
					d.DecodeFrom(&r)
					want = wire.BlockAck{Sector: d.Sector, BlockID: d.BlockID, Size: 4096, Seq: d.Seq}
				case wire.CmdBarrier:
					r := wire.NewReader(ev.Cmd, ev.Body)
					var d wire.Barrier
					d.DecodeFrom(&r)
					number = wire.BarrierAck{Handle: d.Handle, Count: 1}
				default:
				}
			}
			if want.Size == 0 || number.Count == 0 {
				t.Fatalf("b has no write and no barrier to answer\n%s", p.take())
			}
			p.apart = true
			lie(a, want, number)
			if c := a.r.State(0).Conn; c >= state.WFReportParams {
				t.Fatalf("still %v after a lie\n%s", c, p.take())
			}
			p.tick(2)
			if o, ok := a.outcome[write]; !ok || o != OK || a.r.vols[0].disk.bm.Weight() != 1 {
				t.Fatalf("the write: %v %v, %d bits\n%s", ok, o, a.r.vols[0].disk.bm.Weight(), p.take())
			}
			p.apart = false
			p.tick(30)
			if p.equal(t); b.data[8] != 5 {
				t.Fatal("b misses the write")
			}
		})
	}
}

// H20, F09: our own challenge is not answered: whoever presents it wants our answer for
// himself. Nor is one that is too short or too long.
func TestChallenges(t *testing.T) {
	cfg := testConfig()
	cfg.CramHMACAlg, cfg.SharedSecret = "sha256", "geheim"
	for name, challenge := range map[string]func(own []byte) []byte{
		"our own":   func(own []byte) []byte { return own },
		"too short": func(own []byte) []byte { return own[:8] },
		"none":      func([]byte) []byte { return nil },
		"too long":  func([]byte) []byte { return make([]byte, wire.AuthChallengeMax+1) },
		"good":      func(own []byte) []byte { return bytes.Repeat([]byte{7}, len(own)) },
	} {
		p := newPair(cfg, cfg)
		a, b := p.nodes[0], p.nodes[1]
		for _, n := range p.nodes {
			n.attach()
			n.admin(Admin{Kind: AdminConnect})
			n.alone()
		}
		p.link()
		a.alone()
		for i := range b.inbox {
			if ev := b.inbox[i]; ev.Kind == EvPacket {
				a.hears(ev.Cmd, ev.Socket, ev.Body) // the features of a are good enough for a
				break
			}
		}
		own := append([]byte(nil), a.r.conn.challenge[:]...)
		p.take()
		a.hears(wire.CmdAuthChallenge, DataSocket, challenge(own))
		log := p.take()
		if answered := strings.Contains(log, "AuthResponse"); answered != (name == "good") || a.up != answered {
			t.Errorf("%s: answered %v, connected %v\n%s", name, answered, a.up, log)
		}
	}
}

// U12: a new generation with a cleared bitmap is not for a peer that is away: it would
// believe that it has everything.
func TestClearedBitmapNeedsThePeer(t *testing.T) {
	p := newPair()
	a, b := establish(t, p)
	p.apart = true
	p.cut()
	p.tick(2)
	a.request(OpWrite, 8, 4096, 5)
	p.tick(2)
	token := a.admin(Admin{Kind: AdminNewCurrentUUID, ClearBitmap: true})
	p.tick(2)
	if r, ok := a.replies[token]; !ok || r.OK() {
		t.Fatalf("answered %v: %v\n%s", ok, r, p.take())
	}
	p.apart = false
	p.tick(30)
	if p.equal(t); b.data[8] != 5 {
		t.Fatal("b misses the write")
	}
}

// P10: a node that is promoted is not outdated as well: one of the two is refused, in
// whatever order they come.
func TestOutdateAgainstPromotion(t *testing.T) {
	for _, order := range [][]AdminKind{{AdminPrimary, AdminOutdate}, {AdminOutdate, AdminPrimary}} {
		p := newPair(fencingConfig(), fencingConfig())
		_, b := establish(t, p)
		p.apart = true
		p.cut()
		p.tick(2)
		tokens := make(map[AdminKind]uint64)
		for _, kind := range order {
			tokens[kind] = b.admin(Admin{Kind: kind})
		}
		p.tick(2)
		for len(b.handlers) > 0 && b.handlers[0].IO != 0 {
			b.handled(t, HandlerFencePeer, fencePeerKilled)
			p.tick(2)
		}
		s := b.r.State(0)
		promoted, outdated := b.replies[tokens[AdminPrimary]].OK(), b.replies[tokens[AdminOutdate]].OK()
		if promoted == outdated || promoted != (s.Role == state.Primary) || outdated != (s.Disk == state.Outdated) {
			t.Errorf("%v: promoted %v, outdated %v, %v\n%s", order, promoted, outdated, s, p.take())
		}
	}
}

// U08: the peer's disk turns out to be gone while I/O is frozen. The generation is new
// before I/O goes on.
func TestPeerWithoutADiskWhileFrozen(t *testing.T) {
	p := newPair(fencingConfig(), fencingConfig())
	a, b := establish(t, p)
	before := a.r.vols[0].disk.sb.UUIDs
	p.apart = true
	p.cut()
	p.settle()
	id := a.request(OpWrite, 8, 4096, 5)
	p.tick(5)
	b.r, b.inbox, b.wants = New(fencingConfig()), nil, false // back without its disk
	b.admin(Admin{Kind: AdminConnect})
	p.apart = false
	p.tick(30)
	now := a.r.vols[0].disk.sb.UUIDs
	if o, ok := a.outcome[id]; !ok || o != OK || now.Current()|1 == before.Current()|1 || now.Bitmap()|1 != before.Current()|1 {
		t.Fatalf("answered %v %v, generations %x after %x, %v\n%s", ok, o, now, before, a.r.State(0), p.take())
	}
	b.attach()
	p.tick(50)
	if p.equal(t); b.data[8] != 5 {
		t.Fatalf("b misses the write: %v\n%s", b.r.State(0), p.take())
	}
}

// W18: a FLUSH with nothing to flush closes no epoch, and one without a disk is the
// peer's affair.
func TestEmptyFlush(t *testing.T) {
	p := newPair()
	a, _ := establish(t, p)
	p.tick(3)
	p.take()
	id := a.request(OpFlush, 0, 0, 0)
	p.tick(1)
	if log := p.take(); a.outcome[id] != OK || strings.Contains(log, "a>b: Barrier") {
		t.Fatalf("an empty flush: %v\n%s", a.outcome[id], log)
	}
	a.admin(Admin{Kind: AdminDetach})
	p.tick(1)
	a.request(OpWrite, 8, 4096, 5)
	id = a.request(OpFlush, 0, 0, 0)
	p.tick(3)
	if o, ok := a.outcome[id]; !ok || o != OK {
		t.Fatalf("a flush without a disk: %v %v\n%s", ok, o, p.take())
	}
	p.apart = true
	p.cut()
	p.tick(2)
	id = a.request(OpFlush, 0, 0, 0)
	p.tick(2)
	if o, ok := a.outcome[id]; !ok || o == OK {
		t.Fatalf("a flush without any disk: %v %v\n%s", ok, o, p.take())
	}
}

// H14: the operator's commands at every step of a handshake end, and so does the
// handshake.
func TestCommandsDuringTheHandshake(t *testing.T) {
	for _, kind := range []AdminKind{AdminDisconnect, AdminDetach, AdminSecondary, AdminInvalidate, AdminOutdate} {
		for steps := range 40 {
			p := newPair()
			p.quiet = true
			a, b := p.nodes[0], p.nodes[1]
			establishQuiet(p)
			p.apart = true
			p.cut()
			p.tick(1)
			p.apart = false
			for range steps { // one event of each node at a time
				p.link()
				for _, n := range p.nodes {
					n.next()
				}
			}
			token := b.admin(Admin{Kind: kind})
			p.tick(60)
			if _, ok := b.replies[token]; !ok {
				t.Fatalf("command %d after %d events is not answered: %v", kind, steps, b.r.State(0))
			}
			for _, n := range []*testNode{a, b} {
				if c := n.r.State(0).Conn; c != state.Connected && c != state.StandAlone && c != state.WFConnection {
					t.Fatalf("command %d after %d events: %s stays %v", kind, steps, n.name, c)
				}
			}
		}
	}
}

// establishQuiet brings a pair in sync, a being Primary.
func establishQuiet(p *pair) {
	p.bringUp()
	p.settle()
	p.nodes[0].admin(Admin{Kind: AdminNewCurrentUUID, ClearBitmap: true})
	p.settle()
	p.nodes[0].admin(Admin{Kind: AdminPrimary})
	p.settle()
}

// R23: whatever the options and the answers are, the budget of a resync stays within
// what the device and max-buffers allow, and a resync that has nothing in flight may ask.
func TestRateControllerIsBounded(t *testing.T) {
	extremes := []uint32{0, 1, 250, 1 << 20, 1<<32 - 1}
	for _, rate := range extremes {
		for _, ahead := range []int{0, 1, 20, 300, 1 << 30} {
			for _, fill := range extremes {
				for _, answered := range []uint64{0, 1, 1 << 20, 1 << 62} {
					v := VolumeConfig{ResyncRateKiB: rate, PlanAheadTenths: uint32(ahead), FillTargetSector: fill,
						DelayTargetTenth: rate, MaxRateKiB: rate}
					var c rateController
					c.reset(ahead)
					for tick := range 50 {
						c.answered = answered * uint64(tick%2) // flapping
						c.tick(&v)
						if c.budget < 0 || c.inflight < 0 || c.budget > 1<<40 {
							t.Fatalf("%+v, answered %d: budget %d, in flight %d", v, answered, c.budget, c.inflight)
						}
						c.spend(uint64(min(c.budget, 1<<16)))
					}
				}
			}
		}
	}
}

// H21: while connected, the peer attaches a disk with the data of something else. It does
// not get it, and neither copy is touched.
func TestPeerAttachesOtherData(t *testing.T) {
	p := newPair()
	a, b := establish(t, p)
	a.request(OpWrite, 8, 4096, 5)
	p.tick(2)
	b.admin(Admin{Kind: AdminDetach})
	p.tick(2)
	var sb metadata.Superblock
	if err := sb.Decode(b.super); err != nil {
		t.Fatal(err)
	}
	sb.UUIDs = metadata.UUIDs{0x1234567890abcdea, 0, 0x3333333333333332, 0}
	b.super = sb.AppendTo(nil)
	b.data[8] = 77
	b.attach()
	p.tick(20)
	p.states(t, "Connected Primary/Secondary UpToDate/Diskless", "Connected Secondary/Primary Diskless/UpToDate")
	if a.data[8] != 5 || b.data[8] != 77 {
		t.Fatalf("a has %d, b has %d", a.data[8], b.data[8])
	}
}

// A Primary without a disk wrote to its peer, whose disk fails too. The own disk does not come
// back with what it had before those writes: they are somewhere, and were acknowledged.
func TestPrimaryDoesNotGoBackInTime(t *testing.T) {
	p := newPair()
	a, b := establish(t, p)
	a.admin(Admin{Kind: AdminDetach})
	p.tick(2)
	id := a.request(OpWrite, 8, 4096, 5)
	p.tick(2)
	if a.outcome[id] != OK || b.data[8] != 5 || a.data[8] == 5 {
		t.Fatalf("write of a node without a disk: %v, b has %d, a %d", a.outcome[id], b.data[8], a.data[8])
	}
	b.failing[OpWrite] = true
	a.request(OpWrite, 16, 4096, 6)
	p.tick(20)
	p.take()
	a.attach()
	p.tick(20)
	p.states(t, "Connected Primary/Secondary Diskless/Diskless", "Connected Secondary/Primary Diskless/Diskless")
	if log := p.take(); strings.Contains(log, "ReportUUIDs") {
		t.Fatalf("the peer hears of the disk, and would take it for the one in use:\n%s", log)
	}
	b.failing[OpWrite] = false
	b.attach()
	p.tick(20)
	a.attach()
	p.tick(40)
	p.states(t, "Connected Primary/Secondary UpToDate/UpToDate", "Connected Secondary/Primary UpToDate/UpToDate")
	if a.data[8] != 5 {
		t.Fatalf("a has %d", a.data[8])
	}
	p.equal(t)
}

// I15: an attachment that the peer has no opinion about does not wait for ever.
func TestAttachmentWithoutAnOpinion(t *testing.T) {
	p := newPair()
	a, b := establish(t, p)
	b.admin(Admin{Kind: AdminDetach})
	p.tick(2)
	a.request(OpWrite, 8, 4096, 5)
	p.tick(2)
	b.attach()
	b.alone()
	kept := a.inbox[:0]
	for _, ev := range a.inbox { // a never hears of it
		if ev.Kind != EvPacket {
			kept = append(kept, ev)
		}
	}
	a.inbox = kept
	p.tick(20)
	if d := b.r.State(0).Disk; d != state.Negotiating {
		t.Fatalf("b's disk is %v\n%s", d, p.take())
	}
	p.tick(400)
	p.states(t, "Connected Primary/Secondary UpToDate/UpToDate", "Connected Secondary/Primary UpToDate/UpToDate")
	p.equal(t)
}
