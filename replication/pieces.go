package replication

import (
	"github.com/replblk/replblk/replication/wire"
)

// Before protocol version 100 requests on the wire are smaller than what an application
// may ask for. A larger one is cut into pieces, requests of their own in every respect
// but that the application hears of them together.

// pieces is an application request that was cut. Owned by Resource.
type pieces struct {
	req     ReqID
	left    int // pieces in progress
	outcome Outcome
}

// minPiece is the least that a peer must be able to take.
const minPiece = 4096

// pieceLimit is the largest request of a kind that the peer of this connection takes, or
// took on the last one: requests may start before the next.
func (r *Resource) pieceLimit(op Op) uint32 {
	switch op {
	case OpFlush:
		return ^uint32(0)
	case OpDiscard, OpZeroes:
		if r.conn.trims {
			return ^uint32(0) // the driver has seen to it
		}
	default:
	}
	return r.conn.maxRequest
}

// cut takes a request in as pieces, if it is too large.
func (r *Resource) cut(ev *Event) bool {
	limit := r.pieceLimit(ev.Op)
	if ev.Size <= limit {
		return false
	}
	part := r.parts.alloc()
	*r.parts.at(part) = pieces{req: ev.Req, left: int((ev.Size + limit - 1) / limit)}
	for from := uint32(0); from < ev.Size; from += limit {
		piece := *ev
		piece.Sector, piece.Size = ev.Sector+uint64(from)>>9, min(limit, ev.Size-from)
		r.takeIn(&piece, part, from)
	}
	return true
}

// recut cuts a read that was taken in when the peer took more.
func (r *Resource) recut(id ioID) {
	q := r.ios.list[id]
	if q.part != 0 { // cut already, for another peer than this one
		r.refuse(id, IOError)
		return
	}
	r.ios.release(id)
	r.cut(&Event{Vol: q.vol.num, Req: q.req, Op: q.op, Sector: q.sector, Size: q.size})
}

// finished answers a request, or counts a piece of one.
func (r *Resource) finished(q *ioReq, o Outcome, buf BufID) {
	if q.part == 0 {
		r.complete(q.req, o, buf)
		return
	}
	if buf != 0 {
		e := r.fx.add(FxFill)
		e.Req, e.Buf, e.From, e.Size = q.req, buf, q.from, q.size
	}
	p := r.parts.at(q.part)
	if o != OK {
		p.outcome = o
	}
	if p.left--; p.left == 0 {
		r.complete(p.req, p.outcome, 0)
		r.parts.release(q.part)
	}
}

// pieceTable holds the requests that were cut. The number of one is its index + 1.
type pieceTable struct {
	list []pieces
	free []uint32
}

func (t *pieceTable) alloc() uint32 {
	if n := len(t.free); n > 0 {
		part := t.free[n-1]
		t.free = t.free[:n-1]
		return part
	}
	t.list = append(t.list, pieces{})
	return uint32(len(t.list))
}

func (t *pieceTable) at(part uint32) *pieces { return &t.list[part-1] }

func (t *pieceTable) release(part uint32) { t.free = append(t.free, part) }

// limitRequests sets what the peer of a new connection takes.
func (c *connection) limitRequests() {
	c.maxRequest = c.session.MaxRequest()
	c.trims = c.session.Features.Has(wire.FeatureTrim)
}

// oldPeer says whether a write cannot say what acknowledgement it wants, so that the
// protocol decides.
func (c *connection) oldPeer() bool { return c.session.Version < 100 }

// awaitsBarrier says whether only the confirmation of its epoch can tell that a write,
// which must not be answered before, is on the peer's disk, or durable there: the
// peer acknowledges when it likes, or does not know FUA.
func (q *ioReq) awaitsBarrier(c *connection) bool {
	return q.awaited && c.oldPeer() && (q.proto != ProtocolC || !c.session.HasFUA() && q.durable)
}
