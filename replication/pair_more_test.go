package replication

import (
	"testing"

	"github.com/replblk/replblk/replication/state"
	"github.com/replblk/replblk/replication/wire"
)

func withProtocol(proto Protocol) Config {
	c := testConfig()
	c.Protocol = proto
	return c
}

func TestProtocolsAAndB(t *testing.T) {
	for _, proto := range []Protocol{ProtocolA, ProtocolB} {
		p := newPair(withProtocol(proto), withProtocol(proto))
		a, b := establish(t, p)
		for i := range uint64(50) {
			a.request(OpWrite, i*8, 4096, 100+i)
			if i%7 == 0 {
				p.settle()
			}
		}
		flush := a.request(OpFlush, 0, 0, 0)
		p.tick(3)
		if o, ok := a.outcome[flush]; !ok || o != OK {
			t.Fatalf("protocol %d: flush %v %v", proto, o, ok)
		}
		if b.data[49*8] != 149 {
			t.Fatalf("protocol %d: the peer misses a write", proto)
		}
		p.equal(t)
	}
}

func TestDifferentConfigurationIsRefused(t *testing.T) {
	p := newPair(withProtocol(ProtocolA), withProtocol(ProtocolC))
	p.bringUp()
	p.tick(15)
	for _, n := range p.nodes {
		if c := n.r.State(0).Conn; c != state.StandAlone {
			t.Fatalf("%s is %v", n.name, c)
		}
	}
}

func TestAuthentication(t *testing.T) {
	secret := func(s string) Config {
		c := testConfig()
		c.CramHMACAlg, c.SharedSecret = "sha256", s
		return c
	}
	establish(t, newPair(secret("geheim"), secret("geheim")))
	for _, other := range []Config{secret("falsch"), testConfig()} {
		p := newPair(secret("geheim"), other)
		p.bringUp()
		for range 5 {
			p.now += 100 * Millisecond
			for _, n := range p.nodes {
				n.post(Event{Kind: EvTick})
			}
			for range 200 {
				for _, n := range p.nodes {
					n.next()
				}
			}
			p.link()
		}
		for _, n := range p.nodes {
			if n.r.State(0).Conn >= state.Connected {
				t.Fatalf("%s connected without the secret", n.name)
			}
		}
	}
}

func TestSecondPromotionIsRefused(t *testing.T) {
	p := newPair()
	_, b := establish(t, p)
	token := b.admin(Admin{Kind: AdminPrimary})
	p.tick(7)
	if got := b.replies[token]; got != state.TwoPrimaries {
		t.Fatalf("answer %v", got)
	}
}

func TestSimultaneousPromotion(t *testing.T) {
	p := newPair()
	a, b := establish(t, p)
	a.admin(Admin{Kind: AdminSecondary})
	p.tick(3)
	ta, tb := a.admin(Admin{Kind: AdminPrimary}), b.admin(Admin{Kind: AdminPrimary})
	p.tick(20)
	primaries := 0
	for _, n := range p.nodes {
		if n.r.State(0).Role == state.Primary {
			primaries++
		}
	}
	if primaries != 1 {
		t.Fatalf("%d primaries; a: %v, b: %v\n%s", primaries, a.replies[ta], b.replies[tb], p.take())
	}
}

func TestSwitchPrimaries(t *testing.T) {
	p := newPair()
	a, b := establish(t, p)
	for i := range uint64(6) {
		n, other := a, b
		if i%2 == 1 {
			n, other = b, a
		}
		n.request(OpWrite, i*8, 4096, i+1)
		p.tick(2)
		down := n.admin(Admin{Kind: AdminSecondary})
		p.tick(3)
		up := other.admin(Admin{Kind: AdminPrimary})
		p.tick(3)
		if n.replies[down] != state.Success || other.replies[up] != state.Success {
			t.Fatalf("round %d: %v, %v\n%s", i, n.replies[down], other.replies[up], p.take())
		}
	}
	p.equal(t)
}

func TestInvalidateFromBothSides(t *testing.T) {
	for _, kind := range []AdminKind{AdminInvalidate, AdminInvalidateRemote} {
		p := newPair()
		a, b := establish(t, p)
		a.request(OpWrite, 8, 4096, 9)
		p.tick(2)
		n := b
		if kind == AdminInvalidateRemote {
			n = a
		}
		b.data[8] = 0 // the copy has rotted
		token := n.admin(Admin{Kind: kind})
		for range 900 {
			p.tick(1)
			if a.r.State(0).Conn == state.Connected && b.r.State(0).Conn == state.Connected {
				break
			}
		}
		if n.replies[token] != state.Success {
			t.Fatalf("kind %d: %v", kind, n.replies[token])
		}
		p.states(t, "Connected Primary/Secondary UpToDate/UpToDate", "Connected Secondary/Primary UpToDate/UpToDate")
		p.equal(t)
	}
}

