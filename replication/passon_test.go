package replication

import (
	"testing"

	"github.com/replblk/replblk/bitmap"
	"github.com/replblk/replblk/replication/state"
)

// passOn is a pair whose disks stay in service after an error (on-io-error pass_on). b lacks
// 20 blocks.
func passOn(t *testing.T, change func(*Config)) (p *pair, a, b *testNode) {
	t.Helper()
	cfg := fastResync()
	cfg.Volumes[0].OnIOError = OnErrorPassOn
	cfg.VerifyAlg = "sha1"
	if change != nil {
		change(&cfg)
	}
	p = newPair(cfg, cfg)
	a, b = establish(t, p)
	p.outage()
	return p, a, b
}

// has says whether a node has run into a remark.
func (n *testNode) has(want Note) bool {
	for i := range n.notes {
		if n.notes[i].Note == want {
			return true
		}
	}
	return false
}

// D19: a block that the source cannot read, or the target cannot write, does not stop a
// resync, and is not forgotten: the copy stays Inconsistent with the bits of what it lacks,
// until a later resync brings it.
func TestResyncGoesOnAfterErrors(t *testing.T) {
	for name, fail := range map[string]func(a, b *testNode, on bool){
		"the source cannot read":  func(a, _ *testNode, on bool) { a.bad[24*5] = on },
		"the target cannot write": func(_, b *testNode, on bool) { b.bad[24*5] = on },
	} {
		t.Run(name, func(t *testing.T) {
			p, a, b := passOn(t, nil)
			fail(a, b, true)
			p.tick(60)
			if s := b.r.State(0); s.Conn != state.Connected || s.Disk != state.Inconsistent || !b.has(NoteResyncFailed) || !a.has(NoteResyncFailed) {
				t.Fatalf("b is %v, a %v: %+v\n%s", s, a.r.State(0), a.r.Status().Volumes[0], p.take())
			}
			for _, n := range p.nodes {
				if v := n.r.vols[0]; v.disk.bm.Weight() != 1 || !v.disk.bm.Test(24*5/bitmap.SectorsPerBit) {
					t.Errorf("%s: %d bits are set, want that of the block that failed", n.name, v.disk.bm.Weight())
				}
				if len(n.bufs) != 0 || n.r.peer.used != 0 {
					t.Errorf("%s: %d buffers, %d requests left", n.name, len(n.bufs), n.r.peer.used)
				}
			}
			fail(a, b, false)
			p.cut()
			p.tick(60)
			p.states(t, "Connected Primary/Secondary UpToDate/UpToDate", "Connected Secondary/Primary UpToDate/UpToDate")
			p.equal(t)
			if b.data[24*5] != 75 {
				t.Errorf("b has %d", b.data[24*5])
			}
		})
	}
}

// V03: a block that cannot be read counts as different, on whichever node, and the run goes
// on.
func TestVerifyGoesOnAfterErrors(t *testing.T) {
	for who := range 2 {
		for broken := range 2 {
			p, a, b := passOn(t, nil)
			p.tick(60)
			p.states(t, "Connected Primary/Secondary UpToDate/UpToDate", "Connected Secondary/Primary UpToDate/UpToDate")
			p.nodes[broken].bad[7000*8] = true
			p.nodes[who].admin(Admin{Kind: AdminVerify})
			for range 100 {
				p.tick(1)
			}
			for _, n := range []*testNode{a, b} {
				s := n.r.Status().Volumes[0]
				if s.State.Conn != state.Connected || !n.r.vols[0].disk.bm.Test(7000) || n.r.peer.used != 0 || len(n.r.vols[0].rs.busy) != 0 {
					t.Errorf("run of %d, %d is broken: %s: %v, %d blocks differ", who, broken, n.name, s.State, s.OutOfSync)
				}
			}
		}
	}
}

// on-io-error call-local-io-error: the handler runs, and the disk is out of service.
func TestHandlerForErrors(t *testing.T) {
	p, a, b := passOn(t, func(c *Config) { c.Volumes[0].OnIOError = OnErrorCallHandler })
	p.tick(60)
	b.bad[800] = true
	id := a.request(OpWrite, 800, 4096, 5)
	p.tick(5)
	if s := b.r.State(0); s.Disk != state.Diskless || !b.ran(HandlerLocalIOError) {
		t.Errorf("b is %v\n%s", s, p.take())
	}
	if o, ok := a.outcome[id]; !ok || o != OK || a.ran(HandlerLocalIOError) || !a.r.vols[0].disk.bm.Test(100) {
		t.Errorf("write %v %v, %d bits", o, ok, a.r.vols[0].disk.bm.Weight())
	}
}

