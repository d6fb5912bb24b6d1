package replication

import (
	"github.com/replblk/replblk/replication/state"
	"github.com/replblk/replblk/replication/wire"
)

// Limits of one application request, in bytes. The driver splits what is larger.
const (
	MaxWrite   = 1 << 20
	MaxDiscard = 4 << 20 // also of zero-outs: spans at most two activity log extents
)

// request takes an application request in.
func (r *Resource) request(ev *Event) {
	v := r.volume(ev.Vol)
	if v == nil || ev.Op != OpFlush && !v.inside(ev.Sector, ev.Size) {
		r.complete(ev.Req, IOError, 0)
		return
	}
	if !r.cut(ev) {
		r.takeIn(ev, 0, 0)
	}
}

// takeIn takes a request, or the part of one that begins at byte from, into the table.
func (r *Resource) takeIn(ev *Event, part, from uint32) {
	v := r.volume(ev.Vol)
	v.rs.rate.seen(uint64(ev.Size) >> 9)
	id := r.ios.alloc()
	q := &r.ios.list[id]
	*q = ioReq{gen: q.gen, vol: v, req: ev.Req, part: part, from: from, op: ev.Op, sector: ev.Sector, size: ev.Size,
		fua: ev.FUA, noHole: ev.NoHole, start: r.now, stage: stageHeld, next: noIO}
	if len(v.held) > 0 || !v.acceptsIO() || r.ios.inUse() > maxIOs-MaxPeerRequests {
		v.held = append(v.held, id)
		return
	}
	r.admit(id)
}

// acceptsIO says whether application requests may start (spec 5.7).
func (v *volume) acceptsIO() bool {
	s := v.st
	switch {
	case v.frozen > 0 || s.Suspended() || v.r.conn.doubted:
		return false
	case s.Conn == state.WFBitMapT || s.Conn == state.WFSyncUUID:
		return false
	case startingSync(s.Conn): // what is written now would be on this disk only, while the peer's still counts there
		return false
	case s.Conn == state.WFBitMapS && (v.r.session().Version < 96 || !v.xfer.sent || v.unnamed()):
		return false
	case s.Disk == state.Attaching || s.Disk == state.Negotiating:
		return false
	}
	return true
}

// retryHeld admits requests that waited for the state to change.
func (v *volume) retryHeld() {
	for len(v.held) > 0 && v.acceptsIO() && v.r.ios.inUse() <= maxIOs-MaxPeerRequests {
		id := v.held[0]
		v.held = v.held[1:]
		v.r.admit(id)
	}
	if len(v.held) == 0 {
		v.held = nil
	}
	v.retryWaiting()
	v.resumeStarved()
}

// admit starts a request that the state accepts.
func (r *Resource) admit(id ioID) {
	q := &r.ios.list[id]
	v := q.vol
	switch {
	case v.st.Role != state.Primary:
		r.refuse(id, ReadOnly)
		return
	case q.op != OpFlush && !v.inside(q.sector, q.size): // the volume has shrunk since
		r.refuse(id, IOError)
		return
	}
	switch q.op {
	case OpRead:
		r.startRead(id)
	case OpFlush:
		r.startFlush(id)
	default:
		q.stage = stageOverlap
		if v.mustWait(q, len(v.waiting)) {
			v.waiting = append(v.waiting, id)
			return
		}
		r.logStart(id)
	}
}

// refuse answers a request that never started.
func (r *Resource) refuse(id ioID, o Outcome) {
	r.finished(&r.ios.list[id], o, 0)
	r.ios.release(id)
}

// mustWait says whether a write overlaps one in progress, a block under resync, or one
// of the first n that wait: overlapping writes execute in order of arrival, the
// same on both nodes.
func (v *volume) mustWait(q *ioReq, n int) bool {
	if overlapping(v.active, q.sector, q.end()) || overlapping(v.rs.busy, q.sector, q.end()) || v.peersComesFirst(q.sector, q.end()) {
		return true
	}
	for _, id := range v.waiting[:n] {
		w := &v.r.ios.list[id]
		if w.sector < q.end() && q.sector < w.end() {
			return true
		}
	}
	return false
}

