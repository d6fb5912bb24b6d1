package wire

import (
	"encoding/binary"

	"github.com/replblk/replblk/replication/state"
)

// Payload sizes.
const (
	StateWordSize          = 4
	SyncUUIDSize           = 8
	StateChangeRequestSize = 8
	StateChangeReplySize   = 4
)

// StateWord reports the sender's state (P_STATE).
//
//	offset  size  field
//	     0     4  state word, see state.Word
type StateWord struct {
	State state.Word
}

// AppendTo appends the encoded packet.
func (p *StateWord) AppendTo(dst []byte) []byte {
	return binary.BigEndian.AppendUint32(dst, uint32(p.State))
}

// DecodeFrom reads the packet.
func (p *StateWord) DecodeFrom(r *Reader) { p.State = state.Word(r.Uint32()) }

// SyncUUID starts a resync (P_SYNC_UUID): the target's data are of this
// generation until the resync is finished.
//
//	offset  size  field
//	     0     8  UUID
//
// A receiver whose state is not yet WFSyncUUID lets the packet, and all behind
// it, wait.
type SyncUUID struct {
	UUID uint64
}

// AppendTo appends the encoded packet.
func (p *SyncUUID) AppendTo(dst []byte) []byte { return binary.BigEndian.AppendUint64(dst, p.UUID) }

// DecodeFrom reads the packet.
func (p *SyncUUID) DecodeFrom(r *Reader) { p.UUID = r.Uint64() }

// StateChangeRequest asks the peer to agree to a change (P_STATE_CHG_REQ for a
// volume, P_CONN_ST_CHG_REQ for the connection).
//
//	offset  size  field
//	     0     4  mask   fields to change
//	     4     4  value  what they become
//
// Both words are from the requester's point of view: use state.Mirror before
// applying them. Every request is answered exactly once.
type StateChangeRequest struct {
	Mask, Value state.Word
}

// AppendTo appends the encoded packet.
func (p *StateChangeRequest) AppendTo(dst []byte) []byte {
	dst = binary.BigEndian.AppendUint32(dst, uint32(p.Mask))
	return binary.BigEndian.AppendUint32(dst, uint32(p.Value))
}

// DecodeFrom reads the packet.
func (p *StateChangeRequest) DecodeFrom(r *Reader) {
	p.Mask = state.Word(r.Uint32())
	p.Value = state.Word(r.Uint32())
}

// StateChangeReply answers a StateChangeRequest on the meta socket
// (P_STATE_CHG_REPLY, P_CONN_ST_CHG_REPLY).
//
//	offset  size  field
//	     0     4  result  signed
type StateChangeReply struct {
	Result state.Result
}

// AppendTo appends the encoded packet.
func (p *StateChangeReply) AppendTo(dst []byte) []byte {
	return binary.BigEndian.AppendUint32(dst, uint32(p.Result))
}

// DecodeFrom reads the packet.
func (p *StateChangeReply) DecodeFrom(r *Reader) { p.Result = state.Result(r.Uint32()) }
