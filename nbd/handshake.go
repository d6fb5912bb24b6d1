package nbd

import (
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"

	"github.com/replblk/replblk/block"
	"github.com/replblk/replblk/nbd/wire"
)

// session is what negotiation agrees on.
type session struct {
	export     *export
	device     block.Device // opened; to be released
	structured bool
	allocation bool // base:allocation was negotiated for export
	noZeroes   bool

	metaExport string // the name that SET_META_CONTEXT was sent for
	metaSet    bool
}

// errAborted ends a connection whose client left during negotiation.
var errAborted = errors.New("client left during negotiation")

// handshaker negotiates on one connection.
type handshaker struct {
	s    *Server
	sock net.Conn  // what was accepted
	tls  *tls.Conn // over sock; nil until STARTTLS
	rd   *reader   // of tls, or of sock
	w    io.Writer // the same
	out  []byte    // replies to the current option
	ses  session
}

// run negotiates until the client has chosen an export. On success the device
// of the session is open.
func (h *handshaker) run() error {
	hello := binary.BigEndian.AppendUint64(nil, wire.MagicServer)
	hello = binary.BigEndian.AppendUint64(hello, wire.MagicOption)
	hello = binary.BigEndian.AppendUint16(hello, wire.HandshakeFixed|wire.HandshakeNoZeroes)
	if _, err := h.w.Write(hello); err != nil {
		return err
	}
	p, err := h.rd.next(4)
	if err != nil {
		return errAborted
	}
	flags := binary.BigEndian.Uint32(p)
	if flags&^(wire.HandshakeFixed|wire.HandshakeNoZeroes) != 0 {
		return &ProtocolError{"client flags", uint64(flags)}
	}
	h.ses.noZeroes = flags&wire.HandshakeNoZeroes != 0
	for {
		done, err := h.option()
		if werr := h.flush(); err == nil {
			err = werr
		}
		if done || err != nil {
			if err != nil && h.ses.device != nil {
				h.ses.export.release(h.ses.device)
			}
			return err
		}
	}
}

// flush sends the replies collected in out, in one segment.
func (h *handshaker) flush() error {
	if len(h.out) == 0 {
		return nil
	}
	_, err := h.w.Write(h.out)
	h.out = h.out[:0]
	return err
}

// option reads one option and answers it. done says that transmission begins.
func (h *handshaker) option() (done bool, err error) {
	p, err := h.rd.next(wire.OptionSize)
	if err != nil {
		return false, errAborted
	}
	if m := binary.BigEndian.Uint64(p); m != wire.MagicOption {
		return false, &ProtocolError{"option magic", m}
	}
	opt, size := binary.BigEndian.Uint32(p[8:]), binary.BigEndian.Uint32(p[12:])
	if size > maxOptionSkip {
		return false, &ProtocolError{"option length", uint64(size)}
	}
	if size > maxOption {
		h.fail(opt, wire.RepErrTooBig, "option is too long")
		return false, h.rd.skip(int64(size))
	}
	data, err := h.rd.next(int(size))
	if err != nil {
		return false, errAborted
	}
	return h.dispatch(opt, data)
}

func (h *handshaker) dispatch(opt uint32, data []byte) (done bool, err error) {
	if h.needsTLS(opt) {
		if opt == wire.OptExportName {
			return false, errNeedsTLS
		}
		h.fail(opt, wire.RepErrTLSReqd, errNeedsTLS.Error())
		return false, nil
	}
	switch opt {
	case wire.OptExportName:
		return true, h.exportName(string(data))
	case wire.OptAbort:
		h.reply(opt, wire.RepAck, nil)
		return false, errors.Join(h.flush(), errAborted)
	case wire.OptList:
		h.list(opt, data)
	case wire.OptInfo, wire.OptGo:
		return h.info(opt, data), nil
	case wire.OptStructuredReply:
		if len(data) > 0 {
			h.fail(opt, wire.RepErrInvalid, "structured reply takes no data")
			break
		}
		h.ses.structured = true
		h.reply(opt, wire.RepAck, nil)
	case wire.OptListMetaContext, wire.OptSetMetaContext:
		h.metaContext(opt, data)
	case wire.OptStartTLS:
		return false, h.startTLS(data)
	default:
		h.fail(opt, wire.RepErrUnsup, "option is not known")
	}
	return false, nil
}

// reply appends an option reply.
func (h *handshaker) reply(opt, typ uint32, data []byte) {
	h.out = binary.BigEndian.AppendUint64(h.out, wire.MagicOptionReply)
	h.out = binary.BigEndian.AppendUint32(h.out, opt)
	h.out = binary.BigEndian.AppendUint32(h.out, typ)
	h.out = binary.BigEndian.AppendUint32(h.out, uint32(len(data)))
	h.out = append(h.out, data...)
}

func (h *handshaker) fail(opt, typ uint32, text string) {
	h.reply(opt, typ, []byte(text[:min(len(text), maxName)]))
}

// exportName is the old way to choose: it has no error reply, only an answer or
// the end of the connection.
func (h *handshaker) exportName(name string) error {
	d, x, err := h.open(name)
	if err != nil {
		return err
	}
	h.choose(name, x, d)
	h.out = binary.BigEndian.AppendUint64(h.out, uint64(block.Bytes(d.Geometry().Sectors)))
	h.out = binary.BigEndian.AppendUint16(h.out, x.transmissionFlags(d, h.ses.structured))
	if !h.ses.noZeroes {
		h.out = append(h.out, make([]byte, 124)...)
	}
	return nil
}

