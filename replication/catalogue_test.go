package replication

import (
	"strings"
	"testing"
)

// Scenarios of the fault catalogue (docs/catalogue.txt) that need a test of their own.

// restart ends a node without notice and starts it again with another configuration.
func (n *testNode) restart(cfg Config) {
	n.r, n.inbox, n.wants = New(cfg), nil, false
	n.attach()
}

// alone steps a node through what it knows, while the other one stands still.
func (n *testNode) alone() {
	for len(n.inbox) > 0 {
		ev := n.inbox[0]
		n.inbox = n.inbox[1:]
		ev.Now = n.p.now
		n.step(&ev)
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
	if p.equal(t); b.data[8] != 6 {
		t.Fatalf("b has %d, the crashed Primary had 6", b.data[8])
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
