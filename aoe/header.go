package aoe

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
)

// Sizes of frames in bytes, the Ethernet header included, the checksum not.
const (
	EthernetLen = 14 // destination, source, type
	HeaderLen   = 24 // Ethernet and AoE header
	MinFrame    = 60 // the shortest frame on the wire; shorter answers are padded with zeroes
)

// EtherType is the Ethernet type of AoE.
const EtherType = 0x88a2

// Version is the protocol version spoken here.
const Version = 1

// Wildcards of a request's address: each matches every target, independently.
const (
	AnyShelf = 0xffff
	AnySlot  = 0xff
)

// Flags is the low nibble of byte 14.
type Flags uint8

// Header flags.
const (
	FlagError    Flags = 1 << 2 // Header.Error holds a code; only in responses
	FlagResponse Flags = 1 << 3
)

// Command selects the argument that follows the header.
type Command uint8

// AoE commands.
const (
	CommandATA     Command = 0
	CommandConfig  Command = 1
	CommandMask    Command = 2
	CommandReserve Command = 3
)

// ErrorCode is the AoE error of a response with FlagError.
type ErrorCode uint8

// AoE error codes.
const (
	ErrCommand     ErrorCode = 1 // command byte unknown
	ErrArgument    ErrorCode = 2 // impossible argument
	ErrUnavailable ErrorCode = 3 // not sent: what is unavailable is silent
	ErrConfigSet   ErrorCode = 4 // a config string is present
	ErrVersion     ErrorCode = 5 // version nibble is not 1
	ErrReserved    ErrorCode = 6 // the target is reserved for others
)

// Errors of Header.DecodeFrom.
var (
	ErrShortFrame = errors.New("frame too short")
	ErrNotAoE     = errors.New("not an AoE frame")
)

// MAC is an Ethernet address.
type MAC [6]byte

// Broadcast is the Ethernet broadcast address.
var Broadcast = MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

// String returns the usual form with colons, in lower case.
func (m MAC) String() string {
	return fmt.Sprintf("%02x:%02x:%02x:%02x:%02x:%02x", m[0], m[1], m[2], m[3], m[4], m[5])
}

// IsGroup says whether m is a multicast or the broadcast address.
func (m MAC) IsGroup() bool { return m[0]&1 != 0 }

// ParseMAC reads an address in either case, with or without colons.
func ParseMAC(s string) (MAC, error) {
	var m MAC
	digits := s
	if strings.Contains(s, ":") {
		parts := strings.Split(s, ":")
		for i, p := range parts {
			if len(p) == 1 {
				parts[i] = "0" + p
			}
		}
		digits = strings.Join(parts, "")
		if len(parts) != len(m) {
			digits = ""
		}
	}
	b, err := hex.DecodeString(digits)
	if err != nil || len(b) != len(m) {
		return m, fmt.Errorf("invalid ethernet address %q", s)
	}
	copy(m[:], b)
	return m, nil
}

// Header is the part that all AoE frames share (spec/aoe.md 1.1).
//
//	offset  size  field
//	     0     6  Dst
//	     6     6  Src
//	    12     2  0x88a2
//	    14     1  Version in the high nibble, Flags in the low
//	    15     1  Error    meaningful with FlagError
//	    16     2  Shelf    "major", big endian; 0xffff is any, in requests
//	    18     1  Slot     "minor"; 0xff is any, in requests
//	    19     1  Command
//	    20     4  Tag      opaque to the target, echoed
//	    24        argument, by Command
type Header struct {
	Dst, Src MAC
	Version  uint8
	Flags    Flags
	Error    ErrorCode
	Command  Command
	Shelf    uint16
	Slot     uint8
	Tag      uint32
}

// DecodeFrom reads the header of frame b. It judges neither version nor address.
func (h *Header) DecodeFrom(b []byte) error {
	if len(b) < HeaderLen {
		return ErrShortFrame
	}
	if binary.BigEndian.Uint16(b[12:]) != EtherType {
		return ErrNotAoE
	}
	h.Dst = MAC(b[0:6])
	h.Src = MAC(b[6:12])
	h.Version = b[14] >> 4
	h.Flags = Flags(b[14] & 0x0f)
	h.Error = ErrorCode(b[15])
	h.Shelf = binary.BigEndian.Uint16(b[16:])
	h.Slot = b[18]
	h.Command = Command(b[19])
	h.Tag = binary.BigEndian.Uint32(b[20:])
	return nil
}

// AppendTo appends the encoded header to b.
func (h *Header) AppendTo(b []byte) []byte {
	n := len(b)
	b = append(b, make([]byte, HeaderLen)...)
	h.put(b[n:])
	return b
}

// put encodes h into the first HeaderLen bytes of b.
func (h *Header) put(b []byte) {
	copy(b[0:6], h.Dst[:])
	copy(b[6:12], h.Src[:])
	binary.BigEndian.PutUint16(b[12:], EtherType)
	b[14] = h.Version<<4 | uint8(h.Flags&0x0f)
	b[15] = uint8(h.Error)
	binary.BigEndian.PutUint16(b[16:], h.Shelf)
	b[18] = h.Slot
	b[19] = uint8(h.Command)
	binary.BigEndian.PutUint32(b[20:], h.Tag)
}

// wildcard says whether the request's address names more than one target.
func (h *Header) wildcard() bool { return h.Shelf == AnyShelf || h.Slot == AnySlot }

// matches says whether the request is for the target shelf.slot.
func (h *Header) matches(shelf uint16, slot uint8) bool {
	return (h.Shelf == shelf || h.Shelf == AnyShelf) && (h.Slot == slot || h.Slot == AnySlot)
}
