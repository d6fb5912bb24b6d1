package replication

import (
	"slices"
	"testing"

	"github.com/replblk/replblk/replication/state"
	"github.com/replblk/replblk/replication/wire"
)

func noDataConfig() Config {
	c := testConfig()
	c.SuspendOnNoData = true
	return c
}

// dataless is a Primary without a disk that loses its peer with requests in flight.
func dataless(t *testing.T, cfg Config) (p *pair, a, b *testNode, ids []ReqID) {
	t.Helper()
	p = newPair(cfg, cfg)
	a, b = establish(t, p)
	a.request(OpWrite, 8, 4096, 5)
	p.tick(3)
	a.admin(Admin{Kind: AdminDetach})
	p.tick(3)
	a.post(Event{Kind: EvRequest, Op: OpRead, Req: 101, Sector: 8, Size: 4096})
	a.post(Event{Kind: EvRequest, Op: OpWrite, Req: 102, Sector: 16, Size: 4096})
	a.post(Event{Kind: EvRequest, Op: OpFlush, Req: 103})
	a.reqs[101], a.reqs[102] = make([]uint64, 8), []uint64{6, 6, 6, 6, 6, 6, 6, 6}
	a.alone() // sent, and lost on the way
	p.apart = true
	p.cut()
	p.settle()
	ids = []ReqID{101, 102, 103}
	ids = append(ids, a.request(OpRead, 8, 4096, 0), a.request(OpWrite, 24, 4096, 7))
	p.tick(10)
	return p, a, b, ids
}

// on-no-data-accessible suspend-io: everything waits while there is no data, and goes on
// with the peer when it is back.
func TestNoDataWaitsForThePeer(t *testing.T) {
	p, a, b, ids := dataless(t, noDataConfig())
	for _, id := range ids {
		if o, ok := a.outcome[id]; ok {
			t.Fatalf("request %d was answered %v without any data\n%s", id, o, p.take())
		}
	}
	if !a.r.State(0).SuspNod {
		t.Fatalf("a is %v", a.r.State(0))
	}
	p.apart = false
	p.tick(30)
	for _, id := range ids {
		if o, ok := a.outcome[id]; !ok || o != OK {
			t.Errorf("request %d: %v %v\n%s", id, ok, o, p.take())
		}
	}
	if a.r.State(0).Suspended() || a.reqs[101][0] != 5 || b.data[16] != 6 || b.data[24] != 7 {
		t.Errorf("a is %v; read %d, written %d %d", a.r.State(0), a.reqs[101][0], b.data[16], b.data[24])
	}
}

// ... or with the own disk, when that is attached again.
func TestNoDataWaitsForTheDisk(t *testing.T) {
	p := newPair(noDataConfig(), noDataConfig())
	a, b := establish(t, p)
	a.request(OpWrite, 8, 4096, 5)
	p.tick(3)
	b.admin(Admin{Kind: AdminDetach})
	p.tick(3)
	a.admin(Admin{Kind: AdminDetach, Force: true})
	p.tick(3)
	id := a.request(OpRead, 8, 4096, 0)
	w := a.request(OpWrite, 16, 4096, 6)
	p.tick(10)
	if _, ok := a.outcome[id]; ok || !a.r.State(0).SuspNod {
		t.Fatalf("a is %v\n%s", a.r.State(0), p.take())
	}
	a.attach()
	p.tick(20)
	if a.outcome[id] != OK || a.reqs[id][0] != 5 || a.outcome[w] != OK || a.data[16] != 6 || a.r.State(0).Suspended() {
		t.Fatalf("a is %v, read %v %d, write %v\n%s", a.r.State(0), a.outcome[id], a.reqs[id][0], a.outcome[w], p.take())
	}
}

// The operator's resume-io gives up waiting, and io-error never waits.
func TestNoDataFails(t *testing.T) {
	p, a, _, ids := dataless(t, noDataConfig())
	a.admin(Admin{Kind: AdminResumeIO})
	p.tick(5)
	for _, id := range ids {
		if o, ok := a.outcome[id]; !ok || o != IOError {
			t.Errorf("after resume-io, request %d: %v %v", id, ok, o)
		}
	}
	p, a, _, ids = dataless(t, testConfig())
	for _, id := range ids {
		if o, ok := a.outcome[id]; !ok || o != IOError {
			t.Errorf("with io-error, request %d: %v %v\n%s", id, ok, o, p.take())
		}
	}
	if s := a.r.State(0); s.Suspended() || s.Role != state.Primary {
		t.Errorf("a is %v", s)
	}
}

