package replication

import (
	"github.com/replblk/replblk/bitmap"
	"github.com/replblk/replblk/replication/state"
	"github.com/replblk/replblk/replication/wire"
)

const (
	// maxVerifyRequests bounds the blocks that VerifyS is comparing at a time.
	maxVerifyRequests = 512
	// maxVerifyResults bounds the blocks of which VerifyT awaits the result. The results
	// travel on the other socket and may be far behind the requests.
	maxVerifyResults = 1 << 14
)

// verify compares the copies while they are in use (spec 9.10). VerifyS, where it was
// started, asks for the digest of one block after the other, compares it with that of
// its own block and reports the result; VerifyT answers. Both mark what differs. Owned
// by volume.
//
// A block must be compared as it is at one point in the stream of writes. From the
// request to the result it is in resync.busy on both nodes, so that no write of an
// application starts; and a digest is computed when all writes that started before, of
// either node, are on the disk (see verifyHolds).
type verify struct {
	total   uint64 // blocks to compare; VerifyT: 0 until the first request tells
	left    uint64
	found   uint64 // blocks that differ
	failed  uint64 // blocks that could not be compared
	started Time

	cursor    uint64 // VerifyS: the next block to ask for
	stop      uint64 // VerifyS: the first block not to ask for
	locked    uint32 // VerifyS: the lock on the block at cursor, 0: none yet
	stopped   bool   // VerifyS: by the operator
	reqs      []span // being compared; also in resync.busy
	answered  []span // of these, VerifyT has sent the digest, VerifyS has got it
	finishing bool
	complete  bool

	completed uint64 // runs that came to their end
	resume    uint64 // block at which an aborted run of this node stopped
}

// verifyAlg is the algorithm of verify-alg.
func (r *Resource) verifyAlg() wire.Algorithm { return wire.AlgorithmOf(r.cfg.VerifyAlg) }

// status describes the run.
func (y *verify) status() VerifyStatus {
	return VerifyStatus{Total: y.total, Left: y.left, Found: y.found, Failed: y.failed, Since: y.started,
		Completed: y.completed, Resume: y.resume * bitmap.SectorsPerBit}
}

// startVerify is an operator's command.
func (v *volume) startVerify(c command) {
	if c.agreed {
		v.r.reply(c.Token, state.Success)
		return
	}
	if v.sizeInDoubt() {
		v.r.later(c) // the peer would take no size meanwhile, and call a write to new space a breach
		return
	}
	start, stop := c.Start/bitmap.SectorsPerBit, bitmap.BitsFor(v.size)
	if c.Resume {
		start = v.verify.resume
		if start >= stop {
			start = 0 // the device has shrunk
		}
	}
	if c.Stop != 0 {
		stop = min(stop, bitmap.BitsFor(c.Stop))
	}
	switch {
	case v.st.Conn < state.Connected:
		v.r.reply(c.Token, state.NeedConnection)
		return
	case c.Stop != 0 && !v.r.session().StopsVerify() || start != 0 && v.r.session().Version < 90:
		v.r.reply(c.Token, state.NotSupported)
		return
	case start >= stop:
		v.r.reply(c.Token, state.NothingToDo)
		return
	}
	if !v.st.Conn.Verify() {
		v.verify.cursor, v.verify.stop = start, stop
	}
	result, pending := v.propose(state.MaskConn, state.State{Conn: state.VerifyS}.Word(), c)
	if !pending {
		v.r.finish(c, result)
	}
}

// stopVerify ends a run of this node as if what has been asked for was all.
func (v *volume) stopVerify(c command) {
	switch {
	case v.st.Conn != state.VerifyS:
		v.r.reply(c.Token, state.NothingToDo)
		return
	case !v.r.session().StopsVerify():
		v.r.reply(c.Token, state.NotSupported)
		return
	}
	y := &v.verify
	y.stopped = true
	y.reqs, v.rs.busy = without(y.reqs, y.locked), without(v.rs.busy, y.locked)
	v.r.restless = true
	v.r.reply(c.Token, state.Success)
}

// verifyChanged begins or ends a run with the change of the connection state.
func (v *volume) verifyChanged(old state.Conn) {
	y := &v.verify
	if !old.Verify() {
		*y = verify{cursor: y.cursor, stop: y.stop, started: v.r.now, completed: y.completed, resume: y.resume}
		v.rs.rate.reset(int(v.cfg.PlanAheadTenths))
		if v.st.Conn == state.VerifyS {
			y.total = y.stop - y.cursor
			y.left = y.total
			v.r.note(v, NoteVerifyStart).Sector = y.cursor * bitmap.SectorsPerBit
			return
		}
		y.cursor = 0
		if v.r.session().Version < 90 { // later it begins where the first request says
			y.total = bitmap.BitsFor(v.size)
			y.left = y.total
		}
		return
	}
	v.verifyOver(old)
}

