package replication

import (
	"github.com/replblk/replblk/bitmap"
	"github.com/replblk/replblk/metadata"
	"github.com/replblk/replblk/replication/state"
	"github.com/replblk/replblk/replication/wire"
)

// xferState is how far the own bitmap has got on its way to the peer.
type xferState uint8

const (
	xferNone    xferState = iota
	xferWaits             // for writes in progress to end, or for another volume's bitmap
	xferSending           // some packets are out, the rest follows when they are written
)

// exchange is the transfer of the bitmaps at the start of a resync (spec 8.1). The
// source sends first; both end up with the union. Owned by volume.
type exchange struct {
	state xferState
	sent  bool // the own bitmap has been sent completely
	got   bool // the peer's has arrived completely
	enc   *bitmap.Encoder
	dec   *bitmap.Decoder
	early uint64 // sync UUID that came before it was expected, 0: none
	grown bool   // the volume has grown: a resync without an exchange
	// caughtUp: the link is not congested any more, and the peer knows which blocks it lacks.
	caughtUp bool
}

const (
	// bitmapToken marks the Send after which more of a bitmap may follow.
	bitmapToken = ^uint64(0)
	// bitmapBurst is how many packets of a bitmap are sent at a time.
	bitmapBurst = 64
)

// merged says whether both bitmaps have been sent.
func (x *exchange) merged() bool { return x.sent && x.got }

// start makes the own bitmap wait to be sent.
func (x *exchange) start() { *x = exchange{state: xferWaits} }

// tryBitmap starts to send the bitmap when no write is in progress: afterwards every
// change of it is announced by a packet of its own.
func (v *volume) tryBitmap() {
	if v.xfer.state != xferWaits || v.rz.stage != resizeNone || len(v.active) > 0 || len(v.waiting) > 0 || v.r.conn.held.on ||
		!v.r.conn.established() || v.disk == nil {
		return
	}
	if v.st.Conn == state.WFBitMapT && !v.mayResync(HandlerBeforeResyncTarget) {
		return // with our bitmap the source can start, and overwrites the first block
	}
	v.xfer.state = xferSending
	v.xfer.enc = bitmap.NewEncoder(v.disk.bm, wire.HeaderSize(v.r.session().Version), v.r.cfg.UseRLE && v.r.session().Version >= 90)
	v.r.conn.held.on = true
	v.sendBitmap()
}

// sendBitmap sends the next packets of the bitmap. They must follow each other on the
// socket without anything in between, so other packets are held meanwhile.
func (v *volume) sendBitmap() {
	r := v.r
	r.conn.held.on = false
	var e *Effect
	for range bitmapBurst {
		payload, compressed, done := v.xfer.enc.Next(r.conn.scratch[:0])
		r.conn.scratch = payload
		cmd := wire.CmdBitmap
		if compressed {
			cmd = wire.CmdCompressedBitmap
		}
		off := r.open(cmd, v.num, uint32(len(payload)))
		r.fx.Buf = append(r.fx.Buf, payload...)
		e = r.close(DataSocket, off)
		if done {
			r.conn.held.release(r)
			v.bitmapComplete()
			return
		}
	}
	e.Notify, e.Token = true, bitmapToken
	r.conn.held.on = true
}

// bitmapSent continues the transfer in progress.
func (r *Resource) bitmapSent() {
	for _, v := range r.vols {
		if v.xfer.state == xferSending {
			v.sendBitmap()
			return
		}
	}
}

// bitmapComplete: the own bitmap is on its way. As target, this ends the exchange.
func (v *volume) bitmapComplete() {
	v.xfer.state, v.xfer.sent, v.xfer.enc = xferNone, true, nil
	v.r.restless = true
	if v.st.Conn == state.WFBitMapT {
		next := v.st
		next.Conn = state.WFSyncUUID
		v.force(next)
		return
	}
	v.bitmapsExchanged()
}

// bitmapArrived merges a packet of the peer's bitmap.
func (v *volume) bitmapArrived(payload []byte, compressed bool) bool {
	x := &v.xfer
	if v.st.Conn != state.WFBitMapS && v.st.Conn != state.WFBitMapT || v.disk == nil || x.got {
		return false
	}
	if x.dec == nil {
		x.dec = bitmap.NewDecoder(v.disk.bm, wire.HeaderSize(v.r.session().Version))
	}
	apply := x.dec.Plain
	if compressed {
		apply = x.dec.Compressed
	}
	if apply(payload) != nil {
		return false
	}
	if !x.dec.Done() {
		return true
	}
	x.got, x.dec = true, nil
	if v.st.Conn == state.WFBitMapT {
		x.state = xferWaits
		v.r.restless = true
		return true
	}
	v.bitmapsExchanged()
	return true
}

