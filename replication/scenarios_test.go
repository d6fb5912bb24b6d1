package replication

// scenarios bring a pair to where its nodes talk to each other about something. What they
// have left in the inboxes is carried out one event at a time.
var scenarios = []struct {
	name string
	cfg  func(*Config)
	play func(p *pair, a, b *testNode)
}{
	{"handshake", nil, func(p *pair, _, _ *testNode) { p.cut() }},
	{"authentication", func(c *Config) { c.CramHMACAlg, c.SharedSecret = "sha256", "geheim" }, func(p *pair, _, _ *testNode) { p.cut() }},
	{"writes", nil, func(_ *pair, a, _ *testNode) { a.load(1) }},
	{"protocol A", func(c *Config) { c.Protocol = ProtocolA }, func(_ *pair, a, _ *testNode) { a.load(1) }},
	{"protocol B with digests", func(c *Config) { c.Protocol, c.IntegrityAlg = ProtocolB, "crc32c" }, func(_ *pair, a, _ *testNode) { a.load(1) }},
	{"an old version", func(c *Config) { c.MaxVersion = 90 }, func(p *pair, a, _ *testNode) {
		p.cut()
		a.load(1)
	}},
	{"outage", func(c *Config) { *c = fastResync() }, func(p *pair, a, _ *testNode) {
		p.outage()
		a.load(2)
	}},
	{"outage with checksums", func(c *Config) { *c = fastResync(); c.CsumsAlg = "sha1" }, func(p *pair, a, b *testNode) {
		b.thin = true
		p.outage()
		a.load(2)
	}},
	{"full resync, paused", nil, func(p *pair, a, b *testNode) {
		a.admin(Admin{Kind: AdminInvalidateRemote})
		p.settle()
		b.admin(Admin{Kind: AdminPauseSync})
		a.load(2)
	}},
	{"invalidate", nil, func(_ *pair, a, b *testNode) {
		b.admin(Admin{Kind: AdminInvalidate})
		a.load(2)
	}},
	{"verify", func(c *Config) { *c = withVerify() }, func(p *pair, a, _ *testNode) {
		p.nodes[1].data[800] = 99
		a.admin(Admin{Kind: AdminVerify})
		p.settle()
		a.load(2)
	}},
	{"two primaries", func(c *Config) { c.TwoPrimaries = true }, func(p *pair, a, b *testNode) {
		b.admin(Admin{Kind: AdminPrimary})
		p.settle()
		a.load(1)
		b.load(2)
	}},
	{"without a disk", nil, func(p *pair, a, _ *testNode) {
		a.admin(Admin{Kind: AdminDetach})
		p.settle()
		a.load(2)
		a.attach()
	}},
	{"congestion", func(c *Config) { c.Protocol, c.OnCongestion, c.CongestionFill = ProtocolA, CongestionPullAhead, 64 }, func(p *pair, a, b *testNode) {
		b.asleep = true
		a.load(3)
		p.settle()
		b.asleep = false
	}},
	{"resize", nil, func(p *pair, a, b *testNode) {
		a.grow(8192)
		b.grow(8192)
		a.admin(Admin{Kind: AdminResize})
		a.load(1)
	}},
	{"roles", nil, func(p *pair, a, b *testNode) {
		a.admin(Admin{Kind: AdminSecondary})
		b.admin(Admin{Kind: AdminPrimary})
	}},
	{"split brain", func(c *Config) { *c = helperConfig(SBDiscardLeastChanges) }, func(p *pair, a, b *testNode) {
		for _, n := range p.nodes {
			n.admin(Admin{Kind: AdminDisconnect, Force: true})
		}
		p.settle()
		b.admin(Admin{Kind: AdminPrimary})
		a.load(1)
		p.settle()
		for _, n := range p.nodes {
			n.admin(Admin{Kind: AdminConnect})
		}
	}},
	{"verify from the other side", func(c *Config) { *c = withVerify() }, func(p *pair, a, b *testNode) {
		b.admin(Admin{Kind: AdminVerify})
		a.load(1)
	}},
	{"a Primary as target", nil, func(p *pair, a, _ *testNode) {
		a.admin(Admin{Kind: AdminInvalidate})
		a.load(1)
	}},
	{"a Primary that was a target comes back", nil, func(p *pair, a, _ *testNode) {
		a.admin(Admin{Kind: AdminInvalidate})
		p.tick(1)
		p.cut()
		a.load(1)
	}},
	{"a Primary that was overtaken comes back", func(c *Config) { *c = fencingConfig() }, func(p *pair, a, _ *testNode) {
		p.apart = true
		p.cut()
		p.tick(2)
		for _, h := range a.handlers {
			if h.Handler == HandlerFencePeer {
				a.post(Event{Kind: EvHandler, IO: h.IO, Exit: fencePeerPrimary})
			}
		}
		p.settle()
		p.apart = false
		a.load(1)
	}},
	{"a disk that fails slowly", nil, func(p *pair, a, b *testNode) {
		for _, n := range p.nodes {
			n.stuck = true
			n.admin(Admin{Kind: AdminDetach, Force: true})
		}
		p.settle()
		p.cut()
		a.load(1)
	}},
	{"nobody is Primary", nil, func(p *pair, a, b *testNode) {
		a.admin(Admin{Kind: AdminSecondary})
		p.tick(2)
		a.admin(Admin{Kind: AdminInvalidateRemote})
	}},
	{"a Secondary without a disk", nil, func(p *pair, a, b *testNode) {
		b.admin(Admin{Kind: AdminDetach})
		p.settle()
		a.load(2)
		p.cut()
		b.attach()
	}},
	{"a restart while the peer is away", func(c *Config) { *c = fencingConfig() }, func(p *pair, a, b *testNode) {
		a.admin(Admin{Kind: AdminSecondary})
		p.tick(2)
		p.cut()
		cfg := b.r.cfg
		b.restart(cfg)
		b.admin(Admin{Kind: AdminConnect})
	}},
	{"a demotion while the link is congested", func(c *Config) { c.Protocol, c.OnCongestion, c.CongestionFill = ProtocolA, CongestionPullAhead, 64 }, func(p *pair, a, b *testNode) {
		b.asleep = true
		a.load(3)
		p.settle()
		b.asleep = false
		a.admin(Admin{Kind: AdminSecondary})
	}},
	{"disconnect", func(c *Config) { *c = fencingConfig() }, func(_ *pair, a, b *testNode) {
		b.admin(Admin{Kind: AdminDisconnect})
		a.load(1)
	}},
}

// load asks for a mix of everything.
func (n *testNode) load(value uint64) {
	for i := range uint64(4) {
		n.request(OpWrite, i*16, 8192, value*10+i)
	}
	n.request(OpRead, 8, 4096, 0)
	n.request(OpDiscard, 256, 65536, 0)
	n.request(OpZeroes, 600, 4096, 0)
	n.request(OpFlush, 0, 0, 0)
	n.request(OpWrite, 4, 4096, value*10+9)
}

// outage leaves differences behind that the next connection must copy.
func (p *pair) outage() {
	p.apart = true
	p.cut()
	p.tick(2)
	for i := range uint64(20) {
		p.nodes[0].request(OpWrite, i*24, 4096, 70+i)
	}
	p.tick(2)
	p.apart = false
}
