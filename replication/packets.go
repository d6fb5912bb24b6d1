package replication

import (
	"github.com/replblk/replblk/replication/state"
	"github.com/replblk/replblk/replication/wire"
)

// decoder is a packet without variable parts.
type decoder interface{ DecodeFrom(*wire.Reader) }

// decode takes a fixed-size packet apart; false if it has another size.
func decode(cmd wire.Command, body []byte, p decoder) bool {
	rd := wire.NewReader(cmd, body)
	p.DecodeFrom(&rd)
	return rd.Finish() == nil
}

// packet handles a packet of the peer. Any violation ends the connection.
func (r *Resource) packet(ev *Event) {
	c := &r.conn
	if ev.Gen != c.gen || !c.live() {
		r.free(ev.Buf)
		return
	}
	if ev.Socket == MetaSocket {
		c.lastMeta = r.now
	} else {
		c.lastData = r.now
	}
	if c.phase != phaseUp {
		r.handshakePacket(ev)
		r.free(ev.Buf)
		return
	}
	header := wire.Header{Command: ev.Cmd, Volume: ev.Vol, Length: uint32(len(ev.Body)) + ev.Size}
	if c.session.Check(header) != nil || !onSocket(ev) || !c.stripDigest(ev) {
		r.free(ev.Buf)
		r.protocolError()
		return
	}
	if ev.Corrupt {
		r.corrupt(ev)
		return
	}
	var ok bool
	if ev.Socket == MetaSocket {
		ok = r.metaPacket(ev)
	} else {
		ok = r.dataPacket(ev)
	}
	if !ok {
		r.protocolError()
	}
}

// stripDigest takes the digest that the driver has checked off a packet with data.
func (c *connection) stripDigest(ev *Event) bool {
	if ev.Size == 0 || c.session.DigestSize == 0 {
		return true
	}
	if len(ev.Body) != wire.DataSize+c.session.DigestSize {
		return false
	}
	ev.Body = ev.Body[:wire.DataSize]
	return true
}

// corrupt ends the connection because data has changed on its way. What was written but
// not acknowledged is copied after the next handshake.
func (r *Resource) corrupt(ev *Event) {
	var d wire.Data
	rd := wire.NewReader(ev.Cmd, ev.Body)
	d.DecodeFrom(&rd)
	r.free(ev.Buf)
	e := r.note(r.volume(ev.Vol), NoteCorrupt)
	e.Sector, e.Size = d.Sector, ev.Size
	r.lose(state.ProtocolError, NoteNone)
}

func onSocket(ev *Event) bool {
	if ev.Socket == MetaSocket {
		return ev.Cmd.Sockets()&wire.MetaSocket != 0
	}
	return ev.Cmd.Sockets()&wire.DataSocket != 0
}

// handshakePacket handles what may come before the parameters.
func (r *Resource) handshakePacket(ev *Event) {
	c := &r.conn
	switch {
	case ev.Socket == MetaSocket && ev.Cmd == wire.CmdPing && len(ev.Body) == 0 && c.pingsOwed < maxPingsOwed:
		c.pingsOwed++ // the peer is ahead of us; there is no agreed header to answer with yet
	case ev.Socket == MetaSocket:
		r.protocolError()
	case c.phase == phaseFeatures && ev.Cmd == wire.CmdConnectionFeatures:
		r.featuresArrived(ev.Body)
	case c.phase == phaseChallenge && ev.Cmd == wire.CmdAuthChallenge:
		r.challenged(ev.Body)
	case c.phase == phaseResponse && ev.Cmd == wire.CmdAuthResponse:
		r.responded(ev.Body)
	case c.phase == phaseResponse:
		r.protocolError() // to be tried again
	default:
		r.giveUp(NoteIncompatible)
	}
}

