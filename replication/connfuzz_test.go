package replication

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"github.com/replblk/replblk/replication/state"
)

// A connection under attack: two cores live through a scenario, one event at a time, until
// somebody takes over the connection of one of them. He changes, repeats, drops and swaps what
// the real peer sends, and makes up packets of his own, with the numbers of what is really
// under way. Whatever he does, the victim
//
//   - does not panic, and asks for no I/O outside the volume,
//   - keeps no more than a peer may make it keep,
//   - answers every request once the connection is gone, forgets no buffer, and can be
//     connected again,
//   - has what it has acknowledged as Primary on its disk, unless that was not UpToDate then,
//     or the operator of the peer has made it the target of a resync.

// attack is a victim, and what must hold for it.
type attack struct {
	t      testing.TB
	p      *pair
	victim *testNode
	input  []byte
	story  string           // what led to it
	target bool             // it was to be overwritten
	good   map[uint64]ReqID // the newest write that it has acknowledged as Primary, by sector
}

// besiege plays a scenario for some events.
func besiege(t testing.TB, which, steps int, second bool, input []byte) *attack {
	s := &scenarios[which%len(scenarios)]
	cfg := [2]Config{testConfig(), testConfig()}
	if s.cfg != nil {
		for i := range cfg {
			s.cfg(&cfg[i])
		}
	}
	p := newPair(cfg[:]...)
	p.quiet = true
	establishQuiet(p)
	p.tick(1)
	x := &attack{t: t, p: p, victim: p.nodes[0], input: input, good: map[uint64]ReqID{}}
	if second {
		x.victim = p.nodes[1]
	}
	x.victim.watch = x.watch
	s.play(p, p.nodes[0], p.nodes[1])
	for i := range steps {
		p.link()
		p.step(i % 2)
		if i%16 == 15 {
			x.clock()
		}
	}
	return x
}

// step gives a node its next event.
func (p *pair) step(i int) {
	if n := p.nodes[i]; !n.asleep {
		n.next()
	}
}

// clock lets a tenth of a second pass for both.
func (x *attack) clock() {
	x.p.now += 100 * Millisecond
	for _, n := range x.p.nodes {
		n.post(Event{Kind: EvTick, Rand: uint64(x.p.now)})
	}
}

// byte takes one off the input.
func (x *attack) byte() int {
	if len(x.input) == 0 {
		return 0
	}
	b := x.input[0]
	x.input = x.input[1:]
	return int(b)
}

// run carries out the attack.
func (x *attack) run() {
	for len(x.input) > 0 {
		x.p.link() // they come back
		switch op := x.byte(); op % 8 {
		case 0, 1:
			x.invent()
		case 2, 3:
			x.meddle()
		case 4:
			x.clock()
		case 5:
			if how := x.byte(); how&0xf8 != 0 {
				x.p.step(how & 1)
			} else { // a disk fails, of either node
				n := x.p.nodes[how&1]
				n.failing[[]Op{OpRead, OpWrite, OpFlush, OpDiscard}[how>>1]] = true
			}
		default:
			for range op >> 3 {
				x.victim.next()
				x.victim.peer.next()
			}
		}
		x.victim.next()
	}
}

// watch checks what the victim has asked for in its last step, and what it keeps.
func (x *attack) watch() {
	n, r := x.victim, x.victim.r
	v := r.vols[0]
	for i := range n.fx.List {
		e := &n.fx.List[i]
		if e.Kind == FxDisk && e.Op != OpFlush && (e.Sector > v.size || uint64(e.Size)>>9 > v.size-e.Sector) {
			x.t.Fatalf(x.story+"%v of %d bytes at sector %d: the volume has %d sectors", e.Op, e.Size, e.Sector, v.size)
		}
		if e.Kind == FxState {
			c := e.New.Conn
			x.target = x.target || e.New.Role != state.Primary || c == state.StartingSyncT || c == state.WFBitMapT || c == state.WFSyncUUID || c == state.SyncTarget
		}
		if e.Kind == FxComplete && e.Outcome == OK {
			x.acknowledged(e.Req)
		}
	}
	for what, c := range map[string][2]int{
		"requests":            {r.peer.used, MaxPeerRequests},
		"queued":              {len(r.peer.queue), MaxPeerRequests},
		"epochs":              {len(r.peer.epochs), MaxPeerRequests},
		"resync requests":     {len(v.rs.reqs) + len(v.rs.busy), 2*maxResyncRequests + MaxPeerRequests},
		"blocks to verify":    {len(v.verify.reqs) + len(v.verify.answered), 2*maxVerifyResults + maxVerifyRequests},
		"gated writes":        {len(v.gate), MaxPeerRequests},
		"bytes of one answer": {len(n.fx.Buf), 1 << 21},
		"effects":             {len(n.fx.List), 1 << 14},
	} {
		if c[0] > c[1] {
			x.t.Fatalf(x.story+"%d %s, at most %d are wanted", c[0], what, c[1])
		}
	}
	if !v.st.Valid() {
		x.t.Fatalf(x.story+"state %v", v.st)
	}
}

