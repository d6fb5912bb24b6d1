package replication

import (
	"github.com/replblk/replblk/replication/state"
	"github.com/replblk/replblk/replication/wire"
)

// peerKind is what a request of the peer is.
type peerKind uint8

const (
	peerFree     peerKind = iota
	peerWrite             // replicated write
	peerReadData          // read of an application there
	peerReadSync          // resync read: this node is the source
	peerResync            // resynced block to be written: this node is the target
	peerOwnSum            // VerifyS: digest of the own block, to compare with the peer's
	peerSum               // VerifyT: digest of a block that the peer compares
	peerChecksum          // this node is the target: digest of the own blocks, for P_CSUM_RS_REQUEST
)

// peerReq is a request of the peer (DRBD: "ee") in progress on this node.
type peerReq struct {
	kind    peerKind
	op      Op
	fua     bool
	noHole  bool
	logged  bool // holds activity log references
	alone   bool // the peer had no disk when it sent the write: this is the only copy
	maySet  bool // the write may clear bits: of the resync that ran when it arrived
	wantAck bool // P_WRITE_ACK when written
	thin    bool // peerReadSync: zeroes need not be sent
	onDisk  bool // submitted and not answered
	orphan  bool // the connection it came from is gone
	failed  bool
	vol     *volume
	sector  uint64
	size    uint32
	blockID uint64
	buf     BufID  // its data, or what was read; 0: none
	begun   uint64 // tick when it was submitted
	era     uint64 // of the volume when the write arrived
	epoch   uint32 // index of the peer's epoch it belongs to, or the barrier handle
	owner   uint32 // peerOwnSum, peerSum: of the span in volume.verify.reqs; peerChecksum: in resync.reqs
	sum     wire.Algorithm
	digest  []byte // the peer's, to be compared
}

func (p *peerReq) sectors() uint64 { return uint64(p.size) >> 9 }
func (p *peerReq) end() uint64     { return p.sector + p.sectors() }

func (p *peerReq) overlaps(v *volume, start, end uint64) bool {
	return p.vol == v && p.sector < end && start < p.end()
}

// peerEpoch is a set of the peer's writes between two barriers.
type peerEpoch struct {
	number uint32 // of this epoch, counted here
	handle uint32 // of the barrier that closed it
	count  uint32 // writes in it
	active uint32 // writes not yet done
	held   uint32 // own writes for which others of the peer were refused, not yet done
}

// peerSide holds the requests of the peer. Owned by Resource.
type peerSide struct {
	list []peerReq
	free []uint32
	used int

	arriving peerEpoch   // the epoch to which the next P_DATA belongs
	epochs   []peerEpoch // closed by a barrier, not confirmed yet, in order
	queue    []uint32    // writes that wait: for a barrier to be confirmed, or for an overlapping request
	flushing int         // flushes for the oldest closed epoch that have not returned
}

func (t *peerSide) alloc() uint32 {
	t.used++
	if n := len(t.free); n > 0 {
		i := t.free[n-1]
		t.free = t.free[:n-1]
		return i
	}
	t.list = append(t.list, peerReq{})
	return uint32(len(t.list) - 1)
}

func (t *peerSide) release(i uint32) {
	t.list[i] = peerReq{}
	t.free = append(t.free, i)
	t.used--
}

// busy says whether requests or flushes are with the driver.
func (t *peerSide) busy() bool { return t.used > 0 || t.flushing > 0 }

// reset forgets the epochs of an old connection.
func (t *peerSide) reset() {
	t.arriving, t.epochs, t.queue = peerEpoch{}, nil, nil
}

// drop ends the peer's requests when its connection is gone: writes that have arrived are
// carried out without an answer, since under protocols A and B the application may
// have been told; what else has not started is forgotten.
func (t *peerSide) drop(r *Resource) {
	queue := t.queue
	t.queue = nil
	for _, i := range queue {
		if t.list[i].kind == peerWrite {
			t.queue = append(t.queue, i)
		} else {
			r.dropPeer(i)
		}
	}
	for i := range t.list {
		t.list[i].orphan = t.list[i].kind != peerFree
	}
	t.epochs = nil
	r.retryPeer()
}

// dropPeer forgets a request that was never submitted.
func (r *Resource) dropPeer(i uint32) {
	r.free(r.peer.list[i].buf)
	r.peer.release(i)
}