// dataPacket dispatches a packet of the data socket. It takes over ev.Buf. False
// means that the peer broke the protocol.
func (r *Resource) dataPacket(ev *Event) bool {
	switch ev.Cmd {
	case wire.CmdProtocol:
		return r.protocolArrived(ev.Body)
	case wire.CmdProtocolUpdate:
		return r.protocolChanged(ev.Body)
	case wire.CmdBarrier:
		var p wire.Barrier
		if !decode(ev.Cmd, ev.Body, &p) {
			return false
		}
		r.peerBarrier(p.Handle)
		return true
	case wire.CmdUnplugRemote, wire.CmdDelayProbe:
		return true
	case wire.CmdConnStChgReq:
		var p wire.StateChangeRequest
		return decode(ev.Cmd, ev.Body, &p) && r.connChangeRequested(p)
	default:
	}
	v := r.volume(ev.Vol)
	if v == nil {
		r.free(ev.Buf)
		return parameterPacket(ev.Cmd) // ignored for volumes that only the peer has
	}
	switch ev.Cmd {
	case wire.CmdData, wire.CmdTrim, wire.CmdZeroes:
		return v.peerWrite(ev)
	case wire.CmdDataReply:
		return v.dataReply(ev)
	case wire.CmdRSDataReply:
		return v.resyncReply(ev)
	case wire.CmdDataRequest, wire.CmdRSDataRequest, wire.CmdRSThinReq, wire.CmdCsumRSRequest:
		return v.peerRead(ev)
	case wire.CmdBitmap:
		return v.bitmapArrived(ev.Body, false)
	case wire.CmdCompressedBitmap:
		return v.bitmapArrived(ev.Body, true)
	case wire.CmdOutOfSync:
		var p wire.BlockDesc
		return decode(ev.Cmd, ev.Body, &p) && v.outOfSyncArrived(p)
	case wire.CmdOVRequest:
		return v.sumRequested(ev)
	case wire.CmdOVReply:
		return v.sumArrived(ev)
	case wire.CmdRSDeallocated:
		return v.deallocated(ev)
	default:
		return v.parameter(ev)
	}
}

func parameterPacket(cmd wire.Command) bool {
	switch cmd {
	case wire.CmdSyncParam, wire.CmdSyncParam89, wire.CmdSizes, wire.CmdUUIDs, wire.CmdState:
		return true
	default:
		return false
	}
}

// parameter handles the packets that describe a volume of the peer.
func (v *volume) parameter(ev *Event) bool {
	switch ev.Cmd {
	case wire.CmdSyncParam, wire.CmdSyncParam89:
		var p wire.SyncParam
		rd := wire.NewReader(ev.Cmd, ev.Body)
		p.DecodeFrom(&rd, v.r.session())
		if rd.Finish() != nil {
			return false
		}
		v.syncParamArrived(p)
		return true
	case wire.CmdSizes:
		var p wire.Sizes
		rd := wire.NewReader(ev.Cmd, ev.Body)
		p.DecodeFrom(&rd, v.r.session())
		return rd.Finish() == nil && v.sizesArrived(p)
	case wire.CmdUUIDs:
		var p wire.UUIDs
		if !decode(ev.Cmd, ev.Body, &p) {
			return false
		}
		v.uuidsArrived(p)
		return true
	case wire.CmdState:
		var p wire.StateWord
		return decode(ev.Cmd, ev.Body, &p) && v.stateArrived(p.State.State())
	case wire.CmdSyncUUID:
		var p wire.SyncUUID
		return decode(ev.Cmd, ev.Body, &p) && v.syncUUIDArrived(p.UUID)
	case wire.CmdStateChgReq:
		var p wire.StateChangeRequest
		return decode(ev.Cmd, ev.Body, &p) && v.changeRequested(p)
	default:
		return false
	}
}

// metaPacket dispatches a packet of the meta socket.
func (r *Resource) metaPacket(ev *Event) bool {
	switch ev.Cmd {
	case wire.CmdPing:
		r.sendEmpty(MetaSocket, wire.CmdPingAck)
		return true
	case wire.CmdPingAck:
		r.pong()
		return true
	case wire.CmdDelayProbe:
		return true
	case wire.CmdBarrierAck:
		var p wire.BarrierAck
		return decode(ev.Cmd, ev.Body, &p) && r.barrierAck(p.Handle, p.Count)
	case wire.CmdStateChgReply, wire.CmdConnStChgReply:
		var p wire.StateChangeReply
		return decode(ev.Cmd, ev.Body, &p) && r.changeReplied(p.Result)
	default:
	}
	v := r.volume(ev.Vol)
	var p wire.BlockAck // one per write: not through an interface, which would allocate
	rd := wire.NewReader(ev.Cmd, ev.Body)
	p.DecodeFrom(&rd)
	if v == nil || rd.Finish() != nil {
		return false
	}
	ok := v.blockAck(ev.Cmd, p)
	v.sequence(p.Seq)
	return ok
}

// blockAck handles the answers to single blocks.
func (v *volume) blockAck(cmd wire.Command, p wire.BlockAck) bool {
	switch cmd {
	case wire.CmdRecvAck, wire.CmdWriteAck, wire.CmdRSWriteAck:
		if p.BlockID == wire.ResyncID {
			return v.resyncAck(p, true)
		}
		return v.writeAck(cmd, p)
	case wire.CmdNegAck:
		if p.BlockID == wire.ResyncID {
			return v.resyncAck(p, false)
		}
		return v.negAck(p)
	case wire.CmdNegDReply:
		return v.negReadReply(p)
	case wire.CmdNegRSDReply, wire.CmdRSCancel, wire.CmdRSIsInSync:
		return v.resyncRefused(cmd, p)
	case wire.CmdOVResult:
		return v.resultArrived(p)
	case wire.CmdSuperseded, wire.CmdRetryWrite:
		return v.conflictAck(cmd, p)
	default:
		return false
	}
}

