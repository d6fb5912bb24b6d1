package wire

import (
	"encoding/binary"
	"strconv"
)

// Protocol versions at which the format changed, and the range that replblk
// and the kernel module 8.4.11 have in common.
const (
	VersionMin = 86
	VersionMax = 101

	// VersionInitial is what to pass before a version has been agreed upon: the
	// first packets always have header 80.
	VersionInitial = 80

	versionIntegrity  = 87 // P_PROTOCOL names data-integrity-alg
	versionVerify     = 88 // P_SYNC_PARAM names verify-alg
	versionSyncParam  = 89 // P_SYNC_PARAM89, checksum based resync
	versionCompressed = 90 // P_COMPRESSED_BITMAP
	versionBigPackets = 95 // header 95, resync controller parameters
	versionAhead      = 96 // P_OUT_OF_SYNC, P_RS_CANCEL
	versionVerifyStop = 97 // an online verify may end before the end of the device; not in 100
	versionVolumes    = 100
)

// Format is the layout of a packet header (spec 3.3).
type Format uint8

// Header formats, each named after the version that brought it.
const (
	Header80 Format = iota + 1
	Header95
	Header100
)

const (
	magic80  = 0x83740267
	magic95  = 0x835a
	magic100 = 0x8620ec20

	size80  = 8
	size100 = 16

	// maxLength80 is what the kernel puts under header 80 if it could also use
	// header 95, although the field could hold twice as much.
	maxLength80 = 32768

	// MaxHeaderSize is the size of the largest header.
	MaxHeaderSize = size100
)

// Header precedes every packet. Its three formats:
//
//	header 80             header 95             header 100
//	offset size field     offset size field     offset size field
//	     0    4 magic          0    2 magic          0    4 magic
//	     4    2 command        2    2 command        4    2 volume
//	     6    2 length         4    4 length         6    2 command
//	                                                 8    4 length
//	                                                12    4 zero
//
// Length counts the payload only. The next header follows the payload
// immediately.
type Header struct {
	Command Command
	Volume  uint16 // 0 for packets of the connection, and before version 100
	Length  uint32
}

// FormatFor returns the format that a sender uses for a payload of the given
// length. It depends on the length only in versions 95 to 99.
func FormatFor(version int, length uint32) Format {
	switch {
	case version >= versionVolumes:
		return Header100
	case version >= versionBigPackets && length > maxLength80:
		return Header95
	default:
		return Header80
	}
}

// HeaderSize returns how many bytes every header has in a version.
func HeaderSize(version int) int {
	if version >= versionVolumes {
		return size100
	}
	return size80
}

// AppendHeader appends a header. The caller sees to it that length and volume
// fit the format, as FormatFor does.
func AppendHeader(dst []byte, format Format, volume uint16, cmd Command, length uint32) []byte {
	switch format {
	case Header100:
		dst = binary.BigEndian.AppendUint32(dst, magic100)
		dst = binary.BigEndian.AppendUint16(dst, volume)
		dst = binary.BigEndian.AppendUint16(dst, uint16(cmd))
		dst = binary.BigEndian.AppendUint32(dst, length)
		return binary.BigEndian.AppendUint32(dst, 0)
	case Header95:
		dst = binary.BigEndian.AppendUint16(dst, magic95)
		dst = binary.BigEndian.AppendUint16(dst, uint16(cmd))
		return binary.BigEndian.AppendUint32(dst, length)
	default:
		dst = binary.BigEndian.AppendUint32(dst, magic80)
		dst = binary.BigEndian.AppendUint16(dst, uint16(cmd))
		return binary.BigEndian.AppendUint16(dst, uint16(length))
	}
}

// AppendTo appends h in the format that a sender uses in a version.
func (h Header) AppendTo(dst []byte, version int) []byte {
	return AppendHeader(dst, FormatFor(version, h.Length), h.Volume, h.Command, h.Length)
}

// VersionOf returns a version with whose headers the stream b goes on: 100, or VersionInitial for the
// older formats and for less than four bytes.
func VersionOf(b []byte) int {
	if len(b) >= 4 && binary.BigEndian.Uint32(b) == magic100 {
		return versionVolumes
	}
	return VersionInitial
}

// ParseHeader decodes the header at the start of buf and returns its size.
// Below version 100 the formats 80 and 95 may alternate freely. The length is
// what the peer says: see Session.Check before believing it.
func ParseHeader(buf []byte, version int) (Header, int, error) {
	size := HeaderSize(version)
	if len(buf) < size {
		return Header{}, 0, &PacketError{Header: true, Offset: len(buf), Size: len(buf), Want: strconv.Itoa(size) + " of them"}
	}
	if version >= versionVolumes {
		return parseHeader100(buf)
	}
	if binary.BigEndian.Uint16(buf) == magic95 {
		return Header{Command: Command(binary.BigEndian.Uint16(buf[2:])), Length: binary.BigEndian.Uint32(buf[4:])}, size, nil
	}
	if binary.BigEndian.Uint32(buf) != magic80 {
		return Header{}, 0, headerError(buf[:size], 0, "magic of header 80 or 95")
	}
	return Header{Command: Command(binary.BigEndian.Uint16(buf[4:])), Length: uint32(binary.BigEndian.Uint16(buf[6:]))}, size, nil
}

func parseHeader100(buf []byte) (Header, int, error) {
	if binary.BigEndian.Uint32(buf) != magic100 {
		return Header{}, 0, headerError(buf[:size100], 0, "magic of header 100")
	}
	h := Header{
		Volume:  binary.BigEndian.Uint16(buf[4:]),
		Command: Command(binary.BigEndian.Uint16(buf[6:])),
		Length:  binary.BigEndian.Uint32(buf[8:]),
	}
	if binary.BigEndian.Uint32(buf[12:]) != 0 {
		// Not ours to be generous: the kernel drops the connection as well.
		return Header{}, 0, headerError(buf[:size100], 12, "zero padding")
	}
	return h, size100, nil
}
