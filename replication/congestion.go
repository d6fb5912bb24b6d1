package replication

import "github.com/replblk/replblk/replication/state"

// OnCongestion is what to do when the link cannot keep up under protocol A.
type OnCongestion uint8

// Values of on-congestion.
const (
	CongestionBlock      OnCongestion = iota // the application waits for the link
	CongestionPullAhead                      // stop to replicate, and resync afterwards
	CongestionDisconnect                     // go on without the peer
)

// Ahead and Behind (spec 9.9). A Primary whose link is congested marks what it writes as out of
// sync and tells the peer so, instead of sending it. When what was sent before has been
// confirmed, a resync brings the peer up to date. Until then the peer's data is of an earlier
// moment: it must never be taken for current.

// aheadRest is how long the link has to be idle before the resync starts.
const aheadRest = Second

// congested says whether a write of the application should not be replicated any more. While the
// peer has still to say what it makes of a new size it may have grown alone, and the resync would be
// about space that is not here yet.
func (v *volume) congested() bool {
	c := &v.r.cfg
	if c.OnCongestion == CongestionBlock || v.r.conn.protocol != ProtocolA || v.r.session().Version < 96 ||
		v.st.Conn != state.Connected || !bothUpToDate(v.st) || v.sizeInDoubt() {
		return false
	}
	return c.CongestionFill != 0 && v.sent >= c.CongestionFill ||
		c.CongestionExtents != 0 && v.disk.al.set != nil && v.disk.al.set.Active() >= c.CongestionExtents
}

// relieve does what on-congestion says.
func (v *volume) relieve() {
	r := v.r
	r.note(v, NoteCongested)
	if r.cfg.OnCongestion == CongestionDisconnect {
		r.giveUp(NoteNone)
		return
	}
	r.tl.closeEpoch(r)
	next := v.st
	next.Conn = state.Ahead
	v.calm = 0
	v.force(next)
}

// leftBehind runs when the Primary has pulled ahead. If this node has grown, or is about to, and that has
// not heard of it, it takes no size before the resync has ended, and the resync would be about more than
// it has: a new connection settles the size first.
func (v *volume) leftBehind() {
	if v.grew || v.rz.stage > resizeDraining {
		v.r.lose(state.NetworkFailure, NoteNone)
	}
}

// aheadTick starts the resync when the link has been idle for a while.
func (v *volume) aheadTick() {
	if v.st.Conn != state.Ahead || !v.inService() || v.xfer.caughtUp {
		return
	}
	switch {
	case v.sent > 0:
		v.calm = 0
	case v.calm == 0:
		v.calm = v.r.now
	case v.r.now-v.calm >= aheadRest:
		v.xfer.caughtUp = true
		v.makeSyncUUID()
	}
}

// endAdopted: the target of a resync has pulled ahead before its source had every
// confirmation. So it has all data, and this generation.
func (v *volume) endAdopted() {
	v.disk.sb.UUIDs.ClearBitmap()
	v.superChanged()
	v.peerUUIDs.UUIDs = v.disk.sb.UUIDs
}

// leavePeerBehind runs when the disk fails while the peer is behind. What the application has
// seen is nowhere any more, and its generation is still the peer's: the copy there must not pass
// for it, on neither node.
func (v *volume) leavePeerBehind() {
	if v.st.Conn == state.Ahead {
		v.expose(v.r.random())
		v.r.lose(state.NetworkFailure, NoteNone)
	}
}
