package remote

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strings"
	"syscall"

	"github.com/replblk/replblk/block"
)

// Numbers of the protocol (NBD proto.md). All integers on the wire are big-endian.
const (
	magicServer      = 0x4e42444d41474943 // "NBDMAGIC"
	magicOption      = 0x49484156454f5054 // "IHAVEOPT"
	magicOptionReply = 0x0003e889045565a9
	magicRequest     = 0x25609513
	magicReply       = 0x67446698

	handshakeFlags = 3 // fixed newstyle, no zeroes

	optGo         = 7
	repAck        = 1
	repInfo       = 3
	repError      = 1 << 31
	repErrTLSReqd = repError + 5
	infoExport    = 0
	infoBlockSize = 3

	flagReadOnly   = 1 << 1
	flagFlush      = 1 << 2
	flagFUA        = 1 << 3
	flagRotational = 1 << 4
	flagTrim       = 1 << 5

	cmdRead        = 0
	cmdWrite       = 1
	cmdDisc        = 2
	cmdFlush       = 3
	cmdTrim        = 4
	cmdWriteZeroes = 6
	cmdFlagFUA     = 1 << 0
	cmdFlagNoHole  = 1 << 1

	requestSize    = 28 // magic u32, flags u16, type u16, cookie u64, offset u64, length u32
	replySize      = 16 // magic u32, error u32, cookie u64
	maxOptionReply = 64 << 10
	maxExportName  = 4096
)

// Location is what a URI says.
type Location struct {
	Network, Address string // as of net.Dial
	Export           string
}

// IsURI says whether s looks like the address of an export rather than a path.
func IsURI(s string) bool {
	scheme, _, ok := strings.Cut(s, "://")
	return ok && (scheme == "nbd" || strings.HasPrefix(scheme, "nbd+") || strings.HasPrefix(scheme, "nbds"))
}

// ParseURI reads an NBD URI: nbd://HOST[:PORT]/[EXPORT] or
// nbd+unix:///[EXPORT]?socket=PATH. TLS (nbds) is refused.
func ParseURI(s string) (Location, error) {
	u, err := url.Parse(s)
	if err != nil {
		return Location{}, err
	}
	l := Location{Network: "tcp", Export: strings.TrimPrefix(u.Path, "/")}
	if len(l.Export) > maxExportName {
		return Location{}, fmt.Errorf("export name of %d bytes, at most %d are allowed", len(l.Export), maxExportName)
	}
	switch u.Scheme {
	case "nbd", "nbd+tcp":
		if u.Hostname() == "" {
			return Location{}, fmt.Errorf("%s: no host", s)
		}
		port := u.Port()
		if port == "" {
			port = "10809"
		}
		l.Address = net.JoinHostPort(u.Hostname(), port)
	case "nbd+unix":
		l.Network, l.Address = "unix", u.Query().Get("socket")
		if l.Address == "" {
			return Location{}, fmt.Errorf("%s: no socket=PATH", s)
		}
	default:
		return Location{}, fmt.Errorf("%s: %q is not nbd, nbd+tcp or nbd+unix", s, u.Scheme)
	}
	return l, nil
}

// export is what the server says of the export.
type export struct {
	size      uint64 // bytes
	flags     uint16
	minimum   uint32 // block size
	preferred uint32
}

// usable says what stands against using the export.
func (e export) usable(readOnly bool) error {
	switch {
	case e.minimum > block.SectorSize:
		return fmt.Errorf("the server insists on blocks of %d bytes", e.minimum)
	case e.size < block.SectorSize:
		return fmt.Errorf("the export has %d bytes", e.size)
	case !readOnly && e.flags&flagReadOnly != 0:
		return fmt.Errorf("the export is read-only: %w", syscall.EROFS)
	}
	return nil
}

// negotiate is the handshake: greeting, flags, NBD_OPT_GO.
func negotiate(c net.Conn, name string) (e export, err error) {
	var hello [18]byte
	if _, err := io.ReadFull(c, hello[:]); err != nil {
		return e, fmt.Errorf("greeting: %w", err)
	}
	if binary.BigEndian.Uint64(hello[:]) != magicServer || binary.BigEndian.Uint64(hello[8:]) != magicOption || hello[17]&1 == 0 {
		return e, fmt.Errorf("greeting %x is not that of a fixed newstyle server", hello)
	}
	msg := binary.BigEndian.AppendUint32(nil, handshakeFlags&uint32(hello[17]))
	msg = binary.BigEndian.AppendUint64(msg, magicOption)
	msg = binary.BigEndian.AppendUint32(msg, optGo)
	msg = binary.BigEndian.AppendUint32(msg, uint32(4+len(name)+2+2))
	msg = binary.BigEndian.AppendUint32(msg, uint32(len(name)))
	msg = append(msg, name...)
	msg = binary.BigEndian.AppendUint16(msg, 1) // one wish for information
	msg = binary.BigEndian.AppendUint16(msg, infoBlockSize)
	if _, err := c.Write(msg); err != nil {
		return e, err
	}
	for known := false; ; {
		typ, data, err := optionReply(c)
		switch {
		case err != nil:
			return e, err
		case typ == repErrTLSReqd:
			return e, errors.New("the server requires TLS")
		case typ >= repError:
			return e, fmt.Errorf("export %q refused (%#x): %s", name, typ, data)
		case typ == repAck && !known:
			return e, errors.New("the server does not say how large the export is")
		case typ == repAck:
			return e, nil
		case typ == repInfo:
			known = e.learn(data) || known
		}
	}
}

// learn takes in one piece of information. It says whether that was the size.
func (e *export) learn(p []byte) bool {
	switch {
	case len(p) == 12 && binary.BigEndian.Uint16(p) == infoExport:
		e.size, e.flags = binary.BigEndian.Uint64(p[2:]), binary.BigEndian.Uint16(p[10:])
		return true
	case len(p) == 14 && binary.BigEndian.Uint16(p) == infoBlockSize:
		e.minimum, e.preferred = binary.BigEndian.Uint32(p[2:]), binary.BigEndian.Uint32(p[6:])
	}
	return false
}

func optionReply(c net.Conn) (typ uint32, data []byte, err error) {
	var head [20]byte
	if _, err := io.ReadFull(c, head[:]); err != nil {
		return 0, nil, err
	}
	n := binary.BigEndian.Uint32(head[16:])
	if binary.BigEndian.Uint64(head[:]) != magicOptionReply || binary.BigEndian.Uint32(head[8:]) != optGo || n > maxOptionReply {
		return 0, nil, fmt.Errorf("option reply %x", head)
	}
	data = make([]byte, n)
	_, err = io.ReadFull(c, data)
	return binary.BigEndian.Uint32(head[12:]), data, err
}

// errno translates the error of a reply.
func errno(code uint32) syscall.Errno {
	switch e := syscall.Errno(code); e {
	case syscall.EPERM:
		return syscall.EROFS
	case syscall.EIO, syscall.EINVAL, syscall.ENOSPC:
		return e
	case 95:
		return syscall.EOPNOTSUPP
	case 108:
		return syscall.ESHUTDOWN
	default:
		return syscall.EIO
	}
}
