package replication

import (
	"github.com/replblk/replblk/activitylog"
	"github.com/replblk/replblk/bitmap"
	"github.com/replblk/replblk/metadata"
	"github.com/replblk/replblk/replication/state"
)

// offer takes a backing device that the driver has opened. It is attached as soon as
// no handshake is in progress, because the parameters that the peer was sent say
// that there is no disk.
func (v *volume) offer(a *Attach) {
	v.pending = a
	v.attachPending()
}

func (v *volume) attachPending() {
	a := v.pending
	if a == nil || v.disk != nil || v.rules().HandshakeInProgress || v.r.conn.phase != phaseDown && v.r.conn.phase != phaseUp {
		return
	}
	v.pending = nil
	v.attach(a)
}

// attach puts a disk into service (spec 2.3).
func (v *volume) attach(a *Attach) {
	d := &disk{sb: a.Superblock, layout: a.Layout, bm: a.Bitmap, info: *a, sbGen: 1}
	found := d.sb.AttachState(metadata.AttachContext{FencingDontCare: v.cfg.Fencing == state.DontCare,
		SuspendedPrimary: v.st.Role == state.Primary && v.st.SuspNod})
	if n := v.unfit(d, found.Disk); n != NoteNone {
		v.r.note(v, n)
		v.r.fx.add(FxDetached).Vol = v.num
		return
	}
	if v.st.Conn >= state.Connected && v.st.PeerDisk == state.UpToDate {
		found.Disk = v.beside(d, found.Disk)
	}
	if v.st.Conn < state.Connected && v.passed != 0 && metadata.SameUUID(v.passed, d.sb.UUIDs.Current()) {
		// What the disk says of the peer is older than its failure. It may say that the peer is
		// Outdated, if it was the source of a resync, and this node would go on beside a newer
		// generation (simulator, seed 65187).
		found.Disk, found.PeerOutdated = min(found.Disk, metadata.DiskOutdated), false
	}
	v.disk = d
	v.crashed = found.CrashedPrimary
	v.sizeAtAttach(d)
	if found.SetAllBits {
		v.setAllBits()
	}
	d.sb.UUIDs.SetRole(v.st.Role == state.Primary)
	current := d.sb.UUIDs.Current()
	v.neg = state.Negotiation{Matches: v.st.Role != state.Primary || v.hasSeen(current),
		Disk: diskState(found.Disk), PeerDisk: state.DUnknown}
	if found.PeerOutdated {
		v.neg.PeerDisk = state.Outdated
	}
	next := v.st
	next.Disk = state.Attaching
	v.force(next)
	next = v.st
	next.Disk = state.Negotiating
	v.force(next)
	if v.st.Disk > state.Negotiating { // until then the peer's data is what the application has seen
		v.expose(current)
	}
	if v.st.Conn >= state.Connected {
		v.peerUUIDs = peerUUIDs{}
	}
}

// beside is what a disk is worth that is attached while the peer's is good, until the two have
// been compared.
func (v *volume) beside(d *disk, found metadata.DiskState) metadata.DiskState {
	if v.outrun != 0 && metadata.SameUUID(v.outrun, d.sb.UUIDs.Current()) {
		// The connection was lost before the peer heard that this disk had failed under the
		// Primary, so its generation is the same, and by the mark of a Primary the disk
		// would be the source. But the peer has all that was answered, and the disk has not.
		return metadata.DiskInconsistent
	}
	// The peer went on without this node's disk. If the connection breaks before it has said
	// how far, nobody may be promoted here as if nothing had happened.
	return min(found, metadata.DiskOutdated)
}

// unfit says why a disk cannot be attached, NoteNone if it can: then it has its activity log.
func (v *volume) unfit(d *disk, found metadata.DiskState) Note {
	switch {
	case d.sb.Flags.Has(metadata.WasUpToDate) && !d.sb.Flags.Has(metadata.Consistent):
		return NoteFlags // nothing writes that; to believe the second would make it a target of older data (M08)
	case v.lacksSeen(d.sb.UUIDs.Current()):
		// Before the peer hears of it: it would take these for the data that are in use, and
		// refuse its own disk.
		return NoteStale
	case !v.makeLog(d):
		return NoteMetaError
	case d.limit() < d.sb.LASizeSectors && found > metadata.DiskInconsistent:
		return NoteShrink
	default:
		return NoteNone
	}
}

