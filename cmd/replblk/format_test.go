package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/replblk/replblk/internal/control"
	"github.com/replblk/replblk/replication/state"
)

func syncing() control.Resource {
	return control.Resource{
		Name: "alpha", Peer: "bravo", PeerID: 1, Up: true, Connection: "Connected", Protocol: "C", Role: "Primary", PeerRole: "Secondary",
		Local: "ipv4:10.0.0.1:7789", Remote: "ipv4:10.0.0.2:7789",
		Volumes: []control.Volume{{
			Minor: 0, State: "SyncSource", Disk: "UpToDate", PeerDisk: "Inconsistent", Role: "Primary", PeerRole: "Secondary",
			Backing: "/dev/vg0/alpha", Size: 1048540 << 10, OutOfSync: 92764 << 10,
			Counters: control.Counters{Sent: 4096 << 10, Written: 4096 << 10, Read: 2048 << 10, ALWrites: 7},
			Resync:   &control.Resync{Total: 131064 << 10, Left: 92764 << 10, Rate: 1280 << 10, Average: 1280 << 10},
		}},
	}
}

// The example of spec/ecosystem.md 2.3, with the time that its rate gives.
func TestProcForm(t *testing.T) {
	var b bytes.Buffer
	r := syncing()
	down := control.Resource{Name: "x", Volumes: []control.Volume{{Minor: 2, State: "StandAlone", Disk: "Diskless"}}}
	writeProc(&b, []control.Resource{down, r})
	want := procHead + " 0: cs:SyncSource ro:Primary/Secondary ds:UpToDate/Inconsistent C r-----\n" +
		"    ns:4096 nr:0 dw:4096 dr:2048 al:7 bm:0 lo:0 pe:0 ua:0 ap:0 ep:1 wo:f oos:92764\n" +
		"\t[====>...............] sync'ed: 29.2% (92764/131064)K\n" +
		"\tfinish: 0:01:12 speed: 1,280 (1,280) K/sec\n" +
		"\n 2: cs:Unconfigured\n"
	if b.String() != want {
		t.Errorf("got\n%s\nwant\n%s", b.String(), want)
	}
}

func TestStatusForm(t *testing.T) {
	r := syncing()
	var b bytes.Buffer
	writeStatus(&b, []control.Resource{r}, false)
	want := "alpha role:Primary\n  disk:UpToDate\n  bravo role:Secondary\n    replication:SyncSource peer-disk:Inconsistent done:29.22 eta:1m12s\n\n"
	if b.String() != want {
		t.Errorf("got\n%s\nwant\n%s", b.String(), want)
	}
	b.Reset()
	r.Volumes = append(r.Volumes, control.Volume{Number: 1, Minor: 1, State: "PausedSyncS", Disk: "UpToDate", PeerDisk: "Outdated", PausedUser: true, PausedPeer: true})
	writeStatus(&b, []control.Resource{r}, false)
	for _, line := range []string{"  volume:1 disk:UpToDate\n", "    volume:1 replication:PausedSyncS peer-disk:Outdated resync-suspended:user,peer\n"} {
		if !strings.Contains(b.String(), line) {
			t.Errorf("no %q in\n%s", line, b.String())
		}
	}
	b.Reset()
	r.Connection, r.Volumes = "WFConnection", r.Volumes[:1]
	r.Volumes[0].State, r.Volumes[0].Resync = "WFConnection", nil
	writeStatus(&b, []control.Resource{r}, false)
	if want := "alpha role:Primary\n  disk:UpToDate\n  bravo connection:Connecting\n\n"; b.String() != want {
		t.Errorf("got\n%s\nwant\n%s", b.String(), want)
	}
}

func TestShStatusForm(t *testing.T) {
	r := syncing()
	var b bytes.Buffer
	writeShStatus(&b, &r)
	want := "_minor=0\n_res_name=alpha\n_volume=0\n_known=Configured\n\n_cstate=SyncSource\n_role=Primary\n_peer=Secondary\n_disk=UpToDate\n_pdsk=Inconsistent\n\n" +
		"_flags_susp=\n_flags_aftr_isp=\n_flags_peer_isp=\n_flags_user_isp=\n_resynced_percent=29.2\n\n_sh_status_process\n\n"
	if b.String() != want {
		t.Errorf("got\n%s\nwant\n%s", b.String(), want)
	}
}

func TestGrouped(t *testing.T) {
	for n, want := range map[int64]string{0: "0", 999: "999", 1280: "1,280", 12345678: "12,345,678", 123456: "123,456"} {
		if got := grouped(n); got != want {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
	}
}

func TestProgressRate(t *testing.T) {
	var p progress
	p.changed(0, state.Connected, state.SyncTarget)
	if !p.busy() || p.look(1, 0, 0) != nil {
		t.Fatal("one volume is syncing, and only that")
	}
	run := p.runs[0]
	start := run.began
	var s *control.Resync
	for i := range 60 { // 10 MB a second for half a minute, then 20
		left := uint64(1e9) - uint64(i)*10e6
		if i > 30 {
			left -= uint64(i-30) * 10e6
		}
		s = run.look(start.Add(time.Duration(i)*time.Second), 1e9, left)
	}
	if s.Rate != 20e6 {
		t.Errorf("rate over the last seconds %v, want 20e6", s.Rate)
	}
	if want := 880e6 / 59; s.Average < want*0.99 || s.Average > want*1.01 {
		t.Errorf("average %v, want %v", s.Average, want)
	}
	if s.Stalled {
		t.Error("stalled while it moves")
	}
	if s = run.look(start.Add(75*time.Second), 1e9, s.Left); !s.Stalled {
		t.Error("not stalled after 15 s without a move")
	}
	p.changed(0, state.SyncTarget, state.Connected)
	if p.busy() {
		t.Error("busy after the end")
	}
}
