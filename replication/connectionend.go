package replication

import "github.com/replblk/replblk/replication/state"

// lose ends the connection because of cause. What belonged to it is cleaned up when the
// driver reports that nothing refers to it any more.
func (r *Resource) lose(cause state.Conn, n Note) {
	c := &r.conn
	if !c.live() {
		return
	}
	if n != NoteNone {
		r.note(nil, n)
	}
	c.closing = true
	r.shut()
	r.setConn(cause)
}

// shut closes the sockets.
func (r *Resource) shut() {
	r.conn.closeAt = 0
	r.fx.add(FxClose).Gen = r.conn.gen
}

// giveUp ends the connection for good: the two sides cannot work together as they are
// configured.
func (r *Resource) giveUp(n Note) {
	r.conn.giveUp = true
	r.lose(state.Disconnecting, n)
}

// part is giveUp when the peer comes to the same end by itself, after a handshake that
// both must refuse or a disconnect that it has agreed to: it is given time to read what we
// sent and to close the sockets, because a kernel complains about a peer that is faster.
func (r *Resource) part(n Note) {
	if r.leave(state.Disconnecting) {
		r.conn.giveUp = true
		if n != NoteNone {
			r.note(nil, n)
		}
	}
}

// leave ends the connection because of cause, after giving the peer time to do so first: a
// second, or longer where the operator allows its answers more.
// It returns false if it is on its way out already.
func (r *Resource) leave(cause state.Conn) bool {
	c := &r.conn
	if !c.live() {
		return false
	}
	c.closing = true
	c.closeAt = r.now + max(Second, tenths(r.cfg.PingTimeoutTenths))
	r.setConn(cause)
	return true
}

// protocolError ends the connection because the peer broke the protocol.
func (r *Resource) protocolError() { r.lose(state.ProtocolError, NoteProtocolError) }

// connDown cleans up after a connection (spec 6.10).
func (r *Resource) connDown(ev *Event) {
	c := &r.conn
	if ev.Gen != c.gen || c.draining || c.phase == phaseDown && !c.closing {
		return
	}
	if !c.closing {
		cause := ev.Cause
		if !cause.Lost() {
			cause = state.NetworkFailure
		}
		r.setConn(cause)
	}
	c.closeAt = 0
	c.phase, c.closing, c.draining, c.paramsSent = phaseDown, false, true, false
	c.pingSent, c.afterPong, c.doubted = 0, nil, false
	c.held.drop(r)
	r.tl.clear(r)
	r.peer.drop(r)
	for _, v := range r.vols {
		v.era++ // also of a resync that would have started from Connected
		v.veto.passed = false
		v.dropGate()
		v.resetResync()
		v.xfer = exchange{}
		v.peerUUIDs = peerUUIDs{}
		v.untold = 0
		v.writePages()
	}
	r.changeLost()
	if !c.giveUp {
		r.fenceAfterLoss()
	}
	r.drained()
}

// drained goes on when no request of the old connection is on a disk any more.
func (r *Resource) drained() {
	c := &r.conn
	if !c.draining || r.peer.busy() || r.untoldUUIDs() {
		return
	}
	c.draining = false
	r.restless = true
	r.peer.reset()
	if c.giveUp || c.state == state.Disconnecting {
		c.giveUp = false
		r.standAlone()
		return
	}
	if c.state == state.StandAlone {
		return
	}
	r.setConn(state.Unconnected)
	r.reconnect()
}

// untoldUUIDs says whether UUIDs that a resync has brought are not durable yet. They are in
// the next P_UUIDS; if they were lost after that, the source would have forgotten those that
// come back.
func (r *Resource) untoldUUIDs() bool {
	for _, v := range r.vols {
		if d := v.disk; d != nil && !d.metaBad && d.sbDurable < d.adopted {
			return true
		}
	}
	return false
}

// standAlone drops the wish to be connected.
func (r *Resource) standAlone() {
	c := &r.conn
	c.discardMyData, c.tentative = false, false
	r.fx.add(FxConnect).On = false
	if c.state != state.Disconnecting {
		r.setConn(state.Disconnecting)
	}
	r.setConn(state.StandAlone)
}
