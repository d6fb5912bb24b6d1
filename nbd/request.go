package nbd

import (
	"encoding/binary"

	"github.com/replblk/replblk/block"
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
var flagsOf = [commands]uint16{
	cmdRead:        cmdFlagFUA | cmdFlagDF,
	cmdWrite:       cmdFlagFUA,
	cmdFlush:       cmdFlagFUA,
	cmdTrim:        cmdFlagFUA,
	cmdCache:       cmdFlagFUA,
	cmdWriteZeroes: cmdFlagFUA | cmdFlagNoHole | cmdFlagFastZero,
	cmdBlockStatus: cmdFlagFUA | cmdFlagReqOne,
}

func (r *request) modifies() bool {
	return r.typ == cmdWrite || r.typ == cmdTrim || r.typ == cmdWriteZeroes
}

// check validates the request and returns the error to reply with, 0 if it is good.
func (r *request) check(g block.Geometry, ses session) uint32 {
	if r.typ == cmdDisc || r.typ >= commands || r.flags&^flagsOf[r.typ] != 0 {
		return errInvalid
	}
	if r.flags&cmdFlagDF != 0 && !ses.structured {
		return errInvalid
	}
	if r.typ == cmdFlush {
		if r.length != 0 || r.offset != 0 {
			return errInvalid
		}
		return 0
	}
	if r.modifies() && g.ReadOnly {
		return errPerm
	}
	size := uint64(block.Bytes(g.Sectors))
	if r.offset > size || uint64(r.length) > size-r.offset {
		if r.typ == cmdWrite || r.typ == cmdWriteZeroes {
			return errNoSpace
		}
		return errInvalid
	}
	return r.checkKind(ses)
}

// checkKind validates what is particular to a command.
func (r *request) checkKind(ses session) uint32 {
	odd := (r.offset|uint64(r.length))%block.SectorSize != 0
	switch r.typ {
	case cmdRead:
		if r.length > maxPayload {
			return errInvalid
		}
	case cmdWrite:
		if r.length > maxPayload || odd {
			return errInvalid
		}
	case cmdWriteZeroes:
		if odd {
			return errInvalid
		}
		if r.flags&cmdFlagFastZero != 0 && !fastZero(ses.device, r.flags&cmdFlagNoHole != 0) {
			return errNotSup
		}
	case cmdBlockStatus:
		if !ses.allocation || r.length == 0 {
			return errInvalid
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
	case cmdFlush:
		return false
	case cmdCache, cmdBlockStatus:
		return true
	case cmdTrim:
		first, end := r.insideSectors()
		return first >= end
	}
	return r.length == 0
}

// payload returns the number of bytes of memory that the request needs.
func (r *request) payload() int {
	switch r.typ {
	case cmdRead:
		if r.length == 0 {
			return 0
		}
		first, end := r.sectors()
		return int(block.Bytes(end - first))
	case cmdWrite:
		return int(r.length)
	case cmdBlockStatus:
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
	p = binary.BigEndian.AppendUint32(p, contextAllocationID)
	a, ok := d.(Allocator)
	if !ok {
		p = binary.BigEndian.AppendUint32(p, r.length)
		return binary.BigEndian.AppendUint32(p, 0)
	}
	limit := maxExtents
	if r.flags&cmdFlagReqOne != 0 {
		limit = 1
	}
	at, stop := r.offset, r.offset+uint64(r.length)
	for range limit {
		sector, end := at>>block.SectorShift, (stop+block.SectorSize-1)>>block.SectorShift
		n, zero := a.Allocation(sector, end-sector)
		next := min(stop, (sector+max(n, 1))<<block.SectorShift)
		flags := uint32(0)
		if zero {
			flags = extentHole | extentZero
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
	case cmdRead:
		q.Op = block.Read
	case cmdWrite:
		q.Op = block.Write
	case cmdFlush:
		q.Op, first, end = block.Flush, 0, 0
	case cmdTrim:
		q.Op = block.Discard
		first, end = r.insideSectors()
	case cmdWriteZeroes:
		q.Op = block.WriteZeroes
		if j.flags&cmdFlagNoHole != 0 {
			q.Flags |= block.NoHole
		}
	}
	if j.flags&cmdFlagFUA != 0 && q.Op.Modifies() {
		q.Flags |= block.FUA
	}
	q.Sector, q.Sectors = first, uint32(end-first)
	q.Data = nil
	if j.buf != nil {
		q.Data = j.buf.B
	}
	j.phase.Store(phaseSubmitted)
}
