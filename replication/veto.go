package replication

import "github.com/replblk/replblk/replication/state"

// veto is the right of a handler to prevent a resync: before-resync-target, which may
// want to take a snapshot first, or before-resync-source (spec 10.5). It is asked once
// for each resync, while nothing has been overwritten yet. Owned by volume.
type veto struct {
	asking int    // handlers that have not ended, of earlier resyncs included
	era    uint64 // of the resync that the last one was asked about
	exit   int    // the worst exit code of those that have
	passed bool   // this resync may start
}

// sourceMayProceed is the exit code of before-resync-source that prevents nothing.
const sourceMayProceed = 3

// mayResync says whether a resync may start here. If the handler was not asked yet it is
// asked now, and resyncVetted goes on.
func (v *volume) mayResync(h Handler) bool {
	t := &v.veto
	if t.passed || t.asking > 0 && t.era == v.era {
		return t.passed
	}
	t.asking++
	t.era = v.era
	e := v.r.fx.add(FxHandler)
	e.Vol, e.Handler, e.IO = v.num, h, ioFor(classVeto, v.index())
	return false
}

// resyncVetted: such a handler has ended. If one of an earlier resync, cut off by the
// loss of the connection, was still running, both must agree.
func (v *volume) resyncVetted(exit int) {
	t := &v.veto
	if v.aboutToBeSource() && exit == sourceMayProceed {
		exit = 0
	}
	t.exit = max(t.exit, exit)
	if t.asking--; t.asking > 0 {
		return
	}
	exit, t.exit = t.exit, 0
	if t.era != v.era {
		return // the resync is over before it began
	}
	if exit > 0 {
		v.r.note(v, NoteVetoed).Token = uint64(exit)
		v.r.giveUp(NoteNone)
		return
	}
	t.passed = true
	v.r.restless = true
	switch {
	case !v.inService(): // it went while the handler ran, and the resync with it
	case v.aboutToBeSource():
		v.makeSyncUUID()
	case v.st.Conn == state.WFSyncUUID:
		v.becomeTarget()
	default: // WFBitMapT: the bitmap is sent by tryBitmap
	}
}

// aboutToBeSource says whether a resync waits for this node's sync UUID. The one of space
// that both disks have grown by starts from Connected.
func (v *volume) aboutToBeSource() bool {
	c := v.st.Conn
	return c == state.WFBitMapS || c == state.StartingSyncS || c == state.Connected && v.xfer.grown || c == state.Ahead && v.xfer.caughtUp
}
