package replication

import (
	"github.com/replblk/replblk/replication/state"
	"github.com/replblk/replblk/replication/wire"
)

// sendWrite sends P_DATA, P_TRIM or P_ZEROES for a write.
func (r *Resource) sendWrite(id ioID) {
	q := &r.ios.list[id]
	v := q.vol
	v.seq++
	d := wire.Data{Sector: q.sector, BlockID: r.ios.blockID(id), Seq: v.seq, Flags: v.writeFlags(q)}
	if q.op != OpWrite && r.conn.trims {
		cmd := wire.CmdTrim
		if d.Flags&wire.FlagZeroes != 0 {
			cmd = wire.CmdZeroes
		}
		off := r.open(cmd, v.num, wire.TrimSize)
		r.fx.Buf = (&wire.Trim{Data: d, Size: q.size}).AppendTo(r.fx.Buf)
		r.notifySent(r.close(DataSocket, off), q, d.BlockID)
		return
	}
	e := r.sendData(wire.CmdData, v.num, &d, q.size)
	e.Payload, e.Req, e.From = PayloadRequest, q.req, q.from
	if q.op != OpWrite {
		e.Payload = PayloadZeroes
	}
	r.notifySent(e, q, d.BlockID)
}

// notifySent asks for the event that ends the network part under protocol A.
func (r *Resource) notifySent(e *Effect, q *ioReq, blockID uint64) {
	if q.proto == ProtocolA && !q.awaited {
		e.Notify, e.Token = true, blockID
	}
}

func (v *volume) writeFlags(q *ioReq) wire.DataFlags {
	var f wire.DataFlags
	s := v.r.session()
	if q.fua || v.st.Disk != state.UpToDate {
		// The peer has the only good copy. Should it lose its power, this node lives
		// on, and its application with it: what it was told must still be there.
		f |= wire.FlagFUA
	}
	switch {
	case !v.r.conn.trims: // what is not a write is sent as zeroes
	case q.op == OpDiscard:
		f |= wire.FlagDiscard
	case q.op == OpZeroes:
		if s.Features.Has(wire.FeatureWriteZeroes) && v.r.conn.integrity == 0 { // see ownFeatures; the option may have come later
			f |= wire.FlagZeroes
			if !q.noHole {
				f |= wire.FlagDiscard
			}
		} else {
			f |= wire.FlagDiscard
		}
	default:
	}
	maySet := v.writesSettle()
	if maySet {
		f |= wire.FlagMaySetInSync
	}
	if !s.HasFUA() {
		f &= wire.FlagMaySetInSync
	}
	if s.Version >= 100 {
		if q.proto == ProtocolB && !q.awaited {
			f |= wire.FlagSendReceiveAck
		}
		if q.awaited || maySet {
			f |= wire.FlagSendWriteAck
		}
	}
	return f
}

// acksFor says which acknowledgements a write gets: P_RECV_ACK on arrival, P_WRITE_ACK
// when it is written.
func (v *volume) acksFor(f wire.DataFlags) (early, late bool) {
	if v.r.session().Version >= 100 {
		return f&wire.FlagSendReceiveAck != 0, f&wire.FlagSendWriteAck != 0
	}
	return v.r.conn.protocol == ProtocolB, v.r.conn.protocol == ProtocolC
}

// writeOp is the other side of writeFlags: what the peer wants done.
func writeOp(cmd wire.Command, f wire.DataFlags, s wire.Session) (op Op, noHole bool) {
	switch {
	case cmd == wire.CmdData:
		return OpWrite, false
	case cmd == wire.CmdZeroes:
		return OpZeroes, f&wire.FlagDiscard == 0
	case s.Features.Has(wire.FeatureWriteZeroes):
		return OpDiscard, false
	default:
		return OpZeroes, false
	}
}

// writesSettle says whether a write that both nodes have done is out of the way of a resync.
func (v *volume) writesSettle() bool {
	return v.st.Conn >= state.SyncSource && v.st.Conn <= state.PausedSyncT
}
