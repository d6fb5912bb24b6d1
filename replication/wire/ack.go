package wire

import "encoding/binary"

// Payload sizes.
const (
	BlockAckSize   = 24
	BarrierSize    = 8
	BarrierAckSize = 8
)

// BlockAck reports what became of one block: P_RECV_ACK, P_WRITE_ACK,
// P_RS_WRITE_ACK, P_SUPERSEDED, P_RETRY_WRITE, the negative answers P_NEG_ACK,
// P_NEG_DREPLY and P_NEG_RS_DREPLY, and P_OV_RESULT, P_RS_IS_IN_SYNC,
// P_RS_CANCEL.
//
//	offset  size  field
//	     0     8  sector
//	     8     8  blockID  of the packet answered; or ResyncID, VerifyInSync, VerifyOutOfSync
//	    16     4  size     in bytes
//	    20     4  seq      from the same counter as Data.Seq
//
// In P_RS_IS_IN_SYNC, and in P_NEG_RS_DREPLY to a checksum request, BlockID is
// garbage: match by sector and size.
type BlockAck struct {
	Sector  uint64
	BlockID uint64
	Size    uint32
	Seq     uint32
}

// AppendTo appends the encoded packet.
func (p *BlockAck) AppendTo(dst []byte) []byte {
	dst = binary.BigEndian.AppendUint64(dst, p.Sector)
	dst = binary.BigEndian.AppendUint64(dst, p.BlockID)
	dst = binary.BigEndian.AppendUint32(dst, p.Size)
	return binary.BigEndian.AppendUint32(dst, p.Seq)
}

// DecodeFrom reads the packet.
func (p *BlockAck) DecodeFrom(r *Reader) {
	p.Sector = r.Uint64()
	p.BlockID = r.Uint64()
	p.Size = r.Uint32()
	p.Seq = r.Uint32()
}

// Barrier closes an epoch (P_BARRIER): writes after it must not become durable
// before those ahead of it.
//
//	offset  size  field
//	     0     4  handle  opaque, returned in the ack
//	     4     4  pad
type Barrier struct {
	Handle uint32
}

// AppendTo appends the encoded packet.
func (p *Barrier) AppendTo(dst []byte) []byte {
	dst = binary.BigEndian.AppendUint32(dst, p.Handle)
	return binary.BigEndian.AppendUint32(dst, 0)
}

// DecodeFrom reads the packet.
func (p *Barrier) DecodeFrom(r *Reader) {
	p.Handle = r.Uint32()
	r.Skip(4)
}

// BarrierAck says that all writes of an epoch are stable (P_BARRIER_ACK). All
// acks of the epoch's writes go out before it.
//
//	offset  size  field
//	     0     4  handle  of the Barrier, bit for bit
//	     4     4  count   writes in the epoch, over all volumes
//
// The count lets the sender of the writes find out that the peers disagree
// about an epoch, and drop the connection.
type BarrierAck struct {
	Handle uint32
	Count  uint32
}

// AppendTo appends the encoded packet.
func (p *BarrierAck) AppendTo(dst []byte) []byte {
	dst = binary.BigEndian.AppendUint32(dst, p.Handle)
	return binary.BigEndian.AppendUint32(dst, p.Count)
}

// DecodeFrom reads the packet.
func (p *BarrierAck) DecodeFrom(r *Reader) {
	p.Handle = r.Uint32()
	p.Count = r.Uint32()
}
