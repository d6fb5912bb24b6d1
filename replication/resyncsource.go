package replication

import (
	"bytes"

	"github.com/replblk/replblk/bitmap"
	"github.com/replblk/replblk/replication/state"
	"github.com/replblk/replblk/replication/wire"
)

// flushBefore puts everything this node has written on stable storage before the first
// resync read. A Secondary that becomes source has no activity log for it: a
// block served from its volatile cache, with the bit cleared on both nodes, would be
// lost with its power and nobody would know (R22). The same holds for a target whose
// blocks turn out to be equal already.
func (v *volume) flushBefore() {
	if !v.cfg.DiskFlushes {
		v.rs.ready = true
		return
	}
	v.startFlushes++
	v.flushIO(classRSSource, v.index())
}

// flushedBefore: such a flush has returned. One that an earlier resync has started says
// nothing about what was written since.
func (v *volume) flushedBefore(err DiskError) {
	v.startFlushes--
	if err != DiskOK {
		v.localError(OpFlush, 0, 0)
		return
	}
	if v.startFlushes == 0 {
		v.rs.ready = true
		v.r.restless = true
	}
}

// startSyncRead serves a resync read when no write is in progress on its range: what is read
// must not be older than what was replicated before it, nor than what the peer wrote before
// it lost its disk.
func (v *volume) startSyncRead(i uint32) {
	p := &v.r.peer.list[i]
	if v.st.Conn.Resync() && (!v.rs.ready || overlapping(v.active, p.sector, p.end()) || v.peerWriting(p.sector, p.end())) {
		v.rs.blocked = append(v.rs.blocked, i)
		return
	}
	v.rs.busy = append(v.rs.busy, span{p.sector, p.end(), i})
	v.peerIO(i)
}

func (v *volume) retryBlocked() {
	if len(v.rs.blocked) == 0 || !v.rs.ready {
		return
	}
	list := v.rs.blocked
	v.rs.blocked = nil
	for _, i := range list {
		if !v.writesLocally() {
			v.r.peer.list[i].failed = true
			v.answerSyncRead(i, &Event{})
			continue
		}
		v.startSyncRead(i)
	}
}

// answerSyncRead sends a resync block, unless the target has it already, or it has no
// data.
func (v *volume) answerSyncRead(i uint32, ev *Event) {
	r := v.r
	p := &r.peer.list[i]
	v.rs.busy = without(v.rs.busy, i)
	if len(v.waiting) > 0 {
		r.restless = true
	}
	switch {
	case p.orphan || !r.conn.established():
	case p.failed:
		v.rs.failed += bitmap.BitsFor(p.sectors())
		v.sendAck(wire.CmdNegRSDReply, p.sector, p.blockID, p.size)
	case !v.st.Conn.ResyncSource() && !v.endedFirst():
	case p.digest != nil && bytes.Equal(p.digest, ev.Body):
		v.inSyncAlready(p)
	case p.thin && ev.Zero:
		v.rs.unacked = append(v.rs.unacked, span{start: p.sector, end: p.end()})
		v.sendBlockDesc(wire.CmdRSDeallocated, p.sector, p.size)
	default:
		v.rs.unacked = append(v.rs.unacked, span{start: p.sector, end: p.end()})
		r.sendReply(wire.CmdRSDataReply, p)
	}
	r.dropPeer(i)
}

// endedFirst: before version 96 the source counts for itself, and what it has counted as copied
// by a write of the application the target may have asked for at the same time. It waits.
func (v *volume) endedFirst() bool {
	return v.r.session().Version < 96 && v.st.Conn == state.Connected && v.st.Disk == state.UpToDate
}

// resyncAck: the target has written a block, or failed to. An ack for a block that was
// not sent would clear bits of blocks that differ, so it ends the connection.
func (v *volume) resyncAck(p wire.BlockAck, ok bool) bool {
	if !v.st.Conn.ResyncSource() {
		return true // the resync was aborted meanwhile
	}
	end := p.Sector + uint64(p.Size)>>9
	for i, s := range v.rs.unacked {
		if s.start != p.Sector || s.end != end {
			continue
		}
		last := len(v.rs.unacked) - 1
		v.rs.unacked[i] = v.rs.unacked[last]
		v.rs.unacked = v.rs.unacked[:last]
		if ok {
			v.markIn(p.Sector, uint64(p.Size)>>9)
			v.updateFlags() // after the last one
		} else {
			v.rs.failed += bitmap.BitsFor(end - p.Sector)
		}
		v.sourceEnd()
		return true
	}
	return false
}

