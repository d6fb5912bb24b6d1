package nbd

import (
	"encoding/binary"
	"sync/atomic"

	"github.com/replblk/replblk/block"
	"github.com/replblk/replblk/internal/buffer"
	"github.com/replblk/replblk/nbd/wire"
)

// job is one request of a client, from the slot it takes to the reply that
// frees it. Jobs belong to a connection and are reused.
type job struct {
	req  block.Request
	conn *conn
	next *job // in the free list, the reader's list or the reply queue

	cookie uint64
	offset uint64
	typ    uint16
	flags  uint16
	length uint32 // as asked for
	charge int    // bytes counted against maxInflightBytes

	buf *buffer.Buffer // payload, nil without
	// phase tells who replies: see complete.
	phase atomic.Uint32

	errno uint32 // of the reply
	data  []byte // of the reply, part of buf
	head  [wire.ChunkSize + 8]byte
	nhead int
}

// Values of job.phase.
const (
	phaseSubmitted = iota // the reader is inside Submit
	phaseDone             // completed before Submit returned: the reader replies
	phaseReturned         // Submit returned: whoever completes replies
)

// complete is the Done of the request. A completion inside Submit is left to the
// reader, which collects the replies of a whole batch.
func (j *job) complete(*block.Request) {
	if j.phase.Swap(phaseDone) == phaseReturned {
		j.seal()
		j.conn.send(j, j)
	}
}

// seal turns the outcome of the request into the bytes of the reply.
func (j *job) seal() {
	if j.errno == 0 {
		j.errno = wireError(j.req.Err)
	}
	j.data = nil
	st := &j.conn.ses.export.stats
	switch {
	case j.errno != 0:
		st.errors.Add(1)
		if j.conn.ses.structured && (j.typ == wire.CmdRead || j.typ == wire.CmdBlockStatus) {
			j.sealError()
			return
		}
	case j.typ == wire.CmdRead:
		if j.buf != nil { // length 0 has none
			skip := j.offset % block.SectorSize
			j.data = j.buf.B[skip : skip+uint64(j.length)]
		}
		if j.conn.ses.structured {
			j.sealData()
			return
		}
	case j.typ == wire.CmdBlockStatus:
		j.data = j.buf.B
		j.chunk(wire.ChunkBlockStatus, uint32(len(j.data)))
		return
	}
	binary.BigEndian.PutUint32(j.head[0:], wire.MagicSimpleReply)
	binary.BigEndian.PutUint32(j.head[4:], j.errno)
	binary.BigEndian.PutUint64(j.head[8:], j.cookie)
	j.nhead = wire.SimpleReplySize
}

// chunk fills in the header of the only chunk of a structured reply.
func (j *job) chunk(typ uint16, length uint32) {
	binary.BigEndian.PutUint32(j.head[0:], wire.MagicStructuredReply)
	binary.BigEndian.PutUint16(j.head[4:], wire.ChunkDone)
	binary.BigEndian.PutUint16(j.head[6:], typ)
	binary.BigEndian.PutUint64(j.head[8:], j.cookie)
	binary.BigEndian.PutUint32(j.head[16:], length)
	j.nhead = wire.ChunkSize
}

func (j *job) sealData() {
	if len(j.data) == 0 {
		j.chunk(0, 0) // NONE
		return
	}
	j.chunk(wire.ChunkOffsetData, uint32(8+len(j.data)))
	binary.BigEndian.PutUint64(j.head[wire.ChunkSize:], j.offset)
	j.nhead += 8
}

// sealError sends the error without a message.
func (j *job) sealError() {
	j.chunk(wire.ChunkError, 6)
	binary.BigEndian.PutUint32(j.head[wire.ChunkSize:], j.errno)
	binary.BigEndian.PutUint16(j.head[wire.ChunkSize+4:], 0)
	j.nhead += 6
}

// dispose gives the payload back. The job's slot is freed separately.
func (j *job) dispose() {
	if j.buf != nil {
		buffer.Put(j.buf)
		j.buf = nil
	}
	j.data, j.req.Data = nil, nil
}