// verifyOver reports the end of a run and forgets what was in progress.
func (v *volume) verifyOver(old state.Conn) {
	y := &v.verify
	if y.complete {
		y.completed++
		v.r.note(v, NoteVerifyDone).Token = y.found
	} else {
		position := y.cursor
		for _, s := range y.reqs {
			position = min(position, s.start/bitmap.SectorsPerBit)
		}
		if old == state.VerifyS {
			y.resume = position
		}
		v.r.note(v, NoteVerifyStopped).Sector = position * bitmap.SectorsPerBit
	}
	y.reqs, y.answered = nil, nil
	v.r.peer.dropSums(v)
	if y.complete && old == state.VerifyS {
		y.resume = 0
	}
	if v.disk != nil && v.disk.bm.Weight() > 0 {
		v.r.handler(v, HandlerOutOfSync)
	}
}

// dropSums forgets the digests that nobody wants any more.
func (t *peerSide) dropSums(v *volume) {
	kept := t.queue[:0]
	for _, i := range t.queue {
		if p := &t.list[i]; p.vol == v && p.kind >= peerOwnSum {
			v.r.dropPeer(i)
		} else {
			kept = append(kept, i)
		}
	}
	t.queue = kept
	for i := range t.list {
		if p := &t.list[i]; p.vol == v && p.kind >= peerOwnSum {
			p.orphan = true
		}
	}
}

// verifyEmit asks for digests as long as the budget and the window allow.
func (v *volume) verifyEmit() {
	y, rs := &v.verify, &v.rs
	if v.st.Conn != state.VerifyS || y.stopped || !v.r.conn.established() || v.st.ResyncPaused() {
		return
	}
	for y.cursor < y.stop && rs.rate.budget > 0 && rs.rate.room(v.r.cfg.MaxBuffers) > 0 && len(y.reqs) < maxVerifyRequests {
		start := y.cursor * bitmap.SectorsPerBit
		end := min(start+bitmap.SectorsPerBit, v.size)
		if y.locked == 0 {
			y.locked = v.lockBlock(start, end)
		}
		if overlapping(v.active, start, end) {
			return // such a write may not have been sent yet
		}
		y.cursor++
		y.locked = 0
		rs.rate.spend(1)
		v.sendBlockRequest(wire.CmdOVRequest, wire.BlockRequest{Sector: start, BlockID: wire.ResyncID, Size: uint32((end - start) << 9)}, nil)
	}
}

// lockBlock keeps application writes away from a range until unlockBlock.
func (v *volume) lockBlock(start, end uint64) uint32 {
	v.rs.number++
	s := span{start, end, v.rs.number}
	v.verify.reqs = append(v.verify.reqs, s)
	v.rs.busy = append(v.rs.busy, s)
	return s.owner
}

// unlockBlock counts a block as compared.
func (v *volume) unlockBlock(owner uint32) {
	y := &v.verify
	y.reqs, y.answered, v.rs.busy = without(y.reqs, owner), without(y.answered, owner), without(v.rs.busy, owner)
	if y.left > 0 {
		y.left--
	}
	v.r.restless = true
}

// verifyEnd ends a run when every block is compared.
func (v *volume) verifyEnd() {
	y := &v.verify
	if !v.st.Conn.Verify() || y.finishing || len(y.reqs) > 0 {
		return
	}
	if v.st.Conn == state.VerifyS && y.cursor < y.stop && !y.stopped || v.st.Conn == state.VerifyT && (y.total == 0 || y.left > 0) {
		return
	}
	y.finishing = true
	y.complete = !y.stopped || y.cursor >= y.stop
	// When the ping is answered the peer has seen every result.
	v.r.afterPing(v, (*volume).verifyFinished)
}

func (v *volume) verifyFinished() {
	if v.st.Conn.Verify() && v.verify.finishing {
		v.endVerify()
	}
}

func (v *volume) endVerify() {
	next := v.st
	next.Conn = state.Connected
	v.force(next)
}

// peerEndsVerify: a P_STATE of the node that compares ends the run (spec 7.5 step 3). It
// has seen our answer to its ping, so all results are here. Only it knows whether all
// blocks were to be compared, so what is left here does not matter.
func (v *volume) peerEndsVerify(p state.State) bool {
	own := v.st
	if own.Conn != state.VerifyT || own.Disk != state.UpToDate || p.Conn != state.Connected || p.Disk != state.UpToDate {
		return false
	}
	v.verify.complete = true
	v.endVerify()
	return true
}