// lacksSeen says whether a disk with a generation cannot be attached because an application,
// on either node, has seen newer data, and the peer has no disk to compare with. Spec 7.6
// refuses more, for instance the source of a resync whose own disk failed and is back.
func (v *volume) lacksSeen(current uint64) bool {
	s := v.st
	return s.Conn >= state.Connected && s.PeerDisk < state.Negotiating && (s.Role == state.Primary || s.Peer == state.Primary) && !v.hasSeen(current)
}

// hasSeen says whether the application has seen no newer data than those of a
// generation. If the peer may have begun another one when it heard that this node lost
// its disk, it has: to go on with the own disk would be a split brain.
func (v *volume) hasSeen(current uint64) bool {
	return v.exposed == 0 || metadata.SameUUID(v.exposed, current) && !v.unseen && !v.heir
}

// makeLog sizes the activity log. The ring on disk was initialised by whoever
// replayed it, so numbers start from zero.
func (v *volume) makeLog(d *disk) bool {
	ring := activitylog.Ring{Stripes: d.layout.Striping.Stripes, StripeSize4K: d.layout.Striping.StripeSize4K}
	set, err := activitylog.New(activitylog.ClampSlots(v.cfg.ALExtents, ring), ring)
	if err != nil {
		return false
	}
	d.al.set = set
	d.sb.ALExtents = uint32(set.Slots())
	return true
}

// sizeAtAttach agrees on a size with what is known of the peer.
func (v *volume) sizeAtAttach(d *disk) {
	if d.bm == nil {
		d.bm = bitmap.New(0)
	}
	peer := v.peerSectors
	if v.st.Conn < state.Connected {
		peer = 0
	}
	last := max(d.sb.LASizeSectors, v.size)
	size := agreeSize(peer, d.limit(), last, v.userSize)
	if v.st.Conn >= state.Connected && v.size != 0 {
		size = min(size, v.size) // the peer serves this size; more takes a resize
	}
	v.resize(size, true)
}

func diskState(d metadata.DiskState) state.Disk {
	switch d {
	case metadata.DiskOutdated:
		return state.Outdated
	case metadata.DiskConsistent:
		return state.Consistent
	case metadata.DiskUpToDate:
		return state.UpToDate
	default:
		return state.Inconsistent
	}
}

// diskDone dispatches the end of a disk operation.
func (r *Resource) diskDone(ev *Event) {
	i := ev.IO.index()
	switch ev.IO.class() {
	case classRequest:
		v := r.ios.list[i].vol
		v.ioReturned()
		r.localDone(ioID(i), ev.Err)
	case classPeer:
		v := r.peer.list[i].vol
		v.ioReturned()
		r.peerDone(i, ev)
	case classBarrier:
		v := r.vols[i]
		v.flushReturned()
		r.barrierFlushed(v, ev.Err)
	case classRSFlush:
		v := r.vols[i]
		v.flushReturned()
		v.resyncFlushed(ev.Err)
	case classRSSource:
		v := r.vols[i]
		v.flushReturned()
		v.flushedBefore(ev.Err)
	case classDetach:
		v := r.vols[i]
		v.flushReturned()
		v.detachFlushed(ev.Err)
	}
}

func (v *volume) ioReturned() {
	if v.disk != nil {
		v.disk.inflight--
	}
}

func (v *volume) flushReturned() {
	v.ioReturned()
	if v.disk != nil {
		v.disk.flushes.end(v.r.ticks)
	}
}

// localError applies on-io-error to a failed data operation (spec 10.1). A failed
// flush is always a failed disk: what was written before it may be gone, and no
// later flush will tell.
func (v *volume) localError(op Op, sector, sectors uint64) {
	if v.disk != nil && v.disk.aborted {
		return // it did not fail, it was given up
	}
	e := v.r.note(v, NoteDiskError)
	e.Op, e.Sector, e.Size = op, sector, uint32(sectors<<9)
	if !v.inService() {
		return
	}
	switch {
	case v.cfg.OnIOError == OnErrorPassOn && op != OpFlush:
		next := v.st
		next.Disk = min(next.Disk, state.Inconsistent)
		v.force(next)
	case v.cfg.OnIOError == OnErrorCallHandler:
		v.r.handler(v, HandlerLocalIOError)
		v.failDisk()
	default:
		v.failDisk()
	}
}

