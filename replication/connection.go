package replication

import (
	"crypto/subtle"

	"github.com/replblk/replblk/replication/state"
	"github.com/replblk/replblk/replication/wire"
)

// Protocol versions that this implementation speaks.
const (
	minVersion = wire.VersionMin
	maxVersion = wire.VersionMax
	// firstDryRun is the first in which a connection can be tentative.
	firstDryRun = 92
	// volumesVersion is the first in which a packet says which volume it is about.
	volumesVersion = 100
)

// maxPingsOwed bounds the pings that are remembered during the handshake.
const maxPingsOwed = 4

// phase is how far a connection has come.
type phase uint8

const (
	phaseDown phase = iota
	phaseFeatures
	phaseChallenge
	phaseResponse
	phaseUp // parameters are exchanged, then it is in use
)

// connection is the state of the link to the peer. Owned by Resource.
type connection struct {
	state state.Conn // StandAlone to WFReportParams

	gen       uint32 // of the driver's EvConnUp; what carries another one is stale
	phase     phase
	closing   bool           // given up: FxClose was sent, or will be at closeAt; EvConnDown follows
	draining  bool           // EvConnDown came, requests of the peer are still on the disk
	giveUp    bool           // do not reconnect after this connection
	closeAt   Time           // close the sockets then, 0: they are closed, or not to be closed
	resolve   bool           // RESOLVE_CONFLICTS: exactly one of the two nodes has it
	session   wire.Session   // DigestSize: of what the peer sends
	integrity wire.Algorithm // digest in what this node sends

	maxRequest uint32 // largest read or write that the peer takes, see pieceLimit
	trims      bool   // it knows P_TRIM
	protocol   Protocol
	challenge  [wire.AuthChallengeSize]byte // ours, which the peer answers

	paramsSent    bool // with P_PROTOCOL, P_SIZES and so on
	gotProtocol   bool // P_PROTOCOL of the peer
	discardMyData bool // connect --discard-my-data
	peerDiscards  bool // the same of the peer
	tentative     bool // a dry run of this node's operator
	peerTentative bool // of the peer's

	lastMeta  Time // when a packet last arrived on each socket
	lastData  Time
	pingSent  Time   // of the oldest unanswered ping, 0: none
	pings     uint64 // sent
	pongs     uint64 // answered
	pingsOwed int    // pings that came before they could be answered
	upSince   Time
	afterPong []pongAction // in the order of their pings
	doubted   bool         // a pause of ours: the connection must prove that it lives
	held      heldSends
	scratch   []byte // for a packet whose length is not known in advance
}

// pongAction runs when the answer to a ping proves that the peer has processed
// everything that was sent on the meta socket before.
type pongAction struct {
	ping uint64 // number of the ping
	vol  *volume
	do   func(*volume)
}

// established says whether packets other than those of the handshake may be sent.
func (c *connection) established() bool { return c.phase == phaseUp && !c.closing && c.paramsSent }

// live says whether there are sockets, and no end to them was decided on.
func (c *connection) live() bool { return c.phase != phaseDown && !c.closing }

// ending says whether something of a connection that was given up is left: its sockets, or
// requests of the peer that are still on the disk.
func (c *connection) ending() bool { return c.closing || c.draining }

// open starts a packet in the arena: the header for length bytes of payload.
func (r *Resource) open(cmd wire.Command, vol uint16, length uint32) int {
	off := len(r.fx.Buf)
	c := &r.conn
	format := wire.Header80
	if cmd != wire.CmdConnectionFeatures {
		format = wire.FormatFor(c.session.Version, length)
	}
	r.fx.Buf = wire.AppendHeader(r.fx.Buf, format, vol, cmd, length)
	return off
}

// close ends the packet that open started and emits it. The caller may set the
// payload of the result until the next effect is emitted.
func (r *Resource) close(s Socket, off int) *Effect {
	c := &r.conn
	if s == DataSocket && c.held.on {
		return c.held.add(r, off)
	}
	e := r.fx.add(FxSend)
	e.Socket, e.Gen = s, c.gen
	e.Off, e.Len = uint32(off), uint32(len(r.fx.Buf)-off)
	return e
}

// heldSends collects packets for the data socket while a bitmap is being sent: the
// peer accepts nothing else in between (spec 8.1).
type heldSends struct {
	on   bool
	list []Effect
	buf  []byte
}

func (h *heldSends) add(r *Resource, off int) *Effect {
	e := Effect{Kind: FxSend, Socket: DataSocket, Gen: r.conn.gen, Off: uint32(len(h.buf)), Len: uint32(len(r.fx.Buf) - off)}
	h.buf = append(h.buf, r.fx.Buf[off:]...)
	r.fx.Buf = r.fx.Buf[:off]
	h.list = append(h.list, e)
	return &h.list[len(h.list)-1]
}

