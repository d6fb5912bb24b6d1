package replication

import (
	"github.com/replblk/replblk/bitmap"
	"github.com/replblk/replblk/metadata"
	"github.com/replblk/replblk/replication/state"
	"github.com/replblk/replblk/replication/wire"
)

// resync is a resync in progress on one volume, as source or as target. Owned by
// volume.
//
// Locking. DRBD locks 16 MiB at a time; here the unit is the request. What must
// hold is the same (spec 9.3): a resync block never overwrites newer data, on
// either node. busy are the ranges that application writes wait for: blocks that
// this node, as target, has asked for and not yet cleared, or, as source, is
// reading. In the other direction the target does not ask for a block that is
// being written, and the source does not read one.
type resync struct {
	total   uint64 // bits at the start
	failed  uint64 // blocks that could not be copied
	swept   bool   // some have failed, and what came after them has been asked for: the rest is left to another resync
	started Time

	busy    []span
	writing []span // requests of the peer that are on the disk: writes and resynced blocks

	// Target.
	reqs      []span // asked for and not yet cleared; owner is the number of the request
	asked     uint64 // blocks of reqs
	number    uint32
	cursor    uint64
	rate      rateController
	written   []span // on the disk, but maybe only in its cache
	flushing  []span
	finishing bool
	sealing   bool           // the superblock is being written as if the resync had ended
	csums     wire.Algorithm // checksum-based: blocks that are equal are not sent
	same      uint64         // blocks that were

	// Source.
	blocked  []uint32 // peer's requests that wait: for the flush, or for a write to end
	unacked  []span   // blocks sent and not confirmed
	ready    bool     // what was written before the resync is on stable storage; also of a target with csums
	notified bool     // the target has reported the end

	lastPages Time
}

const (
	// maxResyncRequests bounds the requests in flight.
	maxResyncRequests = 512
	// resyncExtentBits is 16 MiB in blocks; no request crosses such a boundary.
	resyncExtentBits = 4096
)

// startResync resets the state for a new run.
func (v *volume) startResync() {
	v.resetResync()
	v.rs.total = v.disk.bm.Weight()
	v.rs.started, v.rs.lastPages = v.r.now, v.r.now
	v.rs.rate.reset(int(v.cfg.PlanAheadTenths))
	v.rs.rate.tick(&v.cfg) // not to wait for the next tick with the first request
	e := v.r.note(v, NoteResyncStart)
	e.Sector = v.rs.total
}

// resetResync forgets a resync. What is on the disk still counts as writing.
func (v *volume) resetResync() {
	for _, i := range v.rs.blocked {
		v.r.dropPeer(i)
	}
	v.rs = resync{writing: v.rs.writing, rate: v.rs.rate}
	v.r.restless = true
}

// leaveResync cleans up when a volume leaves the resync states for any reason.
func (v *volume) leaveResync() {
	v.era++
	v.veto.passed = false
	v.resetResync()
	v.xfer = exchange{}
	v.r.conn.unhold(v.r)
}

// unhold ends a bitmap transfer that was aborted on an established connection. The peer
// would take what comes next for a part of it, so the connection has to go.
func (c *connection) unhold(r *Resource) {
	if !c.held.on {
		return
	}
	for _, v := range r.vols {
		if v.xfer.state == xferSending {
			return
		}
	}
	c.held.drop(r)
	r.lose(state.ProtocolError, NoteNone)
}

// resyncKick does what may have become possible in a Step.
func (r *Resource) resyncKick() {
	for _, v := range r.vols {
		v.tryBitmap()
		v.retryBlocked()
		v.resyncEmit()
		v.resyncEnd()
		v.sourceEnd()
		v.verifyEmit()
		v.verifyEnd()
	}
	r.retryPeer()
}

// resyncTick gives the target its budget for the next tenth of a second.
func (v *volume) resyncTick() {
	if v.st.Conn == state.SyncTarget && !v.rs.finishing || v.st.Conn == state.VerifyS {
		v.rs.rate.tick(&v.cfg)
	} else {
		v.rs.rate.rest(&v.cfg)
	}
}

