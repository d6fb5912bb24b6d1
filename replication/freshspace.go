package replication

import "github.com/replblk/replblk/replication/state"

// freshSpace is what a volume has grown by in a handshake, because both disks were made larger
// while the nodes were apart, or while it was connected, and the connection broke before the
// new space was copied. If the generations are equal nothing calls for a resync, and both
// copies would be called good although they differ in the new space (a kernel leaves it at
// that, with bits set). So one of the nodes ends the connection: the Primary begins a new
// generation, as with any loss of its peer, and the bitmap resync that follows copies what
// both have marked. Owned by volume.
//
// The same is done for blocks that are marked for any other reason after a handshake that
// found the generations equal: the nodes have lost their power since the disks grew, or a
// verify has found them.
//
// Only a Primary begins it. A Secondary that did could not keep its peer from being promoted
// before it hears of that, with a generation of its own: a split brain without a single
// write. While both are Secondary nobody reads the new space, and it can wait.
type freshSpace struct {
	grew    bool
	waiting bool // the nodes are connected, nothing but this calls for a resync
	since   Time // how long a Primary has been there to see to it
}

// freshSpaceGrace is how long a Secondary leaves it to the Primary. A kernel never does it.
const freshSpaceGrace = 3 * Second

// freshSpaceConnected runs at the end of a handshake.
func (v *volume) freshSpaceConnected() {
	f := &v.fresh
	f.grew = f.grew || v.disk != nil && v.disk.bm.Weight() > 0
	f.waiting = f.grew && v.st.Conn == state.Connected && bothUpToDate(v.st)
	f.since = v.r.now
}

func (v *volume) freshSpaceTick() {
	f := &v.fresh
	if !f.waiting || v.r.change != nil || v.frozen > 0 {
		return
	}
	s := v.st
	switch {
	case s.Conn < state.Connected:
		f.waiting = false // until the next handshake
	case !v.inService() || v.disk.bm.Weight() == 0:
		*f = freshSpace{}
	case s.Conn != state.Connected || !bothUpToDate(s): // an online verify, or a resync, which may settle it
		f.since = v.r.now
	case s.Role == s.Peer: // nobody reads it, or two Primaries, who would part for good
		f.since = v.r.now
	case s.Role == state.Primary || v.r.now-f.since >= freshSpaceGrace:
		*f = freshSpace{}
		v.r.note(v, NoteFreshSpace)
		v.r.lose(state.NetworkFailure, NoteNone)
	}
}