// forgetLog takes the activity log references away that a failed disk held.
func (t *peerSide) forgetLog(v *volume) {
	for i := range t.list {
		if t.list[i].vol == v {
			t.list[i].logged = false
		}
	}
}

// PeerRoom returns how many more packets with data or read requests the driver may
// deliver. At zero it must not read the data socket.
func (r *Resource) PeerRoom() int { return max(0, MaxPeerRequests-r.peer.used) }

// peerWrite takes P_DATA, P_TRIM and P_ZEROES (spec 6.2).
func (v *volume) peerWrite(ev *Event) bool {
	r := v.r
	var d wire.Data
	size := ev.Size
	rd := wire.NewReader(ev.Cmd, ev.Body)
	if ev.Cmd == wire.CmdData {
		d.DecodeFrom(&rd)
	} else {
		var t wire.Trim
		t.DecodeFrom(&rd)
		d, size = t.Data, t.Size
	}
	if rd.Finish() != nil || !v.inside(d.Sector, size) && !v.resizeRoom(d.Sector, size) || v.st.Conn < state.Connected ||
		v.st.Role == state.Primary && !r.twoPrimaries() || r.PeerRoom() == 0 {
		r.free(ev.Buf)
		return false
	}
	v.rs.rate.seen(uint64(size) >> 9)
	i := r.peer.alloc()
	p := &r.peer.list[i]
	*p = peerReq{kind: peerWrite, vol: v, sector: d.Sector, size: size, blockID: d.BlockID, buf: ev.Buf,
		era: v.era, fua: d.Flags&wire.FlagFUA != 0, maySet: d.Flags&wire.FlagMaySetInSync != 0 && v.writesSettle(), alone: v.st.PeerDisk < state.Inconsistent}
	p.op, p.noHole = writeOp(ev.Cmd, d.Flags, r.session())
	r.peer.arriving.count++
	r.peer.arriving.active++
	p.epoch = r.peer.arriving.number
	early, late := v.acksFor(d.Flags)
	p.wantAck = late
	if early && v.st.Disk >= state.Inconsistent {
		v.sendAck(wire.CmdRecvAck, d.Sector, d.BlockID, size)
	}
	if r.twoPrimaries() {
		v.contestedWrite(i, d.Seq)
		return true
	}
	v.sequence(d.Seq) // adjust may allow two primaries before the next write
	r.takePeerWrite(i)
	return true
}

// takePeerWrite starts a write, or queues it.
func (r *Resource) takePeerWrite(i uint32) {
	if len(r.peer.queue) > 0 || r.peerMustWait(&r.peer.list[i], 0) {
		r.peer.queue = append(r.peer.queue, i)
		return
	}
	r.startPeerWrite(i)
}

// takePeer starts another request of the peer, or queues it. Unlike a write it does not wait for
// what it does not overlap.
func (r *Resource) takePeer(i uint32) {
	if r.peerMustWait(&r.peer.list[i], len(r.peer.queue)) {
		r.peer.queue = append(r.peer.queue, i)
		return
	}
	r.startQueued(i)
}

// peerMustWait says whether a write of the peer may not start yet: a barrier before
// it is not confirmed, or it overlaps a request in progress or one of the first n
// in the queue.
func (r *Resource) peerMustWait(p *peerReq, n int) bool {
	if p.kind == peerWrite && len(r.peer.epochs) > 0 && p.epoch != r.peer.epochs[0].number {
		return true
	}
	v := p.vol
	if p.kind == peerWrite && (v.rz.stage != resizeNone || !v.inside(p.sector, p.size) && v.growing()) { // it may be meant for the new space
		return true
	}
	if overlapping(v.rs.writing, p.sector, p.end()) || p.kind == peerWrite && v.ownComesFirst(p) {
		return true
	}
	if v.st.Conn.Verify() && v.verifyHolds(p) {
		return true
	}
	for _, i := range r.peer.queue[:n] {
		if r.peer.list[i].overlaps(v, p.sector, p.end()) {
			return true
		}
	}
	return false
}

// peerWriting says whether writes of the peer to a range are not done yet.
func (v *volume) peerWriting(start, end uint64) bool {
	t := &v.r.peer
	for _, i := range t.queue {
		if p := &t.list[i]; p.kind == peerWrite && p.overlaps(v, start, end) {
			return true
		}
	}
	return overlapping(v.rs.writing, start, end)
}

