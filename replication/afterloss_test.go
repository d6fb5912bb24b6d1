package replication

import (
	"maps"
	"testing"

	"github.com/replblk/replblk/activitylog"
	"github.com/replblk/replblk/bitmap"
	"github.com/replblk/replblk/metadata"
	"github.com/replblk/replblk/replication/state"
	"github.com/replblk/replblk/replication/wire"
)

// arrived is a pair whose b has got two writes with a barrier between them, and then lost the
// connection: the first is on its way to the disk, the second waits for the barrier. What the
// disk answers is in the inbox.
func arrived(t *testing.T, proto Protocol) (p *pair, a, b *testNode) {
	t.Helper()
	p = newPair(withProtocol(proto), withProtocol(proto))
	a, b = establish(t, p)
	b.asleep = true
	a.request(OpWrite, 0, 4096, 5)
	for range 25 { // until the epoch is old enough for a barrier
		a.post(Event{Kind: EvTick})
		a.alone()
		p.now += 100 * Millisecond
	}
	a.request(OpWrite, 8, 4096, 6)
	a.alone()
	var packets []wire.Command
	for _, ev := range b.inbox {
		packets = append(packets, ev.Cmd)
	}
	if len(packets) != 3 || packets[0] != wire.CmdData || packets[1] != wire.CmdBarrier || packets[2] != wire.CmdData {
		t.Fatalf("b got %v", packets)
	}
	for range packets {
		b.next()
	}
	if b.data[8] != 0 {
		t.Fatal("the second write does not wait for the barrier")
	}
	p.apart = true
	p.cut()
	in := b.inbox // the loss is noticed before the disk answers
	b.inbox = append([]Event{in[len(in)-1]}, in[:len(in)-1]...)
	b.next()
	return p, a, b
}

// replay marks what the activity log of a Primary that did not end well covers, and makes the
// log empty, as every driver does before an attachment.
func (n *testNode) replay(sb *metadata.Superblock, bm *bitmap.Bitmap) {
	l := n.layout
	if sb.Flags.Has(metadata.PrimaryInd) {
		var area []byte
		for s := l.ActivityLog; s < l.ActivityLog+l.ActivityLogSectors; s += 8 {
			if block := n.ring[s]; block != nil {
				area = append(area, block...)
			} else {
				area = activitylog.AppendInitialized(area)
			}
		}
		log, err := activitylog.Replay(activitylog.Ring(l.Striping), area)
		if err != nil {
			panic(err)
		}
		const bits = activitylog.SectorsPerExtent / bitmap.SectorsPerBit
		for _, x := range log.Extents {
			bm.SetRange(uint64(x)*bits, min(uint64(x+1)*bits, bm.Bits()))
		}
	}
	n.ring = map[uint64][]byte{}
}

// W13: under protocol A a write may have been answered that has only arrived. It is carried out
// although its connection is gone.
func TestWhatHasArrivedIsWritten(t *testing.T) {
	p, _, b := arrived(t, ProtocolA)
	b.asleep = false
	p.tick(2)
	if b.data[0] != 5 || b.data[8] != 6 {
		t.Errorf("b has %d and %d", b.data[0], b.data[8])
	}
	p.apart = false
	p.tick(30)
	p.states(t, "Connected Primary/Secondary UpToDate/UpToDate", "Connected Secondary/Primary UpToDate/UpToDate")
	p.equal(t)
}

// P07: a node is not promoted while writes of the old connection are on their way to its disk:
// they would land on top of its own.
func TestPromotionWaitsForTheOldConnection(t *testing.T) {
	_, _, b := arrived(t, ProtocolC)
	token := b.admin(Admin{Kind: AdminPrimary})
	in := b.inbox
	b.inbox = append([]Event{in[len(in)-1]}, in[:len(in)-1]...)
	b.next()
	if s := b.r.State(0); s.Role == state.Primary {
		t.Fatalf("%v while a write of the peer is on its way to the disk", s)
	}
	b.alone()
	b.post(Event{Kind: EvTick})
	b.alone()
	if s := b.r.State(0); s.Role != state.Primary || !b.replies[token].OK() || b.r.peer.used != 0 {
		t.Errorf("%v, answer %v, %d requests of the peer", s, b.replies[token], b.r.peer.used)
	}
}