// targetReportsEnd: the target says that the resync is over. Its last acks may still be
// on their way, on the other socket.
func (v *volume) targetReportsEnd() {
	v.rs.notified = true
	v.sourceEnd()
}

// targetEnded says whether the target has everything, as it has reported, although the source has
// still to settle it. It does not say so again, if the disk of the source fails now.
func (v *volume) targetEnded() bool { return v.rs.notified && v.rs.failed == 0 }

// targetMayBeGood says whether the target of a resync may be UpToDate already, and have taken
// this node's generation: it has confirmed every block, and the news is on its way.
func (v *volume) targetMayBeGood() bool {
	return v.st.Conn.ResyncSource() && v.disk != nil && v.disk.bm != nil && (v.disk.bm.Weight() == 0 || v.targetEnded())
}

// targetGivesUp says whether the target's news are that the resync is over although blocks
// have failed: it has asked for them, so it was the target, and it is not any more. What is
// different still is left to the next connection.
func (v *volume) targetGivesUp(peer state.Conn, disk state.Disk) bool {
	if !v.st.Conn.ResyncSource() || peer != state.Connected || disk != state.Inconsistent || v.rs.failed == 0 || v.disk == nil {
		return false
	}
	v.rs.failed = max(v.rs.failed, v.disk.bm.Weight())
	v.targetReportsEnd()
	return true
}

// sourceEnd ends the resync at the source when the target has reported its end and every
// block is confirmed. Before version 96 each node counts for itself, if there is anything to count.
func (v *volume) sourceEnd() {
	rs := &v.rs
	if !rs.notified && !v.sourceCounts() || rs.finishing || v.disk == nil || v.disk.bm.Weight() > rs.failed {
		return
	}
	rs.finishing = true
	v.r.afterPing(v, (*volume).sealSource)
}

// sourceCounts says whether the source may find by itself that nothing is left to copy. The
// writes of the application may have settled what the target has asked for already, but it
// waits for its answer, and would for ever if the resync ended here.
//
// If there was nothing to copy from the start, nothing shows that the target has begun, and its
// disk may hang. A source that was done would call it UpToDate, hear from it that it is
// Inconsistent, and write on without it. So the target says when it is done, as with any
// version (spec 9.5, step 4).
func (v *volume) sourceCounts() bool {
	return v.r.session().Version < 96 && v.st.Conn.ResyncSource() && v.rs.total > 0 && len(v.rs.busy) == 0 && len(v.rs.blocked) == 0
}

// sealSource writes the bitmap before the UUIDs say that it is not needed.
func (v *volume) sealSource() {
	if v.sourceFinishing() {
		v.afterPages(finishSource, v.era)
	}
}

func (v *volume) sourceFinishing() bool {
	return v.st.Conn.ResyncSource() && v.rs.finishing && v.disk != nil
}

// sourceFinished takes the new state. The source does not report it: the target knows.
func (v *volume) sourceFinished() {
	if !v.sourceFinishing() {
		return
	}
	if !v.rs.notified && !v.sourceCounts() { // a request has come meanwhile
		v.rs.finishing = false
		v.r.restless = true
		return
	}
	next := v.st
	next.Conn, next.Disk, next.PeerDisk = state.Connected, state.UpToDate, state.UpToDate
	failed := v.rs.failed
	if failed > 0 {
		next.PeerDisk = state.Inconsistent // the next connection brings the rest
	} else {
		v.disk.sb.UUIDs.ClearBitmap()
		v.superChanged()
		v.freeze() // until then this node is the source after a crash, whatever the target has got since
		v.peerUUIDs.UUIDs = v.disk.sb.UUIDs
	}
	v.resyncOver(failed)
	v.force(next)
	if v.cfg.Fencing != state.DontCare {
		v.r.handler(v, HandlerUnfencePeer)
	}
}