// writeAck handles the acknowledgement of a replicated write.
func (v *volume) writeAck(cmd wire.Command, p wire.BlockAck) bool {
	r := v.r
	id, ok := r.ios.byBlockID(p.BlockID)
	if !ok {
		return false
	}
	q := &r.ios.list[id]
	if q.vol != v || q.sector != p.Sector || !q.inEpoch || !q.op.modifies() {
		return false
	}
	if !q.netPending { // protocols A and B: it was answered before the peer has written it
		if cmd == wire.CmdRSWriteAck && !q.clearLate && q.era == v.era {
			q.clearLate = true
			r.ios.late++
		}
		return cmd != wire.CmdRecvAck || q.proto == ProtocolB
	}
	if q.byBarrier {
		q.clearBits = q.clearBits || cmd == wire.CmdRSWriteAck
		return cmd != wire.CmdRecvAck || q.proto == ProtocolB
	}
	if cmd == wire.CmdRecvAck && (q.proto != ProtocolB || q.awaited) {
		return false
	}
	q.netPending, q.netOK = false, true
	q.clearBits = cmd == wire.CmdRSWriteAck && q.era == v.era // else it speaks of an earlier resync
	r.advance(id)
	return true
}

// negAck handles a write that the peer could not do. From now on its disk does not
// count, whatever it will say about it: the write must not be answered before
// that is recorded.
func (v *volume) negAck(p wire.BlockAck) bool {
	r := v.r
	id, ok := r.ios.byBlockID(p.BlockID)
	switch {
	case v.st.PeerDisk <= state.Failed:
	case ok && r.ios.list[id].vol == v && v.replacedSince(&r.ios.list[id]):
		if v.xfer.state != xferWaits { // too late for the bitmap; a new connection starts with a new one
			r.lose(state.NetworkFailure, NoteNone)
		}
	default:
		next := v.st
		next.PeerDisk = state.Failed
		v.force(next)
	}
	if !ok || r.ios.list[id].vol != v || r.ios.list[id].sector != p.Sector {
		v.markOut(p.Sector, uint64(p.Size)>>9)
		return true
	}
	q := &r.ios.list[id]
	if q.op == OpDiscard || q.op == OpZeroes {
		// A kernel keeps its disk after a failed discard and will not report
		// anything. A new connection finds the difference.
		r.lose(state.NetworkFailure, NoteNone)
	}
	if q.op.modifies() && q.netPending {
		q.netPending, q.netOK = false, false
		r.advance(id)
	} else if q.op.modifies() {
		q.netOK, q.marked = false, true // it was acknowledged when it was received
		v.markOut(q.sector, q.sectors())
	}
	return true
}

// replacedSince says whether the peer has got another disk since a write was sent to
// it. Acknowledgements are on a socket of their own and may be overtaken by that news.
func (v *volume) replacedSince(q *ioReq) bool {
	return v.st.Conn == state.WFBitMapS || v.st.Conn == state.SyncSource && q.start <= v.rs.started
}

// dataReply brings the data of a read that the peer serves.
func (v *volume) dataReply(ev *Event) bool {
	var p wire.Data
	r := v.r
	rd := wire.NewReader(ev.Cmd, ev.Body)
	p.DecodeFrom(&rd)
	id, ok := r.ios.byBlockID(p.BlockID)
	if !ok || rd.Finish() != nil {
		r.free(ev.Buf)
		return false
	}
	q := &r.ios.list[id]
	if q.vol != v || q.sector != p.Sector || q.size != ev.Size || !q.remoteRead || !q.netPending {
		r.free(ev.Buf)
		return false
	}
	q.netPending, q.netOK, q.buf = false, true, ev.Buf
	r.advance(id)
	return true
}

// negReadReply: the peer cannot serve a read.
func (v *volume) negReadReply(p wire.BlockAck) bool {
	id, ok := v.r.ios.byBlockID(p.BlockID)
	if !ok {
		return false
	}
	q := &v.r.ios.list[id]
	if q.vol != v || q.sector != p.Sector || !q.remoteRead || !q.netPending {
		return false
	}
	q.netPending, q.remoteRead = false, false
	v.r.advance(id)
	return true
}

// sent: a packet with Notify has been handed to the kernel.
func (r *Resource) sent(ev *Event) {
	if ev.Gen != r.conn.gen || !r.conn.established() {
		return
	}
	if ev.Token == bitmapToken {
		r.bitmapSent()
		return
	}
	id, ok := r.ios.byBlockID(ev.Token)
	if !ok || !r.ios.list[id].netPending {
		return
	}
	r.ios.list[id].netPending, r.ios.list[id].netOK = false, true
	r.advance(id)
}
