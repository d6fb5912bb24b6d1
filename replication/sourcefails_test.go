package replication

import (
	"testing"

	"github.com/replblk/replblk/replication/state"
	"github.com/replblk/replblk/replication/wire"
)

// failingSource is a pair whose a was source of a resync that has come to its end at b, and has
// just lost its disk: that is Failed, and not Diskless before a.owed is answered. heard: a had got
// the news, and was about to settle it; else they are returned.
func failingSource(t *testing.T, heard bool, cfg Config) (p *pair, a, b *testNode, news []Event) {
	t.Helper()
	p = newPair(cfg, cfg)
	a, b = establish(t, p)
	p.apart = true
	p.cut()
	p.tick(2)
	a.request(OpWrite, 8, 4096, 7)
	p.tick(2)
	p.apart = false
	b.watch = func() {
		if s := b.r.State(0); s.Disk == state.UpToDate && s.Conn == state.Connected {
			b.stuck, a.asleep = true, !heard // a generation that it begins is not told yet
		}
	}
	a.watch = func() {
		if a.r.vols[0].rs.notified {
			a.stuck, a.asleep = true, true
		}
	}
	for n := 0; n < 100 && !a.asleep; n++ {
		p.tick(1)
	}
	if s := a.r.State(0); s.Conn != state.SyncSource {
		t.Fatalf("heard %v: %v", heard, s)
	}
	p.apart, b.watch, a.watch = true, nil, nil
	news = a.hold(EvPacket)
	a.hung = true
	a.request(OpRead, 4096, 4096, 0)
	a.alone()
	a.hung, a.failing[OpRead] = false, true
	a.request(OpRead, 512, 4096, 0)
	a.alone()
	a.failing[OpRead] = false
	if s := a.r.State(0); s.Disk != state.Failed || s.Conn != state.Connected || b.r.State(0).Conn != state.Connected {
		t.Fatalf("heard %v: %v, peer %v\n%s", heard, s, b.r.State(0), p.take())
	}
	return p, a, b, news
}

// TestSourceFailsAtTheEnd: the disk of a Primary fails when the resync of its peer has come to its
// end there, and the news is on its way, or the source has still to settle it. The application
// goes on with the peer's data, of the generation that the resync has brought or the one that
// the peer begins now.
func TestSourceFailsAtTheEnd(t *testing.T) {
	for _, heard := range []bool{false, true} {
		p, a, b, news := failingSource(t, heard, testConfig())
		a.inbox = append(news, a.inbox...)
		a.asleep = false
		a.unstick()
		id := a.request(OpWrite, 16, 4096, 8)
		p.settle()
		a.post(Event{Kind: EvDisk, IO: a.owed[0]})
		p.settle()
		p.states(t, "Connected Primary/Secondary Diskless/UpToDate", "Connected Secondary/Primary UpToDate/Diskless")
		if o, done := a.outcome[id]; done && o != OK {
			t.Errorf("heard %v: write %v", heard, o)
		}
		p.cut()
		b.unstick()
		p.apart = false
		p.tick(20)
		p.states(t, "Connected Primary/Secondary Diskless/UpToDate", "Connected Secondary/Primary UpToDate/Diskless")
	}
}

// TestSourceThatFailedAtTheEndIsTarget: the same, and the connection is lost before the peer hears
// of the disk. What the peer alone has written counts.
func TestSourceThatFailedAtTheEndIsTarget(t *testing.T) {
	for _, heard := range []bool{false, true} {
		c := testConfig()
		c.MaxVersion = 99 // no rule 42
		p, a, b, news := failingSource(t, heard, c)
		told := b.hold(EvPacket)
		a.asleep, b.stuck = false, false
		a.inbox = append(news, a.inbox...)
		a.alone()
		id := a.request(OpWrite, 16, 4096, 8)
		a.alone()
		told = append(told, b.hold(EvPacket)...)
		for _, ev := range told {
			if ev.Cmd == wire.CmdData {
				b.post(ev)
			}
		}
		p.settle()
		if o, done := a.outcome[id]; !done || o != OK || b.data[16] != 8 {
			t.Fatalf("heard %v: write %v %v\n%s", heard, done, o, p.take())
		}
		p.cut()
		a.unstick()
		a.post(Event{Kind: EvDisk, IO: a.owed[0]})
		p.tick(2)
		a.admin(Admin{Kind: AdminSecondary})
		p.apart = false
		p.tick(15)
		a.attach()
		p.tick(30)
		p.states(t, "Connected Secondary/Secondary UpToDate/UpToDate", "Connected Secondary/Secondary UpToDate/UpToDate")
		p.equal(t)
		if b.data[16] != 8 {
			t.Errorf("heard %v: an answered write is lost", heard)
		}
	}
}
