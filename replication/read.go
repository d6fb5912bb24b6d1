package replication

import "github.com/replblk/replblk/replication/wire"

// startRead serves a read from the own disk if that is good, else from the peer's
// (spec 6.5).
func (r *Resource) startRead(id ioID) {
	q := &r.ios.list[id]
	v := q.vol
	q.stage = stageActive
	remote := v.peerServes()
	switch {
	case v.readWaits(q):
		q.stage = stageOverlap
		v.waiting = append(v.waiting, id)
	case v.readsHere(q, remote):
		q.localPending = true
		v.diskIO(ioFor(classRequest, uint32(id)), q)
	case remote && q.size > r.conn.maxRequest:
		r.recut(id)
	case remote:
		q.netPending, q.remoteRead = true, true
		v.sendBlockRequest(wire.CmdDataRequest, wire.BlockRequest{Sector: q.sector, BlockID: r.ios.blockID(id), Size: q.size}, nil)
	default:
		r.advance(id)
	}
}

// readsHere says whether the own disk serves a read. The target of a resync reads what is
// being written where its other reads go, to the peer: it must not see the new
// contents there and then the old ones here, not even right after the resync.
func (v *volume) readsHere(q *ioReq, remote bool) bool {
	return v.hasGood(q) && (!remote || !overlapping(v.unsettled(), q.sector, q.end()))
}

// readWaits says whether a read must wait for a write, because only the own disk can serve it and
// may have the old contents still, while the peer, as long as it served reads, may have
// returned the new ones (simulator, seed 140886).
func (v *volume) readWaits(q *ioReq) bool {
	return v.hasGood(q) && !v.peerServes() && overlapping(v.unsettled(), q.sector, q.end())
}

// hasGood says whether the own disk has what a read wants.
func (v *volume) hasGood(q *ioReq) bool {
	return v.localReadable() || v.inSync(q.sector, q.sectors())
}

// unsettled returns the writes whose ranges were read from the peer since they began.
func (v *volume) unsettled() []span {
	if v.localReadable() {
		return v.mixed
	}
	return v.active
}
