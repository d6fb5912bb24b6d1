package wire

import "encoding/binary"

// SizesFlags modify how the receiver treats a change of size.
type SizesFlags uint16

// Flags of P_SIZES.
const (
	SizesForced   SizesFlags = 1 << iota // grow although the peer is not there
	SizesNoResync                        // new space counts as equal
)

// Payload sizes of a Sizes.
const (
	SizesSize      = 32
	SizesLimitSize = 56 // with FeatureWriteSame
)

// Sizes tells how large the sender's copy is and could be (P_SIZES).
//
//	offset  size  field
//	     0     8  backing      sectors that the backing device has room for, 0 if diskless
//	     8     8  user         sectors asked for by the configuration, 0 for as many as possible
//	    16     8  current      sectors of the replicated device; 0 asks for an answer
//	    24     4  maxBioSize   bytes; to be ignored since version 100, accept Session.MaxRequest
//	    28     2  queueOrder   0
//	    30     2  flags
//	    32    24  queue limits, with FeatureWriteSame
type Sizes struct {
	Backing    uint64
	User       uint64
	Current    uint64
	MaxBioSize uint32
	QueueOrder uint16
	Flags      SizesFlags
	Queue      QueueLimits
}

// QueueLimits describes the sender's device beneath. The kernel wants it there
// but evaluates none of it.
//
//	offset  size  field
//	     0     4  physical block size
//	     4     4  logical block size
//	     8     4  alignment offset
//	    12     4  smallest efficient I/O
//	    16     4  best size of I/O
//	    20     1  discard possible
//	    21     1  discarded blocks read as zeroes
//	    22     1  write same possible: 0, for the other side would send P_WSAME
//	    23     1  pad
type QueueLimits struct {
	PhysicalBlock   uint32
	LogicalBlock    uint32
	AlignmentOffset uint32
	IOMin           uint32
	IOOpt           uint32
	Discard         bool
	DiscardZeroes   bool
	WriteSame       bool
}

// AppendTo appends the encoded packet.
func (p *Sizes) AppendTo(dst []byte, s Session) []byte {
	dst = binary.BigEndian.AppendUint64(dst, p.Backing)
	dst = binary.BigEndian.AppendUint64(dst, p.User)
	dst = binary.BigEndian.AppendUint64(dst, p.Current)
	dst = binary.BigEndian.AppendUint32(dst, p.MaxBioSize)
	dst = binary.BigEndian.AppendUint16(dst, p.QueueOrder)
	dst = binary.BigEndian.AppendUint16(dst, uint16(p.Flags))
	if !s.Features.Has(FeatureWriteSame) {
		return dst
	}
	return p.Queue.appendTo(dst)
}

func (q *QueueLimits) appendTo(dst []byte) []byte {
	dst = binary.BigEndian.AppendUint32(dst, q.PhysicalBlock)
	dst = binary.BigEndian.AppendUint32(dst, q.LogicalBlock)
	dst = binary.BigEndian.AppendUint32(dst, q.AlignmentOffset)
	dst = binary.BigEndian.AppendUint32(dst, q.IOMin)
	dst = binary.BigEndian.AppendUint32(dst, q.IOOpt)
	return append(dst, flag8(q.Discard), flag8(q.DiscardZeroes), flag8(q.WriteSame), 0)
}

// DecodeFrom reads the packet. Queue becomes zero if the session does not have
// it.
func (p *Sizes) DecodeFrom(r *Reader, s Session) {
	p.Backing = r.Uint64()
	p.User = r.Uint64()
	p.Current = r.Uint64()
	p.MaxBioSize = r.Uint32()
	p.QueueOrder = r.Uint16()
	p.Flags = SizesFlags(r.Uint16())
	p.Queue = QueueLimits{}
	if s.Features.Has(FeatureWriteSame) {
		p.Queue.decodeFrom(r)
	}
}

func (q *QueueLimits) decodeFrom(r *Reader) {
	q.PhysicalBlock = r.Uint32()
	q.LogicalBlock = r.Uint32()
	q.AlignmentOffset = r.Uint32()
	q.IOMin = r.Uint32()
	q.IOOpt = r.Uint32()
	q.Discard = r.Uint8() != 0
	q.DiscardZeroes = r.Uint8() != 0
	q.WriteSame = r.Uint8() != 0
	r.Skip(1)
}
