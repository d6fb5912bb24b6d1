package replication

import "github.com/replblk/replblk/replication/state"

// A disk that does not answer is worse than one that fails: what waits for it waits with
// it, and the peer could have served it. With disk-timeout set, a disk that owes an answer
// for longer is taken out of service, and so is one that does not return after a forced
// detach. The driver takes everything back that the disk has not answered (FxAbort), so
// that nothing here waits for it any more, and sees to it that the late answers reach
// nobody (D12).
//
// Time is counted in ticks: a process that was stopped for a while has seen none of
// them, and finds the answers of its disk in the mailbox before the next one.

// forcedTicks is how long a forced detach waits for the disk before it does without it:
// to a disk that is well, bitmap and flush are worth more than a second.
const forcedTicks = 10

// pendingIO watches over operations of one kind that have no request to keep the time
// in. Of several in progress at once the oldest may be younger than it says, but a disk that
// answers none is found.
type pendingIO struct {
	n     int
	since uint64 // tick of the last answer, or of the first one after there were none
}

func (p *pendingIO) begin(tick uint64) {
	if p.n == 0 {
		p.since = tick
	}
	p.n++
}

func (p *pendingIO) end(tick uint64) {
	p.n--
	p.since = tick
}

// overdue says whether something begun at or before limit is not answered.
func (p *pendingIO) overdue(limit uint64) bool { return p.n > 0 && p.since <= limit }

// diskTick takes a disk out of service that does not answer in time.
func (v *volume) diskTick() {
	d := v.disk
	if d == nil || d.aborted {
		return
	}
	if d.abortAt != 0 && v.r.ticks >= d.abortAt {
		v.abortDisk()
		return
	}
	// Two ticks more: the first of them may have come right after the operation, and one may have
	// waited for a process that was stopped, as the rest of a chain of metadata writes did.
	patience := uint64(v.cfg.DiskTimeoutTenths) + 2
	if v.cfg.DiskTimeoutTenths == 0 || v.r.ticks < patience || !v.diskOverdue(v.r.ticks-patience) {
		return
	}
	v.r.note(v, NoteDiskTimeout).Token = uint64(v.cfg.DiskTimeoutTenths)
	if v.cfg.OnIOError == OnErrorCallHandler && !d.failed {
		v.r.handler(v, HandlerLocalIOError)
	}
	v.abortDisk()
}

// diskOverdue says whether the disk owes the answer to something that was begun at or
// before tick limit.
func (v *volume) diskOverdue(limit uint64) bool {
	d := v.disk
	if d.meta.overdue(limit) || d.flushes.overdue(limit) {
		return true
	}
	if d.inflight == d.flushes.n {
		return false
	}
	for i := range v.r.ios.list {
		if q := &v.r.ios.list[i]; q.vol == v && q.localPending && q.begun <= limit {
			return true
		}
	}
	for i := range v.r.peer.list {
		if p := &v.r.peer.list[i]; p.vol == v && p.onDisk && p.begun <= limit {
			return true
		}
	}
	return false
}

// abortDisk fails a disk that cannot be waited for, and has the driver take back what it has
// not answered. Nothing more is written to its metadata: the next attachment finds them as
// after a crash.
func (v *volume) abortDisk() {
	d := v.disk
	d.aborted = true
	switch v.rz.stage {
	case resizeMeasuring:
		v.endResize(state.NoLocalDisk)
	case resizeMoving:
		v.rz.stage = resizeDraining // where the metadata is now, the next attachment has to find out
	default:
	}
	v.dropMeta()
	v.unconfirm()
	v.r.fx.add(FxAbort).Vol = v.num
}

// forceDetach takes the disk out of service without asking anybody.
func (v *volume) forceDetach(token uint64) {
	v.detachTokens = append(v.detachTokens, token)
	if d := v.disk; d.abortAt == 0 {
		d.abortAt = v.r.ticks + forcedTicks
	}
	v.failDisk()
}