// release emits what was held.
func (h *heldSends) release(r *Resource) {
	h.on = false
	for _, e := range h.list {
		off := len(r.fx.Buf)
		r.fx.Buf = append(r.fx.Buf, h.buf[e.Off:e.Off+e.Len]...)
		e.Off = uint32(off)
		r.fx.List = append(r.fx.List, e)
	}
	h.list, h.buf = h.list[:0], h.buf[:0]
}

// drop forgets what was held, after the connection is gone.
func (h *heldSends) drop(r *Resource) {
	for _, e := range h.list {
		if e.FreeBuf {
			r.free(e.Buf)
		}
	}
	*h = heldSends{}
}

func (r *Resource) free(b BufID) {
	if b != 0 {
		r.fx.add(FxFree).Buf = b
	}
}

// startConnecting makes the connection wanted.
func (r *Resource) startConnecting() {
	r.setConn(state.Unconnected)
	r.reconnect()
}

// reconnect asks the driver for a connection.
func (r *Resource) reconnect() {
	r.setConn(state.WFConnection)
	r.fx.add(FxConnect).On = true
}

// setConn changes the connection state of the connection and of all volumes, which
// share it up to WFReportParams. A target that may have come to its end is not known to be bad
// without a connection, as another one is (spec 5.2 rule 1).
func (r *Resource) setConn(c state.Conn) {
	r.conn.state = c
	for _, v := range r.vols {
		next := v.st
		if v.targetMayBeGood() && next.PeerDisk == state.Inconsistent {
			next.PeerDisk = state.DUnknown
		}
		next.Conn = c
		v.force(next)
	}
}

// connUp starts the handshake on a new pair of sockets.
func (r *Resource) connUp(ev *Event) {
	c := &r.conn
	if c.state != state.WFConnection || c.phase != phaseDown || len(ev.Body) < len(c.challenge) || r.resizes() {
		r.fx.add(FxClose).Gen = ev.Gen
		if c.phase == phaseDown {
			c.gen = ev.Gen // its EvConnDown is expected
			c.closing = true
		}
		return
	}
	*c = connection{state: c.state, gen: ev.Gen, phase: phaseFeatures, resolve: ev.ResolveConflicts,
		discardMyData: c.discardMyData, tentative: c.tentative, protocol: r.cfg.Protocol, maxRequest: c.maxRequest, trims: c.trims,
		session: wire.Session{Version: wire.VersionInitial}, lastMeta: r.now, lastData: r.now, upSince: r.now}
	copy(c.challenge[:], ev.Body)
	off := r.open(wire.CmdConnectionFeatures, 0, wire.ConnectionFeaturesSize)
	r.fx.Buf = r.ownFeatures().AppendTo(r.fx.Buf)
	r.close(DataSocket, off)
}

// ownFeatures is what this node can do. With data-integrity-alg a kernel expects a digest
// in P_ZEROES that no kernel sends; without the feature, zeroes are P_TRIM (spec 6.6).
func (r *Resource) ownFeatures() *wire.ConnectionFeatures {
	f := wire.FeaturesAll | wire.FeatureSurvivor
	if r.cfg.IntegrityAlg != "" {
		f &^= wire.FeatureWriteZeroes
	}
	p := &wire.ConnectionFeatures{Min: minVersion, Max: maxVersion, Features: f}
	if len(r.vols) != 1 || r.vols[0].num != 0 {
		p.Min = volumesVersion
	}
	if v := uint32(r.cfg.MaxVersion); v != 0 {
		p.Max = max(p.Min, min(p.Max, v))
	}
	if p.Max < volumesVersion {
		p.Features = 0 // they are younger than the versions before it
	}
	return p
}

// featuresArrived agrees on a version and goes on to authentication.
func (r *Resource) featuresArrived(body []byte) {
	c := &r.conn
	var peer wire.ConnectionFeatures
	if !decode(wire.CmdConnectionFeatures, body, &peer) {
		r.giveUp(NoteProtocolError)
		return
	}
	session, ok := r.ownFeatures().Agree(peer)
	if !ok {
		r.giveUp(NoteVersionTooOld)
		return
	}
	if c.tentative && session.Version < firstDryRun {
		r.giveUp(NoteNoDryRun) // it would go on in earnest
		return
	}
	c.session = session
	c.limitRequests()
	if session.NamesIntegrity() {
		c.integrity = wire.AlgorithmOf(r.cfg.IntegrityAlg)
	}
	if r.cfg.CramHMACAlg == "" {
		r.exchangeParameters()
		return
	}
	c.phase = phaseChallenge
	off := r.open(wire.CmdAuthChallenge, 0, uint32(len(c.challenge)))
	r.fx.Buf = append(r.fx.Buf, c.challenge[:]...)
	r.close(DataSocket, off)
}

