package replication

import (
	"github.com/replblk/replblk/bitmap"
	"github.com/replblk/replblk/metadata"
	"github.com/replblk/replblk/replication/state"
)

// A Primary whose I/O is suspended when it loses its peer owes a new data generation: it
// may not begin one before it knows that it goes on alone. If the peer takes over
// meanwhile, the peer's generation follows ours and is the newer one; with one of our own
// both would have left the common past, a split brain without a single answered write
// (P05, P07). What was written here and not answered is covered by the activity log and
// by the bits.
//
// If the peer comes back instead, as it was, the debt is paid in the handshake, for the
// bits say that it misses writes, and equal generations say that it does not. So this
// node keeps its generations to itself until it has seen the peer's.

// patientTicks is how long that may take. Two nodes that wait for each other are both
// Primary, and agree on nothing anyway.
const patientTicks = 10

// oweOrBegin begins a new generation, or remembers to, after the peer's data were lost.
func (v *volume) oweOrBegin(now state.State) {
	if now.Suspended() {
		v.owing = true
		return
	}
	v.newHeir()
}

// payOwed is called when I/O goes on. With the peer in the state of a resync nothing is
// owed any more: it has begun with new UUIDs.
func (v *volume) payOwed(now state.State) {
	if !v.owing {
		return
	}
	v.owing = false
	alone := now.Conn < state.Connected || now.PeerDisk < state.Inconsistent
	if alone && v.disk != nil && v.disk.sb.UUIDs.Bitmap() == 0 && now.Disk == state.UpToDate {
		v.oweOrBegin(now)
	}
}

// tellLater postpones P_UUIDS and P_STATE of the handshake, if a generation is owed.
func (v *volume) tellLater() bool {
	if !v.owing {
		return false
	}
	v.untold = patientTicks
	return true
}

// tellOwed sends what tellLater has kept back. If the peer has still the generation that
// both had, ours is the one that goes on.
func (v *volume) tellOwed() {
	if v.untold == 0 {
		return
	}
	v.untold = 0
	if v.disk != nil && v.peerUUIDs.known && metadata.SameUUID(v.peerUUIDs.Current(), v.disk.sb.UUIDs.Current()) {
		v.owing = false
		v.newCurrent()
	}
	v.introduce()
}

// introduce tells the peer the own generations and state.
func (v *volume) introduce() {
	if v.st.Disk >= state.Negotiating {
		v.sendUUIDs(0)
	}
	v.sendState()
}

// owedTick ends a wait that would last for ever.
func (v *volume) owedTick() {
	if v.untold == 1 {
		v.tellOwed()
	} else if v.untold > 0 {
		v.untold--
	}
}

// payLate is the last chance: the generations say that no resync is needed, and the debt
// says otherwise. The new generation will be seen in the next handshake.
func (v *volume) payLate(verdict state.Conn, peerRole state.Role, peerDisk state.Disk) bool {
	if verdict != state.Connected || !v.owing && !v.debtForgotten(peerRole, peerDisk) {
		return false
	}
	v.owing = false
	v.newCurrent()
	v.r.lose(state.NetworkFailure, NoteOwed)
	return true
}

// debtForgotten says whether this node has marked blocks of which its peer knows nothing, while
// both are Secondary: it was a suspended Primary, was demoted, and with its power it has
// lost the knowledge that it owes a generation. What it has marked may have been answered, so
// the peer must not be promoted without it. This is rule 43, for a peer that does not have it.
// New space that was announced to a peer whose volume had not grown yet is no debt: the last connection
// broke when this one had, and the peer marks it now. It waits for a Primary (freshSpace).
func (v *volume) debtForgotten(peerRole state.Role, peerDisk state.Disk) bool {
	myDisk := v.judgedDisk()
	self, peer := v.generations(peerRole, myDisk, peerDisk)
	self.marked, peer.marked = v.marked(myDisk, peerDisk)
	if self.marked > 0 && v.peerSize > 0 && v.peerSize < v.announcedSize {
		self.marked = v.disk.bm.CountRange(0, v.peerSize/bitmap.SectorsPerBit)
	}
	return v.st.Role == state.Secondary && peerRole == state.Secondary && marks(self, peer) == source
}