// failDisk takes the disk out of service.
func (v *volume) failDisk() {
	if !v.inService() {
		return
	}
	v.leavePeerBehind()
	v.faulted = true
	next := v.st
	next.Disk = state.Failed
	v.force(next)
	v.abandonDisk()
	v.unconfirm()
}

// unconfirm ends the connection if there are writes of the peer that it was told of, and
// that may have been in a cache that is lost now. It marks what is not confirmed then (D06).
func (v *volume) unconfirm() {
	if p := &v.r.peer; p.arriving.count > 0 || len(p.epochs) > 0 {
		v.r.lose(state.NetworkFailure, NoteNone)
	}
}

// abandonDisk stops new I/O to the disk. The state says Failed or Diskless.
func (v *volume) abandonDisk() {
	d := v.disk
	if d == nil || d.failed {
		return
	}
	d.failed = true
	for i := range v.r.ios.list {
		if q := &v.r.ios.list[i]; q.vol == v {
			q.logged, q.tried = false, false
			q.notLocal()
		}
	}
	v.xfer.grown = false
	v.r.peer.forgetLog(v)
	v.abandonLog()
}

// settleDisk puts metadata on its way at the end of a Step, and lets go of a failed
// disk when the last I/O has returned: first what it has in its cache, because the
// peer may have been told that it is written, then the bitmap, so that what this
// node missed from now on is not all that is known.
func (v *volume) settleDisk() {
	d := v.disk
	if d == nil || v.rz.stage == resizeMoving {
		return
	}
	v.writeSuper()
	v.kickAL()
	v.pageStep()
	if v.disk == d {
		v.writeSuper() // the end of a pass may have changed it: not only at the next tick
	}
	if v.disk == d && d.failed && d.inflight == 0 && !d.leaving {
		d.leaving = true
		if d.aborted {
			v.afterPages(finishDetach, 0)
		} else {
			v.flushIO(classDetach, v.index())
		}
	}
	v.finishLeaving(d)
}

// detachFlushed goes on letting go of a disk. If what the peer wrote may be lost, it
// must not be confirmed: without the connection the peer marks it as out of sync.
func (v *volume) detachFlushed(err DiskError) {
	if err != DiskOK {
		v.unconfirm()
	}
	v.afterPages(finishDetach, 0)
}

// detached runs when the bitmap of a failed disk is written.
func (v *volume) detached() {
	if v.disk != nil {
		v.disk.written = true
		v.finishLeaving(v.disk)
	}
}

// finishLeaving makes the volume Diskless when nothing is in flight to the disk.
func (v *volume) finishLeaving(d *disk) {
	if v.disk != d || !d.written || d.inflight > 0 || d.meta.n > 0 || d.sbQueued != 0 || d.al.writing || len(d.pass.inflight) > 0 ||
		d.sbGen > d.sbDurable && !d.metaBad {
		return
	}
	v.disk = nil
	for _, w := range d.waiters {
		v.superDone(w.do, w.arg)
	}
	next := v.st
	next.Disk = state.Diskless
	v.force(next)
	if s := v.st; s.Conn >= state.Connected && s.PeerDisk == state.UpToDate && v.peerUUIDs.known {
		if !d.seen { // else the peer has it too, or has told us what came after it
			v.expose(v.peerUUIDs.Current()) // from here on the peer's data is what is seen
		}
		v.heir = s.Role == state.Primary
	}
	v.r.fx.add(FxDetached).Vol = v.num
	v.r.detachedReply(v)
}

// undecidedTicks is how long a disk that was attached may wait for the peer's opinion,
// half a minute. The peer needs no I/O for it.
const undecidedTicks = 300

// negotiationTick drops a connection over which no opinion comes (I15). Without it the
// disk is judged alone, and the next connection begins with a comparison.
func (v *volume) negotiationTick() {
	if v.st.Disk != state.Negotiating || v.st.Conn < state.Connected {
		v.undecided = 0
		return
	}
	if v.undecided++; v.undecided > undecidedTicks {
		v.r.lose(state.NetworkFailure, NoteUndecided)
	}
}