func TestPausedResyncWaits(t *testing.T) {
	p := newPair()
	a, b := establish(t, p)
	p.cut()
	p.apart = true
	p.settle()
	for i := range uint64(30) {
		a.request(OpWrite, i*4096, 4096, 100+i)
	}
	p.settle()
	b.admin(Admin{Kind: AdminPauseSync})
	p.apart = false
	p.tick(10)
	if c := b.r.State(0).Conn; c != state.PausedSyncT {
		t.Fatalf("b is %v\n%s", c, p.take())
	}
	if c := a.r.State(0).Conn; c != state.PausedSyncS {
		t.Fatalf("a is %v", c)
	}
	b.admin(Admin{Kind: AdminResumeSync})
	p.tick(60)
	p.states(t, "Connected Primary/Secondary UpToDate/UpToDate", "Connected Secondary/Primary UpToDate/UpToDate")
	p.equal(t)
}

func TestResyncInterruptedManyTimes(t *testing.T) {
	p := newPair()
	a, _ := establish(t, p)
	for round := range uint64(30) {
		p.cut()
		for i := range uint64(20) {
			a.request(OpWrite, (round*7+i)%200*64, 4096, round*1000+i)
		}
		for range round % 5 {
			p.tick(1)
		}
	}
	p.tick(80)
	p.states(t, "Connected Primary/Secondary UpToDate/UpToDate", "Connected Secondary/Primary UpToDate/UpToDate")
	p.equal(t)
}

func TestTwoVolumesShareAConnection(t *testing.T) {
	c := testConfig()
	second := c.Volumes[0]
	second.Number = 1
	c.Volumes = append(c.Volumes, second)
	p := newPair(c, c)
	a, b := p.nodes[0], p.nodes[1]
	for _, n := range p.nodes {
		n.attach()
		n.post(Event{Kind: EvAttach, Vol: 1, Attach: n.freshAttach()})
		n.admin(Admin{Kind: AdminConnect})
	}
	p.settle()
	for vol := range uint16(2) {
		a.admin(Admin{Kind: AdminNewCurrentUUID, Vol: vol, ClearBitmap: true})
	}
	p.settle()
	token := a.admin(Admin{Kind: AdminPrimary})
	p.tick(2)
	if a.replies[token] != state.Success {
		t.Fatalf("promotion: %v\n%s", a.replies[token], p.take())
	}
	for vol := range uint16(2) {
		if s := b.r.State(vol).String(); s != "Connected Secondary/Primary UpToDate/UpToDate" {
			t.Fatalf("volume %d: %s\n%s", vol, s, p.take())
		}
	}
}

// A command about all volumes is answered when it is durable for each of them, not only for the
// last one.
func TestAnswerAwaitsEveryVolume(t *testing.T) {
	c := testConfig()
	second := c.Volumes[0]
	second.Number = 1
	c.Volumes = append(c.Volumes, second)
	p := newPair(c, c)
	a := p.nodes[0]
	a.attach()
	a.post(Event{Kind: EvAttach, Vol: 1, Attach: a.freshAttach()})
	p.settle()
	for vol := range uint16(2) {
		a.admin(Admin{Kind: AdminNewCurrentUUID, Vol: vol})
	}
	p.tick(2)
	for _, kind := range []AdminKind{AdminPrimary, AdminSecondary, AdminOutdate} {
		a.stuck = true
		token := a.admin(Admin{Kind: kind, Force: true})
		for range 10 { // each answer of the second volume, and none of the first
			p.tick(1)
			kept := a.unsaid[:0]
			for _, io := range a.unsaid {
				if io.index() == 1 {
					a.post(Event{Kind: EvMeta, IO: io})
				} else {
					kept = append(kept, io)
				}
			}
			a.unsaid = kept
		}
		if r, ok := a.replies[token]; ok {
			t.Errorf("command %d is answered %v before it is durable for the first volume", kind, r)
		}
		a.unstick()
		p.tick(2)
		if r := a.replies[token]; r != state.Success {
			t.Fatalf("command %d: %v\n%s", kind, r, p.take())
		}
	}
}

func TestWriteToASecondaryIsRefused(t *testing.T) {
	p := newPair()
	_, b := establish(t, p)
	id := b.request(OpWrite, 0, 4096, 1)
	p.settle()
	if b.outcome[id] != ReadOnly || b.data[0] != 0 {
		t.Fatalf("outcome %v, data %d", b.outcome[id], b.data[0])
	}
}

