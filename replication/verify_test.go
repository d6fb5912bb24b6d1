package replication

import (
	"testing"

	"github.com/replblk/replblk/bitmap"
	"github.com/replblk/replblk/replication/state"
)

func withVerify() Config {
	c := testConfig()
	c.VerifyAlg = "sha1"
	c.Volumes[0].PlanAheadTenths, c.Volumes[0].ResyncRateKiB = 0, 40<<10
	return c
}

// verified establishes a pair and plants differences in the blocks given on b's disk.
func verified(t *testing.T, blocks ...uint64) (p *pair, a, b *testNode) {
	t.Helper()
	p = newPair(withVerify(), withVerify())
	a, b = establish(t, p)
	for i := range uint64(64) {
		a.request(OpWrite, i*1024, 4096, 1+i)
	}
	p.tick(3)
	for _, n := range blocks {
		b.data[min(n*8+3, a.r.vols[0].size-1)] = 99
	}
	return p, a, b
}

// finished lets a run come to its end and checks what it has found.
func (p *pair) finished(t *testing.T, found uint64) {
	t.Helper()
	for range 200 {
		if !p.nodes[0].r.State(0).Conn.Verify() && !p.nodes[1].r.State(0).Conn.Verify() {
			break
		}
		p.tick(1)
	}
	for _, n := range p.nodes {
		s := n.r.Status().Volumes[0]
		if s.State.Conn != state.Connected || s.OutOfSync != found || s.Verify.Found != found || s.Verify.Completed != 1 {
			t.Errorf("%s: %v, %d bits, %+v, want %d blocks\n%s", n.name, s.State, s.OutOfSync, s.Verify, found, p.take())
		}
		if len(n.bufs) != 0 || n.r.peer.used != 0 || len(n.r.vols[0].rs.busy) != 0 {
			t.Errorf("%s: %d buffers, %d peer requests, %d locks left", n.name, len(n.bufs), n.r.peer.used, len(n.r.vols[0].rs.busy))
		}
		handled := 0
		for _, h := range n.handlers {
			if h.Handler == HandlerOutOfSync {
				handled++
			}
		}
		if want := min(int(found), 1); handled != want {
			t.Errorf("%s: out-of-sync handler ran %d times, want %d", n.name, handled, want)
		}
	}
}

func TestVerifyFindsExactlyWhatDiffers(t *testing.T) {
	size := func(p *pair) uint64 { return p.nodes[0].r.vols[0].size }
	for who := range 2 {
		last := bitmap.BitsFor(testSectors) // beyond the end: the last block there is
		blocks := []uint64{0, 1, 2047, 4096, 4097, last}
		p, a, b := verified(t, blocks...)
		token := p.nodes[who].admin(Admin{Kind: AdminVerify})
		p.settle()
		if got := p.nodes[who].replies[token]; !got.OK() {
			t.Fatalf("%s: verify: %v", p.nodes[who].name, got)
		}
		p.tick(1)
		p.finished(t, 6)
		for _, n := range []*testNode{a, b} {
			for _, x := range append(blocks[:5], (size(p)-1)/8) {
				if !n.r.vols[0].disk.bm.Test(x) {
					t.Errorf("%s: bit %d is not set", n.name, x)
				}
			}
		}
	}
}

func TestVerifyStartAndStop(t *testing.T) {
	p, a, _ := verified(t, 9, 10, 20, 30)
	a.admin(Admin{Kind: AdminVerify, Start: 10*8 + 5, Stop: 30 * 8})
	p.settle()
	p.finished(t, 2)
	if s := a.r.Status().Volumes[0].Verify; s.Total != 20 || s.Left != 0 {
		t.Errorf("%+v, want 20 blocks", s)
	}
	for _, start := range []uint64{a.r.vols[0].size + 8, 1 << 62} {
		token := a.admin(Admin{Kind: AdminVerify, Start: start})
		p.settle()
		if got := a.replies[token]; got != state.NothingToDo {
			t.Errorf("start at %d: %v", start, got)
		}
	}
}