// retryPeer starts queued writes that have become free.
func (r *Resource) retryPeer() {
	for n := 0; n < len(r.peer.queue); {
		i := r.peer.queue[n]
		if r.peerMustWait(&r.peer.list[i], n) {
			n++
			continue
		}
		r.peer.queue = append(r.peer.queue[:n], r.peer.queue[n+1:]...)
		r.startQueued(i)
	}
}

// startQueued starts a request of the peer that nothing keeps waiting any more.
func (r *Resource) startQueued(i uint32) {
	p := &r.peer.list[i]
	switch p.kind {
	case peerResync:
		r.startResyncWrite(i)
	case peerReadData:
		if !p.vol.writesLocally() {
			p.failed = true
			r.answerRead(i)
			return
		}
		p.vol.peerIO(i)
	case peerOwnSum, peerSum:
		p.vol.startSum(i)
	default:
		r.startPeerWrite(i)
	}
}

// startPeerWrite submits a write, or refuses it if there is no disk.
func (r *Resource) startPeerWrite(i uint32) {
	p := &r.peer.list[i]
	v := p.vol
	v.rs.writing = append(v.rs.writing, span{p.sector, p.end(), i})
	if inside := v.inside(p.sector, p.size); !inside || !v.writesLocally() {
		if !inside && !p.orphan { // it waited for the volume to grow, and in vain
			r.protocolError()
		}
		p.failed = true
		r.peerWritten(i)
		return
	}
	p.alone = p.alone || v.st.PeerDisk < state.Inconsistent
	if p.alone && v.st.Disk < state.UpToDate && !p.orphan {
		p.failed = true // the peer has no disk, and this one does not count: nobody would have it
		r.peerWritten(i)
		return
	}
	if p.alone {
		// This node keeps the books for a peer without a disk. It may have got one
		// since it sent the write, but the write is not on it.
		v.markOut(p.sector, p.sectors())
		p.maySet = false
		// The log counts after a crash only if the superblock says that this node keeps it.
		v.afterSuper(logPeerWrite, uint64(i))
		return
	}
	v.peerIO(i)
}

// logPeerWrite takes the extents of a write that only this node has into the activity log.
func (r *Resource) logPeerWrite(i uint32) {
	p := &r.peer.list[i]
	v := p.vol
	if v.writesLocally() && !v.logWrite(p.sector, p.sectors(), alWaiter{peer: true, index: i}) {
		return
	}
	r.peerLogged(i)
}

// peerLogged resumes a write that waited for the activity log.
func (r *Resource) peerLogged(i uint32) {
	p := &r.peer.list[i]
	if !p.vol.writesLocally() {
		p.failed = true
		r.peerWritten(i)
		return
	}
	p.logged = true
	p.vol.peerIO(i)
}

// peerIO emits the disk operation of a request.
func (v *volume) peerIO(i uint32) {
	p := &v.r.peer.list[i]
	v.disk.inflight++
	p.onDisk, p.begun = true, v.r.ticks
	e := v.r.fx.add(FxDisk)
	e.Vol, e.IO, e.Op, e.Sector, e.Size = v.num, ioFor(classPeer, i), p.op, p.sector, p.size
	e.FUA, e.NoHole = p.fua, p.noHole
	e.Resync = p.kind == peerReadSync || p.kind >= peerResync
	e.Sum, e.SumOnly, e.TestZero = p.sum, p.kind >= peerOwnSum, p.thin
	if p.op == OpWrite {
		e.Payload, e.Buf = PayloadBuffer, p.buf
	}
}

// peerDone handles the end of a disk operation for the peer.
func (r *Resource) peerDone(i uint32, ev *Event) {
	p := &r.peer.list[i]
	p.failed, p.onDisk = ev.Err != DiskOK, false
	if ev.Buf != 0 {
		p.buf = ev.Buf
	}
	v := p.vol
	if p.failed {
		v.markOut(p.sector, p.sectors())
		v.localError(p.op, p.sector, p.sectors())
	}
	switch p.kind {
	case peerWrite:
		r.peerWritten(i)
	case peerReadData:
		r.answerRead(i)
	case peerReadSync:
		v.answerSyncRead(i, ev)
	case peerResync:
		v.resyncWritten(i)
	case peerOwnSum:
		v.compared(i, ev.Body)
	case peerSum:
		v.summed(i, ev.Body)
	case peerChecksum:
		v.checksummed(i, ev.Body)
	default:
	}
	r.drained()
}