// A request waits as well if a copy that does not count has it: the peer's, which the resync
// has not made good yet, or the own one, whose disk has failed since. It is done again where
// there are data (found by the simulator, seeds 228 and 89 with fencing everywhere).
func TestNoDataWaitsWithHalfACopy(t *testing.T) {
	p := newPair(noDataConfig(), noDataConfig())
	a, b := establish(t, p)
	a.request(OpWrite, 8, 4096, 5)
	p.tick(3)
	b.admin(Admin{Kind: AdminDisconnect})
	p.tick(1)
	a.admin(Admin{Kind: AdminNewCurrentUUID}) // as a Primary does that goes on alone
	for i := range uint64(40) {
		a.request(OpWrite, i*4096, 4096, 100+i)
	}
	p.tick(2)
	b.admin(Admin{Kind: AdminConnect})
	p.settle()
	if s := a.r.State(0); s.Conn != state.SyncSource {
		t.Fatalf("a is %v\n%s", s, p.take())
	}
	b.asleep = true // what a sends is on its way
	w := a.request(OpWrite, 60000, 4096, 7)
	for a.next() {
	}
	a.failing[OpFlush], a.failing[OpWrite] = true, true
	bad := a.request(OpWrite, 60008, 4096, 8)
	for a.next() {
	}
	b.asleep = false
	p.tick(3)
	if s := a.r.State(0); s.Disk != state.Diskless || !s.SuspNod {
		t.Fatalf("a is %v\n%s", s, p.take())
	}
	for _, id := range []ReqID{w, bad} {
		if o, ok := a.outcome[id]; ok {
			t.Fatalf("write %d is answered %v without any data\n%s", id, o, p.take())
		}
	}
	clear(a.failing)
	a.attach()
	p.tick(60)
	for _, id := range []ReqID{w, bad} {
		if o, ok := a.outcome[id]; !ok || o != OK {
			t.Fatalf("write %d: %v %v, a is %v\n%s", id, ok, o, a.r.State(0), p.take())
		}
	}
	p.states(t, "Connected Primary/Secondary UpToDate/UpToDate", "Connected Secondary/Primary UpToDate/UpToDate")
	if p.equal(t); a.data[60000] != 7 || a.data[60008] != 8 {
		t.Fatalf("data %d %d", a.data[60000], a.data[60008])
	}
}

// A disk that is attached beside an Outdated one ends the wait when the two have been compared:
// what the peer alone has written is not answered before (simulator, seed 56352).
func TestNoDataWaitsForTheVerdict(t *testing.T) {
	p := newPair(noDataConfig(), noDataConfig())
	a, b := establish(t, p)
	a.failing[OpWrite], b.asleep = true, true
	id := a.request(OpWrite, 8, 4096, 5)
	p.settle()
	outdated := wire.StateWord{State: state.State{Role: state.Secondary, Peer: state.Primary, Conn: state.Connected, Disk: state.Outdated}.Word()}
	a.hears(wire.CmdState, DataSocket, outdated.AppendTo(nil))
	p.settle()
	b.asleep = false
	for b.next() {
	}
	b.asleep = true
	a.inbox = slices.DeleteFunc(a.inbox, func(ev Event) bool { return ev.Cmd == wire.CmdState || ev.Cmd == wire.CmdUUIDs })
	p.settle()
	if s := a.r.State(0); s.PeerDisk != state.Outdated || !s.SuspNod || !a.r.ios.list[0].netOK {
		t.Fatalf("a is %v\n%s", s, p.take())
	}
	clear(a.failing)
	a.attach()
	p.settle()
	if o, ok := a.outcome[id]; ok || a.r.State(0).Disk != state.Negotiating {
		t.Fatalf("a is %v, the write is answered: %v %v\n%s", a.r.State(0), ok, o, p.take())
	}
	b.asleep = false
	p.tick(30)
	if o, ok := a.outcome[id]; !ok || o != OK || a.r.State(0).Suspended() {
		t.Fatalf("a is %v, write %v %v\n%s", a.r.State(0), ok, o, p.take())
	}
	p.equal(t)
}

// A write waits as well that its peer has done and that nobody can count: the peer was declared
// invalid, and the disk here failed and was attached again. When that is found to be the good one the
// write is done once more, whether the peer has acknowledged it before or after (simulator, seed
// 103633), and though it has not confirmed the epoch yet.
func TestNoDataDoesAgainWhatCountsNowhere(t *testing.T) {
	for _, early := range []bool{false, true} {
		p := newPair(noDataConfig(), noDataConfig())
		a, b := establish(t, p)
		b.asleep = true
		w := a.request(OpWrite, 8, 4096, 5)
		a.alone()
		b.inbox = append([]Event{{Kind: EvAdmin, Admin: &Admin{Kind: AdminInvalidate, Token: 99}}}, b.inbox...)
		b.next()
		p.settle()
		if s := a.r.State(0); s.Conn != state.SyncSource {
			t.Fatalf("a is %v\n%s", s, p.take())
		}
		a.admin(Admin{Kind: AdminDetach, Force: true})
		p.settle()
		var barrier []Event
		if early {
			for b.next() {
			}
			isBarrier := func(ev Event) bool { return ev.Cmd == wire.CmdBarrierAck }
			i := slices.IndexFunc(a.inbox, isBarrier)
			barrier, a.inbox = a.inbox[i:i+1:i+1], slices.Delete(slices.Clone(a.inbox), i, i+1)
			p.settle()
		}
		if s := a.r.State(0); s.Disk != state.Diskless || !s.SuspNod || a.r.ios.list[0].netOK != early {
			t.Fatalf("a is %v\n%s", s, p.take())
		}
		a.attach()
		p.settle()
		b.asleep = false
		p.settle()
		if o, ok := a.outcome[w]; ok && o != OK {
			t.Fatalf("a is %v, the write is answered %v\n%s", a.r.State(0), o, p.take())
		}
		a.inbox = append(a.inbox, barrier...)
		p.tick(60)
		p.states(t, "Connected Primary/Secondary UpToDate/UpToDate", "Connected Secondary/Primary UpToDate/UpToDate")
		if o, ok := a.outcome[w]; !ok || o != OK || a.data[8] != 5 {
			t.Fatalf("write %v %v, a has %d\n%s", ok, o, a.data[8], p.take())
		}
		p.equal(t)
		if n := a.r.ios.inUse(); n != 0 {
			t.Fatalf("%d requests are in the table", n)
		}
	}
}