// acknowledged notes what a request that was answered has written.
func (x *attack) acknowledged(id ReqID) {
	w := x.victim.wanted[id]
	if !w.Op.modifies() || x.victim.r.State(0).Disk != state.UpToDate { // then only he has it
		return
	}
	for s := range uint64(w.Size >> 9) {
		x.good[w.Sector+s] = max(id, x.good[w.Sector+s])
	}
}

// mayHave says whether a sector may have a value after a write was acknowledged: its own, or
// that of a later one.
func (x *attack) mayHave(sector, value uint64, write ReqID) bool {
	for id := write; id <= x.victim.nextReq; id++ {
		w := x.victim.wanted[id]
		if !w.Op.modifies() || sector < w.Sector || sector >= w.Sector+uint64(w.Size>>9) {
			continue
		}
		if want := x.victim.reqs[id][sector-w.Sector]; w.Op == OpWrite && value == want || w.Op != OpWrite && value == 0 {
			return true
		}
	}
	return false
}

// after ends the connection and checks what the attack has left.
func (x *attack) after() {
	n, p := x.victim, x.p
	began := n.r.State(0)
	p.apart = true
	for _, n := range p.nodes {
		n.asleep, n.stuck = false, false
		for _, io := range n.unsaid {
			n.post(Event{Kind: EvMeta, IO: io})
		}
		n.unsaid = nil
	}
	p.settle()
	p.cut()
	p.tick(40)
	s := n.r.State(0)
	if s.Conn != state.WFConnection && s.Conn != state.StandAlone {
		x.t.Fatalf(x.story+"%v after the connection is gone, it was %v", s, began)
	}
	if left := n.r.peer.used; left != 0 {
		x.t.Errorf(x.story+"%d requests of the peer are left", left)
	}
	if !s.Suspended() && n.r.ios.inUse() != 0 {
		x.t.Errorf(x.story+"%d own requests are left in %v", n.r.ios.inUse(), s)
	}
	if n.r.ios.inUse() == 0 && len(n.bufs) != 0 {
		x.t.Errorf(x.story+"%d buffers are not freed: %v", len(n.bufs), n.bufs)
	}
	if x.target || s.Disk != state.UpToDate || n.r.cfg.TwoPrimaries {
		return
	}
	for sector, id := range x.good {
		if got := n.data[sector]; !x.mayHave(sector, got, id) {
			x.t.Fatalf(x.story+"sector %d was acknowledged with request %d, the disk has %d; %v", sector, id, got, s)
		}
	}
}

// FuzzConnection: byte 0 is the scenario, byte 1 and 2 how far it has come and who is
// attacked, the rest is the attack.
func FuzzConnection(f *testing.F) {
	rng := rand.New(rand.NewPCG(1, 1))
	for which := range scenarios {
		for range 3 {
			in := make([]byte, 3+rng.IntN(200))
			for i := range in {
				in[i] = byte(rng.Uint32())
			}
			in[0] = byte(which)
			f.Add(in)
		}
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		if len(in) < 3 {
			return
		}
		how := binary.BigEndian.Uint16(in[1:])
		x := besiege(t, int(in[0]), int(how>>1)%200, how&1 != 0, in[3:])
		x.run()
		x.after()
	})
}

// TestConnectionUnderAttack attacks every scenario at every tenth of its first 160 events.
func TestConnectionUnderAttack(t *testing.T) {
	seen := map[state.Conn]int{}
	for which := range scenarios {
		t.Run(scenarios[which].name, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(uint64(which), 2))
			for i := range 60 {
				in := make([]byte, 20+rng.IntN(400))
				for k := range in {
					in[k] = byte(rng.Uint32())
				}
				x := besiege(t, which, i*3, i&1 != 0, in)
				seen[x.victim.r.State(0).Conn]++
				x.run()
				x.after()
				if t.Failed() {
					t.Fatalf("scenario %d, %d events, input %x", which, i*3, in)
				}
			}
		})
	}
	for c := state.WFReportParams; c <= state.Behind; c++ {
		if seen[c] == 0 && c != state.StartingSyncS && c != state.StartingSyncT { // these two do not last
			t.Errorf("no connection was attacked in %v", c)
		}
	}
}
