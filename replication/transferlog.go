package replication

import (
	"github.com/replblk/replblk/replication/wire"
)

// ioID is the index of a request in the table of a resource.
type ioID uint32

const noIO = ^ioID(0)

// stage is where a request is in its life.
type stage uint8

const (
	stageFree    stage = iota
	stageHeld          // the state does not accept I/O
	stageOverlap       // waits for an overlapping write, or a resync of the range
	stageLog           // waits for the activity log
	stageActive        // submitted
	stageDone          // answered to the application; still in the transfer log
)

// ioReq is an application request from its submission until nobody may ask for
// it again: a replicated write lives until the peer has confirmed its epoch. Its
// memory (ReqID) is only valid until it is answered.
type ioReq struct {
	vol    *volume
	req    ReqID
	sector uint64
	size   uint32 // bytes
	part   uint32 // piece of a request that was cut: its number in Resource.parts
	from   uint32 // where in the request's memory it begins
	gen    uint32 // counts the uses of the slot, part of the block id on the wire
	next   ioID   // next write of the same epoch
	start  Time
	begun  uint64 // tick when its local part was submitted
	era    uint64 // of the volume when it was sent

	op     Op
	proto  Protocol // that it was sent under
	stage  stage
	fua    bool
	noHole bool

	localPending bool // the own disk has not answered yet
	localOK      bool // it has done it, and not failed since
	localSpace   bool // the local write failed for lack of space
	tried        bool // the own disk that is in service has been asked
	netPending   bool // the peer has not answered yet
	netOK        bool // it has done it, or answered the read
	awaited      bool // the peer's P_WRITE_ACK counts, whatever the protocol
	durable      bool // it must be on stable storage of the peer
	byBarrier    bool // awaited, and the barrier ack counts
	clearBits    bool // the peer says that the range is in sync now
	clearLate    bool // the same, but it said so after the write had been answered
	marked       bool // its outcome is in the bitmap
	logged       bool // holds activity log references
	inEpoch      bool // in the transfer log, waits for a barrier ack
	postponed    bool // the peer has refused it for now: to be done again
	remoteRead   bool // the peer is asked for the data
	waitEpoch    bool // a flush: waits for the epoch below
	epoch        uint32
	buf          BufID // data of a remote read
}

func (q *ioReq) sectors() uint64 { return uint64(q.size) >> 9 }
func (q *ioReq) end() uint64     { return q.sector + q.sectors() }

// ioTable holds the requests. Owned by Resource.
type ioTable struct {
	list []ioReq
	free []ioID
	late int // requests with clearLate
}

// maxIOs bounds the table: unanswered requests plus answered ones whose epoch is not
// confirmed yet.
const maxIOs = 1 << 16

func (t *ioTable) alloc() ioID {
	if n := len(t.free); n > 0 {
		id := t.free[n-1]
		t.free = t.free[:n-1]
		return id
	}
	t.list = append(t.list, ioReq{})
	return ioID(len(t.list) - 1)
}

// again gives a request that was sent a slot in which to begin anew. The old one stays in its epoch,
// and nobody waits for its answer.
func (t *ioTable) again(old ioID) ioID {
	id := t.alloc()
	o, q := &t.list[old], &t.list[id]
	*q = ioReq{gen: q.gen, vol: o.vol, req: o.req, part: o.part, from: o.from, op: o.op, sector: o.sector, size: o.size,
		fua: o.fua, noHole: o.noHole, start: o.start, next: noIO}
	o.stage = stageDone
	return id
}

// release frees a slot. The generation changes, so that a late ack for it is
// recognized as one for an unknown block.
func (t *ioTable) release(id ioID) {
	if t.list[id].clearLate {
		t.late--
	}
	t.list[id] = ioReq{gen: t.list[id].gen + 1}
	t.free = append(t.free, id)
}

// inUse returns how many slots are taken.
func (t *ioTable) inUse() int { return len(t.list) - len(t.free) }

// blockID returns what names the request on the wire.
func (t *ioTable) blockID(id ioID) uint64 { return uint64(t.list[id].gen)<<32 | uint64(id) + 1 }

