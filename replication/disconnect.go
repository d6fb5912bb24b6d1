package replication

import (
	"github.com/replblk/replblk/replication/state"
	"github.com/replblk/replblk/replication/wire"
)

// disconnect ends the connection with the peer's consent, so that it does not take
// it for a failure; without it if forced or if there is no connection.
func (r *Resource) disconnect(c command) {
	k := &r.conn
	switch {
	case k.state == state.StandAlone && c.agreed:
		r.reply(c.Token, state.Success)
	case k.state == state.StandAlone:
		r.reply(c.Token, state.AlreadyStandAlone)
	case k.draining || k.closing:
		k.giveUp, c.agreed = true, true
		r.later(c)
	case !k.established() || c.Force:
		r.dropConnection(c)
	case r.change != nil:
		r.later(c)
	default:
		r.requestDisconnect(c)
	}
}

// requestDisconnect asks the peer for its consent.
func (r *Resource) requestDisconnect(c command) {
	c.asked = true
	c.peerPrimary = r.vols[0].st.Peer == state.Primary
	mask, val := maskConn, state.Word(state.Disconnecting)<<4
	r.change = &change{mask: mask, val: val, cmd: c}
	if r.session().Version >= 100 {
		r.sendChange(wire.CmdConnStChgReq, 0, mask, val)
	} else {
		r.sendChange(wire.CmdStateChgReq, 0, mask, val)
	}
}

// dropConnection goes StandAlone without asking.
func (r *Resource) dropConnection(c command) {
	k := &r.conn
	if k.phase != phaseDown {
		r.giveUp(NoteNone)
		c.agreed = true
		r.later(c) // answered when it has come to rest
		return
	}
	r.standAlone()
	r.reply(c.Token, state.Success)
}

// disconnectAgreed: the peer will close the connection, and then so do we.
func (r *Resource) disconnectAgreed(c command) {
	r.part(NoteNone)
	c.agreed = true
	r.later(c) // answered when it has come to rest
}
