package replication

import "github.com/replblk/replblk/replication/state"

// When a Primary loses its disk its peer begins a new data generation, the heir of the one that
// both had. Until that is on the peer's disk the two copies look equal, and if both nodes die the
// crashed Primary is the source, although it has nothing of what was written without its disk.

// newHeir is newCurrent for the loss of the peer's disk. The peer hears of it when it is
// durable, together with the data that it names: from then on the application there
// sees ours, so a crash here must not take back what it has been told.
func (v *volume) newHeir() {
	if v.st.Role != state.Primary {
		v.metaFlush(true)
	}
	v.newCurrent()
	v.afterSuper(announce, 0)
}

// awaitHeir holds requests and answers, after the disk was lost, until the peer has told its new
// generation: it does so when that is durable, as a kernel does. What only the peer has must not
// be answered before. old is the state with the disk.
func (v *volume) awaitHeir(old state.State) {
	inSync := bothUpToDate(old) && (old.Conn == state.Connected || old.Conn.Verify())
	if v.heirless > 0 || !inSync || !v.heirPossible() || v.peerUUIDs.Bitmap() != 0 {
		return
	}
	v.heirless = max(v.r.cfg.TimeoutTenths, 1)
	v.frozen++
}

// heirPossible says whether the peer may begin a generation because this node has no disk.
func (v *volume) heirPossible() bool {
	return v.st.Role == state.Primary && v.st.Disk < state.Inconsistent && v.peerServes()
}

// heirOrNone ends the wait when the peer has told its new generation, or nothing it has counts.
func (v *volume) heirOrNone() {
	if v.heirless > 0 && (!v.heirPossible() || v.peerUUIDs.Bitmap() != 0) {
		v.endHeirless()
	}
}

// heirTick ends a wait that would last for ever: a peer whose I/O an operator has suspended owes
// its new generation, and one that had not heard yet that a resync is over has another already.
func (v *volume) heirTick() {
	if v.heirless == 1 {
		v.endHeirless()
	} else if v.heirless > 0 {
		v.heirless--
	}
}

// endHeirless takes back what awaitHeir holds.
func (v *volume) endHeirless() {
	v.heirless = 0
	v.thaw()
}
