package wire

import "encoding/binary"

// Block ids with a meaning of their own.
const (
	// ResyncID is the block id of everything that belongs to a resync or verify
	// and to no request. Never use it for an application's write.
	ResyncID uint64 = 0xffffffffffffffff
	// VerifyInSync is the block id of a P_OV_RESULT for equal blocks.
	VerifyInSync uint64 = 4711
	// VerifyOutOfSync is the block id of a P_OV_RESULT for blocks that differ.
	VerifyOutOfSync uint64 = 4712
)

// Payload sizes without what may follow.
const (
	DataSize = 24
	TrimSize = 28
)

// DataFlags say how a write is to be done and acknowledged.
type DataFlags uint32

// Flags of a write (DP_*).
const (
	FlagHardBarrier    DataFlags = 1 << iota // obsolete
	FlagSync                                 // DP_RW_SYNC: somebody waits for the write; a hint
	FlagMaySetInSync                         // sender's connection state is SyncSource to PausedSyncT: an RSWriteAck may clear bits
	FlagUnplug                               // obsolete
	FlagFUA                                  // durable before it is acknowledged; since 95
	FlagFlush                                // preflush; since 95
	FlagDiscard                              // may deallocate; since 95
	FlagSendReceiveAck                       // a write of protocol B; since 100
	FlagSendWriteAck                         // a write of protocol C, or one to be acknowledged because of a resync; since 100
	FlagWriteSame                            // never used
	FlagZeroes                               // zero-out
)

// Data announces one replicated write (P_DATA), or the answer to a read
// (P_DATA_REPLY, P_RS_DATA_REPLY); the data follow it, after a digest if
// data-integrity-alg is in use in this direction.
//
//	offset  size  field
//	     0     8  sector
//	     8     8  blockID  opaque to the receiver, returned in the ack
//	    16     4  seq      orders this packet against acks on the meta socket; 0 in replies
//	    20     4  flags    DP_* bits; 0 in replies
//
// The receiver must treat BlockID as a cookie: a peer that echoes one we did
// not send has broken the protocol, and the connection is dropped rather than
// guessed at. Seq counts, per volume, these packets and BlockAcks together;
// a gap makes the kernel wait for ever.
type Data struct {
	Sector  uint64
	BlockID uint64
	Seq     uint32
	Flags   DataFlags
}

// AppendTo appends the encoded packet, without digest and data.
func (p *Data) AppendTo(dst []byte) []byte {
	dst = binary.BigEndian.AppendUint64(dst, p.Sector)
	dst = binary.BigEndian.AppendUint64(dst, p.BlockID)
	dst = binary.BigEndian.AppendUint32(dst, p.Seq)
	return binary.BigEndian.AppendUint32(dst, uint32(p.Flags))
}

// DecodeFrom reads the packet. The digest, if any, is what remains.
func (p *Data) DecodeFrom(r *Reader) {
	p.Sector = r.Uint64()
	p.BlockID = r.Uint64()
	p.Seq = r.Uint32()
	p.Flags = DataFlags(r.Uint32())
}

// Trim replicates a discard (P_TRIM) or a zero-out (P_ZEROES). It is a write in
// every respect but that neither data nor a digest follow.
//
//	offset  size  field
//	     0    24  Data   flags contain DP_DISCARD (P_TRIM), DP_ZEROES (P_ZEROES, with DP_DISCARD if unmapping is allowed)
//	    24     4  size   in bytes, a multiple of 512; see Session.MaxTrim
type Trim struct {
	Data
	Size uint32
}

// AppendTo appends the encoded packet.
func (p *Trim) AppendTo(dst []byte) []byte {
	return binary.BigEndian.AppendUint32(p.Data.AppendTo(dst), p.Size)
}

// DecodeFrom reads the packet.
func (p *Trim) DecodeFrom(r *Reader) {
	p.Data.DecodeFrom(r)
	p.Size = r.Uint32()
}