// byBlockID finds the request that a peer's ack names.
func (t *ioTable) byBlockID(b uint64) (ioID, bool) {
	i := uint64(uint32(b)) - 1
	if i >= uint64(len(t.list)) {
		return noIO, false
	}
	q := &t.list[i]
	return ioID(i), q.stage != stageFree && q.gen == uint32(b>>32)
}

// epoch is a set of replicated writes between two barriers (spec 6.3). Epochs belong to
// the connection, so one may hold writes of several volumes.
type epoch struct {
	number uint32 // barrier handle
	count  uint32 // writes in it: the list from head to tail, by ioReq.next; 0: there is none
	head   ioID
	tail   ioID
	gone   uint32 // writes that the peer has refused
	closed Time   // when its barrier was sent
}

// transferLog is the replicated writes that the peer has not confirmed with a barrier
// ack, in epochs. Owned by Resource.
type transferLog struct {
	cur    epoch
	closed []epoch // barrier sent, in order
	full   bool    // close the epoch before the next write
	since  Time    // when cur got its first write
	age    Time    // at which cur is closed if nobody else closes it, minEpochAge if less

	flushes []ioID // that wait for an epoch; some may have failed meanwhile
}

// Bounds of the age at which an epoch is closed for no other reason, and of the time its
// confirmation should take.
const (
	minEpochAge  = 100 * Millisecond
	maxEpochAge  = 2 * Second
	maxEpochWait = 250 * Millisecond
)

// add appends a write that is about to be sent to the current epoch.
func (t *transferLog) add(r *Resource, id ioID) {
	if t.full {
		t.closeEpoch(r)
	}
	q := &r.ios.list[id]
	q.inEpoch, q.epoch, q.next = true, t.cur.number, noIO
	q.vol.sent += q.sectors()
	if t.cur.count == 0 {
		t.cur.head, t.since = id, r.now
	} else {
		r.ios.list[t.cur.tail].next = id
	}
	t.cur.tail = id
	t.cur.count++
	// max-epoch-size limits the writes that the peer may reorder. Under protocol C an
	// answered write is on its disk already.
	limit := r.cfg.MaxEpochSize
	if limit > 0 && r.conn.protocol != ProtocolC && t.cur.count >= uint32(limit) || r.ios.inUse() > maxIOs/2 {
		t.full = true
	}
}

// closeEpoch ends the current epoch and tells the peer.
//
// The kernel closes an epoch whenever a write completes to the application. Under
// protocol C that is not needed: a completed write is on the peer's disk, so
// nothing that follows can overtake it there, and what the epochs are for then,
// knowing which writes the peer has flushed, does not get worse if they are
// closed only when somebody wants to know: for a flush, for the activity log to
// release its extents, when the table of requests is half full, and at a certain age
// (see pace). It saves a flush of the peer's disk per write.
func (t *transferLog) closeEpoch(r *Resource) {
	t.full = false
	if t.cur.count == 0 {
		return
	}
	r.sendBarrier(t.cur.number)
	t.cur.closed = r.now
	t.closed = append(t.closed, t.cur)
	t.cur = epoch{number: t.cur.number + 1}
}

// completed notes that a write of the present epoch was answered to the
// application. Under protocols A and B the peer may not have written it yet, so
// what the application sends next must not overtake it there.
func (t *transferLog) completed(q *ioReq) {
	if q.proto != ProtocolC && q.inEpoch && q.epoch == t.cur.number {
		t.full = true
	}
}

// tick closes epochs that nobody else closes.
func (t *transferLog) tick(r *Resource) {
	if t.cur.count > 0 && r.now-t.since >= max(t.age, minEpochAge) {
		t.closeEpoch(r)
	}
}

// pace sets the age at which epochs are closed after one has been confirmed in the time
// took. What the peer writes waits for its flush behind a barrier, so flushing should
// take a small part of the time: a disk without a volatile cache confirms at once and
// is asked often, a file in the page cache seldom. But the longer an epoch, the longer
// the peer may take to flush it, and that is how long a write may have to wait.
func (t *transferLog) pace(took Time) {
	switch age := max(t.age, minEpochAge); {
	case took > maxEpochWait:
		t.age = max(age/2, minEpochAge)
	case took*20 > age:
		t.age = min(age*2, maxEpochAge)
	case took*80 < age:
		t.age = max(age/2, minEpochAge)
	}
}

