package replication

import (
	"testing"

	"github.com/replblk/replblk/metadata"
	"github.com/replblk/replblk/replication/state"
	"github.com/replblk/replblk/replication/wire"
)

// resyncing is a pair that copies everything from a to b, slowly.
func resyncing(t *testing.T) (p *pair, a, b *testNode) {
	t.Helper()
	p = newPair()
	a, b = establish(t, p)
	a.admin(Admin{Kind: AdminInvalidateRemote})
	p.tick(2)
	p.states(t, "SyncSource Primary/Secondary UpToDate/Inconsistent", "SyncTarget Secondary/Primary Inconsistent/UpToDate")
	return p, a, b
}

// command gives a command, lets it come to its end and returns the answer.
func (p *pair) command(t *testing.T, n *testNode, c Admin) state.Result {
	t.Helper()
	token := n.admin(c)
	p.tick(1)
	r, ok := n.replies[token]
	if !ok {
		t.Fatalf("%s: no answer to %+v, %v\n%s", n.name, c, n.r.State(0), p.take())
	}
	return r
}

// What an operator asks for at the wrong moment is refused with the reason, and nothing has
// changed afterwards.
func TestCommandsAreRefused(t *testing.T) {
	connected := func(t *testing.T) (p *pair, a, b *testNode) {
		p = newPair(withVerify(), withVerify())
		a, b = establish(t, p)
		return p, a, b
	}
	alone := func(t *testing.T) (p *pair, a, b *testNode) {
		p, a, b = connected(t)
		p.command(t, a, Admin{Kind: AdminDisconnect, Force: true})
		return p, a, b
	}
	diskless := func(t *testing.T) (p *pair, a, b *testNode) {
		p, a, b = connected(t)
		p.command(t, a, Admin{Kind: AdminDetach})
		return p, a, b
	}
	noPeerDisk := func(t *testing.T) (p *pair, a, b *testNode) {
		p, a, b = connected(t)
		p.command(t, b, Admin{Kind: AdminDetach})
		return p, a, b
	}
	verifying := func(t *testing.T) (p *pair, a, b *testNode) {
		p, a, b = connected(t)
		a.admin(Admin{Kind: AdminVerify})
		p.tick(2)
		return p, a, b
	}
	differs := func(change func(*Config)) *Config {
		c := withVerify()
		change(&c)
		return &c
	}
	for name, c := range map[string]struct {
		begin func(*testing.T) (p *pair, a, b *testNode)
		what  Admin
		want  state.Result
	}{
		"a volume that is not there":      {connected, Admin{Kind: AdminDetach, Vol: 7}, state.UnknownError},
		"an unknown command":              {connected, Admin{Kind: 200}, state.NotSupported},
		"discard the data of a Primary":   {alone, Admin{Kind: AdminConnect, DiscardMyData: true}, state.TwoPrimaries},
		"detach without a disk":           {diskless, Admin{Kind: AdminDetach}, state.IsDiskless},
		"new generation without a disk":   {diskless, Admin{Kind: AdminNewCurrentUUID}, state.IsDiskless},
		"invalidate a Primary alone":      {alone, Admin{Kind: AdminInvalidate}, state.NeedConnection},
		"repair alone":                    {alone, Admin{Kind: AdminRepair}, state.NeedConnection},
		"repair while verifying":          {verifying, Admin{Kind: AdminRepair}, state.ResyncRunning},
		"repair without a disk":           {diskless, Admin{Kind: AdminRepair}, state.NoLocalDisk},
		"repair without the peer's disk":  {noPeerDisk, Admin{Kind: AdminRepair}, state.NoRemoteDisk},
		"repair between two Primaries":    {twoPrimaryPair, Admin{Kind: AdminRepair}, state.TwoPrimaries},
		"one Primary only, and there are": {twoPrimaryPair, Admin{Kind: AdminAdjust, Config: differs(func(*Config) {})}, state.TwoPrimaries},
		"another digest for a verify": {verifying, Admin{Kind: AdminAdjust,
			Config: differs(func(c *Config) { c.VerifyAlg = "md5" })}, state.ResyncRunning},
		"another checksum for a resync": {resyncing, Admin{Kind: AdminAdjust,
			Config: differs(func(c *Config) { c.CsumsAlg = "md5" })}, state.ResyncRunning},
	} {
		t.Run(name, func(t *testing.T) {
			p, a, b := c.begin(t)
			before := [2]state.State{a.r.State(0), b.r.State(0)}
			cfg := a.r.cfg
			if got := p.command(t, a, c.what); got != c.want {
				t.Errorf("%v, want %v\n%s", got, c.want, p.take())
			}
			if after := [2]state.State{a.r.State(0), b.r.State(0)}; after != before {
				t.Errorf("%v became %v", before, after)
			}
			if a.r.cfg.VerifyAlg != cfg.VerifyAlg || a.r.cfg.CsumsAlg != cfg.CsumsAlg || a.r.cfg.TwoPrimaries != cfg.TwoPrimaries {
				t.Errorf("configuration was %+v, is %+v", cfg, a.r.cfg)
			}
		})
	}
}

