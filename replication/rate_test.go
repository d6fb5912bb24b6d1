package replication

import (
	"strings"
	"testing"

	"github.com/replblk/replblk/replication/state"
)

// The first request does not wait for a tick: a small resync would take no time
// otherwise but that.
func TestResyncBeginsAtOnce(t *testing.T) {
	p := newPair()
	a, b := establish(t, p)
	b.admin(Admin{Kind: AdminDisconnect})
	p.settle()
	a.request(OpWrite, 0, 4096, 7)
	p.settle()
	b.admin(Admin{Kind: AdminConnect})
	p.take()
	p.settle()
	if log := p.take(); !strings.Contains(log, "b>a: RSDataRequest") || b.data[0] != 7 {
		t.Errorf("nothing was copied before the first tick\n%s", log)
	}
	p.equal(t)
}

// automaticConfig has DRBD's defaults.
func automaticConfig() Config {
	c := testConfig()
	c.Volumes[0].ResyncRateKiB = 250
	return c
}

// TestAutomaticRateUsesTheLink: with nothing configured and a quiet application, what is in
// flight is limited by max-buffers and by nothing else.
func TestAutomaticRateUsesTheLink(t *testing.T) {
	p := newPair(automaticConfig(), automaticConfig())
	p.quiet = true
	_, b := establish(t, p)
	b.admin(Admin{Kind: AdminInvalidate})
	p.tick(2)
	if s := b.r.State(0); s.Conn != state.Connected || s.Disk != state.UpToDate {
		t.Errorf("64 MiB between two instant disks are not copied in two ticks: %v", s)
	}
}

// TestAutomaticRateSparesTheApplication: while it is busy, on either node, a resync asks for
// little at a time, and for a part of what was possible.
func TestAutomaticRateSparesTheApplication(t *testing.T) {
	for _, primary := range []string{"source", "target"} {
		t.Run(primary, func(t *testing.T) {
			p := newPair(automaticConfig(), automaticConfig())
			p.quiet = true
			a, b := establish(t, p)
			if primary == "target" {
				a.admin(Admin{Kind: AdminSecondary})
				p.settle()
				b.admin(Admin{Kind: AdminPrimary})
				p.settle()
				a = b
			}
			v := p.nodes[1].r.vols[0] // always the target
			a.request(OpWrite, 8, 4096, 7)
			p.tick(1)
			p.nodes[1].admin(Admin{Kind: AdminInvalidate})
			p.settle()
			for range 10 {
				before := v.disk.bm.Weight()
				a.request(OpWrite, 8, 4096, 7)
				p.tick(1)
				if !v.st.Conn.Resync() {
					t.Fatal("the resync is over already")
				}
				if took := before - v.disk.bm.Weight(); took > mostShare+busyRequest {
					t.Errorf("%d blocks in a tick with application I/O", took)
				}
				if len(v.rs.reqs) > busyWindow/busyRequest+1 {
					t.Errorf("%d requests in flight", len(v.rs.reqs))
				}
			}
			p.tick(busyTicks + 3)
			p.equal(t)
		})
	}
}

// TestAutoRate is the rule by itself.
func TestAutoRate(t *testing.T) {
	v := automaticConfig().Volumes[0]
	var a autoRate
	if got := a.tick(&v, 0, 0, false); got != unlimited {
		t.Errorf("quiet: %d blocks", got)
	}
	a.tick(&v, 8000, 0, false)
	if got := a.tick(&v, 4000, 0, true); got > 8000/peakPart || got < 8000/peakPart/4 {
		t.Errorf("busy after a peak of 8000: %d blocks", got)
	}
	for range 30 {
		a.tick(&v, 100, 0, true)
	}
	if a.share != 8000/peakPart {
		t.Errorf("everything arrives in time: %d blocks, want a part of the peak", a.share)
	}
	for range 50 {
		a.tick(&v, 100, 10, true)
	}
	if floor := int64(v.MinRateKiB) / 40; a.share != floor {
		t.Errorf("nothing arrives in time: %d blocks, want c-min-rate, %d", a.share, floor)
	}
	for i := range busyTicks {
		if got := a.tick(&v, 0, 0, false); (got == unlimited) != (i == busyTicks-1) {
			t.Errorf("%d ticks after the application: %d blocks", i+1, got)
		}
	}
	v.MinRateKiB = 0
	if got := a.tick(&v, 0, 0, true); got != unlimited {
		t.Errorf("c-min-rate 0: %d blocks", got)
	}
}

// TestMinRate: with a configured controller, c-min-rate is what it is in DRBD.
func TestMinRate(t *testing.T) {
	v := testConfig().Volumes[0]
	for _, tt := range []struct {
		name     string
		min      uint32
		answered uint64 // sectors per tick
		app      uint64
		stands   bool
	}{
		{"slower than c-min-rate", 250, 40, 1000, false},
		{"faster, and the application is busy", 250, 400, 1000, true},
		{"faster, and it does next to nothing", 250, 400, 64, false},
		{"switched off", 0, 400, 1000, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			v.MinRateKiB = tt.min
			var c rateController
			c.reset(int(v.PlanAheadTenths))
			for range 100 {
				c.tick(&v)
				c.answered = tt.answered
				c.seen(tt.app)
			}
			c.tick(&v)
			if stands := c.budget == 0; stands != tt.stands {
				t.Errorf("budget %d", c.budget)
			}
		})
	}
}

// R13: a resync and a verify with the smallest max-buffers, while both directions are full of
// writes.
func TestTinyMaxBuffers(t *testing.T) {
	cfg := withVerify()
	cfg.MaxBuffers = 32
	p := newPair(cfg, cfg)
	a, _ := establish(t, p)
	p.outage()
	load := func(ticks int) {
		for i := range uint64(ticks) {
			for j := range uint64(30) {
				a.request(OpWrite, (i*31+j)*1024%120000, 8192, i*100+j)
			}
			p.tick(1)
		}
	}
	load(40)
	if s := a.r.State(0); s.Conn != state.Connected {
		t.Fatalf("%v\n", s)
	}
	if r := p.command(t, a, Admin{Kind: AdminVerify}); !r.OK() {
		t.Fatal(r)
	}
	load(20)
	for n := 0; n < 3000 && a.r.State(0).Conn != state.Connected; n++ {
		p.tick(1)
	}
	p.tick(30)
	p.states(t, "Connected Primary/Secondary UpToDate/UpToDate", "Connected Secondary/Primary UpToDate/UpToDate")
	p.equal(t)
}
