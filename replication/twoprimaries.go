package replication

import (
	"slices"

	"github.com/replblk/replblk/replication/state"
	"github.com/replblk/replblk/replication/wire"
)

// Two primaries (spec 6.7). Both nodes write at once, and where their writes overlap both
// disks must end with the same one. The node that accepted the meta socket resolves:
//
//   - It refuses a write of the peer that overlaps one of its own in progress. If the own one
//     covers it, the peer's counts as done before, and overwritten (P_SUPERSEDED). If not, the
//     peer does it again (P_RETRY_WRITE) when it has written ours.
//   - The other node lets a write of the peer wait until its own is answered one way or the
//     other, so it is the resolver's that is written last.
//   - Neither starts a write that overlaps one of the peer in progress.
//
// For the first rule the resolver must have seen every answer that the peer gave before it
// sent the write. They come on another socket, so both are numbered together, and a write
// with a number that is too high waits in a gate.

// gated is a write of the peer whose turn has not come.
type gated struct {
	index uint32 // of the peer's request
	seq   uint32
	since Time
}

// twoPrimaries says whether both nodes may be Primary. Older peers do not know P_RETRY_WRITE.
func (r *Resource) twoPrimaries() bool {
	return r.cfg.TwoPrimaries && r.cfg.Protocol == ProtocolC && (!r.conn.established() || !r.conn.oldPeer())
}

// sequence notes the number of a packet of the peer, and lets through what waited for it.
func (v *volume) sequence(seq uint32) {
	if int32(seq-v.peerSeq) > 0 {
		v.peerSeq = seq
	}
	for len(v.gate) > 0 && int32(v.peerSeq-(v.gate[0].seq-1)) >= 0 {
		g := v.gate[0]
		v.gate = v.gate[1:]
		if int32(g.seq-v.peerSeq) > 0 {
			v.peerSeq = g.seq
		}
		v.judgeWrite(g.index)
	}
}

// contestedWrite takes a write of the peer when both nodes may be Primary.
func (v *volume) contestedWrite(i, seq uint32) {
	if !v.r.conn.resolve {
		v.sequence(seq)
		v.r.takePeerWrite(i)
		return
	}
	v.gate = append(v.gate, gated{i, seq, v.r.now})
	v.sequence(v.peerSeq)
}

// judgeWrite is the resolver's decision about a write of the peer.
func (v *volume) judgeWrite(i uint32) {
	r := v.r
	p := &r.peer.list[i]
	refusal := wire.Command(0)
	winners := len(v.refusals)
	for _, s := range v.active {
		if q := &r.ios.list[s.owner]; q.stage == stageActive && !q.netPending {
			continue // the peer has it already and wrote this one after it: it waits for our disk
		}
		if !s.overlaps(p.sector, p.end()) {
			continue
		}
		v.refusals = append(v.refusals, refusalOf{ioID(s.owner), p.epoch})
		if s.start <= p.sector && p.end() <= s.end {
			refusal = wire.CmdSuperseded
		} else if refusal == 0 {
			refusal = wire.CmdRetryWrite
		}
	}
	if refusal == 0 {
		r.takePeerWrite(i)
		return
	}
	number := p.epoch
	v.sendAck(refusal, p.sector, p.blockID, p.size)
	r.dropPeer(i)
	r.uncount(number, uint32(len(v.refusals)-winners))
}

// refusalOf remembers that a write of the peer was refused because of a write of this node. Its
// epoch is not confirmed before that one is done: a kernel counts a write that it was refused
// as long as it is on its way to its own disk, and answers ours after that.
type refusalOf struct {
	winner ioID
	epoch  uint32
}

// refusalsOver lets the epochs go on that waited for a write of this node.
func (v *volume) refusalsOver(id ioID) {
	over := false
	v.refusals = slices.DeleteFunc(v.refusals, func(f refusalOf) bool {
		if f.winner != id {
			return false
		}
		if e := v.r.peer.epoch(f.epoch); e != nil {
			e.held--
		}
		over = true
		return true
	})
	if over {
		v.r.confirmEpoch()
	}
}

// epoch finds an epoch that is not confirmed, nil if there is none with that number.
func (t *peerSide) epoch(number uint32) *peerEpoch {
	if number == t.arriving.number {
		return &t.arriving
	}
	for k := range t.epochs {
		if t.epochs[k].number == number {
			return &t.epochs[k]
		}
	}
	return nil
}

// uncount takes a write that was refused out of its epoch. An epoch without writes is not
// confirmed: the peer does not expect it.
func (r *Resource) uncount(number, held uint32) {
	t := &r.peer
	e := t.epoch(number)
	e.count--
	e.active--
	e.held += held
	if e.count == 0 && e != &t.arriving {
		t.epochs = slices.DeleteFunc(t.epochs, func(x peerEpoch) bool { return x.number == number })
	}
	r.restless = true
	r.confirmEpoch()
}