// A peer that is too old to be told of a change on a connection is not told: the change is
// refused, and the connection stays what both take it for.
func TestAdjustNeedsAVersion(t *testing.T) {
	old := testConfig()
	old.MaxVersion = firstAdjustable - 1
	p := newPair(testConfig(), old)
	a, _ := establish(t, p)
	next := withProtocol(ProtocolA)
	if got := p.command(t, a, Admin{Kind: AdminAdjust, Config: &next}); got != state.NotSupported || a.r.cfg.Protocol != ProtocolC {
		t.Fatalf("%v, protocol %d", got, a.r.cfg.Protocol)
	}
	p.command(t, a, Admin{Kind: AdminDisconnect, Force: true})
	if got := p.command(t, a, Admin{Kind: AdminAdjust, Config: &next}); got != state.Success || a.r.cfg.Protocol != ProtocolA {
		t.Fatalf("without a connection: %v, protocol %d", got, a.r.cfg.Protocol)
	}
}

// A change of the configuration waits for the end of a handshake, which the peer judges by
// what it was sent.
func TestAdjustWaitsForTheHandshake(t *testing.T) {
	p := newPair()
	a, _ := establish(t, p)
	p.apart = true
	p.cut()
	p.tick(2)
	p.apart = false
	p.link()
	for a.r.State(0).Conn != state.WFReportParams {
		for _, n := range p.nodes {
			n.next()
		}
	}
	next := withProtocol(ProtocolA)
	token := a.admin(Admin{Kind: AdminAdjust, Config: &next})
	a.inbox = append(a.inbox[len(a.inbox)-1:], a.inbox[:len(a.inbox)-1]...) // it comes before everything else
	a.next()
	if _, done := a.replies[token]; done || a.r.cfg.Protocol != ProtocolC {
		t.Fatalf("answered %v in a handshake, protocol %d", a.replies[token], a.r.cfg.Protocol)
	}
	p.tick(30)
	for _, n := range p.nodes {
		if n.r.cfg.Protocol != ProtocolA || n.r.State(0).Conn != state.Connected {
			t.Errorf("%s: protocol %d, %v\n%s", n.name, n.r.cfg.Protocol, n.r.State(0), p.take())
		}
	}
	if !a.replies[token].OK() {
		t.Errorf("answered %v", a.replies[token])
	}
}

// A change that makes no sense ends the connection; one that this node cannot follow
// ends it for good.
func TestPeerAdjustsToNonsense(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*wire.Protocol)
		want   state.Conn
	}{
		"no protocol":      {func(p *wire.Protocol) { p.Protocol = 0 }, state.WFConnection},
		"protocol D":       {func(p *wire.Protocol) { p.Protocol = 4 }, state.WFConnection},
		"unknown checksum": {func(p *wire.Protocol) { p.IntegrityAlg = "rot13" }, state.StandAlone},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPair()
			a, b := establish(t, p)
			p.apart = true
			msg := wire.Protocol{Protocol: 3, AfterSB0: uint32(a.r.cfg.AfterSB[0]), AfterSB1: uint32(a.r.cfg.AfterSB[1]), AfterSB2: uint32(a.r.cfg.AfterSB[2])}
			c.change(&msg)
			b.hears(wire.CmdProtocolUpdate, DataSocket, msg.AppendTo(nil, b.r.session()))
			p.tick(30)
			if got := b.r.State(0).Conn; got != c.want || b.r.cfg.Protocol != ProtocolC || b.r.cfg.IntegrityAlg != "" {
				t.Fatalf("%v, protocol %d, integrity %q\n%s", got, b.r.cfg.Protocol, b.r.cfg.IntegrityAlg, p.take())
			}
		})
	}
}