// B12: a copy that was declared worthless is so after a crash at any moment: it passes for good
// still, or everything is out of sync, by bits or by the mark that stands for them.
func TestCrashWhileEverythingIsMarked(t *testing.T) {
	p := newPair()
	_, b := establish(t, p)
	for _, n := range p.nodes {
		p.command(t, n, Admin{Kind: AdminDisconnect, Force: true})
	}
	type disk struct {
		super []byte
		pages map[uint64][]byte
	}
	crashes := []disk{}
	b.writing = func(uint64, []byte) { crashes = append(crashes, disk{b.super, maps.Clone(b.pages)}) }
	if r := p.command(t, b, Admin{Kind: AdminInvalidate}); !r.OK() {
		t.Fatal(r)
	}
	b.writing = nil
	crashes = append(crashes, disk{b.super, b.pages})
	marked := 0
	for i, c := range crashes {
		b.super, b.pages = c.super, c.pages
		b.restart(testConfig())
		p.tick(2)
		v := b.r.vols[0]
		if v.disk == nil {
			t.Fatalf("crash %d: %v", i, b.r.State(0))
		}
		if good := v.disk.sb.Flags.Has(metadata.Consistent); !good {
			marked++
			if v.disk.bm.Weight() != v.disk.bm.Bits() {
				t.Errorf("crash %d of %d: Inconsistent, %d of %d bits", i, len(crashes), v.disk.bm.Weight(), v.disk.bm.Bits())
			}
		}
	}
	if marked < 2 || marked == len(crashes) {
		t.Errorf("%d of %d crashes are after the mark", marked, len(crashes))
	}
}

// W10: an extent stays in the activity log after its write was answered, until the peer has
// confirmed that it is on stable storage there.
func TestExtentStaysUntilTheBarrier(t *testing.T) {
	p := newPair()
	a, _ := establish(t, p)
	id := a.request(OpWrite, 8, 4096, 5)
	p.settle()
	if o, ok := a.outcome[id]; !ok || o != OK {
		t.Fatalf("write: %v %v", o, ok)
	}
	set := a.r.vols[0].disk.al.set
	if !set.IsActive(0) {
		t.Error("nothing holds the extent although no barrier was confirmed")
	}
	p.tick(5)
	if set.IsActive(0) {
		t.Error("the extent is held after the barrier")
	}
}

// U06, U07: after the crash of a Primary its peer is the source if it has run all the time, for
// it has every write that was answered. One that was restarted, or that under protocol A may
// never have got them, does not claim it, and DRBD's rule holds: the crashed Primary is.
func TestWhoSurvivesIsSource(t *testing.T) {
	for name, c := range map[string]struct {
		proto   Protocol
		restart bool
		want    uint64
	}{
		"the peer has run all the time": {ProtocolC, false, 7},
		"the peer was restarted":        {ProtocolC, true, 6},
		"protocol A":                    {ProtocolA, false, 6},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := withProtocol(c.proto)
			p := newPair(cfg, cfg)
			a, b := establish(t, p)
			a.request(OpWrite, 8, 4096, 5)
			p.tick(2)
			p.apart = true
			p.cut()
			a.data[8], b.data[8] = 6, 7 // what a power loss may leave of a write in progress
			a.restart(cfg)
			if c.restart {
				b.restart(cfg)
				b.admin(Admin{Kind: AdminConnect})
			}
			p.settle()
			a.admin(Admin{Kind: AdminConnect})
			p.apart = false
			p.tick(100)
			p.states(t, "Connected Secondary/Secondary UpToDate/UpToDate", "Connected Secondary/Secondary UpToDate/UpToDate")
			if p.equal(t); a.data[8] != c.want {
				t.Errorf("both have %d, want %d", a.data[8], c.want)
			}
		})
	}
}
