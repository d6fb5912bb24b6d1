package replication

import (
	"github.com/replblk/replblk/bitmap"
	"github.com/replblk/replblk/replication/wire"
)

// checksumBlocks is how many blocks the target asks about at a time in a checksum-based
// resync. One block that differs has all of them sent, so this is less than otherwise.
const checksumBlocks = 8

// csumsAlg is the algorithm of csums-alg.
func (r *Resource) csumsAlg() wire.Algorithm { return wire.AlgorithmOf(r.cfg.CsumsAlg) }

// chooseChecksums decides at the start of a resync whether the target sends checksums of
// its blocks instead of asking for the data at once (spec 9.2).
func (v *volume) chooseChecksums() {
	if v.r.session().Version < 89 || v.r.cfg.CsumsAfterCrash && !v.crashed {
		return
	}
	if v.rs.csums = v.r.csumsAlg(); v.rs.csums != 0 {
		// A block that is equal already is never written by this resync: it must not be
		// only in the cache of the disk when the bit is cleared.
		v.flushBefore()
	}
}

// requestLimit is the largest request in blocks.
func (v *volume) requestLimit() uint64 {
	switch {
	case v.rs.csums != 0:
		return checksumBlocks
	case v.thin(v.cfg.DiscardGranularity):
		return v.requestUnit()
	case v.rs.rate.auto.busy():
		return min(busyRequest, uint64(v.r.conn.maxRequest)/bitmap.BlockSize)
	default:
		return uint64(v.r.conn.maxRequest) / bitmap.BlockSize
	}
}

// requestUnit is what a request must not cross a multiple of, in blocks.
func (v *volume) requestUnit() uint64 {
	if v.rs.csums == 0 && v.thin(v.cfg.DiscardGranularity) {
		return uint64(v.cfg.DiscardGranularity) / bitmap.BlockSize
	}
	return 1
}

// startChecksum reads blocks that were locked for their checksum.
func (v *volume) startChecksum(s span) {
	i := v.r.peer.alloc()
	v.r.peer.list[i] = peerReq{kind: peerChecksum, op: OpRead, vol: v, sector: s.start, size: uint32(s.sectors() << 9),
		owner: s.owner, sum: v.rs.csums}
	v.peerIO(i)
}

// checksummed sends the checksum. What cannot be read stays out of sync.
func (v *volume) checksummed(i uint32, digest []byte) {
	r := v.r
	p := &r.peer.list[i]
	s, ok := spanOf(v.rs.reqs, p.sector, p.size)
	switch {
	case !ok || p.orphan || s.owner != p.owner || !r.conn.established(): // the resync it belonged to is over
	case p.failed:
		v.rs.failed += bitmap.BitsFor(s.sectors())
		v.rs.rate.answered += s.sectors()
		v.settleRequest(s)
	default:
		v.sendBlockRequest(wire.CmdCsumRSRequest, wire.BlockRequest{Sector: p.sector, BlockID: wire.ResyncID, Size: p.size}, digest)
	}
	r.dropPeer(i)
}

// decodeRead decodes a request for data. With P_CSUM_RS_REQUEST comes the digest of what
// the target has; it is nil otherwise.
func (v *volume) decodeRead(ev *Event) (q wire.BlockRequest, digest []byte, ok bool) {
	rd := wire.NewReader(ev.Cmd, ev.Body)
	q.DecodeFrom(&rd)
	if ev.Cmd == wire.CmdCsumRSRequest {
		digest = append(digest, rd.Rest()...)
		alg := v.r.csumsAlg()
		ok = alg != 0 && len(digest) == alg.Size()
	}
	return q, digest, rd.Finish() == nil && (ok || ev.Cmd != wire.CmdCsumRSRequest)
}

// inSyncAlready tells the target that its blocks are as they should be.
func (v *volume) inSyncAlready(p *peerReq) {
	v.markIn(p.sector, p.sectors())
	v.rs.same += bitmap.BitsFor(p.sectors())
	v.sendAck(wire.CmdRSIsInSync, p.sector, p.blockID, p.size)
	v.sourceEnd()
}

// thin says whether a request of the given size may be answered with "no data".
func (v *volume) thin(size uint32) bool {
	return size != 0 && size == v.cfg.DiscardGranularity && size%bitmap.BlockSize == 0 && size <= v.r.conn.maxRequest &&
		v.r.session().Features.Has(wire.FeatureThinResync) && v.disk != nil && v.disk.info.Discard
}

// deallocated handles P_RS_DEALLOCATED: what was asked for has no data at the source. It
// is zeroed here, and acknowledged as if it had been sent.
func (v *volume) deallocated(ev *Event) bool {
	var d wire.BlockDesc
	if !decode(ev.Cmd, ev.Body, &d) || !v.inside(d.Sector, d.Size) {
		return false
	}
	if v.st.Conn.ResyncTarget() && !v.thin(d.Size) {
		return false
	}
	return v.resynced(d.Sector, d.Size, 0)
}
