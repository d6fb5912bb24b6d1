package replication

import (
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/replblk/replblk/replication/state"
	"github.com/replblk/replblk/replication/wire"
)

// twoPrimaryPair is a connected pair whose nodes are both Primary. a resolves conflicts.
func twoPrimaryPair(t *testing.T) (*pair, *testNode, *testNode) {
	t.Helper()
	return twoPrimariesWith(t, testConfig())
}

func twoPrimariesWith(t *testing.T, cfg Config) (*pair, *testNode, *testNode) {
	t.Helper()
	cfg.TwoPrimaries = true
	p := newPair(cfg, cfg)
	a, b := establish(t, p)
	token := b.admin(Admin{Kind: AdminPrimary})
	p.tick(3)
	ok(t, p, b, token)
	p.states(t, "Connected Primary/Primary UpToDate/UpToDate", "Connected Primary/Primary UpToDate/UpToDate")
	return p, a, b
}

// TestTwoPrimariesConflicts has both nodes write at once. Both disks end with the same, the
// writes are answered, and the log shows how it was decided.
func TestTwoPrimariesConflicts(t *testing.T) {
	for _, c := range []struct {
		name         string
		aAt, bAt     uint64
		aSize, bSize uint32
		want         string // on the meta socket of a
		final        uint64 // of the sector that both write
	}{
		{"the resolver's covers", 8, 16, 16384, 4096, "a>b: Superseded", 1},
		{"equal", 8, 8, 4096, 4096, "a>b: Superseded", 1},
		{"the other one's is larger", 16, 8, 4096, 16384, "a>b: retry_write", 2},
		{"each has a part of its own", 8, 16, 8192, 8192, "a>b: retry_write", 2},
		{"no overlap", 8, 64, 4096, 4096, "a>b: WriteAck", 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, a, b := twoPrimaryPair(t)
			p.take()
			x := a.request(OpWrite, c.aAt, c.aSize, 1)
			y := b.request(OpWrite, c.bAt, c.bSize, 2)
			p.settle()
			if log := p.log.String(); !strings.Contains(log, c.want) {
				t.Errorf("want %q in\n%s", c.want, log)
			}
			p.tick(5)
			for n, id := range map[*testNode]ReqID{a: x, b: y} {
				if o, done := n.outcome[id]; !done || o != OK {
					t.Fatalf("%s: write is answered %v %v\n%s", n.name, o, done, p.take())
				}
			}
			p.equal(t)
			if got := a.data[max(c.aAt, c.bAt%64)]; got != c.final {
				t.Errorf("the disks have %d, want %d", got, c.final)
			}
			p.states(t, "Connected Primary/Primary UpToDate/UpToDate", "Connected Primary/Primary UpToDate/UpToDate")
			if len(a.r.tl.closed)+len(b.r.tl.closed) != 0 {
				t.Errorf("%d and %d epochs are not confirmed", len(a.r.tl.closed), len(b.r.tl.closed))
			}
		})
	}
}

// TestTwoPrimariesAllowedLater: the writes that came before adjust allowed two primaries count in
// the numbering, or the first one after it would wait for them for ever.
func TestTwoPrimariesAllowedLater(t *testing.T) {
	p := newPair()
	a, b := establish(t, p)
	for i, kind := range []AdminKind{AdminSecondary, AdminPrimary} {
		n := p.nodes[i]
		token := n.admin(Admin{Kind: kind})
		p.tick(3)
		ok(t, p, n, token)
	}
	before := b.request(OpWrite, 8, 4096, 1)
	p.tick(1)
	next := testConfig()
	next.TwoPrimaries = true
	a.admin(Admin{Kind: AdminAdjust, Config: &next})
	p.settle()
	after := b.request(OpWrite, 16, 4096, 2)
	p.tick(10)
	for _, id := range []ReqID{before, after} {
		if o, done := b.outcome[id]; !done || o != OK {
			t.Errorf("write %d is answered %v %v\n%s", id, o, done, p.take())
		}
	}
	if p.gen != 1 {
		t.Errorf("the nodes have connected %d times\n%s", p.gen, p.take())
	}
	p.equal(t)
}