// retryWaiting starts writes whose range has become free, and reads that need not wait any more.
func (v *volume) retryWaiting() {
	for i := 0; i < len(v.waiting); {
		id := v.waiting[i]
		q := &v.r.ios.list[id]
		read := q.op == OpRead
		if read && v.readWaits(q) || !read && v.mustWait(q, i) {
			i++
			continue
		}
		v.waiting = append(v.waiting[:i], v.waiting[i+1:]...)
		if read {
			v.r.startRead(id)
		} else {
			v.r.logStart(id)
		}
	}
}

// logStart reserves the range and takes the extents of a write into the activity log.
func (r *Resource) logStart(id ioID) {
	q := &r.ios.list[id]
	v := q.vol
	v.active = append(v.active, span{q.sector, q.end(), uint32(id)})
	q.stage = stageLog
	if !v.writesLocally() {
		r.submit(id)
		return
	}
	if v.logWrite(q.sector, q.sectors(), alWaiter{index: uint32(id)}) {
		q.logged = true
		r.submit(id)
	}
}

// alRange returns the range of sectors a waiter wants logged.
func (r *Resource) alRange(w alWaiter) (sector, sectors uint64) {
	if w.peer {
		p := &r.peer.list[w.index]
		return p.sector, p.sectors()
	}
	q := &r.ios.list[w.index]
	return q.sector, q.sectors()
}

// logged resumes a write when its extents are active, or when there is no log to
// wait for any more.
func (r *Resource) logged(w alWaiter) {
	if w.peer {
		r.peerLogged(w.index)
		return
	}
	q := &r.ios.list[w.index]
	q.logged = q.vol.writesLocally()
	r.submit(ioID(w.index))
}

// submit sends a write where it belongs. Nothing of it has happened before.
func (r *Resource) submit(id ioID) {
	q := &r.ios.list[id]
	v := q.vol
	q.stage, q.start = stageActive, r.now
	if v.replicates() && q.size > r.pieceLimit(q.op) {
		r.lose(state.NetworkFailure, NoteNone) // it was taken in for a peer that takes more; a resync will bring it
	}
	if v.replicates() && v.congested() {
		v.relieve()
	}
	local, remote := v.writesLocally(), v.replicates()
	if v.st.Disk != state.UpToDate && v.st.PeerDisk != state.UpToDate || !local && !remote {
		r.advance(id) // neither part will be done: the request fails
		return
	}
	if remote {
		q.netPending, q.era = true, v.era
		// Whatever the protocol: a write that is not on a good disk here, or that
		// must be durable, counts only when the peer has written it.
		q.proto = r.conn.protocol
		q.durable = q.fua || v.st.Disk != state.UpToDate
		q.awaited = q.proto == ProtocolC || q.durable
		q.byBarrier = q.awaitsBarrier(&r.conn)
		r.tl.add(r, id)
		r.sendWrite(id)
		if q.byBarrier {
			r.tl.closeEpoch(r)
		}
	} else if v.notes() && v.markOut(q.sector, q.sectors()) > 0 {
		v.sendBlockDesc(wire.CmdOutOfSync, q.sector, q.size)
	}
	if local {
		q.localPending = true
		v.diskIO(ioFor(classRequest, uint32(id)), q)
	}
}

// diskIO emits the local part of a request.
func (v *volume) diskIO(io IOID, q *ioReq) {
	v.disk.inflight++
	q.begun, q.tried = v.r.ticks, true
	e := v.r.fx.add(FxDisk)
	e.Vol, e.IO, e.Op, e.Sector, e.Size = v.num, io, q.op, q.sector, q.size
	e.FUA, e.NoHole = q.fua, q.noHole
	if q.op == OpRead || q.op == OpWrite {
		e.Payload, e.Req, e.From = PayloadRequest, q.req, q.from
	}
}

