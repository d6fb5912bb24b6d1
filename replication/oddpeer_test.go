package replication

import (
	"testing"

	"github.com/replblk/replblk/metadata"
	"github.com/replblk/replblk/replication/state"
	"github.com/replblk/replblk/replication/wire"
)

// Scenarios of the fault catalogue: a peer, or a network, that says what fits nothing.

// N13: a second answer to a write, before its epoch is confirmed, changes nothing, whatever it
// says of success.
func TestSecondAnswerToAWrite(t *testing.T) {
	p := newPair()
	a, b := establish(t, p)
	id := a.request(OpWrite, 8, 4096, 5)
	p.settle()
	q := &a.r.ios.list[0]
	ack := wire.BlockAck{Sector: 8, BlockID: a.r.ios.blockID(0), Size: 4096}
	if !q.inEpoch || q.sector != 8 {
		t.Fatalf("the write is not in slot 0: %+v", q)
	}
	for _, cmd := range []wire.Command{wire.CmdWriteAck, wire.CmdRSWriteAck} {
		a.hears(cmd, MetaSocket, ack.AppendTo(nil))
	}
	p.tick(60)
	p.states(t, "Connected Primary/Secondary UpToDate/UpToDate", "Connected Secondary/Primary UpToDate/UpToDate")
	if p.equal(t); a.outcome[id] != OK || b.data[8] != 5 {
		t.Errorf("write %v, b has %d", a.outcome[id], b.data[8])
	}
}

// F08: sizes that a peer makes up while it is connected. A Primary neither shrinks nor grows
// beyond its own disk, and what nobody can have ends the connection.
func TestMadeUpSizes(t *testing.T) {
	for name, c := range map[string]struct {
		sizes wire.Sizes
		stays bool
	}{
		"smaller":         {wire.Sizes{Backing: 4096, Current: 4096, MaxBioSize: 1 << 20}, false},
		"nothing":         {wire.Sizes{MaxBioSize: 1 << 20}, true},
		"larger than all": {wire.Sizes{Backing: metadata.MaxSectors, User: metadata.MaxSectors, Current: metadata.MaxSectors, MaxBioSize: 1 << 20}, true},
		"impossible":      {wire.Sizes{Backing: 1 << 62, Current: 1 << 62, MaxBioSize: 1 << 20}, false},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPair()
			a, _ := establish(t, p)
			a.request(OpWrite, 8, 4096, 5)
			p.tick(2)
			before := a.r.vols[0].size
			p.apart = true
			a.hears(wire.CmdSizes, DataSocket, c.sizes.AppendTo(nil, a.r.session()))
			p.tick(30)
			s := a.r.State(0)
			if a.r.vols[0].size != before || a.decoded(t).LASizeSectors != before || s.Role != state.Primary || s.Disk != state.UpToDate {
				t.Errorf("%d sectors became %d, %v", before, a.r.vols[0].size, s)
			}
			if (s.Conn >= state.Connected) != c.stays {
				t.Errorf("%v", s)
			}
		})
	}
}

// N15: what is large is lost on its way, and what is small arrives: pings are answered, writes
// are not. The peer is given up in time, and nothing hangs.
func TestLargePacketsVanish(t *testing.T) {
	p := newPair()
	a, b := establish(t, p)
	id := a.request(OpWrite, 8, 4096, 5)
	a.alone()
	for range 600 {
		b.inbox = dropped(b.inbox, func(ev *Event) bool { return ev.Kind == EvPacket && ev.Socket == DataSocket })
		p.apart = true
		p.tick(1)
		if _, done := a.outcome[id]; done {
			break
		}
	}
	if o, ok := a.outcome[id]; !ok || o != OK || !a.has(NotePeerStuck) || a.r.vols[0].disk.bm.Weight() != 1 {
		t.Fatalf("write %v %v after %d s, %v\n%s", ok, o, p.now/Second, a.r.State(0), p.take())
	}
	if limit := Time(60*7) * 100 * Millisecond; p.now > limit+2*Second {
		t.Errorf("it took %d ms", p.now/Millisecond)
	}
}

func dropped(list []Event, drop func(*Event) bool) []Event {
	kept := list[:0]
	for i := range list {
		if !drop(&list[i]) {
			kept = append(kept, list[i])
		}
	}
	return kept
}