// Without flushes of its own (disk-flushes no) a resync and an epoch end all the same.
func TestWithoutFlushes(t *testing.T) {
	p, a, b := passOn(t, func(c *Config) { c.Volumes[0].DiskFlushes = false })
	for _, n := range p.nodes {
		n.failing[OpFlush] = true // nobody asks for one
	}
	p.tick(60)
	write := a.request(OpWrite, 800, 4096, 5)
	p.tick(5)
	p.states(t, "Connected Primary/Secondary UpToDate/UpToDate", "Connected Secondary/Primary UpToDate/UpToDate")
	p.equal(t)
	if a.outcome[write] != OK || len(a.r.tl.closed) != 0 || b.data[800] != 5 || b.data[24*5] != 75 {
		t.Errorf("answers %v, %d epochs open, b has %d and %d", a.outcome, len(a.r.tl.closed), b.data[800], b.data[24*5])
	}
}

// B14, B15: the news that a write made a block equal count late, when its epoch is confirmed
// (protocol B), and meanwhile a newer write to the block was for this disk only, because the
// peer has detached its own. They say nothing about that one: its bit stays.
func TestLateNewsOfAnOlderWrite(t *testing.T) {
	p, a, b := passOn(t, func(c *Config) { c.Protocol = ProtocolB })
	b.admin(Admin{Kind: AdminPauseSync})
	p.settle()
	p.states(t, "PausedSyncS Primary/Secondary UpToDate/Inconsistent peer_isp", "PausedSyncT Secondary/Primary Inconsistent/UpToDate user_isp")
	v := a.r.vols[0]
	a.request(OpWrite, 24*5, 4096, 1000)
	p.settle() // its epoch is not confirmed
	if b.data[24*5] != 1000 || !v.disk.bm.Test(15) || a.r.ios.late != 1 {
		t.Fatalf("b has %d, %d late writes\n%s", b.data[24*5], a.r.ios.late, p.take())
	}
	b.admin(Admin{Kind: AdminDetach})
	p.settle()
	id := a.request(OpWrite, 24*5, 4096, 1001)
	p.settle()
	if o, ok := a.outcome[id]; !ok || o != OK || b.data[24*5] != 1000 || a.r.State(0).Conn < state.Connected {
		t.Fatalf("write %v %v, b has %d, %v\n%s", o, ok, b.data[24*5], a.r.State(0), p.take())
	}
	p.tick(30)
	if a.r.ios.inUse() != 0 || !v.disk.bm.Test(15) {
		t.Fatalf("%d writes are not confirmed, bit %v\n%s", a.r.ios.inUse(), v.disk.bm.Test(15), p.take())
	}
	b.attach()
	b.admin(Admin{Kind: AdminResumeSync})
	p.tick(60)
	p.states(t, "Connected Primary/Secondary UpToDate/UpToDate", "Connected Secondary/Primary UpToDate/UpToDate")
	p.equal(t)
}

// A01: writes to more extents than the activity log has slots, while the peer confirms
// nothing: they wait in order, the epoch is closed for them, and its confirmation lets all of
// them go on.
func TestStarvedWritesGoOn(t *testing.T) {
	cfg := testConfig()
	cfg.Volumes[0].ALExtents = 7 // the least there is are more
	p := newSizedPair(1<<20, cfg, cfg)
	a, b := establish(t, p)
	slots := a.r.vols[0].disk.al.set.Slots()
	b.asleep = true
	var ids []ReqID
	for i := range uint64(slots + 5) {
		ids = append(ids, a.request(OpWrite, i*8192, 4096, 100+i))
	}
	a.request(OpWrite, 0, 4096, 99) // to an extent that is in the log: it waits its turn all the same
	p.settle()
	if n := len(a.r.vols[0].disk.al.starved); n == 0 {
		t.Fatalf("nothing starves: %d writes, %d slots", len(ids), slots)
	}
	b.asleep = false
	p.settle()
	p.tick(30)
	for _, id := range ids {
		if o, ok := a.outcome[id]; !ok || o != OK {
			t.Errorf("write %d: %v %v", id, o, ok)
		}
	}
	p.equal(t)
	if b.data[0] != 99 || len(a.r.vols[0].disk.al.starved) != 0 {
		t.Errorf("b has %d, %d writes starve", b.data[0], len(a.r.vols[0].disk.al.starved))
	}
}

// TestBadDiskIsTakenForGood: a verify says of both disks that they are UpToDate, an invalidate of
// its source. Of a copy that lacks blocks that must not be said while the other one is
// good, whoever asks for it.
func TestBadDiskIsTakenForGood(t *testing.T) {
	for _, tt := range []struct {
		at   int
		kind AdminKind
	}{{0, AdminVerify}, {1, AdminVerify}, {0, AdminInvalidate}, {1, AdminInvalidateRemote}} {
		p, _, b := passOn(t, nil)
		b.bad[24*5] = true
		p.tick(60)
		n := p.nodes[tt.at]
		if got := p.command(t, n, Admin{Kind: tt.kind}); got != state.NoUpToDateDisk {
			t.Errorf("command %d at %s: %v", tt.kind, n.name, got)
		}
		p.states(t, "Connected Primary/Secondary UpToDate/Inconsistent", "Connected Secondary/Primary Inconsistent/UpToDate")
	}
}
