package nbd

import (
	"encoding/binary"

	"github.com/replblk/replblk/block"
	"github.com/replblk/replblk/nbd/wire"
)

// request is a decoded request header.
type request struct {
	flags  uint16
	typ    uint16
	cookie uint64
	offset uint64
	length uint32
}

// flagsOf lists the command flags that each command takes. FUA is accepted
// everywhere, as the protocol asks of servers that advertise it.
var flagsOf = [wire.Commands]uint16{
	wire.CmdRead:        wire.CmdFlagFUA | wire.CmdFlagDF,
	wire.CmdWrite:       wire.CmdFlagFUA,
	wire.CmdFlush:       wire.CmdFlagFUA,
	wire.CmdTrim:        wire.CmdFlagFUA,
	wire.CmdCache:       wire.CmdFlagFUA,
	wire.CmdWriteZeroes: wire.CmdFlagFUA | wire.CmdFlagNoHole | wire.CmdFlagFastZero,
	wire.CmdBlockStatus: wire.CmdFlagFUA | wire.CmdFlagReqOne,
}

func (r *request) modifies() bool {
	return r.typ == wire.CmdWrite || r.typ == wire.CmdTrim || r.typ == wire.CmdWriteZeroes
}

// check validates the request and returns the error to reply with, 0 if it is good.
func (r *request) check(g block.Geometry, ses session) uint32 {
	if r.typ == wire.CmdDisc || r.typ >= wire.Commands || r.flags&^flagsOf[r.typ] != 0 {
		return wire.EINVAL
	}
	if r.flags&wire.CmdFlagDF != 0 && !ses.structured {
		return wire.EINVAL
	}
	if r.typ == wire.CmdFlush {
		if r.length != 0 || r.offset != 0 {
			return wire.EINVAL
		}
		return 0
	}
	if r.modifies() && g.ReadOnly {
		return wire.EPERM
	}
	size := uint64(block.Bytes(g.Sectors))
	if r.offset > size || uint64(r.length) > size-r.offset {
		if r.typ == wire.CmdWrite || r.typ == wire.CmdWriteZeroes {
			return wire.ENOSPC
		}
		return wire.EINVAL
	}
	return r.checkKind(ses)
}

// checkKind validates what is particular to a command.
func (r *request) checkKind(ses session) uint32 {
	odd := (r.offset|uint64(r.length))%block.SectorSize != 0
	switch r.typ {
	case wire.CmdRead:
		if r.length > maxPayload {
			return wire.EINVAL
		}
	case wire.CmdWrite:
		if r.length > maxPayload || odd {
			return wire.EINVAL
		}
	case wire.CmdWriteZeroes:
		if odd {
			return wire.EINVAL
		}
		if r.flags&wire.CmdFlagFastZero != 0 && !fastZero(ses.device, r.flags&wire.CmdFlagNoHole != 0) {
			return wire.ENOTSUP
		}
	case wire.CmdBlockStatus:
		if !ses.allocation || r.length == 0 {
			return wire.EINVAL
		}
	}
	return 0
}

// fastZero must be answered before zeroing begins: the client wants to know
// whether zeroing first and writing data later is cheaper than writing once.
func fastZero(d block.Device, noHole bool) bool {
	f, ok := d.(FastZeroer)
	return ok && f.FastZero(noHole)
}

// done says whether a valid request needs nothing of the device: empty ranges,
// CACHE, which is only a hint, and BLOCK_STATUS, which was answered already.
func (r *request) done() bool {
	switch r.typ {
	case wire.CmdFlush:
		return false
	case wire.CmdCache, wire.CmdBlockStatus:
		return true
	case wire.CmdTrim:
		first, end := r.insideSectors()
		return first >= end
	}
	return r.length == 0
}

// payload returns the number of bytes of memory that the request needs.
func (r *request) payload() int {
	switch r.typ {
	case wire.CmdRead:
		if r.length == 0 {
			return 0
		}
		first, end := r.sectors()
		return int(block.Bytes(end - first))
	case wire.CmdWrite:
		return int(r.length)
	case wire.CmdBlockStatus:
		return 4 + maxExtents*8
	}
	return 0
}

// sectors returns the sectors that the range touches.
func (r *request) sectors() (first, end uint64) {
	return r.offset >> block.SectorShift, (r.offset + uint64(r.length) + block.SectorSize - 1) >> block.SectorShift
}

// insideSectors returns the sectors that lie wholly in the range.
func (r *request) insideSectors() (first, end uint64) {
	return (r.offset + block.SectorSize - 1) >> block.SectorShift, (r.offset + uint64(r.length)) >> block.SectorShift
}

// maxExtents bounds the extents of one BLOCK_STATUS reply. Clients ask again
// for the rest.
const maxExtents = 128

// extents appends the payload of a BLOCK_STATUS reply: the context and at most
// maxExtents extents of length u32, flags u32.
func (r *request) extents(p []byte, d block.Device) []byte {
	p = binary.BigEndian.AppendUint32(p, wire.ContextAllocationID)
	a, ok := d.(Allocator)
	if !ok {
		p = binary.BigEndian.AppendUint32(p, r.length)
		return binary.BigEndian.AppendUint32(p, 0)
	}
	limit := maxExtents
	if r.flags&wire.CmdFlagReqOne != 0 {
		limit = 1
	}
	at, stop := r.offset, r.offset+uint64(r.length)
	for range limit {
		sector, end := at>>block.SectorShift, (stop+block.SectorSize-1)>>block.SectorShift
		n, zero := a.Allocation(sector, end-sector)
		next := min(stop, (sector+max(n, 1))<<block.SectorShift)
		flags := uint32(0)
		if zero {
			flags = wire.ExtentHole | wire.ExtentZero
		}
		p = binary.BigEndian.AppendUint32(p, uint32(next-at))
		p = binary.BigEndian.AppendUint32(p, flags)
		if at = next; at == stop {
			break
		}
	}
	return p
}

// set fills in the job for a request.
func (j *job) set(r request, errno uint32) {
	j.cookie, j.offset, j.length = r.cookie, r.offset, r.length
	j.typ, j.flags, j.errno = r.typ, r.flags, errno
	j.req.Err = nil
}

// prepare fills in the block request of a valid job.
func (j *job) prepare() {
	r := request{typ: j.typ, offset: j.offset, length: j.length}
	first, end := r.sectors()
	q := &j.req
	q.Flags = 0
	switch j.typ {
	case wire.CmdRead:
		q.Op = block.Read
	case wire.CmdWrite:
		q.Op = block.Write
	case wire.CmdFlush:
		q.Op, first, end = block.Flush, 0, 0
	case wire.CmdTrim:
		q.Op = block.Discard
		first, end = r.insideSectors()
	case wire.CmdWriteZeroes:
		q.Op = block.WriteZeroes
		if j.flags&wire.CmdFlagNoHole != 0 {
			q.Flags |= block.NoHole
		}
	}
	if j.flags&wire.CmdFlagFUA != 0 && q.Op.Modifies() {
		q.Flags |= block.FUA
	}
	q.Sector, q.Sectors = first, uint32(end-first)
	q.Data = nil
	if j.buf != nil {
		q.Data = j.buf.B
	}
	j.phase.Store(phaseSubmitted)
}