// startFlush makes everything answered so far durable: on the own disk by a flush, on
// the peer's by the acknowledgement of the barrier that closes the present
// epoch. DRBD itself does not wait for the peer here.
func (r *Resource) startFlush(id ioID) {
	q := &r.ios.list[id]
	v := q.vol
	q.stage = stageActive
	if v.replicates() {
		r.tl.closeEpoch(r)
		if n := len(r.tl.closed); n > 0 {
			q.netPending, q.waitEpoch, q.epoch = true, true, r.tl.closed[n-1].number
			r.tl.flushes = append(r.tl.flushes, id)
		} else {
			q.netOK = true
		}
	}
	if v.writesLocally() {
		q.localPending = true
		v.diskIO(ioFor(classRequest, uint32(id)), q)
	}
	if !q.localPending && !q.netPending {
		r.advance(id)
	}
}

// localDone handles the end of the local part of a request.
func (r *Resource) localDone(id ioID, err DiskError) {
	q := &r.ios.list[id]
	q.localPending, q.localOK = false, err == DiskOK
	if err != DiskOK {
		q.localSpace = err == DiskNoSpace
		q.vol.localError(q.op, q.sector, q.sectors())
		if q.op == OpRead && err != DiskAborted {
			q.vol.markOut(q.sector, q.sectors())
		}
	}
	if q.op == OpRead && (err != DiskOK || !q.vol.writesLocally()) {
		// Now from the peer. Also what came back well from a disk that has failed
		// meanwhile: a failed flush may have dropped newer data before the read.
		q.localOK, q.stage = false, stageHeld
		r.startRead(id)
		return
	}
	if !q.vol.writesLocally() {
		q.notLocal()
	}
	r.advance(id)
}

// notLocal: the disk has failed, and what it has written may have been in its cache. Of a write
// that is not answered yet it does not count, nor when the disk is attached again.
func (q *ioReq) notLocal() {
	if q.op.modifies() && q.localOK && (q.stage == stageActive || q.stage == stageHeld) {
		q.localOK = false
		q.vol.markOut(q.sector, q.sectors())
	}
}

// netDone handles the end of the network part of a request.
func (r *Resource) netDone(id ioID) {
	q := &r.ios.list[id]
	if q.stage == stageActive && q.waitEpoch {
		q.waitEpoch = false
	}
	if q.stage == stageActive && q.remoteRead && !q.netOK {
		q.remoteRead = false
		r.startRead(id)
		return
	}
	r.advance(id)
}

// advance answers a request when both parts are done, and forgets it when its
// epoch is confirmed.
func (r *Resource) advance(id ioID) {
	q := &r.ios.list[id]
	if q.localPending || q.netPending {
		return
	}
	if q.stage == stageActive {
		r.account(q, id)
		if q.vol.frozen > 0 || q.vol.st.Suspended() && (!q.localOK || !q.netOK || !q.good()) {
			q.stage = stageHeld
			q.vol.done = append(q.vol.done, id)
		} else if !r.cfg.SuspendOnNoData || !q.vol.mayServe(q) || !r.startOver(id) {
			r.answer(id)
		}
	}
	if q = &r.ios.list[id]; q.stage == stageDone && !q.inEpoch {
		r.forget(id)
	}
}

// account brings the bitmap up to date with the outcome of a write (spec 6.1).
func (r *Resource) account(q *ioReq, id ioID) {
	if !q.op.modifies() {
		return
	}
	v := q.vol
	v.active = without(v.active, uint32(id))
	v.mixed = without(v.mixed, uint32(id))
	if len(v.refusals) > 0 {
		v.refusalsOver(id)
	}
	if len(v.waiting) > 0 || len(v.r.peer.queue) > 0 || len(v.rs.blocked) > 0 || v.xfer.state == xferWaits || v.st.Conn.Verify() {
		r.restless = true
	}
	switch {
	case q.localOK && q.netOK:
		if q.clearBits {
			v.markIn(q.sector, q.sectors())
		}
	case q.localOK || q.netOK:
		v.unseen = v.unseen || !v.inService()
		v.markOut(q.sector, q.sectors())
		q.marked = true // not again later: a resync may have copied it by then
	}
}