// challenged answers the peer's challenge. Our own, reflected, is refused.
func (r *Resource) challenged(body []byte) {
	c := &r.conn
	if len(body) < len(c.challenge) || len(body) > wire.AuthChallengeMax ||
		subtle.ConstantTimeCompare(body[:len(c.challenge)], c.challenge[:]) == 1 {
		r.giveUp(NoteAuthFailed)
		return
	}
	digest, err := wire.CRAMResponse(r.cfg.CramHMACAlg, r.cfg.SharedSecret, body)
	if err != nil {
		r.giveUp(NoteAuthFailed)
		return
	}
	off := r.open(wire.CmdAuthResponse, 0, uint32(len(digest)))
	r.fx.Buf = append(r.fx.Buf, digest...)
	r.close(DataSocket, off)
	c.phase = phaseResponse
}

// responded judges the peer's response to our challenge.
func (r *Resource) responded(body []byte) {
	want, err := wire.CRAMResponse(r.cfg.CramHMACAlg, r.cfg.SharedSecret, r.conn.challenge[:])
	if err != nil || subtle.ConstantTimeCompare(want, body) != 1 {
		r.giveUp(NoteAuthFailed)
		return
	}
	r.exchangeParameters()
}

// exchangeParameters sends everything the peer must know before it can judge our
// state (spec 3.6). Its own arrives on the same socket.
func (r *Resource) exchangeParameters() {
	c := &r.conn
	c.phase = phaseUp
	r.sendProtocol(wire.CmdProtocol)
	for _, v := range r.vols {
		v.seq = 0
		v.peerUUIDs = peerUUIDs{}
		v.fresh.waiting, v.sizesLater, v.grew, v.asked, v.xfer.grown = false, nil, false, false, false
		v.sendSyncParam()
		v.sendSizes(0)
		if !v.tellLater() {
			v.introduce()
		}
	}
	c.paramsSent = true
	r.setConn(state.WFReportParams)
	for ; c.pingsOwed > 0; c.pingsOwed-- {
		r.sendEmpty(MetaSocket, wire.CmdPingAck)
	}
}

// connTick watches over the peer: it must answer pings, and it must answer requests
// in time (spec 6.9).
func (r *Resource) connTick() {
	c := &r.conn
	if c.closeAt != 0 && r.now >= c.closeAt {
		r.shut()
	}
	if !c.live() {
		return
	}
	if c.phase != phaseUp {
		if limit := tenths(8 * r.cfg.PingTimeoutTenths); r.now-c.upSince > max(limit, 2*Second) {
			r.lose(state.NetworkFailure, NotePeerSilent)
		}
		return
	}
	for _, v := range r.vols {
		v.owedTick()
	}
	r.pingTick()
	limit := r.cfg.koTime()
	if limit == 0 || r.now-c.upSince < limit {
		return
	}
	if start, ok := r.tl.oldest(r); ok && r.now-start > limit {
		r.lose(state.Timeout, NotePeerStuck)
	}
}

func (r *Resource) pingTick() {
	c := &r.conn
	idle := max(c.lastMeta, c.lastData)
	timeout := tenths(r.cfg.PingTimeoutTenths)
	switch {
	case c.pingSent != 0 && r.now-max(c.pingSent, idle) > timeout:
		r.lose(state.NetworkFailure, NotePeerSilent)
	case c.pingSent == 0 && r.now-idle >= Time(r.cfg.PingIntSeconds)*Second:
		r.ping()
	}
}

// ping asks for a sign of life.
func (r *Resource) ping() {
	if r.conn.pingSent == 0 {
		r.conn.pingSent = r.now
	}
	r.conn.pings++
	r.sendEmpty(MetaSocket, wire.CmdPing)
}

// afterPing runs do when the peer has answered a ping that is sent now.
func (r *Resource) afterPing(v *volume, do func(*volume)) {
	r.ping()
	r.conn.afterPong = append(r.conn.afterPong, pongAction{r.conn.pings, v, do})
}

// pong handles P_PING_ACK. Pings are answered in order, one each, so counting tells
// which ping this answers.
func (r *Resource) pong() {
	c := &r.conn
	c.pongs++
	if c.pongs == c.pings {
		c.pingSent = 0
	}
	for len(c.afterPong) > 0 && c.afterPong[0].ping <= c.pongs {
		a := c.afterPong[0]
		c.afterPong = c.afterPong[1:]
		a.do(a.vol)
	}
}

func (r *Resource) sendEmpty(s Socket, cmd wire.Command) {
	r.close(s, r.open(cmd, 0, 0))
}