// resyncEmit asks for blocks as long as the budget and the window allow.
func (v *volume) resyncEmit() {
	rs := &v.rs
	if v.st.Conn != state.SyncTarget || rs.finishing || rs.swept || v.disk == nil || !v.r.conn.established() || rs.csums != 0 && !rs.ready {
		return
	}
	for rs.rate.budget > 0 && rs.rate.room(v.r.cfg.MaxBuffers) > 0 && len(rs.reqs) < maxResyncRequests && v.r.peer.used < MaxPeerRequests/2 {
		first, n := v.nextResync()
		if n == 0 {
			return
		}
		rs.rate.spend(n)
		v.requestBlocks(first, n)
	}
}

// nextResync finds the next blocks to ask for: a run of set bits that nothing else is
// busy with, within one resync extent. It returns 0 blocks if there is none. A resync in
// which blocks have failed does not begin again at the start: it would ask for them for
// ever.
func (v *volume) nextResync() (first, n uint64) {
	bm, rs := v.disk.bm, &v.rs
	if bm.Weight() <= rs.asked { // all that is left is on its way
		rs.cursor = 0
		return 0, 0
	}
	limit := v.requestLimit()
	for wrapped := false; ; {
		bit, ok := bm.Next(rs.cursor)
		if !ok {
			rs.swept = rs.failed > 0
			if rs.swept || wrapped || rs.cursor == 0 {
				rs.cursor = 0
				return 0, 0
			}
			wrapped, rs.cursor = true, 0
			continue
		}
		if free := v.skipBusy(bit); free != bit {
			rs.cursor = free
			continue
		}
		end := v.nextBusy(bit, min(bit+limit-bit%v.requestUnit(), (bit/resyncExtentBits+1)*resyncExtentBits, bm.Bits()))
		n = 1
		for bit+n < end && bm.Test(bit+n) {
			n++
		}
		rs.cursor = bit + n
		return bit, n
	}
}

// skipBusy returns the first block from bit on that nothing is busy with. It jumps over
// whole ranges: one block at a time, a tail that is all in flight would cost every Step
// the product of the blocks and the ranges. The ranges are mostly in ascending order, so
// one pass skips a chain of neighbours.
func (v *volume) skipBusy(bit uint64) uint64 {
	for {
		from := bit
		for _, list := range [...][]span{v.rs.busy, v.active, v.rs.writing} {
			for i := range list {
				if s := &list[i]; s.overlaps(bit*bitmap.SectorsPerBit, (bit+1)*bitmap.SectorsPerBit) {
					bit = bitmap.BitsFor(s.end)
				}
			}
		}
		if bit == from {
			return bit
		}
	}
}

// nextBusy returns the first block after bit, which is free, that something is busy
// with, at most end.
func (v *volume) nextBusy(bit, end uint64) uint64 {
	for _, list := range [...][]span{v.rs.busy, v.active, v.rs.writing} {
		for i := range list {
			if s := list[i].start / bitmap.SectorsPerBit; s > bit && s < end {
				end = s
			}
		}
	}
	return end
}

// requestBlocks sends one resync request.
func (v *volume) requestBlocks(first, n uint64) {
	rs := &v.rs
	start := first * bitmap.SectorsPerBit
	end := min(start+n*bitmap.SectorsPerBit, v.size)
	rs.number++
	s := span{start, end, rs.number}
	rs.reqs = append(rs.reqs, s)
	rs.asked += n
	rs.busy = append(rs.busy, s)
	if rs.csums != 0 {
		v.startChecksum(s)
		return
	}
	size := uint32((end - start) << 9)
	cmd := wire.CmdRSDataRequest
	if v.thin(size) {
		cmd = wire.CmdRSThinReq
	}
	v.sendBlockRequest(cmd, wire.BlockRequest{Sector: start, BlockID: wire.ResyncID, Size: size}, nil)
}

