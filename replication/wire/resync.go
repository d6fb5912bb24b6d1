package wire

import "encoding/binary"

// Payload sizes without what may follow.
const (
	BlockRequestSize = 24
	BlockDescSize    = 16
)

// BlockRequest asks for a block or for its digest to be compared:
// P_DATA_REQUEST, P_RS_DATA_REQUEST, P_RS_THIN_REQ, P_OV_REQUEST, and, followed
// by the sender's digest of the block, P_OV_REPLY and P_CSUM_RS_REQUEST.
//
//	offset  size  field
//	     0     8  sector
//	     8     8  blockID  ResyncID but in P_DATA_REQUEST
//	    16     4  size     in bytes
//	    20     4  pad      a kernel leaves stale bytes here
//
// A request is answered as one: never split or merge ranges.
type BlockRequest struct {
	Sector  uint64
	BlockID uint64
	Size    uint32
}

// AppendTo appends the encoded packet, without digest.
func (p *BlockRequest) AppendTo(dst []byte) []byte {
	dst = binary.BigEndian.AppendUint64(dst, p.Sector)
	dst = binary.BigEndian.AppendUint64(dst, p.BlockID)
	dst = binary.BigEndian.AppendUint32(dst, p.Size)
	return binary.BigEndian.AppendUint32(dst, 0)
}

// DecodeFrom reads the packet. The digest, if any, is what remains.
func (p *BlockRequest) DecodeFrom(r *Reader) {
	p.Sector = r.Uint64()
	p.BlockID = r.Uint64()
	p.Size = r.Uint32()
	r.Skip(4)
}

// BlockDesc names a range: one that the sender wrote but did not replicate
// (P_OUT_OF_SYNC), or one that holds no data (P_RS_DEALLOCATED, the answer to
// P_RS_THIN_REQ).
//
//	offset  size  field
//	     0     8  sector
//	     8     4  size    in bytes
//	    12     4  pad     may be garbage
type BlockDesc struct {
	Sector uint64
	Size   uint32
}

// AppendTo appends the encoded packet.
func (p *BlockDesc) AppendTo(dst []byte) []byte {
	dst = binary.BigEndian.AppendUint64(dst, p.Sector)
	dst = binary.BigEndian.AppendUint32(dst, p.Size)
	return binary.BigEndian.AppendUint32(dst, 0)
}

// DecodeFrom reads the packet.
func (p *BlockDesc) DecodeFrom(r *Reader) {
	p.Sector = r.Uint64()
	p.Size = r.Uint32()
	r.Skip(4)
}