func (o Op) modifies() bool { return o == OpWrite || o == OpDiscard || o == OpZeroes }

// answer completes a request to the application.
func (r *Resource) answer(id ioID) {
	q := &r.ios.list[id]
	o := OK
	if !q.good() {
		o = IOError
		if q.localSpace {
			o = NoSpace
		}
	}
	r.finished(q, o, q.buf)
	r.tl.completed(q)
	q.stage = stageDone
}

// peerServes says whether the peer has good data and can be asked.
func (v *volume) peerServes() bool {
	return v.r.conn.established() && v.st.Conn >= state.Connected && v.st.PeerDisk == state.UpToDate
}

// good says whether a request may be answered with success. One part is enough if it
// was done on a copy that counts: a write that is only on an Inconsistent disk will be
// overwritten by the resync, so nobody must be told that it is safe.
func (q *ioReq) good() bool {
	if q.op == OpRead {
		return q.localOK || q.netOK
	}
	s := q.vol.st
	return q.localOK && s.Disk == state.UpToDate || q.netOK && s.PeerDisk == state.UpToDate
}

// complete emits the answer to an application request.
func (r *Resource) complete(req ReqID, o Outcome, buf BufID) {
	e := r.fx.add(FxComplete)
	e.Req, e.Outcome, e.Buf = req, o, buf
}

// forget drops a request that is answered and confirmed.
func (r *Resource) forget(id ioID) {
	q := &r.ios.list[id]
	if q.op.modifies() && !q.marked && (!q.localOK || !q.netOK) && (q.localOK || q.netOK) {
		q.vol.markOut(q.sector, q.sectors())
	}
	if q.clearLate && q.localOK && q.netOK {
		q.vol.markIn(q.sector, q.sectors())
		r.restless = true
	}
	if q.logged {
		q.vol.alRelease(q.sector, q.sectors())
	}
	r.ios.release(id)
	if r.ios.inUse() == maxIOs-MaxPeerRequests {
		r.restless = true
	}
}

// thaw takes one reason to hold requests and completions away.
func (v *volume) thaw() {
	v.frozen--
	v.releaseDone()
	v.r.restless = true
}

// releaseDone answers requests whose completion was held.
func (v *volume) releaseDone() {
	if v.frozen > 0 || v.st.Suspended() {
		return
	}
	list := v.done
	v.done = nil
	for _, id := range list {
		if v.r.startOver(id) {
			continue
		}
		v.r.answer(id)
		if q := &v.r.ios.list[id]; !q.inEpoch {
			v.r.forget(id)
		}
	}
}

// mayServe says whether a copy counts that has not been asked for a request, or has lost it with
// the disk that it was on.
func (v *volume) mayServe(q *ioReq) bool {
	return v.peerServes() && !q.netOK || v.localReadable() && !q.tried
}

// startOver takes a request up again that no copy which counts has when I/O goes on after it
// was suspended: nobody has been told yet, and there may be a copy to serve it now. The peer may
// still have to confirm the epoch in which it was sent: then its slot stays for that, and it gets another.
func (r *Resource) startOver(id ioID) bool {
	if r.ios.list[id].good() {
		return false
	}
	if r.ios.list[id].inEpoch {
		id = r.ios.again(id)
	}
	q := &r.ios.list[id]
	if q.logged {
		q.vol.alRelease(q.sector, q.sectors())
	}
	q.localOK, q.netOK, q.logged, q.marked, q.waitEpoch = false, false, false, false, false
	q.localSpace, q.remoteRead, q.stage = false, false, stageHeld
	q.vol.held = append(q.vol.held, id)
	r.restless = true
	return true
}
