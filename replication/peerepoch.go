package replication

import (
	"github.com/replblk/replblk/replication/state"
	"github.com/replblk/replblk/replication/wire"
)

// epochWriteDone counts a finished write, and confirms its epoch when it was the last.
func (r *Resource) epochWriteDone(number uint32) {
	e := r.peer.epoch(number)
	if e != nil {
		e.active--
	}
	if e != &r.peer.arriving {
		r.confirmEpoch()
	}
}

// peerBarrier closes the epoch that is arriving. What comes after it waits until it
// is confirmed, so that nothing of a later epoch becomes durable before it.
func (r *Resource) peerBarrier(handle uint32) {
	t := &r.peer
	if t.arriving.count == 0 {
		return // a kernel never sends such a barrier; it gets no answer
	}
	t.arriving.handle = handle
	t.epochs = append(t.epochs, t.arriving)
	t.arriving = peerEpoch{number: t.arriving.number + 1}
	r.confirmEpoch()
}

// confirmEpoch flushes the disks when the oldest closed epoch is written.
func (r *Resource) confirmEpoch() {
	t := &r.peer
	if len(t.epochs) == 0 || t.epochs[0].active > 0 || t.epochs[0].held > 0 || t.flushing > 0 {
		return
	}
	for i, v := range r.vols {
		// Also one that is being detached: it may have writes of this epoch. If it does not
		// answer, the connection is on its way out, and nothing is confirmed.
		if v.disk != nil && !v.disk.aborted && v.cfg.DiskFlushes {
			t.flushing++
			v.flushIO(classBarrier, uint32(i))
		}
	}
	if t.flushing == 0 {
		r.ackBarrier()
	}
}

func (v *volume) flushIO(class int, index uint32) {
	v.disk.inflight++
	v.disk.flushes.begin(v.r.ticks)
	e := v.r.fx.add(FxDisk)
	e.Vol, e.IO, e.Op = v.num, ioFor(class, index), OpFlush
}

// barrierFlushed: one of the flushes has returned. A failed flush is a failed disk, and
// there is no way to tell the peer that an epoch is not safe but to leave it
// without an answer: the connection ends, and the peer marks the epoch's writes as
// out of sync (D06).
func (r *Resource) barrierFlushed(v *volume, err DiskError) {
	r.peer.flushing--
	if err != DiskOK {
		v.localError(OpFlush, 0, 0)
		r.lose(state.NetworkFailure, NoteNone)
	}
	if r.peer.flushing > 0 || r.conn.closing || len(r.peer.epochs) == 0 {
		r.drained()
		return
	}
	r.ackBarrier()
	r.drained()
}

// ackBarrier confirms the oldest epoch and starts what waited behind it.
func (r *Resource) ackBarrier() {
	t := &r.peer
	e := t.epochs[0]
	t.epochs = t.epochs[1:]
	if r.conn.established() {
		off := r.open(wire.CmdBarrierAck, 0, wire.BarrierAckSize)
		r.fx.Buf = (&wire.BarrierAck{Handle: e.handle, Count: e.count}).AppendTo(r.fx.Buf)
		r.close(MetaSocket, off)
	}
	r.retryPeer()
	r.confirmEpoch()
}
