package activitylog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

// Format constants of a transaction block.
const (
	BlockSize   = 4096
	Magic       = 0x69cb65a2
	MaxUpdates  = 64    // slot changes in one transaction
	ContextSize = 919   // slots whose contents one transaction repeats
	MaxSlots    = 65534 // slot numbers are 16 bits wide, two are reserved

	typeUpdate      = 0
	typeInitialized = 0xffff
	unusedSlot      = 0xffff

	offUpdateSlots   = 36
	offUpdateExtents = 164
	offContext       = 420
)

// Reasons why a block is not a transaction. To a reader of the ring they are the
// same: the block is not there.
var (
	ErrMagic    = errors.New("activity log block has another magic")
	ErrChecksum = errors.New("activity log block has a wrong checksum")
	ErrType     = errors.New("activity log block has an unknown type")
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Transaction is one 4 KiB block of the activity log ring.
//
//	offset  size  field
//	     0     4  magic          0x69cb65a2
//	     4     4  number         sequence, finds the newest block in the ring
//	     8     4  crc32c         of the block with this field zero
//	    12     2  type           0 update, 0xffff initialized
//	    14     2  updates        n, at most 64
//	    16     2  slots          number of slots, "al-extents"
//	    18     2  contextStart   first slot of the context below
//	    20    16  reserved       0
//	    36   128  updateSlot     64 slot numbers, unused 0xffff
//	   164   256  updateExtent   64 extent numbers, unused 0xffffffff
//	   420  3676  context        919 extents of slots contextStart and following
//
// The context repeats what was committed *before* this transaction: a slot that
// it changes is in the context with its old extent and in the updates with the
// new one. A reader applies the context first, then the updates.
//
// The checksum is CRC-32C with initial value 0 and without a final inversion.
type Transaction struct {
	Number       uint32
	Initialized  bool // an empty block, as written when the ring is made
	Slots        uint16
	ContextStart uint16
	NumUpdates   uint16
	UpdateSlot   [MaxUpdates]uint16
	UpdateExtent [MaxUpdates]Extent
	Context      [ContextSize]Extent
}

// AppendTo appends the 4096 bytes of the block to b.
func (t *Transaction) AppendTo(b []byte) []byte {
	if t.Initialized {
		return AppendInitialized(b)
	}
	start := len(b)
	be := binary.BigEndian
	b = be.AppendUint32(b, Magic)
	b = be.AppendUint32(b, t.Number)
	b = be.AppendUint32(b, 0)
	b = be.AppendUint16(b, typeUpdate)
	b = be.AppendUint16(b, t.NumUpdates)
	b = be.AppendUint16(b, t.Slots)
	b = be.AppendUint16(b, t.ContextStart)
	b = append(b, make([]byte, 16)...)
	for _, s := range t.UpdateSlot {
		b = be.AppendUint16(b, s)
	}
	for _, e := range t.UpdateExtent {
		b = be.AppendUint32(b, e)
	}
	for _, e := range t.Context {
		b = be.AppendUint32(b, e)
	}
	be.PutUint32(b[start+8:], checksum(b[start:]))
	return b
}

// AppendInitialized appends a block of an empty ring.
func AppendInitialized(b []byte) []byte {
	start := len(b)
	var zero [BlockSize]byte
	b = append(b, zero[:]...)
	blk := b[start:]
	binary.BigEndian.PutUint32(blk, Magic)
	binary.BigEndian.PutUint16(blk[12:], typeInitialized)
	binary.BigEndian.PutUint32(blk[8:], checksum(blk))
	return b
}

// Decode reads a block of 4096 bytes. A block that does not carry the magic or
// whose checksum is wrong was never written or only in part; both are normal.
func (t *Transaction) Decode(b []byte) error {
	if len(b) != BlockSize {
		return fmt.Errorf("activity log block has %d bytes, want %d", len(b), BlockSize)
	}
	be := binary.BigEndian
	if be.Uint32(b) != Magic {
		return ErrMagic
	}
	if be.Uint32(b[8:]) != checksum(b) {
		return ErrChecksum
	}
	typ := be.Uint16(b[12:])
	if typ != typeUpdate && typ != typeInitialized {
		return ErrType
	}
	t.Number = be.Uint32(b[4:])
	t.Initialized = typ == typeInitialized
	t.NumUpdates = be.Uint16(b[14:])
	t.Slots = be.Uint16(b[16:])
	t.ContextStart = be.Uint16(b[18:])
	for i := range t.UpdateSlot {
		t.UpdateSlot[i] = be.Uint16(b[offUpdateSlots+2*i:])
	}
	for i := range t.UpdateExtent {
		t.UpdateExtent[i] = be.Uint32(b[offUpdateExtents+4*i:])
	}
	for i := range t.Context {
		t.Context[i] = be.Uint32(b[offContext+4*i:])
	}
	return nil
}

// checksum computes the checksum of a block as if its checksum field were zero.
func checksum(b []byte) uint32 {
	var zero [4]byte
	c := crc32.Update(^uint32(0), castagnoli, b[:8])
	c = crc32.Update(c, castagnoli, zero[:])
	return ^crc32.Update(c, castagnoli, b[12:BlockSize])
}

// reset makes t an update that changes nothing.
func (t *Transaction) reset() {
	*t = Transaction{}
	for i := range t.UpdateSlot {
		t.UpdateSlot[i] = unusedSlot
		t.UpdateExtent[i] = Free
	}
	for i := range t.Context {
		t.Context[i] = Free
	}
}