// settleRequest forgets a request.
func (v *volume) settleRequest(s span) {
	v.rs.reqs = without(v.rs.reqs, s.owner)
	v.rs.asked -= bitmap.BitsFor(s.sectors())
	v.rs.busy = without(v.rs.busy, s.owner)
	v.r.restless = true
}

// resyncReply takes the data of a block that was asked for.
func (v *volume) resyncReply(ev *Event) bool {
	r := v.r
	var d wire.Data
	rd := wire.NewReader(ev.Cmd, ev.Body)
	d.DecodeFrom(&rd)
	if !v.inside(d.Sector, ev.Size) || rd.Finish() != nil {
		r.free(ev.Buf)
		return false
	}
	return v.resynced(d.Sector, ev.Size, ev.Buf)
}

// resynced writes blocks that were asked for. Without a buffer they are zeroes.
func (v *volume) resynced(sector uint64, size uint32, buf BufID) bool {
	r := v.r
	if !v.st.Conn.ResyncTarget() || !v.writesLocally() {
		v.sendAck(wire.CmdNegAck, sector, wire.ResyncID, size) // the resync was aborted meanwhile
		r.free(buf)
		return true
	}
	s, ok := spanOf(v.rs.reqs, sector, size)
	if !ok || r.PeerRoom() == 0 || overlapsOwner(v.rs.written, s.owner) || overlapsOwner(v.rs.flushing, s.owner) {
		r.free(buf)
		return false
	}
	v.rs.rate.answered += s.sectors()
	op := OpWrite
	if buf == 0 {
		op = OpZeroes
	}
	i := r.peer.alloc()
	r.peer.list[i] = peerReq{kind: peerResync, op: op, vol: v, sector: sector, size: size, buf: buf, blockID: uint64(s.owner)}
	r.takePeer(i)
	return true
}

func overlapsOwner(list []span, owner uint32) bool {
	for i := range list {
		if list[i].owner == owner {
			return true
		}
	}
	return false
}

// startResyncWrite writes a resynced block.
func (r *Resource) startResyncWrite(i uint32) {
	p := &r.peer.list[i]
	v := p.vol
	v.rs.writing = append(v.rs.writing, span{p.sector, p.end(), i})
	if !v.writesLocally() {
		p.failed = true
		v.resyncWritten(i)
		return
	}
	v.peerIO(i)
}

// resyncWritten: a block has been written. It counts as in sync only when it is on
// stable storage (DRBD itself does not wait for that).
func (v *volume) resyncWritten(i uint32) {
	r := v.r
	p := &r.peer.list[i]
	v.rs.writing = without(v.rs.writing, i)
	s, ok := spanOf(v.rs.reqs, p.sector, p.size)
	ok = ok && !p.orphan && s.owner == uint32(p.blockID)
	switch {
	case !ok: // the resync it belonged to is over
	case p.failed:
		v.sendAck(wire.CmdNegAck, p.sector, wire.ResyncID, p.size)
		v.rs.failed += bitmap.BitsFor(s.sectors())
		v.settleRequest(s)
	default:
		v.rs.written = append(v.rs.written, s)
		v.flushResync()
	}
	r.dropPeer(i)
	r.restless = true
}

// flushResync flushes the blocks written so far; those written meanwhile go with the
// next flush.
func (v *volume) flushResync() {
	rs := &v.rs
	if len(rs.flushing) > 0 || len(rs.written) == 0 || !v.writesLocally() {
		return
	}
	rs.flushing, rs.written = rs.written, rs.flushing
	if v.cfg.DiskFlushes {
		v.flushIO(classRSFlush, v.index())
	} else {
		v.resyncDurable()
	}
}

// resyncFlushed: the flush has returned. If the resync has been reset since, nothing is
// in flushing and nothing happens.
func (v *volume) resyncFlushed(err DiskError) {
	if err != DiskOK {
		v.localError(OpFlush, 0, 0)
		return
	}
	v.resyncDurable()
}