func TestVerifyWhileWriting(t *testing.T) {
	for _, proto := range []Protocol{ProtocolA, ProtocolC} {
		for who := range 2 {
			c := withVerify()
			c.Protocol = proto
			p := newPair(c, c)
			a, _ := establish(t, p)
			p.nodes[who].admin(Admin{Kind: AdminVerify})
			// One step at a time, so that requests, digests and results are under way
			// between the writes.
			for i := range uint64(4000) {
				if i%5 == 0 {
					a.request(OpWrite, i*13%testSectors/2, 4096, i+1)
				}
				if i%100 == 0 {
					p.now += 100 * Millisecond
					for _, n := range p.nodes {
						n.post(Event{Kind: EvTick})
					}
				}
				for k := range 1 + i%3 {
					p.nodes[(i+k)%2].next()
				}
				p.link()
			}
			p.tick(1)
			p.finished(t, 0)
			p.tick(3)
			p.equal(t)
		}
	}
}

func TestVerifyNeedsTheAlgorithm(t *testing.T) {
	p := newPair()
	a, _ := establish(t, p)
	token := a.admin(Admin{Kind: AdminVerify})
	p.settle()
	if got := a.replies[token]; got != state.NoVerifyAlg {
		t.Errorf("verify: %v, want %v", got, state.NoVerifyAlg)
	}
}

func TestVerifyPausesAndStops(t *testing.T) {
	p, a, b := verified(t, 5, 16000)
	a.admin(Admin{Kind: AdminVerify})
	p.tick(2)
	b.admin(Admin{Kind: AdminPauseSync})
	p.tick(2)
	left := a.r.Status().Volumes[0].Verify.Left
	p.tick(5)
	if s := a.r.Status().Volumes[0]; s.Verify.Left != left || s.State.Conn != state.VerifyS || left == 0 || left == s.Verify.Total {
		t.Fatalf("paused: %+v, %d left before", s, left)
	}
	token := b.admin(Admin{Kind: AdminStopVerify})
	b.admin(Admin{Kind: AdminResumeSync})
	p.tick(2)
	if got := b.replies[token]; got != state.NothingToDo {
		t.Errorf("stop where it was not started: %v", got)
	}
	a.admin(Admin{Kind: AdminStopVerify})
	p.tick(2)
	p.states(t, "Connected Primary/Secondary UpToDate/UpToDate", "Connected Secondary/Primary UpToDate/UpToDate")
	s := a.r.Status().Volumes[0].Verify
	if s.Found != 1 || s.Completed != 0 || s.Resume == 0 {
		t.Fatalf("stopped: %+v", s)
	}
	a.admin(Admin{Kind: AdminVerify, Resume: true})
	p.settle()
	if got := a.r.Status().Volumes[0].Verify; got.Total != bitmap.BitsFor(a.r.vols[0].size)-s.Resume/bitmap.SectorsPerBit {
		t.Errorf("resumed at %d: %+v", s.Resume, got)
	}
	for range 30 {
		p.tick(1)
	}
	if s := a.r.Status().Volumes[0]; s.OutOfSync != 2 || s.Verify.Completed != 1 || s.Verify.Resume != 0 {
		t.Errorf("after both parts: %+v", s)
	}
}

func TestVerifyEndsWithTheConnection(t *testing.T) {
	for who := range 2 {
		p, a, b := verified(t)
		n := p.nodes[who]
		n.admin(Admin{Kind: AdminVerify})
		p.tick(2)
		if !n.r.State(0).Conn.Verify() {
			t.Fatalf("%v", n.r.State(0))
		}
		p.now += 100 * Millisecond
		n.post(Event{Kind: EvTick})
		for range 20 { // requests and answers of all kinds are under way
			for _, n := range p.nodes {
				n.next()
			}
		}
		p.cut()
		p.tick(20)
		p.states(t, "Connected Primary/Secondary UpToDate/UpToDate", "Connected Secondary/Primary UpToDate/UpToDate")
		s := n.r.Status().Volumes[0].Verify
		if s.Resume == 0 || s.Completed != 0 {
			t.Errorf("%+v", s)
		}
		a.request(OpWrite, 0, 1<<20, 5)
		p.tick(3)
		p.equal(t)
		_ = b
	}
}