// ownComesFirst says whether a write of the peer waits for one of this node: until it is
// answered and on the own disk, or this node knows that it is to be done again.
func (v *volume) ownComesFirst(p *peerReq) bool {
	if !v.r.twoPrimaries() || p.orphan {
		return false
	}
	for _, s := range v.active {
		if q := &v.r.ios.list[s.owner]; s.overlaps(p.sector, p.end()) && (!q.postponed || q.localPending) {
			return true
		}
	}
	return false
}

// peersComesFirst says whether a write of this node waits for one of the peer. What else of the
// peer is in the queue has what keeps the write away among resync.busy, or is a read, and may
// itself wait for the write.
func (v *volume) peersComesFirst(sector, end uint64) bool {
	return v.r.twoPrimaries() && v.peerWriting(sector, end)
}

// conflictAck handles the resolver's refusal of a write of this node.
func (v *volume) conflictAck(cmd wire.Command, p wire.BlockAck) bool {
	r := v.r
	id, ok := r.ios.byBlockID(p.BlockID)
	if !ok || !r.twoPrimaries() || r.conn.resolve {
		return false
	}
	q := &r.ios.list[id]
	if q.vol != v || q.sector != p.Sector || !q.inEpoch || !q.netPending || !q.op.modifies() {
		return false
	}
	r.tl.remove(r, id)
	r.restless = true // the write that it conflicts with may go on
	if cmd == wire.CmdSuperseded {
		q.netPending, q.netOK = false, true
		r.advance(id)
		return true
	}
	q.postponed = true
	return true
}

// retryPostponed does writes again that were refused, when the peer's that they conflict with
// is written. written is its range.
func (v *volume) retryPostponed(written span) {
	for _, s := range slices.Clone(v.active) {
		q := &v.r.ios.list[s.owner]
		if !q.postponed || !s.overlaps(written.start, written.end) || v.peersComesFirst(s.start, s.end) {
			continue
		}
		q.postponed, q.netPending, q.netOK, q.localOK = false, false, false, false
		v.r.submit(ioID(s.owner))
	}
}

// contestTick ends a connection on which something that must have been sent does not arrive.
func (v *volume) contestTick() {
	if !v.r.twoPrimaries() {
		return
	}
	if len(v.gate) > 0 && v.r.now-v.gate[0].since > tenths(v.r.cfg.PingTimeoutTenths) {
		v.r.lose(state.NetworkFailure, NotePeerSilent)
		return
	}
	limit := v.r.cfg.koTime()
	for _, s := range v.active {
		if q := &v.r.ios.list[s.owner]; q.postponed && limit > 0 && v.r.now-q.start > limit {
			v.r.lose(state.Timeout, NotePeerStuck)
			return
		}
	}
}

// dropGate forgets the writes that waited for their turn when the connection was lost.
func (v *volume) dropGate() {
	for _, g := range v.gate {
		v.r.dropPeer(g.index)
	}
	v.gate, v.refusals, v.peerSeq = nil, nil, 0
}

// remove takes a write out of its epoch: the peer will not confirm it.
func (t *transferLog) remove(r *Resource, id ioID) {
	q := &r.ios.list[id]
	q.inEpoch = false
	q.vol.sent -= q.sectors()
	if q.epoch == t.cur.number {
		t.cur.unlink(r, id)
		return
	}
	for k := range t.closed {
		if e := &t.closed[k]; e.number == q.epoch {
			e.unlink(r, id)
			if e.count == 0 {
				t.forgetClosed(r, k)
			}
			return
		}
	}
}

// unlink takes a write out of the list.
func (e *epoch) unlink(r *Resource, id ioID) {
	list := r.ios.list
	e.count--
	e.gone++
	if e.count == 0 {
		return
	}
	if e.head == id {
		e.head = list[id].next
		return
	}
	for at := e.head; ; at = list[at].next {
		if list[at].next == id {
			list[at].next = list[id].next
			if e.tail == id {
				e.tail = at
			}
			return
		}
	}
}

// forgetClosed drops an epoch that has lost all its writes after its barrier: the peer does not
// confirm it. Flushes that wait for it wait for the one before.
func (t *transferLog) forgetClosed(r *Resource, k int) {
	number := t.closed[k].number
	t.closed = slices.Delete(t.closed, k, k+1)
	if k == 0 {
		r.flushesAfter(number)
		return
	}
	for _, id := range t.flushes {
		if q := &r.ios.list[id]; q.epoch == number {
			q.epoch = t.closed[k-1].number
		}
	}
}

// confirmed says how many epochs a barrier ack confirms, 0 if it is none of ours. A kernel
// counts the writes that it has refused, or never confirms their epoch; the next one says it
// then.
func (t *transferLog) confirmed(handle, count uint32) int {
	for k := range t.closed {
		e := &t.closed[k]
		if e.number == handle {
			if count != e.count && count != e.count+e.gone {
				return 0
			}
			return k + 1
		}
		if e.gone == 0 {
			return 0
		}
	}
	return 0
}
