package replication

import "github.com/replblk/replblk/replication/state"

// freshSpace is what a volume has grown by in a handshake, because both disks were made
// larger while the nodes were apart, or while it was connected, and the connection broke
// before the new space was copied. If the generations are equal nothing calls for a resync,
// and both copies would be called good although they differ in the new space (a kernel leaves
// it at that, with bits set). So one of the nodes begins a new generation and connects again:
// the bitmap resync that follows copies what both have marked. Owned by volume.
type freshSpace struct {
	grew bool
	due  Time // 0: nothing to do yet
}

// freshSpaceGrace is how long the other node has to do it. A kernel never will.
const freshSpaceGrace = 3 * Second

// freshSpaceConnected runs at the end of a handshake.
func (v *volume) freshSpaceConnected() {
	s := v.st
	if !v.fresh.grew || s.Conn != state.Connected || !bothUpToDate(s) {
		return
	}
	v.fresh.due = v.r.now + freshSpaceGrace
	if s.Role == state.Primary || s.Role == s.Peer && v.r.conn.resolve {
		v.fresh.due = v.r.now
	}
}

func (v *volume) freshSpaceTick() {
	due := v.fresh.due
	if due == 0 || v.r.now < due || v.disk == nil || v.disk.failed || v.r.change != nil {
		return
	}
	if v.st.Peer == state.Primary && v.st.Role != state.Primary && v.st.Conn == state.Connected {
		return // it could not become the target: it does it itself, or leaves it until it is Secondary
	}
	v.fresh = freshSpace{}
	if v.st.Conn != state.Connected || !bothUpToDate(v.st) || v.disk.bm.Weight() == 0 || v.disk.sb.UUIDs.Bitmap() != 0 {
		return
	}
	v.r.note(v, NoteFreshSpace)
	v.newCurrent()
	v.afterSuper(reconnectForSpace, 0)
}