func TestVerifyEndsWithADisk(t *testing.T) {
	for _, broken := range []int{0, 1} {
		for who := range 2 {
			p, a, b := verified(t)
			p.nodes[who].admin(Admin{Kind: AdminVerify})
			p.settle()
			p.nodes[broken].failing[OpRead] = true
			p.tick(3)
			for _, n := range []*testNode{a, b} {
				if s := n.r.State(0); s.Conn != state.Connected || n.r.vols[0].rs.busy != nil || n.r.peer.used != 0 {
					t.Fatalf("%s: %v, locks %v, %d peer requests", n.name, s, n.r.vols[0].rs.busy, n.r.peer.used)
				}
			}
			if s := p.nodes[broken].r.State(0); s.Disk != state.Diskless {
				t.Errorf("disk is %v", s.Disk)
			}
			id := a.request(OpWrite, 0, 4096, 7)
			p.tick(2)
			if o, ok := a.outcome[id]; !ok || o != OK {
				t.Errorf("write: %v, %v", o, ok)
			}
		}
	}
}

func TestRepairResyncsWhatAVerifyFound(t *testing.T) {
	for _, c := range []struct {
		name   string
		demote bool
		who    int // gives the command
		want   uint64
	}{
		{"by the Primary", false, 0, 1},
		{"by the Secondary of a Primary", false, 1, 1},
		{"without a Primary", true, 0, 1},
		{"without a Primary, by the other", true, 1, 99},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, a, b := verified(t, 0, 7000)
			if c.demote {
				a.admin(Admin{Kind: AdminSecondary})
				p.settle()
			}
			token := a.admin(Admin{Kind: AdminRepair})
			p.settle()
			if got := a.replies[token]; got != state.NothingToDo {
				t.Errorf("nothing was found, but: %v", got)
			}
			a.admin(Admin{Kind: AdminVerify})
			p.settle()
			p.finished(t, 2)
			token = p.nodes[c.who].admin(Admin{Kind: AdminRepair})
			p.tick(20)
			if got := p.nodes[c.who].replies[token]; got != state.Success {
				t.Fatalf("repair: %v", got)
			}
			role := [2]string{"Primary/Secondary", "Secondary/Primary"}
			if c.demote {
				role = [2]string{"Secondary/Secondary", "Secondary/Secondary"}
			}
			p.states(t, "Connected "+role[0]+" UpToDate/UpToDate", "Connected "+role[1]+" UpToDate/UpToDate")
			p.equal(t)
			if got := b.data[3]; got != c.want {
				t.Errorf("the block is repaired from the wrong side: %d", got)
			}
		})
	}
}

// TestVerifyWaitsForAResize: a node that compares takes no size, so neither begins before both
// have taken it: a write to new space would be a breach of the protocol (simulator, seed 226736).
func TestVerifyWaitsForAResize(t *testing.T) {
	for i := range 2 {
		p, a, b := verified(t)
		for _, n := range p.nodes {
			n.grow(4096)
		}
		b.stuck = true
		a.admin(Admin{Kind: AdminResize})
		p.tick(2)
		p.nodes[i].admin(Admin{Kind: AdminVerify})
		p.tick(2)
		if s, peer := a.r.State(0), b.r.State(0); s.Conn.Verify() || peer.Conn.Verify() {
			t.Fatalf("compares while the size changes: %v, %v", s, peer)
		}
		b.stuck = false
		b.post(Event{Kind: EvMeta, IO: ioFor(classPages, 0)})
		p.tick(200)
		p.sized(t, a.layout.DataSectors)
		p.equal(t)
	}
}

// TestResizeWaitsForAnAnswer: the peer may have agreed to a verify already, and takes no size then.
func TestResizeWaitsForAnAnswer(t *testing.T) {
	p, a, b := verified(t)
	b.grow(4096)
	a.admin(Admin{Kind: AdminResize})
	p.tick(3) // now a knows that b has room
	a.grow(4096)
	before := a.r.vols[0].size
	a.admin(Admin{Kind: AdminVerify})
	a.next()
	for b.next() {
	}
	answer := a.hold(EvPacket)
	token := a.admin(Admin{Kind: AdminResize})
	p.tick(2)
	if s := b.r.State(0); len(answer) != 1 || s.Conn != state.VerifyT || a.r.vols[0].size != before {
		t.Fatalf("%d answers held, peer %v, %d sectors, %d before", len(answer), s, a.r.vols[0].size, before)
	}
	a.inbox = append(answer, a.inbox...)
	p.finished(t, 0)
	if r := a.replies[token]; r != state.ResizeDuringResync {
		t.Fatalf("resize during a verify: %v", r)
	}
	token = a.admin(Admin{Kind: AdminResize})
	p.tick(30)
	ok(t, p, a, token)
	p.sized(t, a.layout.DataSectors)
	p.equal(t)
}
