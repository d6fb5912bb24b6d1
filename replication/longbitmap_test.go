package replication

import (
	"strings"
	"testing"

	"github.com/replblk/replblk/metadata"
	"github.com/replblk/replblk/replication/state"
)

// longBitmap is a pair with volumes so large that a bitmap does not go out in one burst, on
// its way to a resync of b: a has sent the first burst, which the network has not taken.
func longBitmap(t *testing.T) (p *pair, a, b *testNode) {
	t.Helper()
	const sectors = 10 << 21 // 10 GiB; the disks are only as long as what is written
	cfg := fastResync()
	cfg.UseRLE = false
	p = newPair(cfg, cfg)
	for _, n := range p.nodes {
		layout, err := metadata.NewLayout(metadata.Internal, sectors, sectors, metadata.Striping{Stripes: 1, StripeSize4K: 8})
		if err != nil {
			t.Fatal(err)
		}
		sb := metadata.NewSuperblock(layout)
		n.layout, n.sectors, n.super = layout, sectors, sb.AppendTo(nil)
	}
	a, b = establish(t, p)
	p.outage()
	p.take()
	a.deaf = true
	p.settle()
	if s := a.r.State(0); s.Conn != state.WFBitMapS || len(a.unsent) != 1 {
		t.Fatalf("%v, %d bursts are out\n%s", s, len(a.unsent), p.take())
	}
	return p, a, b
}

// Nothing may come between the packets of a bitmap: what is to be said meanwhile waits for
// its end, and no longer.
func TestLongBitmapIsNotInterrupted(t *testing.T) {
	p, a, b := longBitmap(t)
	p.take()
	pause := a.admin(Admin{Kind: AdminPauseSync})
	write := a.request(OpWrite, 3000, 4096, 5)
	p.settle()
	if log := p.take(); strings.Contains(log, "a>b: Report") {
		t.Fatalf("something is said in the middle of a bitmap\n%s", log)
	}
	if _, answered := a.outcome[write]; answered || a.r.conn.held.list == nil {
		t.Fatalf("write answered %v, %d packets held", answered, len(a.r.conn.held.list))
	}
	a.hearsAgain()
	p.settle()
	log := p.take()
	last, said := strings.LastIndex(log, "a>b: ReportBitMap"), strings.Index(log, "a>b: ReportState")
	if last < 0 || said < last {
		t.Fatalf("the rest of the bitmap at %d, the news at %d\n%s", last, said, log)
	}
	if !a.replies[pause].OK() || !b.r.State(0).PeerIsp {
		t.Errorf("pause: %v, the peer is %v", a.replies[pause], b.r.State(0))
	}
	a.admin(Admin{Kind: AdminResumeSync})
	p.tick(50)
	p.states(t, "Connected Primary/Secondary UpToDate/UpToDate", "Connected Secondary/Primary UpToDate/UpToDate")
	if o, ok := a.outcome[write]; !ok || o != OK || b.data[3000] != 5 || b.data[19*24] != 89 {
		t.Errorf("write %v %v, b has %d and %d", o, ok, b.data[3000], b.data[19*24])
	}
}

// The rest of a bitmap that is not needed any more is not sent, and what waited for it is
// forgotten: the connection has to go, because the peer would take what comes next for a part
// of it.
func TestLongBitmapIsGivenUp(t *testing.T) {
	for name, end := range map[string]func(p *pair, a *testNode){
		"by the loss of the connection": func(p *pair, _ *testNode) { p.cut() },
		"by the loss of the disk":       func(_ *pair, a *testNode) { a.admin(Admin{Kind: AdminDetach, Force: true}) },
	} {
		t.Run(name, func(t *testing.T) {
			p, a, b := longBitmap(t)
			a.admin(Admin{Kind: AdminPauseSync})
			p.settle()
			if len(a.r.conn.held.list) == 0 {
				t.Fatalf("nothing is held\n%s", p.take())
			}
			gen := a.gen
			end(p, a)
			p.tick(2)
			a.hearsAgain() // for the old connection
			p.tick(30)
			if a.gen == gen || a.r.conn.held.on || len(a.r.conn.held.list) != 0 {
				t.Fatalf("connection %d after %d, %d packets held\n%s", a.gen, gen, len(a.r.conn.held.list), p.take())
			}
			for _, c := range []AdminKind{AdminSecondary, AdminResumeSync, AdminConnect} { // who has lost his disk as Primary does not get it back as such
				a.admin(Admin{Kind: c})
				p.tick(5)
			}
			a.attach()
			p.tick(2)
			b.admin(Admin{Kind: AdminConnect})
			p.tick(60)
			p.states(t, "Connected Secondary/Secondary UpToDate/UpToDate", "Connected Secondary/Secondary UpToDate/UpToDate")
			if b.data[19*24] != 89 {
				t.Errorf("b has %d", b.data[19*24])
			}
		})
	}
}