func TestFailedFlushIsAFailedDisk(t *testing.T) {
	p := newPair()
	a, b := establish(t, p)
	a.request(OpWrite, 8, 4096, 3)
	b.failing[OpFlush] = true
	flush := a.request(OpFlush, 0, 0, 0)
	p.tick(5)
	if d := b.r.State(0).Disk; d != state.Diskless {
		t.Fatalf("b's disk is %v after a failed flush\n%s", d, p.take())
	}
	if o, ok := a.outcome[flush]; !ok || o != OK {
		t.Fatalf("flush: %v %v", o, ok) // a itself is durable
	}
	if a.r.vols[0].disk.bm.Weight() == 0 {
		t.Fatal("what the peer did not flush is not marked")
	}
}

func TestActivityLogStarvationEndsByBarriers(t *testing.T) {
	p := newPair()
	a, _ := establish(t, p)
	n := 0
	for i := range uint64(14) { // 64 MiB have 16 extents; use each many times, with a log of 67
		for j := range uint64(40) {
			a.request(OpWrite, i*8192+j*8, 4096, i*100+j)
			n++
		}
	}
	p.tick(5)
	for id, o := range a.outcome {
		if o != OK {
			t.Fatalf("request %d: %v", id, o)
		}
	}
	if len(a.outcome) != n {
		t.Fatalf("%d of %d answered", len(a.outcome), n)
	}
	p.equal(t)
}

// The source of a resync loses its disk before the first block. What the target has is
// as old as before (R11; kill-points found it declared UpToDate).
func TestSourceFailsBeforeTheResyncBegins(t *testing.T) {
	p := newPair()
	a, b := establish(t, p)
	p.apart = true
	p.cut()
	p.tick(2)
	a.request(OpWrite, 8, 4096, 5)
	p.tick(2)
	a.stuck = true // b waits for the sync UUID, which a has to write first
	p.apart = false
	p.tick(3)
	if c := b.r.State(0).Conn; c != state.WFSyncUUID {
		t.Fatalf("b is %v\n%s", c, p.take())
	}
	for _, io := range a.unsaid {
		a.post(Event{Kind: EvMeta, IO: io, Err: DiskIOError})
	}
	a.stuck = false
	p.tick(30)
	p.states(t, "Connected Primary/Secondary Diskless/Outdated", "Connected Secondary/Primary Outdated/Diskless")
	id := a.request(OpRead, 8, 4096, 0)
	p.tick(2)
	if a.outcome[id] == OK {
		t.Fatalf("read of a lost block: %v\n%s", a.reqs[id][0], p.take())
	}
	a.attach()
	p.tick(30)
	p.states(t, "Connected Primary/Secondary UpToDate/UpToDate", "Connected Secondary/Primary UpToDate/UpToDate")
	if p.equal(t); b.data[8] != 5 {
		t.Fatal("the write is lost")
	}
}

// TestPromotionAwaitsTheNews: the peer was demoted just before, and the news is still on its
// way when this node is promoted. It waits for them, but not for ever.
func TestPromotionAwaitsTheNews(t *testing.T) {
	p := newPair()
	a, b := establish(t, p)
	b.asleep = true
	a.admin(Admin{Kind: AdminSecondary})
	p.settle()
	token := b.admin(Admin{Kind: AdminPrimary})
	last := len(b.inbox) - 1
	b.inbox = append([]Event{b.inbox[last]}, b.inbox[:last]...)
	b.asleep = false
	p.settle()
	if got := b.replies[token]; !got.OK() {
		t.Errorf("promotion before the news: %v", got)
	}
	p.states(t, "Connected Secondary/Primary UpToDate/UpToDate", "Connected Primary/Secondary UpToDate/UpToDate")
	token = a.admin(Admin{Kind: AdminPrimary})
	p.tick(5)
	if got, ok := a.replies[token]; ok {
		t.Fatalf("answered with %v before ping-timeout", got)
	}
	p.tick(2)
	if got := a.replies[token]; got != state.TwoPrimaries {
		t.Errorf("second Primary: %v, want %v", got, state.TwoPrimaries)
	}
}

// TestPromotionWaitsForTheEndOfAConnection: the connection is being closed, and what it has
// brought may still be on its way to the disk: an application's write must not overtake it
// (simulator, long run, seed 39044).
func TestPromotionWaitsForTheEndOfAConnection(t *testing.T) {
	p := newPair()
	a, b := establish(t, p)
	a.admin(Admin{Kind: AdminSecondary})
	p.tick(3)
	p.apart = true
	b.post(Event{Kind: EvPacket, Gen: b.gen, Cmd: wire.CmdBarrierAck, Socket: MetaSocket, Body: make([]byte, 8)})
	token := b.admin(Admin{Kind: AdminPrimary})
	b.next() // ends the connection, which the driver has still to report
	b.next()
	if s := b.r.State(0); !b.r.conn.closing || s.Role == state.Primary {
		t.Fatalf("promoted while the connection is being closed: %v", s)
	}
	p.tick(3)
	ok(t, p, b, token)
}