func (v *volume) resyncDurable() {
	rs := &v.rs
	for _, s := range rs.flushing {
		v.markIn(s.start, s.sectors())
		v.sendAck(wire.CmdRSWriteAck, s.start, wire.ResyncID, uint32(s.sectors()<<9))
		v.settleRequest(s)
	}
	rs.flushing = rs.flushing[:0]
	v.flushResync()
}

// resyncRefused handles the negative answers to a resync request.
func (v *volume) resyncRefused(cmd wire.Command, p wire.BlockAck) bool {
	if v.st.Conn == state.VerifyS && cmd == wire.CmdNegRSDReply {
		return v.sumRefused(p)
	}
	if !v.st.Conn.ResyncTarget() {
		return true
	}
	s, ok := spanOf(v.rs.reqs, p.Sector, p.Size)
	if !ok || cmd == wire.CmdRSIsInSync && v.rs.csums == 0 {
		return false
	}
	if cmd == wire.CmdRSIsInSync {
		v.rs.same += bitmap.BitsFor(s.sectors())
		v.markIn(s.start, s.sectors())
	}
	if cmd == wire.CmdNegRSDReply {
		v.rs.failed += bitmap.BitsFor(s.sectors())
	}
	v.rs.rate.answered += s.sectors()
	v.settleRequest(s)
	return true
}

// resyncEnd ends the resync at the target when every block is in sync or has failed.
func (v *volume) resyncEnd() {
	rs := &v.rs
	if v.st.Conn != state.SyncTarget || rs.finishing || !v.inService() || len(rs.reqs) > 0 || v.disk.bm.Weight() > 0 && !rs.swept {
		return
	}
	rs.finishing = true
	// When the ping is answered the source has seen every RSWriteAck.
	v.r.afterPing(v, (*volume).sealTarget)
}

// targetFinishing says whether the end of a resync is still being settled. A pause in the
// meantime does not stop it: there is nothing left to copy.
func (v *volume) targetFinishing() bool {
	return v.st.Conn.ResyncTarget() && v.rs.finishing && v.inService()
}

// sealTarget makes the result of the resync durable before anybody hears of it: the
// bitmap first, then UUIDs and flags.
func (v *volume) sealTarget() {
	if !v.targetFinishing() {
		return
	}
	// Writes of the application have settled blocks too, and may be in the cache. If this node
	// is Primary and loses its power it is the source, and what the peer had flushed of these
	// blocks must not be overwritten by what was here before.
	v.metaFlush(true)
	v.afterPages(sealUUIDs, v.era)
}

func (v *volume) sealUUIDs() {
	if !v.targetFinishing() {
		return
	}
	if v.rs.failed == 0 {
		u, p := &v.disk.sb.UUIDs, &v.peerUUIDs.UUIDs
		syncUUID := u.Current()
		u[metadata.SlotBitmap], u[metadata.SlotHistory1], u[metadata.SlotHistory2] = p.Bitmap(), p.History1(), p.History2()
		u.RotateSet(metadata.SlotBitmap, syncUUID, false)
		v.setCurrent(p.Current())
		u.ClearBitmap()
		v.disk.adopted = v.disk.sbGen
		v.rs.sealing = true
		v.updateFlags()
	}
	v.afterSuper(finishTarget, v.era)
}

// targetFinished takes the new state; the P_STATE that goes with it tells the source.
func (v *volume) targetFinished() {
	if !v.targetFinishing() {
		return
	}
	failed := v.rs.failed
	next := v.st
	next.Conn, next.PeerDisk = state.Connected, state.UpToDate
	if failed == 0 {
		next.Disk = state.UpToDate
		v.peerUUIDs.UUIDs = v.disk.sb.UUIDs
	}
	v.resyncOver(failed)
	v.force(next)
	v.r.handler(v, HandlerAfterResyncTarget)
}

func (v *volume) resyncOver(failed uint64) {
	n := NoteResyncDone
	if failed > 0 {
		n = NoteResyncFailed
	}
	e := v.r.note(v, n)
	e.Sector, e.Token = v.rs.total, uint64(v.r.now-v.rs.started)
}
