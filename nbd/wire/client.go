package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// maxOptionReply bounds what a server may say of an export, in bytes.
const maxOptionReply = 64 << 10

// Export is what a server says of an export.
type Export struct {
	Size      uint64 // bytes
	Flags     uint16 // FlagReadOnly and the like
	Minimum   uint32 // block size in bytes, 0: the server has not said
	Preferred uint32 // block size in bytes, 0: the server has not said
}

// Negotiate is a client's side of the handshake: greeting, flags, NBD_OPT_GO for the export of this
// name. Requests may follow. The name has at most 4096 bytes.
func Negotiate(c io.ReadWriter, name string) (e Export, err error) {
	var hello [18]byte
	if _, err := io.ReadFull(c, hello[:]); err != nil {
		return e, fmt.Errorf("greeting: %w", err)
	}
	if binary.BigEndian.Uint64(hello[:]) != MagicServer || binary.BigEndian.Uint64(hello[8:]) != MagicOption || hello[17]&1 == 0 {
		return e, fmt.Errorf("greeting %x is not that of a fixed newstyle server", hello)
	}
	msg := binary.BigEndian.AppendUint32(nil, (HandshakeFixed|HandshakeNoZeroes)&uint32(hello[17]))
	msg = binary.BigEndian.AppendUint64(msg, MagicOption)
	msg = binary.BigEndian.AppendUint32(msg, OptGo)
	msg = binary.BigEndian.AppendUint32(msg, uint32(4+len(name)+2+2))
	msg = binary.BigEndian.AppendUint32(msg, uint32(len(name)))
	msg = append(msg, name...)
	msg = binary.BigEndian.AppendUint16(msg, 1) // one wish for information
	msg = binary.BigEndian.AppendUint16(msg, InfoBlockSize)
	if _, err := c.Write(msg); err != nil {
		return e, err
	}
	for known := false; ; {
		typ, data, err := optionReply(c)
		switch {
		case err != nil:
			return e, err
		case typ == RepErrTLSReqd:
			return e, errors.New("the server requires TLS")
		case typ >= RepError:
			return e, fmt.Errorf("export %q refused (%#x): %s", name, typ, data)
		case typ == RepAck && !known:
			return e, errors.New("the server does not say how large the export is")
		case typ == RepAck:
			return e, nil
		case typ == RepInfo:
			known = e.learn(data) || known
		}
	}
}

// learn takes in one piece of information. It says whether that was the size.
func (e *Export) learn(p []byte) bool {
	switch {
	case len(p) == 12 && binary.BigEndian.Uint16(p) == InfoExport:
		e.Size, e.Flags = binary.BigEndian.Uint64(p[2:]), binary.BigEndian.Uint16(p[10:])
		return true
	case len(p) == 14 && binary.BigEndian.Uint16(p) == InfoBlockSize:
		e.Minimum, e.Preferred = binary.BigEndian.Uint32(p[2:]), binary.BigEndian.Uint32(p[6:])
	}
	return false
}

func optionReply(c io.Reader) (typ uint32, data []byte, err error) {
	var head [20]byte
	if _, err := io.ReadFull(c, head[:]); err != nil {
		return 0, nil, err
	}
	n := binary.BigEndian.Uint32(head[16:])
	if binary.BigEndian.Uint64(head[:]) != MagicOptionReply || binary.BigEndian.Uint32(head[8:]) != OptGo || n > maxOptionReply {
		return 0, nil, fmt.Errorf("option reply %x", head)
	}
	data = make([]byte, n)
	_, err = io.ReadFull(c, data)
	return binary.BigEndian.Uint32(head[12:]), data, err
}

// Request is the header of a request.
type Request struct {
	Flags, Type uint16
	Cookie      uint64 // comes back with the reply
	Offset      uint64 // bytes
	Length      uint32 // bytes
}

// Put encodes r into the first RequestSize bytes of b.
func (r Request) Put(b []byte) {
	_ = b[RequestSize-1]
	binary.BigEndian.PutUint32(b, MagicRequest)
	binary.BigEndian.PutUint16(b[4:], r.Flags)
	binary.BigEndian.PutUint16(b[6:], r.Type)
	binary.BigEndian.PutUint64(b[8:], r.Cookie)
	binary.BigEndian.PutUint64(b[16:], r.Offset)
	binary.BigEndian.PutUint32(b[24:], r.Length)
}