// peerWritten answers a write that is done, and counts it in its epoch.
func (r *Resource) peerWritten(i uint32) {
	p := &r.peer.list[i]
	v := p.vol
	v.rs.writing = without(v.rs.writing, i)
	if !p.orphan {
		r.ackWrite(p)
	}
	if p.logged {
		v.alRelease(p.sector, p.sectors())
	}
	orphan, alone, number, written := p.orphan, p.alone, p.epoch, span{start: p.sector, end: p.end()}
	r.dropPeer(i)
	if alone {
		v.bookClosed()
	}
	if !orphan {
		r.epochWriteDone(number)
	}
	if len(v.active)+len(v.waiting) > 0 {
		v.retryPostponed(written)
		r.restless = true
	}
	if len(v.rs.blocked) > 0 {
		r.restless = true
	}
	r.retryPeer()
}

// keepsBooks says whether writes are in progress that only the own activity log and
// bitmap know of.
func (v *volume) keepsBooks() bool {
	for i := range v.r.peer.list {
		if p := &v.r.peer.list[i]; p.vol == v && p.alone {
			return true
		}
	}
	return false
}

// bookClosed lets the mark of a Primary go if it stayed on disk for the sake of such
// writes only.
func (v *volume) bookClosed() {
	if d := v.disk; d != nil && d.keepPrimary && !v.keepsBooks() {
		v.settlePrimaryMark()
	}
}

func (r *Resource) ackWrite(p *peerReq) {
	v := p.vol
	inSync := p.maySet && p.era == v.era && v.writesSettle() && v.st.PeerDisk >= state.Inconsistent
	switch {
	case p.failed:
		v.sendAck(wire.CmdNegAck, p.sector, p.blockID, p.size)
	case inSync && p.wantAck:
		v.sendAck(wire.CmdRSWriteAck, p.sector, p.blockID, p.size)
		v.markIn(p.sector, p.sectors())
	case p.wantAck:
		v.sendAck(wire.CmdWriteAck, p.sector, p.blockID, p.size)
	}
}

// peerRead takes P_DATA_REQUEST, P_RS_DATA_REQUEST, P_RS_THIN_REQ and P_CSUM_RS_REQUEST.
func (v *volume) peerRead(ev *Event) bool {
	r := v.r
	q, digest, ok := v.decodeRead(ev)
	if !ok || !v.inside(q.Sector, q.Size) || q.Size > r.session().MaxRequest() || r.PeerRoom() == 0 || v.st.Conn < state.Connected {
		return false
	}
	kind, refusal := peerReadData, wire.CmdNegDReply
	if ev.Cmd == wire.CmdDataRequest {
		v.rs.rate.seen(uint64(q.Size) >> 9)
	} else {
		kind, refusal = peerReadSync, wire.CmdNegRSDReply
	}
	if v.st.Disk != state.UpToDate || !v.writesLocally() {
		v.sendAck(refusal, q.Sector, q.BlockID, q.Size)
		return true
	}
	i := r.peer.alloc()
	p := &r.peer.list[i]
	*p = peerReq{kind: kind, op: OpRead, vol: v, sector: q.Sector, size: q.Size, blockID: q.BlockID,
		digest: digest, thin: ev.Cmd == wire.CmdRSThinReq}
	if digest != nil {
		p.sum = v.r.csumsAlg()
	}
	if kind == peerReadSync {
		v.startSyncRead(i)
	} else {
		r.takePeer(i) // a write before it may have been answered already (protocols A and B)
	}
	return true
}

// answerRead sends what an application of the peer wanted to read.
func (r *Resource) answerRead(i uint32) {
	p := &r.peer.list[i]
	switch {
	case p.orphan || !r.conn.established():
	case p.failed:
		p.vol.sendAck(wire.CmdNegDReply, p.sector, p.blockID, p.size)
	default:
		r.sendReply(wire.CmdDataReply, p)
	}
	r.dropPeer(i)
}

// sendReply sends the data of a read and gives its buffer to the driver.
func (r *Resource) sendReply(cmd wire.Command, p *peerReq) {
	e := r.sendData(cmd, p.vol.num, &wire.Data{Sector: p.sector, BlockID: p.blockID}, p.size)
	e.Payload, e.Buf, e.FreeBuf = PayloadBuffer, p.buf, true
	p.buf = 0
}
