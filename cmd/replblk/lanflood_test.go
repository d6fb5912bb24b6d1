package main

import (
	"bytes"
	"syscall"
	"testing"
	"time"

	"github.com/replblk/replblk/aoe"
	"github.com/replblk/replblk/aoe/aoetest"
	"github.com/replblk/replblk/internal/control"
)

// flood sends n writes to the ledger's blocks, of a kind that nobody has acknowledged.
func (s *station) flood(n int) {
	s.t.Helper()
	h := aoe.Header{Dst: s.target, Src: s.link.HardwareAddr(), Version: aoe.Version, Shelf: 1, Slot: 1}
	batch := make([][]byte, 64)
	for i := range batch {
		a := aoe.ATA{Flags: aoe.ATAFlagWrite | aoe.ATAFlagExt, Command: aoe.ATAWriteExt, Count: 2, LBA: uint64(i) * 2}
		batch[i] = append(a.AppendTo(h.AppendTo(nil)), bytes.Repeat([]byte{0xee}, 1024)...)
	}
	for ; n > 0; n -= len(batch) {
		if _, err := s.link.Send(batch); err != nil {
			s.t.Fatal(err)
		}
	}
}

// TestAoEFlood: a station that is not in the mask list sends as fast as it can, while a
// client that is works on; then more than the socket's buffer holds, while the daemon
// stands still. Nothing of it is carried out, all of it is counted, and the client is
// served. The same station answers for the target's address, which is reported.
func TestAoEFlood(t *testing.T) {
	unraced(t)
	n := newLAN(t, 1500)
	n.another(t, "cli2")
	const allowed = "02:00:00:00:00:99"
	ip(t, "-n "+n.client+" link set cli address "+allowed)
	a, _ := n.pair(t, "", "mac \""+allowed+"\";")
	s := n.station(t, 2)
	link, err := aoetest.OpenIn(n.client, "cli2")
	if err != nil {
		t.Fatal(err)
	}
	defer link.Close()
	stranger := &station{t: t, link: link, target: s.target}
	c := newMember(stranger)
	c.Timeout = 100 * time.Millisecond
	if _, err := c.Discover(); err == nil {
		t.Error("a station outside the mask list has found the target")
	}

	timer := aoetest.NewLinux(int(s.config.Buffers))
	lost := timer.Limit() // what a lost frame costs at the most
	l := s.load(timer, 8, 1500*time.Millisecond, func() { stranger.flood(50000) })
	t.Logf("beside the flood: no answer for %v, %d repeats, %d written, %d read", l.Frozen, l.Repeats, s.ledger.Written, s.ledger.Read)
	if l.Frozen > lost+servedSoon {
		t.Errorf("the client waited %v", l.Frozen)
	}
	// On a slow machine the buffer overruns even beside the client.
	r := a.waitFor("masked frames", func(r *control.Resource) bool {
		return r.AoE[0].Dropped["masked"] > 1000 && r.AoE[0].Dropped["masked"]+r.AoE[0].Links[0].Overruns > 10000
	})
	before := r.AoE[0].Links[0].Overruns
	if last := r.AoE[0].Initiators; len(last) != 2 {
		t.Errorf("initiators %+v", last)
	}

	_ = a.cmd.Process.Signal(syscall.SIGSTOP)
	stranger.flood(40000)
	_ = a.cmd.Process.Signal(syscall.SIGCONT)
	r = a.waitFor("overruns", func(r *control.Resource) bool { return r.AoE[0].Links[0].Overruns > before })
	t.Logf("%d frames masked, %d lost at the full buffer", r.AoE[0].Dropped["masked"], r.AoE[0].Links[0].Overruns)
	s.verify()

	short := aoe.Header{Dst: s.target, Src: link.HardwareAddr(), Version: aoe.Version, Shelf: 1, Slot: 1}
	if _, err := link.Send([][]byte{short.AppendTo(nil)[:aoe.HeaderLen-2]}); err != nil {
		t.Fatal(err)
	}
	a.waitFor("malformed frame", func(r *control.Resource) bool { return r.AoE[0].Links[0].Malformed == 1 })

	h := aoe.Header{Dst: aoe.Broadcast, Src: link.HardwareAddr(), Version: aoe.Version, Flags: aoe.FlagResponse, Shelf: 1, Slot: 1, Command: aoe.CommandConfig}
	cfg := aoe.ConfigArg{Buffers: 16, Sectors: 2, Version: aoe.Version}
	if _, err := link.Send([][]byte{cfg.AppendTo(h.AppendTo(nil))}); err != nil {
		t.Fatal(err)
	}
	a.waitForLog("another station answers for this target")
	a.waitFor("conflict", func(r *control.Resource) bool { return r.AoE[0].Conflicts > 0 && r.AoE[0].Serving })
	s.verify()
}