// A command that finds a transient state is tried again, but not for ever, and not any
// number of them are kept.
func TestCommandsDoNotWaitForEver(t *testing.T) {
	p := newPair()
	a, b := establish(t, p)
	b.asleep = true // it answers nothing
	token := a.admin(Admin{Kind: AdminInvalidateRemote})
	var more []uint64
	for range maxCommands + 10 {
		more = append(more, a.admin(Admin{Kind: AdminInvalidateRemote}))
	}
	a.alone()
	refused := 0
	for _, x := range more {
		if a.replies[x] == state.InTransientState {
			refused++
		}
	}
	if refused < 10 || len(a.r.commands) > maxCommands {
		t.Errorf("%d of %d commands are refused, %d wait", refused, len(more), len(a.r.commands))
	}
	for range maxTries + 5 { // the ping timeout does not count: nobody moves the clock
		a.post(Event{Kind: EvTick})
		a.alone()
	}
	if n := len(a.r.commands); n != 0 {
		t.Errorf("%d commands still wait", n)
	}
	b.asleep = false
	p.tick(2)
	if !a.replies[token].OK() {
		t.Errorf("the first command: %v", a.replies[token])
	}
}

// Without a connection an invalidate is remembered by bits: everything is copied when the
// peer is back.
func TestInvalidateAlone(t *testing.T) {
	for _, kind := range []AdminKind{AdminInvalidate, AdminInvalidateRemote} {
		cfg := fastResync()
		p := newPair(cfg, cfg)
		a, b := establish(t, p)
		a.request(OpWrite, 8, 4096, 5)
		p.tick(2)
		for _, n := range p.nodes {
			p.command(t, n, Admin{Kind: AdminDisconnect, Force: true})
		}
		who, want := b, state.State{Disk: state.Inconsistent, PeerDisk: state.DUnknown}
		if kind == AdminInvalidateRemote {
			who, want = a, state.State{Disk: state.UpToDate, PeerDisk: state.Inconsistent}
		}
		if got := p.command(t, who, Admin{Kind: kind}); !got.OK() {
			t.Fatalf("%v", got)
		}
		v := who.r.vols[0]
		if s := who.r.State(0); s.Disk != want.Disk || s.PeerDisk != want.PeerDisk || v.disk.bm.Weight() != v.disk.bm.Bits() {
			t.Fatalf("%v, %d of %d bits", s, v.disk.bm.Weight(), v.disk.bm.Bits())
		}
		if sb := who.decoded(t); kind == AdminInvalidate && sb.Flags.Has(metadata.Consistent) {
			t.Errorf("the copy that is worthless passes for good on disk: %v", sb.Flags)
		}
		b.data[8] = 77 // the copy that is given up
		for _, n := range p.nodes {
			n.admin(Admin{Kind: AdminConnect})
		}
		p.tick(20)
		p.resynced(t)
		if a.data[8] != 5 || b.data[8] != 5 {
			t.Errorf("a has %d, b has %d", a.data[8], b.data[8])
		}
	}
}

// Fencing that did not work refuses a promotion, and one that is forced takes its outcome
// for the operator's affair. With a peer that is out a disk that is only Consistent is good.
func TestPromotionAfterFencing(t *testing.T) {
	for name, c := range map[string]struct {
		exit  int
		force bool
		disk  state.Disk // before
		want  state.Result
	}{
		"peer is out":                 {fencePeerOutdated, false, state.UpToDate, state.Success},
		"nobody knows":                {1, false, state.UpToDate, state.PrimaryNeedsOutdatedPeer},
		"nobody knows, by force":      {1, true, state.UpToDate, state.Success},
		"peer is Primary":             {fencePeerPrimary, false, state.UpToDate, state.NoUpToDateDisk},
		"peer is Inconsistent":        {fencePeerInconsistent, false, state.UpToDate, state.Success},
		"Consistent, peer is out":     {fencePeerKilled, false, state.Consistent, state.Success},
		"Consistent, peer is Primary": {fencePeerPrimary, false, state.Consistent, state.NoUpToDateDisk},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPair(fencingConfig(), fencingConfig())
			a, b := establish(t, p)
			p.command(t, a, Admin{Kind: AdminSecondary})
			p.apart = true
			p.cut()
			p.tick(2)
			if c.disk == state.Consistent { // a restart, and nobody to ask
				b.restart(fencingConfig())
				b.admin(Admin{Kind: AdminConnect})
				p.tick(2)
			}
			if got := b.r.State(0).Disk; got != c.disk {
				t.Fatalf("b is %v", b.r.State(0))
			}
			token := b.admin(Admin{Kind: AdminPrimary, Force: c.force})
			p.tick(2)
			b.handled(t, HandlerFencePeer, c.exit)
			p.tick(2)
			s := b.r.State(0)
			if got := b.replies[token]; got != c.want || (s.Role == state.Primary) != c.want.OK() || s.Role == state.Primary && s.Disk != state.UpToDate {
				t.Errorf("%v, want %v; %v\n%s", got, c.want, s, p.take())
			}
			if c.exit == fencePeerPrimary && s.Disk > state.Outdated {
				t.Errorf("the peer is Primary, and %v", s)
			}
		})
	}
}
