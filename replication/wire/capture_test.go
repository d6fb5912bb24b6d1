package wire

import (
	"bufio"
	"encoding/binary"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// kernelAddress is the kernel's end in what the interop tests record.
var kernelAddress = netip.MustParseAddr("10.99.0.1")

// capture takes the recording of a scenario apart: which packets the kernel sent, each
// with the session in which it did.
type capture struct {
	t        *testing.T
	scenario string
	conns    map[ports]*conversation
	session  Session // of the newest connection
	found    func(kernelPacket)
}

// ports identify a TCP connection.
type ports struct{ kernel, other uint16 }

// conversation is one TCP connection.
type conversation struct {
	kernel, other flow
	socket        Sockets             // 0 until the first packet has told
	offer, ours   *ConnectionFeatures // announced by the kernel and by the other end
	session       Session             // what the kernel's next packet is spoken in
	alg           Algorithm           // the kernel's data-integrity-alg
}

// flow is what one end of a connection sent.
type flow struct {
	open  bool
	next  uint32 // sequence number of the next byte
	early map[uint32][]byte
	buf   []byte // not taken apart yet
	torn  bool   // buf begins anywhere, the capture lost what was before it
}

// earlyMax is how many segments may wait for one before them. TCP closes a hole of the
// network sooner, and one of the capture never.
const earlyMax = 256

// readCapture calls found for every packet of the kernel in a file of tcpdump's.
func readCapture(t *testing.T, name string, found func(kernelPacket)) {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	c := &capture{t: t, scenario: strings.TrimSuffix(filepath.Base(name), ".pcap"), conns: map[ports]*conversation{}, found: found}
	r := bufio.NewReaderSize(f, 1<<20)
	var head [24]byte
	if _, err := io.ReadFull(r, head[:]); err != nil || binary.LittleEndian.Uint32(head[:]) != 0xa1b2c3d4 || head[20] != 1 {
		t.Fatalf("%s: not a capture of an Ethernet (%v)", name, err)
	}
	for {
		var record [16]byte
		if _, err := io.ReadFull(r, record[:]); err != nil {
			return // tcpdump may have been killed in the middle of a record
		}
		frame := make([]byte, min(binary.LittleEndian.Uint32(record[8:]), 1<<18))
		if _, err := io.ReadFull(r, frame); err != nil {
			return
		}
		c.frame(frame)
	}
}

// frame passes a TCP segment to its connection.
func (c *capture) frame(frame []byte) {
	const ethernet, minimal, protocolTCP = 14, 54, 6
	if len(frame) < minimal || binary.BigEndian.Uint16(frame[12:]) != 0x0800 || frame[23] != protocolTCP {
		return
	}
	ip := frame[ethernet:]
	if total := int(binary.BigEndian.Uint16(ip[2:])); total >= 40 && total <= len(ip) {
		ip = ip[:total] // without Ethernet's padding
	}
	src, _ := netip.AddrFromSlice(ip[12:16])
	tcp := ip[int(ip[0]&15)*4:]
	p := ports{binary.BigEndian.Uint16(tcp), binary.BigEndian.Uint16(tcp[2:])}
	if src != kernelAddress {
		p.kernel, p.other = p.other, p.kernel
	}
	const synOnly = 0x02
	conn := c.conns[p]
	if conn == nil || tcp[13]&0x12 == synOnly {
		conn = &conversation{session: Session{Version: VersionInitial}}
		c.conns[p] = conn
	}
	f := &conn.other
	if src == kernelAddress {
		f = &conn.kernel
	}
	f.segment(binary.BigEndian.Uint32(tcp[4:]), tcp[13]&synOnly != 0, tcp[int(tcp[12]>>4)*4:])
	c.advance(conn)
}

// segment appends what a segment brings, in the order in which it was sent.
func (f *flow) segment(seq uint32, syn bool, body []byte) {
	if syn {
		*f = flow{open: true, next: seq + 1, early: map[uint32][]byte{}}
		return
	}
	if !f.open || len(body) == 0 {
		return
	}
	f.early[seq] = body
	if len(f.early) > earlyMax { // tcpdump has lost what was before all of these
		f.next, f.buf, f.torn = f.oldest(), nil, true
	}
	for moved := true; moved; {
		moved = false
		for seq, body := range f.early {
			skip := int32(f.next - seq)
			if skip < 0 {
				continue
			}
			delete(f.early, seq)
			if int(skip) < len(body) {
				f.buf = append(f.buf, body[skip:]...)
				f.next += uint32(len(body)) - uint32(skip)
				moved = true
			}
		}
	}
}

// oldest returns the sequence number of the first segment that arrived early.
func (f *flow) oldest() uint32 {
	first := f.next + 1<<31 - 1
	for seq := range f.early {
		if int32(seq-first) < 0 {
			first = seq
		}
	}
	return first
}

// advance takes apart what has arrived whole.
func (c *capture) advance(conn *conversation) {
	if conn.socket == 0 {
		c.open(conn, &conn.kernel)
		c.open(conn, &conn.other)
	}
	if conn.socket == 0 {
		return
	}
	if conn.socket == MetaSocket {
		conn.session = Session{Version: c.session.Version, Features: c.session.Features}
	} else if conn.ours == nil {
		conn.ours = conn.other.features()
	}
	if conn.ours != nil || conn.socket == MetaSocket {
		conn.other.buf = nil // of no interest
	}
	for {
		if conn.offer != nil && conn.ours != nil && conn.session.Version == VersionInitial {
			conn.session, _ = conn.ours.Agree(*conn.offer)
			c.session = conn.session
		}
		if conn.offer != nil && conn.ours == nil {
			return
		}
		p, ok := c.next(conn)
		if !ok {
			return
		}
		conn.learn(p)
		c.found(p)
	}
}

// open looks for the packet with which the end that connected says what the socket is for.
func (c *capture) open(conn *conversation, f *flow) {
	if len(f.buf) < size80 {
		return
	}
	h, _, err := ParseHeader(f.buf, VersionInitial)
	if err != nil || h.Command != CmdInitialData && h.Command != CmdInitialMeta {
		return
	}
	conn.socket = h.Command.Sockets()
	if f == &conn.kernel {
		c.found(kernelPacket{scenario: c.scenario, socket: conn.socket, session: conn.session, raw: f.buf[:size80:size80]})
	}
	f.buf = f.buf[size80:]
}

// features returns what this end announced, once it is there.
func (f *flow) features() *ConnectionFeatures {
	if len(f.buf) < size80+ConnectionFeaturesSize {
		return nil
	}
	p := new(ConnectionFeatures)
	r := NewReader(CmdConnectionFeatures, f.buf[size80:size80+ConnectionFeaturesSize])
	p.DecodeFrom(&r)
	return p
}

// next takes the kernel's next packet out of a connection.
func (c *capture) next(conn *conversation) (kernelPacket, bool) {
	f := &conn.kernel
	if f.torn {
		if f.find(conn.session); f.torn {
			return kernelPacket{}, false
		}
	}
	if len(f.buf) < HeaderSize(conn.session.Version) {
		return kernelPacket{}, false
	}
	h, size, err := ParseHeader(f.buf, conn.session.Version)
	if err == nil {
		err = conn.session.Check(h)
	}
	if err != nil {
		c.t.Fatalf("%s: %v", c.scenario, err)
	}
	size += int(h.Length)
	if len(f.buf) < size {
		return kernelPacket{}, false
	}
	p := kernelPacket{scenario: c.scenario, socket: conn.socket, session: conn.session, raw: f.buf[:size:size]}
	if h.Command.CarriesData() {
		p.alg = conn.alg
	} else {
		p.session.DigestSize = 0
	}
	f.buf = f.buf[size:]
	return p, true
}

// find moves on to the next bytes that are two headers, one where the other's payload ends.
func (f *flow) find(s Session) {
	for ; len(f.buf) >= MaxHeaderSize; f.buf = f.buf[1:] {
		h, size, err := ParseHeader(f.buf, s.Version)
		if err != nil || s.Check(h) != nil {
			continue
		}
		end := size + int(h.Length)
		if end+MaxHeaderSize > len(f.buf) {
			return // not yet known
		}
		if h, _, err = ParseHeader(f.buf[end:], s.Version); err == nil && s.Check(h) == nil {
			f.torn = false
			return
		}
	}
}

// learn keeps what later packets of the connection depend on.
func (conn *conversation) learn(p kernelPacket) {
	h, body := p.split()
	r := NewReader(h.Command, body)
	switch h.Command {
	case CmdConnectionFeatures:
		conn.offer = new(ConnectionFeatures)
		conn.offer.DecodeFrom(&r)
	case CmdProtocol, CmdProtocolUpdate:
		var protocol Protocol
		protocol.DecodeFrom(&r, p.session)
		conn.alg = AlgorithmOf(protocol.IntegrityAlg)
		conn.session.DigestSize = conn.alg.Size()
	default:
	}
}
