package node

import (
	"github.com/replblk/replblk/node/transport"
	"github.com/replblk/replblk/replication"
)

// execute carries out the effects of a batch. Sends go first, so that the peer
// starts to work before the local disk does. Runner only; nothing here waits.
func (r *Resource) execute(fx *replication.Effects) {
	link := r.conn.link.Load()
	lastDisk := -1
	for i := range fx.List {
		switch e := &fx.List[i]; e.Kind {
		case replication.FxSend:
			r.send(link, fx, e)
		case replication.FxDisk:
			lastDisk = i
		default:
		}
	}
	if link != nil {
		link.flush()
	}
	for i := range fx.List {
		r.effect(fx, &fx.List[i], i < lastDisk)
	}
}

// send queues a packet, or drops it if its connection is gone.
func (r *Resource) send(k *link, fx *replication.Effects, e *replication.Effect) {
	if k == nil || k.gen != e.Gen {
		if e.FreeBuf && e.Buf != 0 {
			r.bufs.release(e.Buf)
		}
		return
	}
	tag := transport.Tag{Token: e.Token, Notify: e.Notify}
	if e.FreeBuf {
		tag.Buf = uint32(e.Buf)
	}
	head, payload := fx.Bytes(e), r.payload(e)
	if e.Sum != 0 {
		r.head = append(r.head[:0], head...)
		r.head = r.ops.sums.sum(r.head, e.Sum, payload)
		head = r.head
	}
	k.queue(e.Socket, head, payload, tag)
}

// zeroes is what is sent for a discard to a peer that knows none. Nothing writes to it, so
// it takes no memory.
var zeroes [replication.MaxWrite]byte

// payload is the bulk data of a send or the memory of a disk operation.
func (r *Resource) payload(e *replication.Effect) []byte {
	switch e.Payload {
	case replication.PayloadRequest:
		return r.slots.get(e.Req).Data[e.From : e.From+e.Size]
	case replication.PayloadZeroes:
		return zeroes[:e.Size]
	case replication.PayloadBuffer:
		return r.bufs.bytes(e.Buf)[:e.Size]
	default:
		return nil
	}
}

// effect carries out one effect other than a send. more: disk operations follow.
func (r *Resource) effect(fx *replication.Effects, e *replication.Effect, more bool) {
	switch e.Kind {
	case replication.FxDisk:
		r.disk(e, more)
	case replication.FxMetaWrite, replication.FxMetaFlush, replication.FxMetaNotify:
		r.meta(fx, e)
	case replication.FxComplete:
		r.complete(e)
	case replication.FxFill:
		r.fill(e)
	case replication.FxFree:
		if e.Buf != 0 {
			r.bufs.release(e.Buf)
		}
	case replication.FxConnect:
		r.conn.want(e.On)
	case replication.FxClose:
		if k := r.conn.find(e.Gen); k != nil {
			k.fail(closedByCore, nil)
		}
	case replication.FxReply:
		r.replies.deliver(e.Token, e.Result)
	case replication.FxHandler:
		r.handlers.start(e.Handler, e.Vol, e.IO)
	case replication.FxSize:
		if v := r.volumes[e.Vol]; v != nil {
			v.sectors.Store(e.Sector)
		}
		r.publish(Change{Kind: ChangeSize, Volume: e.Vol, Sectors: e.Sector})
	case replication.FxReads:
		if v := r.volumes[e.Vol]; v != nil {
			v.reads.Store(e.On)
		}
	case replication.FxAbort:
		r.abort(e.Vol)
	case replication.FxDetached:
		r.detached(e.Vol)
	case replication.FxMeasure:
		r.measureDevice(e.Vol)
	case replication.FxMove:
		r.moveMeta(e.Vol)
	case replication.FxState:
		r.stateChanged(e)
	case replication.FxNote:
		r.note(e)
	default: // FxSend is done
	}
}

// disk starts a disk operation.
func (r *Resource) disk(e *replication.Effect, more bool) {
	o := r.ops.get()
	o.io = e.IO
	data := r.payload(e)
	switch {
	case e.Op == replication.OpRead && e.Payload == replication.PayloadNone:
		o.buf, data = r.bufs.alloc(int(e.Size))
		o.held = o.buf
	case e.Payload == replication.PayloadBuffer:
		o.held = e.Buf
	case e.Payload == replication.PayloadRequest:
		data = o.ofMemory(e, data, r.volumes[e.Vol].guarded.Load())
	default:
	}
	b := r.backing(e.Vol)
	o.disk = b
	if b == nil { // contrary to the contract; the core asked and gets an answer
		o.req.Op = diskToBlock[e.Op]
		o.req.Complete(errNoDisk)
		return
	}
	o.submit(b.data, e, data, more || e.Resync)
}

// meta queues a metadata effect.
func (r *Resource) meta(fx *replication.Effects, e *replication.Effect) {
	b := r.backing(e.Vol)
	op := metaOp{kind: e.Kind, data: e.Data, sector: e.Sector, io: e.IO}
	switch {
	case b == nil:
		if e.Kind == replication.FxMetaNotify {
			r.loop.put(&replication.Event{Kind: replication.EvMeta, IO: e.IO, Err: replication.DiskIOError})
		}
	case e.Kind == replication.FxMetaWrite:
		b.queue.put(op, fx.Buf[e.Off:e.Off+metaBlock])
	default:
		b.queue.put(op, nil)
	}
}

// detached lets the disk of a volume go.
func (r *Resource) detached(vol uint16) {
	v := r.volumes[vol]
	if v == nil {
		return
	}
	b := v.disk.Swap(nil)
	v.reads.Store(false)
	if b != nil {
		r.retire(vol, b)
	}
}

// complete ends a request. A read that the peer served has its data in a buffer.
func (r *Resource) complete(e *replication.Effect) {
	if r.slots.postpone(e) {
		return // its memory is in the hands of a disk that does not answer
	}
	req := r.slots.release(e.Req)
	r.bufs.fill(req, e)
	completed(req, e.Outcome)
}

// fill puts what the peer has sent into a part of a request's memory.
func (r *Resource) fill(e *replication.Effect) {
	if r.slots.postpone(e) {
		return
	}
	r.bufs.fill(r.slots.get(e.Req), e)
}
