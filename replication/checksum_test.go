package replication

import (
	"encoding/binary"
	"slices"
	"strings"
	"testing"

	"github.com/replblk/replblk/replication/state"
	"github.com/replblk/replblk/replication/wire"
)

func fastResync() Config {
	c := testConfig()
	c.Volumes[0].PlanAheadTenths, c.Volumes[0].ResyncRateKiB = 0, 200<<10
	return c
}

// resynced lets a resync come to its end.
func (p *pair) resynced(t *testing.T) {
	t.Helper()
	for n := 0; n < 300 && (p.nodes[0].r.State(0).Conn != state.Connected || p.nodes[1].r.State(0).Conn != state.Connected); n++ {
		p.tick(1)
	}
	p.states(t, "Connected Primary/Secondary UpToDate/UpToDate", "Connected Secondary/Primary UpToDate/UpToDate")
	p.tick(int(maxEpochAge / (100 * Millisecond))) // the last epoch is confirmed
	p.equal(t)
}

// TestChecksumResync: of a full resync, only what differs is sent.
func TestChecksumResync(t *testing.T) {
	for _, who := range []AdminKind{AdminInvalidate, AdminInvalidateRemote} {
		c := fastResync()
		c.CsumsAlg = "md5"
		p := newPair(c, c)
		a, b := establish(t, p)
		for i := range uint64(50) {
			a.request(OpWrite, i*2000, 32768, 1+i)
		}
		p.tick(3)
		b.data[8*8*100+3], b.data[a.r.vols[0].size-1] = 77, 78
		p.take()
		if who == AdminInvalidate {
			b.admin(Admin{Kind: who})
		} else {
			a.admin(Admin{Kind: who})
		}
		p.tick(3)
		if s := b.r.Status().Volumes[0]; s.ResyncSame == 0 || s.State.Conn != state.SyncTarget {
			t.Errorf("%+v", s)
		}
		a.request(OpWrite, 5, 4096, 1000)
		p.resynced(t)
		if got := strings.Count(p.take(), "RSDataReply"); got != 2 {
			t.Errorf("%d requests were answered with data, want 2", got)
		}
	}
}

func TestChecksumOnlyAfterCrash(t *testing.T) {
	c := fastResync()
	c.CsumsAlg, c.CsumsAfterCrash = "md5", true
	p := newPair(c, c)
	_, b := establish(t, p)
	p.take()
	b.admin(Admin{Kind: AdminInvalidate})
	p.tick(1)
	p.resynced(t)
	if strings.Contains(p.take(), "CsumRSRequest") {
		t.Error("checksums without a crash")
	}
}

// TestChecksumsFollowAFlush: what was written before must be durable before its block
// counts as in sync because it is equal.
func TestChecksumsFollowAFlush(t *testing.T) {
	c := fastResync()
	c.CsumsAlg = "md5"
	p := newPair(c, c)
	_, b := establish(t, p)
	b.admin(Admin{Kind: AdminInvalidate})
	var late []Event
	run := func() {
		for range 3000 {
			for _, n := range p.nodes {
				b.inbox = slices.DeleteFunc(b.inbox, func(ev Event) bool {
					slow := ev.Kind == EvDisk && ev.IO.class() == classRSSource
					if slow {
						late = append(late, ev)
					}
					return slow
				})
				n.next()
			}
			p.link()
		}
	}
	tick := func() {
		p.now += 100 * Millisecond
		for _, n := range p.nodes {
			n.post(Event{Kind: EvTick, Rand: uint64(p.now)})
		}
		run()
	}
	p.take()
	for range 3 {
		tick()
	}
	if len(late) != 1 || b.r.State(0).Conn != state.SyncTarget || strings.Contains(p.take(), "CsumRSRequest") {
		t.Fatalf("%d flushes, %v", len(late), b.r.State(0))
	}
	p.cut()
	for n := 0; n < 20 && len(late) < 2; n++ {
		tick()
	}
	if len(late) != 2 {
		t.Fatalf("%d flushes after the second start, %v", len(late), b.r.State(0))
	}
	p.take()
	b.step(&late[0]) // of the first resync
	tick()
	if strings.Contains(p.take(), "CsumRSRequest") {
		t.Error("the flush of the resync before is taken for that of this one")
	}
	b.step(&late[1])
	p.settle()
	p.resynced(t)
}

func TestChecksumReadError(t *testing.T) {
	c := fastResync()
	c.CsumsAlg = "md5"
	c.Volumes[0].OnIOError = OnErrorPassOn
	p := newPair(c, c)
	_, b := establish(t, p)
	b.failing[OpRead] = true
	b.admin(Admin{Kind: AdminInvalidate})
	p.tick(30)
	if s := b.r.Status().Volumes[0]; s.OutOfSync == 0 || s.State.Disk != state.Inconsistent {
		t.Errorf("nothing could be read: %+v", s)
	}
	if b.r.peer.used != 0 {
		t.Errorf("%d requests left", b.r.peer.used)
	}
}

// TestThinResync: ranges without data are not sent, and have none at the target.
func TestThinResync(t *testing.T) {
	c := fastResync()
	c.Volumes[0].DiscardGranularity = 64 << 10
	p := newPair(c, c)
	a, b := p.nodes[0], p.nodes[1]
	for i := range b.data {
		b.data[i] = 5
	}
	for _, n := range p.nodes {
		n.thin = true
		n.attach()
		n.admin(Admin{Kind: AdminConnect})
	}
	p.settle()
	a.data[128*9+1] = 42
	a.data[a.r.vols[0].size-1] = 43
	p.take()
	a.admin(Admin{Kind: AdminPrimary, Force: true})
	p.settle()
	p.resynced(t)
	log := p.take()
	gone, sent := strings.Count(log, "rs_deallocated"), strings.Count(log, "RSDataReply")
	if chunks := int(a.r.vols[0].size / 128); gone != chunks-1 || sent != 2 {
		t.Errorf("%d ranges without data, %d with, of %d and the rest", gone, sent, chunks)
	}
}

func TestThinRequestsNeedADiskThatDiscards(t *testing.T) {
	c := fastResync()
	c.Volumes[0].DiscardGranularity = 64 << 10
	p := newPair(c, c)
	_, b := establish(t, p)
	b.admin(Admin{Kind: AdminInvalidate})
	p.take()
	p.tick(1)
	p.resynced(t)
	if strings.Contains(p.take(), "rs_thin_req") {
		t.Error("thin requests, although the disk cannot discard")
	}
}

// digestOf is the digest of write numbers.
func digestOf(alg wire.Algorithm, data []uint64) []byte {
	d, err := wire.NewDigest(alg.String())
	if err != nil {
		panic(err)
	}
	var b []byte
	for _, v := range data {
		b = binary.BigEndian.AppendUint64(b, v)
	}
	return d.Sum(nil, b)
}
