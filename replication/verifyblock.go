package replication

import (
	"bytes"

	"github.com/replblk/replblk/bitmap"
	"github.com/replblk/replblk/replication/state"
	"github.com/replblk/replblk/replication/wire"
)

// verifyHolds says whether a verify keeps a request of the peer waiting. Its digest is
// computed when the own writes to the range have ended, which were sent before the
// digest is. And a write to a block whose result is on its way, on the other socket,
// waits for it: the result is about the contents before it.
func (v *volume) verifyHolds(p *peerReq) bool {
	switch p.kind {
	case peerSum:
		return overlapping(v.active, p.sector, p.end())
	case peerWrite:
		return overlapping(v.verify.answered, p.sector, p.end())
	default:
		return false
	}
}

// sumRequested handles P_OV_REQUEST.
func (v *volume) sumRequested(ev *Event) bool {
	var q wire.BlockRequest
	alg := v.r.verifyAlg()
	if !decode(ev.Cmd, ev.Body, &q) || !v.inside(q.Sector, q.Size) || q.Size > v.r.session().MaxRequest() || alg == 0 ||
		v.st.Conn < state.Connected || v.r.PeerRoom() == 0 || len(v.verify.reqs) >= maxVerifyResults {
		return false
	}
	if v.st.Conn != state.VerifyT || v.st.Disk != state.UpToDate || !v.writesLocally() {
		v.sendAck(wire.CmdNegRSDReply, q.Sector, q.BlockID, q.Size)
		return true
	}
	y := &v.verify
	if y.total == 0 { // this is where the run begins
		y.cursor = q.Sector / bitmap.SectorsPerBit
		y.total = bitmap.BitsFor(v.size) - y.cursor
		y.left = y.total
		v.r.note(v, NoteVerifyStart).Sector = q.Sector
	}
	owner := v.lockBlock(q.Sector, q.Sector+uint64(q.Size)>>9)
	v.enqueueSum(peerReq{kind: peerSum, op: OpRead, vol: v, sector: q.Sector, size: q.Size, blockID: q.BlockID, owner: owner, sum: alg})
	return true
}

// enqueueSum starts to compute a digest when nothing is in its way.
func (v *volume) enqueueSum(p peerReq) {
	i := v.r.peer.alloc()
	v.r.peer.list[i] = p
	v.r.takePeer(i)
}

// startSum reads a block for its digest.
func (v *volume) startSum(i uint32) {
	p := &v.r.peer.list[i]
	if v.writesLocally() {
		v.peerIO(i)
		return
	}
	p.failed = true
	if p.kind == peerSum {
		v.summed(i, nil)
	} else {
		v.compared(i, nil)
	}
}

// summed answers a request for a digest. Zeroes say that the block cannot be read.
func (v *volume) summed(i uint32, digest []byte) {
	r := v.r
	p := &r.peer.list[i]
	var unreadable [wire.MaxDigestSize]byte
	if p.failed || len(digest) != p.sum.Size() {
		digest = unreadable[:p.sum.Size()]
	}
	if !p.orphan && r.conn.established() {
		v.sendBlockRequest(wire.CmdOVReply, wire.BlockRequest{Sector: p.sector, BlockID: p.blockID, Size: p.size}, digest)
		v.verify.answered = append(v.verify.answered, span{p.sector, p.end(), p.owner})
	}
	r.dropPeer(i)
}

// sumArrived handles P_OV_REPLY.
func (v *volume) sumArrived(ev *Event) bool {
	var q wire.BlockRequest
	rd := wire.NewReader(ev.Cmd, ev.Body)
	q.DecodeFrom(&rd)
	digest := rd.Rest()
	if rd.Finish() != nil || !v.inside(q.Sector, q.Size) || v.st.Conn < state.Connected {
		return false
	}
	if v.st.Conn != state.VerifyS {
		return true // the run was aborted meanwhile
	}
	s, ok := spanOf(v.verify.reqs, q.Sector, q.Size)
	alg := v.r.verifyAlg()
	if !ok || len(digest) != alg.Size() || v.r.PeerRoom() == 0 || v.comparing(s.owner) {
		return false
	}
	v.rs.rate.answered += uint64(q.Size) >> 9
	v.verify.answered = append(v.verify.answered, s)
	v.enqueueSum(peerReq{kind: peerOwnSum, op: OpRead, vol: v, sector: q.Sector, size: q.Size, owner: s.owner, sum: alg,
		digest: append([]byte(nil), digest...)})
	return true
}

// comparing says whether the digest of a block is here already, so that another one
// breaks the protocol.
func (v *volume) comparing(owner uint32) bool { return overlapsOwner(v.verify.answered, owner) }

// compared ends the comparison of one block.
func (v *volume) compared(i uint32, digest []byte) {
	r := v.r
	p := &r.peer.list[i]
	if p.orphan || v.st.Conn != state.VerifyS {
		r.dropPeer(i)
		return
	}
	result := wire.VerifyInSync
	switch {
	case p.failed:
		result = wire.VerifyOutOfSync
		v.verify.failed++
	case !bytes.Equal(digest, p.digest):
		result = wire.VerifyOutOfSync
		v.verify.found++
	}
	if result == wire.VerifyOutOfSync {
		v.markOut(p.sector, p.sectors())
	}
	v.sendAck(wire.CmdOVResult, p.sector, result, p.size)
	v.unlockBlock(p.owner)
	r.dropPeer(i)
}

// sumRefused: the peer cannot read its block, because it has lost its disk.
func (v *volume) sumRefused(p wire.BlockAck) bool {
	s, ok := spanOf(v.verify.reqs, p.Sector, p.Size)
	if !ok || v.comparing(s.owner) {
		return false
	}
	v.verify.failed++
	v.rs.rate.answered += uint64(p.Size) >> 9
	v.unlockBlock(s.owner)
	return true
}

// resultArrived handles P_OV_RESULT.
func (v *volume) resultArrived(p wire.BlockAck) bool {
	if v.st.Conn != state.VerifyT {
		return true // the run was aborted meanwhile
	}
	s, ok := spanOf(v.verify.answered, p.Sector, p.Size)
	if !ok {
		return false
	}
	if p.BlockID == wire.VerifyOutOfSync {
		v.verify.found++
		v.markOut(p.Sector, uint64(p.Size)>>9)
	}
	v.unlockBlock(s.owner)
	return true
}
