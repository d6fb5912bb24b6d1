package replication

import (
	"slices"

	"github.com/replblk/replblk/replication/state"
	"github.com/replblk/replblk/replication/wire"
)

// outdates says whose disk a disconnect outdates, where fencing asks for it.
type outdates uint8

const (
	outdatesNobody outdates = iota
	outdatesPeer            // this node goes on as Primary, so the peer must not
	outdatesSelf            // the peer does
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
	case k.ending():
		k.giveUp, c.agreed = true, true
		r.later(c)
	case !k.established() || c.Force:
		r.dropConnection(c)
	case r.change != nil || r.comesToAnEnd():
		r.later(c)
	default:
		r.requestDisconnect(c)
	}
}

// comesToAnEnd says whether this node is about to tell its peer that a resync to it is over. Asked
// before, a Primary would agree to go on beside an Inconsistent peer, without fencing it, and this
// node would be UpToDate.
func (r *Resource) comesToAnEnd() bool {
	return slices.ContainsFunc(r.vols, (*volume).targetFinishing)
}

// requestDisconnect asks the peer. A Primary that fencing does not let go on beside a peer
// that may be promoted has the peer outdate itself with it; where the peer refuses,
// because it is such a Primary, this node is the one to be outdated (spec 5.3).
func (r *Resource) requestDisconnect(c command) {
	c.asked = true
	c.peerPrimary = r.vols[0].st.Peer == state.Primary
	mask, val := state.MaskConn, state.State{Conn: state.Disconnecting}.Word()
	for _, v := range r.vols {
		if _, result := v.check(v.asTold().Apply(mask, val)); result == state.PrimaryNeedsOutdatedPeer && c.outdates == outdatesNobody {
			c.outdates = outdatesPeer
		}
	}
	switch c.outdates {
	case outdatesPeer:
		mask, val = mask|state.MaskPeerDisk, val|state.State{PeerDisk: state.Outdated}.Word()
	case outdatesSelf:
		mask, val = mask|state.MaskDisk, val|state.State{Disk: state.Outdated}.Word()
	default:
	}
	r.change = &change{mask: mask, val: val, cmd: c}
	if r.session().Version >= 100 {
		r.sendChange(wire.CmdConnStChgReq, 0, mask, val)
	} else {
		r.sendChange(wire.CmdStateChgReq, 0, mask, val)
	}
}

// disconnectRefused tries what the peer may agree to.
func (r *Resource) disconnectRefused(c command) {
	if c.outdates != outdatesNobody {
		r.reply(c.Token, state.RefusedByPeer)
		return
	}
	for _, v := range r.vols {
		if v.st.Disk < state.Outdated { // nothing that the peer could fear
			r.dropConnection(c)
			return
		}
	}
	c.outdates = outdatesSelf
	r.run(c)
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
	for _, v := range r.vols {
		next := v.asTold()
		next.Conn = state.Disconnecting
		switch c.outdates {
		case outdatesPeer:
			next.PeerDisk = state.Outdated
		case outdatesSelf:
			next.Disk = min(next.Disk, state.Outdated)
		default:
		}
		v.force(next)
	}
	r.part(NoteNone)
	c.agreed = true
	r.later(c) // answered when it has come to rest
}