// open opens an export for the client, if it may use it.
func (h *handshaker) open(name string) (block.Device, *export, error) {
	x, err := h.find(name)
	if err != nil {
		return nil, nil, err
	}
	d, err := x.open()
	return d, x, err
}

// find returns the export of that name, if the client may speak of it.
func (h *handshaker) find(name string) (*export, error) {
	x, err := h.s.find(name)
	if err == nil && x.RequireTLS && h.tls == nil {
		err = errNeedsTLS
	}
	return x, err
}

// choose records the export that the session is about.
func (h *handshaker) choose(name string, x *export, d block.Device) {
	h.ses.export, h.ses.device = x, d
	h.ses.allocation = h.ses.metaSet && h.ses.metaExport == name
}

func (h *handshaker) list(opt uint32, data []byte) {
	if len(data) > 0 {
		h.fail(opt, wire.RepErrInvalid, "list takes no data")
		return
	}
	for _, x := range h.s.sorted() {
		if x.RequireTLS && h.tls == nil {
			continue
		}
		p := binary.BigEndian.AppendUint32(nil, uint32(len(x.Name)))
		p = append(p, x.Name...)
		h.reply(opt, wire.RepServer, append(p, x.Description...))
	}
	h.reply(opt, wire.RepAck, nil)
}

// info answers INFO and GO, which differ only in what follows an ACK.
//
//	0 name length u32 | 4 name | n u16 number of requests | n × u16 information type
func (h *handshaker) info(opt uint32, data []byte) (done bool) {
	name, rest, ok := cutString(data)
	if !ok || len(rest) < 2 || len(rest) != 2+2*int(binary.BigEndian.Uint16(rest)) {
		h.fail(opt, wire.RepErrInvalid, "lengths do not add up")
		return false
	}
	d, x, err := h.open(name)
	if err != nil {
		typ, text := refusal(err)
		h.fail(opt, typ, text)
		return false
	}
	h.describe(opt, x, d)
	for rest = rest[2:]; len(rest) > 0; rest = rest[2:] {
		switch binary.BigEndian.Uint16(rest) {
		case wire.InfoName:
			h.reply(opt, wire.RepInfo, append([]byte{0, wire.InfoName}, x.Name...))
		case wire.InfoDescription:
			if x.Description != "" {
				h.reply(opt, wire.RepInfo, append([]byte{0, wire.InfoDescription}, x.Description...))
			}
		}
	}
	h.reply(opt, wire.RepAck, nil)
	if opt == wire.OptInfo {
		x.release(d)
		return false
	}
	h.choose(name, x, d)
	return true
}

// describe sends size, flags and block sizes of the export.
func (h *handshaker) describe(opt uint32, x *export, d block.Device) {
	g := x.geometry(d)
	p := binary.BigEndian.AppendUint16(nil, wire.InfoExport)
	p = binary.BigEndian.AppendUint64(p, uint64(block.Bytes(g.Sectors)))
	h.reply(opt, wire.RepInfo, binary.BigEndian.AppendUint16(p, x.transmissionFlags(d, h.ses.structured)))

	p = binary.BigEndian.AppendUint16(p[:0], wire.InfoBlockSize)
	p = binary.BigEndian.AppendUint32(p, max(block.SectorSize, g.LogicalBlock))
	p = binary.BigEndian.AppendUint32(p, max(4096, g.PhysicalBlock))
	h.reply(opt, wire.RepInfo, binary.BigEndian.AppendUint32(p, maxAdvertised))
}

// metaContext answers LIST_META_CONTEXT and SET_META_CONTEXT.
//
//	0 name length u32 | 4 name | number of queries u32 | per query: length u32, text
func (h *handshaker) metaContext(opt uint32, data []byte) {
	if opt == wire.OptSetMetaContext {
		h.ses.metaSet = false // the latest SET counts, even if it is refused
	}
	name, rest, ok := cutString(data)
	if !ok || len(rest) < 4 {
		h.fail(opt, wire.RepErrInvalid, "lengths do not add up")
		return
	}
	n := binary.BigEndian.Uint32(rest)
	match := n == 0 && opt == wire.OptListMetaContext
	for rest = rest[4:]; n > 0; n-- {
		var query string
		if query, rest, ok = cutString(rest); !ok {
			h.fail(opt, wire.RepErrInvalid, "lengths do not add up")
			return
		}
		match = match || query == wire.ContextAllocation || opt == wire.OptListMetaContext && query == "base:"
	}
	if len(rest) > 0 {
		h.fail(opt, wire.RepErrInvalid, "data after the last query")
		return
	}
	if !h.ses.structured {
		h.fail(opt, wire.RepErrInvalid, "structured replies were not negotiated")
		return
	}
	if _, err := h.find(name); err != nil {
		typ, text := refusal(err)
		h.fail(opt, typ, text)
		return
	}
	id := uint32(0)
	if opt == wire.OptSetMetaContext {
		id = wire.ContextAllocationID
		h.ses.metaExport, h.ses.metaSet = name, match
	}
	if match {
		h.reply(opt, wire.RepMetaContext, append(binary.BigEndian.AppendUint32(nil, id), wire.ContextAllocation...))
	}
	h.reply(opt, wire.RepAck, nil)
}

// cutString cuts a string with a 32-bit length off p.
func cutString(p []byte) (s string, rest []byte, ok bool) {
	if len(p) < 4 {
		return "", nil, false
	}
	n := binary.BigEndian.Uint32(p)
	if n > maxName || uint64(n) > uint64(len(p)-4) {
		return "", nil, false
	}
	return string(p[4 : 4+n]), p[4+n:], true
}