// TestTwoPrimariesAtRandom: many writes at once to few blocks, flushes and discards between
// them. Everything is answered, the copies are equal, nothing is left over.
func TestTwoPrimariesAtRandom(t *testing.T) {
	for seed := range uint64(60) {
		p, a, b := twoPrimaryPair(t)
		p.quiet = true
		rng := rand.New(rand.NewPCG(seed, 3))
		asked := map[*testNode][]ReqID{}
		for round := range uint64(40) {
			for _, n := range p.nodes {
				for range rng.IntN(6) {
					op := []Op{OpWrite, OpWrite, OpWrite, OpWrite, OpDiscard, OpFlush}[rng.IntN(6)]
					at, size := rng.Uint64N(64), uint32(1+rng.IntN(32))*512
					if op == OpFlush {
						at, size = 0, 0
					}
					asked[n] = append(asked[n], n.request(op, at, size, round*1000+uint64(len(asked[n]))))
				}
			}
			if rng.IntN(3) > 0 {
				p.settle()
			}
			if rng.IntN(6) == 0 {
				p.tick(1)
			}
		}
		p.tick(5)
		for n, list := range asked {
			for _, id := range list {
				if o, done := n.outcome[id]; !done || o != OK {
					t.Fatalf("seed %d: %s: request %d: %v %v", seed, n.name, id, o, done)
				}
			}
		}
		p.equal(t)
		p.states(t, "Connected Primary/Primary UpToDate/UpToDate", "Connected Primary/Primary UpToDate/UpToDate")
		for _, n := range []*testNode{a, b} {
			if v := n.r.vols[0]; len(v.active)+len(v.waiting)+len(v.gate)+len(n.r.tl.closed)+len(n.r.peer.epochs)+len(n.r.tl.flushes) != 0 {
				t.Fatalf("seed %d: %s: something is left over", seed, n.name)
			}
		}
	}
}

// TestTwoPrimariesGate: a write that overtook the answers before it waits for them; if they do
// not come, the connection ends.
func TestTwoPrimariesGate(t *testing.T) {
	p, a, _ := twoPrimaryPair(t)
	v := a.r.vols[0]
	next := v.peerSeq
	data := func(seq uint32, sector uint64) {
		a.nextBuf++
		a.bufs[a.nextBuf] = make([]uint64, 8)
		d := wire.Data{Sector: sector, BlockID: uint64(seq), Seq: seq, Flags: wire.FlagSendWriteAck}
		a.post(Event{Kind: EvPacket, Gen: a.gen, Socket: DataSocket, Cmd: wire.CmdData, Body: d.AppendTo(nil), Buf: a.nextBuf, Size: 4096})
		p.settle()
	}
	data(next+2, 0)
	if len(v.gate) != 1 || v.peerSeq != next {
		t.Fatalf("gate %v, sequence %d, want %d", v.gate, v.peerSeq, next)
	}
	p.tick(12)
	if s := a.r.State(0); s.Conn == state.Connected && len(v.gate) > 0 {
		t.Fatalf("still waiting: %v", s)
	}
	if len(v.gate) != 0 || a.r.peer.used != 0 {
		t.Fatalf("gate %v, %d requests of the peer left", v.gate, a.r.peer.used)
	}
}

// TestTwoPrimariesEpochs: epochs that lose writes, or all of them, to refusals.
func TestTwoPrimariesEpochs(t *testing.T) {
	_, a, _ := twoPrimaryPair(t)
	tl := &a.r.tl
	add := func(n int) (ids []ioID) {
		for range n {
			id := a.r.ios.alloc()
			a.r.ios.list[id].vol = a.r.vols[0]
			tl.add(a.r, id)
			ids = append(ids, id)
		}
		return ids
	}
	shut := func() { tl.closed, tl.cur = append(tl.closed, tl.cur), epoch{number: tl.cur.number + 1} }
	x := add(3)
	first := tl.cur.number
	tl.remove(a.r, x[1])
	tl.remove(a.r, x[2])
	x = append(x, add(1)...)
	if tl.cur.count != 2 || tl.cur.head != x[0] || tl.cur.tail != x[3] || a.r.ios.list[x[0]].next != x[3] {
		t.Fatalf("epoch %+v of %v", tl.cur, x)
	}
	tl.remove(a.r, x[0])
	if tl.cur.head != x[3] || tl.cur.count != 1 {
		t.Fatalf("epoch %+v", tl.cur)
	}
	shut()
	y := add(2)
	shut()
	for _, c := range []struct {
		handle, count uint32
		want          int
	}{
		{first, 1, 1}, {first, 4, 1}, {first, 2, 0}, {first + 1, 2, 2}, {first + 1, 1, 0}, {first + 2, 2, 0},
	} {
		if n := tl.confirmed(c.handle, c.count); n != c.want {
			t.Errorf("ack of epoch %d with %d writes confirms %d, want %d", c.handle-first, c.count, n, c.want)
		}
	}
	tl.remove(a.r, y[0])
	tl.flushes = append(tl.flushes, a.r.ios.alloc())
	a.r.ios.list[tl.flushes[0]].epoch = first + 1
	tl.remove(a.r, y[1])
	if len(tl.closed) != 1 || a.r.ios.list[tl.flushes[0]].epoch != first {
		t.Errorf("%d epochs left, flush waits for %d", len(tl.closed), a.r.ios.list[tl.flushes[0]].epoch-first)
	}
}

