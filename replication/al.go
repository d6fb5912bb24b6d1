package replication

import "github.com/replblk/replblk/activitylog"

// actLog is the activity log of an attached disk: which writes wait for it, and the
// transaction on its way. Owned by disk.
type actLog struct {
	set *activitylog.Set

	waiting []alWaiter // hold their references, wait for a transaction
	starved []alWaiter // hold nothing, wait for a slot, in order of arrival
	scratch []alWaiter

	tx      activitylog.Transaction
	built   bool // tx is filled
	writing bool // tx is being written
	evicted []activitylog.Extent
	pages   []uint32 // bitmap pages that are written with it
}

// alWaiter is a write that waits for its extents to be in the activity log.
type alWaiter struct {
	peer  bool   // a write of the peer (it has no disk, and this node keeps the log for it)
	index uint32 // ioID, or slot of a peer request
}

// logWrite takes references on the extents of a write. It returns true if they are
// active; otherwise the waiter is queued and will be resumed by logged.
func (v *volume) logWrite(sector, sectors uint64, w alWaiter) bool {
	l := &v.disk.al
	if len(l.starved) > 0 {
		l.starved = append(l.starved, w)
		return false
	}
	switch l.set.Get(activitylog.Extents(sector, sectors)) {
	case activitylog.Hot:
		return true
	case activitylog.NeedsTransaction:
		l.waiting = append(l.waiting, w)
		if tl := &v.r.tl; l.set.Active() > l.set.Slots()/2 && len(tl.closed) == 0 {
			tl.closeEpoch(v.r) // extents are released before somebody has to wait for one
		}
	default:
		l.starved = append(l.starved, w)
		v.r.tl.closeEpoch(v.r) // the barrier ack will release extents
	}
	return false
}

// kickAL writes the changes that have collected as one transaction: first the bitmap
// pages of the extents that leave the log, then, when these and the data written
// so far are durable, the log block.
func (v *volume) kickAL() {
	d := v.disk
	l := &d.al
	if l.set == nil || l.writing || d.metaBad {
		return
	}
	if !l.built {
		if l.set.Queued() == 0 {
			return
		}
		l.set.BuildTransaction(&l.tx)
		l.evicted = l.set.Evicted(l.evicted[:0])
		l.built = true
	}
	if !v.cfg.ALUpdates {
		l.built = false
		v.alCommit()
		return
	}
	if !v.writeEvicted() {
		return
	}
	off := len(v.r.fx.Buf)
	v.r.fx.Buf = l.tx.AppendTo(v.r.fx.Buf)
	v.metaWrite(d.layout.ActivityLog+uint64(l.set.Ring().Block(l.tx.Number))*8, off)
	v.metaFlush(false)
	v.metaNotify(classAL)
	l.built, l.writing = false, true
}

// writeEvicted writes the bitmap pages of the extents that the transaction evicts.
// It returns false if one of them is just being written with older contents:
// the transaction must wait for that.
//
// The flush covers the data too. An extent that leaves the log is not in doubt
// after a crash any more, so what was written to it must not be in a volatile
// cache.
func (v *volume) writeEvicted() bool {
	l, bm := &v.disk.al, v.disk.bm
	for _, x := range l.evicted {
		if p := pageOfExtent(x); p < bm.Pages() && bm.Dirty(p) && bm.Writing(p) {
			return false
		}
	}
	for _, x := range l.evicted {
		if p := pageOfExtent(x); p < bm.Pages() && bm.Dirty(p) && bm.HasUnwrittenSets(p) && !bm.Writing(p) {
			v.writePage(p)
			l.pages = append(l.pages, p)
		}
	}
	if len(l.evicted) > 0 {
		v.metaFlush(true)
	}
	return true
}

// pageOfExtent returns the bitmap page with the bits of an extent: 32 extents of
// 4 MiB to a page of 128 MiB.
func pageOfExtent(x activitylog.Extent) uint32 { return x >> 5 }

func (v *volume) alWritten(ok bool) {
	l := &v.disk.al
	l.writing = false
	for _, p := range l.pages {
		if ok {
			v.disk.bm.MarkWritten(p)
		} else {
			v.disk.bm.MarkDirty(p)
		}
	}
	l.pages = l.pages[:0]
	if ok && l.set != nil { // nil: the disk was abandoned meanwhile
		v.alCommit()
	}
}

// alCommit makes a transaction effective and resumes the writes that waited for it.
func (v *volume) alCommit() {
	l := &v.disk.al
	l.set.Commit()
	list := l.waiting
	l.waiting = l.scratch[:0]
	for _, w := range list {
		if l.set.Ready(activitylog.Extents(v.r.alRange(w))) {
			v.r.logged(w)
		} else {
			l.waiting = append(l.waiting, w)
		}
	}
	l.scratch = list[:0]
	v.resumeStarved()
}

// resumeStarved gives slots to the writes that found none, in order.
func (v *volume) resumeStarved() {
	for v.disk != nil && len(v.disk.al.starved) > 0 {
		l := &v.disk.al
		w := l.starved[0]
		switch l.set.Get(activitylog.Extents(v.r.alRange(w))) {
		case activitylog.Hot:
			l.starved = l.starved[1:]
			v.r.logged(w)
		case activitylog.NeedsTransaction:
			l.starved = l.starved[1:]
			l.waiting = append(l.waiting, w)
		default:
			v.r.tl.closeEpoch(v.r)
			return
		}
	}
}

// alRelease gives the references of a finished write back.
func (v *volume) alRelease(sector, sectors uint64) {
	if v.disk == nil || v.disk.al.set == nil {
		return
	}
	first, last := activitylog.Extents(sector, sectors)
	for x := first; x <= last; x++ {
		v.disk.al.set.Release(x)
	}
	if len(v.disk.al.starved) > 0 {
		v.r.restless = true
	}
}

// abandonLog lets everything that waits for the log go on without it, after the
// disk has failed. The log is not used again before the next attach.
func (v *volume) abandonLog() {
	l := &v.disk.al
	list := append(l.waiting, l.starved...)
	l.waiting, l.starved, l.set = nil, nil, nil
	for _, w := range list {
		v.r.logged(w)
	}
}