// barrierAck handles P_BARRIER_ACK: the oldest epoch is on stable storage of the
// peer, as far as its write ordering method goes.
func (r *Resource) barrierAck(handle, count uint32) bool {
	n := r.tl.confirmed(handle, count)
	for range n {
		if !r.epochConfirmed() {
			return false
		}
	}
	return n > 0
}

// epochConfirmed takes the oldest epoch out; false if it cannot have been confirmed.
func (r *Resource) epochConfirmed() bool {
	t := &r.tl
	e := t.closed[0]
	for id := e.head; id != noIO; id = r.ios.list[id].next {
		if q := &r.ios.list[id]; q.netPending && (q.awaited || q.proto != ProtocolA) && !q.byBarrier {
			return false
		}
		if id == e.tail {
			break
		}
	}
	t.closed = t.closed[1:]
	t.pace(r.now - e.closed)
	r.finishEpoch(e, true)
	r.flushesAfter(e.number)
	return true
}

// finishEpoch takes the writes of an epoch out of the transfer log. Without ok the
// connection is lost and the peer may have none of them.
func (r *Resource) finishEpoch(e epoch, ok bool) {
	if e.count == 0 {
		return
	}
	for id := e.head; ; {
		q := &r.ios.list[id]
		next, last := q.next, id == e.tail
		q.inEpoch = false
		q.vol.sent -= q.sectors()
		if !ok {
			if q.clearLate {
				r.ios.late--
			}
			q.netPending, q.netOK, q.clearBits, q.clearLate = false, false, false, false
			q.marked = false
			if q.stage == stageHeld { // its outcome was recorded when it looked better; now, not when it is answered
				q.marked = true
				q.vol.markOut(q.sector, q.sectors())
			}
		} else if q.netPending { // protocol A, or byBarrier: the barrier ack is the only one
			q.netPending, q.netOK = false, true
		}
		r.netDone(id)
		if last {
			return
		}
		id = next
	}
}

// clear empties the transfer log after the connection was lost: every write that is
// not confirmed counts as not replicated.
func (t *transferLog) clear(r *Resource) {
	list := append(t.closed, t.cur)
	t.closed, t.flushes, t.cur, t.full = nil, nil, epoch{number: t.cur.number + 1}, false
	for _, e := range list {
		r.finishEpoch(e, false)
	}
	for i := range r.ios.list {
		q := &r.ios.list[i]
		if q.stage == stageActive && q.netPending {
			q.netPending, q.netOK = false, false
			r.netDone(ioID(i))
		}
	}
}

// flushesAfter completes the network part of flushes that waited for an epoch up to
// number.
func (r *Resource) flushesAfter(number uint32) {
	list := r.tl.flushes
	r.tl.flushes = nil
	for _, id := range list {
		q := &r.ios.list[id]
		switch {
		case q.stage != stageActive || !q.waitEpoch: // failed meanwhile
		case int32(number-q.epoch) < 0:
			r.tl.flushes = append(r.tl.flushes, id)
		default:
			q.waitEpoch, q.netPending, q.netOK = false, false, true
			r.advance(id)
		}
	}
}

// oldest returns when the oldest thing was sent that the peer should have answered by
// now: a write, or a barrier.
func (t *transferLog) oldest(r *Resource) (Time, bool) {
	for i := range t.closed {
		if start, ok := r.ios.unanswered(&t.closed[i]); ok {
			return start, true
		}
	}
	if len(t.closed) > 0 {
		return t.closed[0].closed, true
	}
	return r.ios.unanswered(&t.cur)
}

// unanswered returns when the first write of an epoch was sent that the peer owes an
// acknowledgement for.
func (t *ioTable) unanswered(e *epoch) (Time, bool) {
	if e.count == 0 {
		return 0, false
	}
	for id := e.head; ; id = t.list[id].next {
		if q := &t.list[id]; q.netPending && (q.awaited || q.proto != ProtocolA) {
			return q.start, true
		}
		if id == e.tail {
			return 0, false
		}
	}
}

func (r *Resource) sendBarrier(number uint32) {
	off := r.open(wire.CmdBarrier, 0, wire.BarrierSize)
	r.fx.Buf = (&wire.Barrier{Handle: number}).AppendTo(r.fx.Buf)
	r.close(DataSocket, off)
}