// TestTwoPrimariesLost: when the connection breaks both go on with a generation of their own:
// a split brain, which after-sb-2pri leaves to the operator.
func TestTwoPrimariesLost(t *testing.T) {
	p, a, b := twoPrimaryPair(t)
	p.cut()
	p.tick(30)
	for _, n := range []*testNode{a, b} {
		if s := n.r.State(0); s.Role != state.Primary || s.Disk != state.UpToDate || s.Conn >= state.Connected {
			t.Fatalf("%s: %v", n.name, s)
		}
	}
	if a.r.vols[0].disk.sb.UUIDs.Same(&b.r.vols[0].disk.sb.UUIDs) {
		t.Fatal("no new generation")
	}
	b.admin(Admin{Kind: AdminSecondary})
	p.tick(3)
	b.admin(Admin{Kind: AdminDisconnect})
	p.tick(3)
	b.admin(Admin{Kind: AdminConnect, DiscardMyData: true})
	a.admin(Admin{Kind: AdminConnect})
	p.tick(40)
	p.states(t, "Connected Primary/Secondary UpToDate/UpToDate", "Connected Secondary/Primary UpToDate/UpToDate")
	token := b.admin(Admin{Kind: AdminPrimary})
	p.tick(3)
	ok(t, p, b, token)
	token = a.admin(Admin{Kind: AdminSecondary})
	p.tick(3)
	ok(t, p, a, token)
	p.states(t, "Connected Secondary/Primary UpToDate/UpToDate", "Connected Primary/Secondary UpToDate/UpToDate")
}

// TestTwoPrimariesNeedProtocolC: with another protocol the second promotion is refused.
func TestTwoPrimariesNeedProtocolC(t *testing.T) {
	cfg := testConfig()
	cfg.TwoPrimaries, cfg.Protocol = true, ProtocolB
	p := newPair(cfg, cfg)
	_, b := establish(t, p)
	token := b.admin(Admin{Kind: AdminPrimary})
	p.tick(7)
	if r := b.replies[token]; r != state.TwoPrimaries {
		t.Fatalf("promotion: %v", r)
	}
}

// TestTwoPrimariesVerify: a write that the resolver has refused is done again although the digest
// of a block that it touches is asked for. That waits for the write, so one of them must not wait.
func TestTwoPrimariesVerify(t *testing.T) {
	p, a, b := twoPrimariesWith(t, withVerify())
	a.admin(Admin{Kind: AdminPauseSync})
	a.admin(Admin{Kind: AdminVerify, Start: 8})
	p.tick(2)
	p.take()
	a.request(OpWrite, 16, 4096, 1)
	a.next()
	inbox := b.inbox
	b.inbox = nil
	write := b.request(OpWrite, 8, 8192, 2)
	b.next()
	b.inbox = append(b.inbox, inbox...)
	inbox = a.inbox
	a.inbox = nil
	a.admin(Admin{Kind: AdminResumeSync})
	a.next() // asks for the digest, and hears of the write after that
	a.inbox = append(a.inbox, inbox...)
	p.settle()
	if log := p.take(); !strings.Contains(log, "a>b: retry_write") || !strings.Contains(log, "a>b: OVRequest") {
		t.Fatalf("no write refused, or no digest asked for\n%s", log)
	}
	if o, done := b.outcome[write]; !done || o != OK {
		t.Errorf("the write is answered %v %v\n%s", o, done, p.take())
	}
	p.finished(t, 0)
	p.equal(t)
}