// bitmapsExchanged starts the resync at the source when both bitmaps are merged.
func (v *volume) bitmapsExchanged() {
	if v.st.Conn == state.WFBitMapS && v.xfer.merged() {
		v.makeSyncUUID()
	}
}

// makeSyncUUID names the state of the data that the target has during the resync. It
// must be on disk before the target hears of it: after a crash the handshake
// finds out by it what the target is (spec 7.4, rules 34 to 37, 70 and 71).
func (v *volume) makeSyncUUID() {
	if !v.mayResync(HandlerBeforeResyncSource) {
		return
	}
	if v.st.Conn == state.StartingSyncS {
		// Not before: the connection ends if the handler prevents it, and with it maybe the answer
		// to the peer's invalidate. Then nothing differs, and no bit may stay that says so.
		v.setAllBits()
	}
	u, primary := &v.disk.sb.UUIDs, v.st.Role == state.Primary
	if !primary { // it makes this node the source also after a crash, and no activity log covers the cache
		v.metaFlush(true)
	}
	if v.unnamed() {
		v.freeze()
	}
	u.RotateSet(metadata.SlotBitmap, u.SyncUUID(v.r.random()), primary)
	v.superChanged()
	v.afterSuper(enterSource, v.era)
}

// unnamed says whether nothing on disk tells this copy from the one that is to be overwritten
// by it. What is written to it alone then would be lost with a crash, if the peer's counts
// after it.
func (v *volume) unnamed() bool { return v.disk != nil && v.disk.sb.UUIDs.Bitmap() == 0 }

// becomeSource starts the resync. From here on writes are replicated again, so the sync
// UUID must be the next packet on the data socket.
func (v *volume) becomeSource() {
	r := v.r
	if !v.aboutToBeSource() || v.st.Conn == state.WFBitMapS && !v.xfer.merged() || v.disk == nil || !r.conn.established() {
		return // the connection that it was meant for is gone
	}
	off := r.open(wire.CmdSyncUUID, v.num, wire.SyncUUIDSize)
	r.fx.Buf = (&wire.SyncUUID{UUID: v.disk.sb.UUIDs.Bitmap()}).AppendTo(r.fx.Buf)
	r.close(DataSocket, off)
	next := v.st
	next.Conn, next.PeerDisk = state.SyncSource, state.Inconsistent
	v.xfer.grown, v.xfer.caughtUp = false, false
	v.startResync()
	v.force(next)
	v.flushBefore()
}

// syncUUIDArrived names the state of the own data during the resync. It and the fact
// that the disk is Inconsistent from now on must be on disk before the first
// block of the source is written.
func (v *volume) syncUUIDArrived(uuid uint64) bool {
	if v.st.Conn != state.WFSyncUUID && v.disk != nil && (v.asksToBeTarget() || v.rz.stage != resizeNone) {
		// The peer's answer to our request is on the other socket and still on
		// its way, or the volume has grown there already. This says the same.
		v.xfer.early = uuid
		return true
	}
	if v.st.Conn != state.WFSyncUUID && v.st.Conn != state.Behind || v.disk == nil {
		return false
	}
	next := v.st
	next.Conn = state.WFSyncUUID
	next.Disk = state.Inconsistent
	v.force(next)
	v.disk.sb.UUIDs[metadata.SlotBitmap] = 0
	v.setCurrent(uuid)
	v.disk.adopted = v.disk.sbGen
	v.afterSuper(enterTarget, v.era)
	return true
}

// asksToBeTarget says whether an invalidate of ours waits for the peer's answer.
func (v *volume) asksToBeTarget() bool {
	return v.asksFor(state.MaskConn) && v.r.change.val.State().Conn == state.StartingSyncT
}

// becomeTarget starts the resync.
func (v *volume) becomeTarget() {
	if v.st.Conn != state.WFSyncUUID || v.disk == nil || !v.mayResync(HandlerBeforeResyncTarget) {
		return
	}
	v.startResync()
	v.chooseChecksums()
	next := v.st
	next.Conn, next.Disk = state.SyncTarget, state.Inconsistent
	v.force(next)
}

// outOfSyncArrived: the peer wrote a block without replicating it.
func (v *volume) outOfSyncArrived(p wire.BlockDesc) bool {
	if !v.inside(p.Sector, p.Size) {
		return false
	}
	v.markOut(p.Sector, uint64(p.Size)>>9)
	return true
}
