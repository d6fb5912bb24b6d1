package main

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"
)

// family is a generic netlink family of the kernel.
type family struct {
	fd  int
	id  uint16
	seq uint32
}

// openFamily looks a family up by its name.
func openFamily(name string) (*family, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_GENERIC)
	if err != nil {
		return nil, err
	}
	f := &family{fd: fd, id: unix.GENL_ID_CTRL}
	answer, err := f.exchange(unix.CTRL_CMD_GETFAMILY, attribute(nil, unix.CTRL_ATTR_FAMILY_NAME, append([]byte(name), 0)))
	if err != nil {
		return nil, fmt.Errorf("netlink family %q: %w", name, err)
	}
	for len(answer) >= unix.NLA_HDRLEN {
		size := int(binary.NativeEndian.Uint16(answer))
		if size < unix.NLA_HDRLEN || size > len(answer) {
			break
		}
		if binary.NativeEndian.Uint16(answer[2:]) == unix.CTRL_ATTR_FAMILY_ID && size >= unix.NLA_HDRLEN+2 {
			f.id = binary.NativeEndian.Uint16(answer[unix.NLA_HDRLEN:])
			return f, nil
		}
		answer = answer[min((size+3)&^3, len(answer)):]
	}
	return nil, fmt.Errorf("netlink family %q: the kernel gives no number", name)
}

// call sends a command and waits until it is carried out.
func (f *family) call(command byte, attrs []byte) error {
	_, err := f.exchange(command, attrs)
	return err
}

// exchange sends a command and returns the attributes of the first answer.
func (f *family) exchange(command byte, attrs []byte) ([]byte, error) {
	const header = unix.SizeofNlMsghdr + unix.GENL_HDRLEN
	f.seq++
	b := binary.NativeEndian.AppendUint32(nil, uint32(header+len(attrs)))
	b = binary.NativeEndian.AppendUint16(b, f.id)
	b = binary.NativeEndian.AppendUint16(b, unix.NLM_F_REQUEST|unix.NLM_F_ACK)
	b = binary.NativeEndian.AppendUint32(b, f.seq)
	b = append(binary.NativeEndian.AppendUint32(b, 0), command, 1, 0, 0)
	if err := unix.Sendto(f.fd, append(b, attrs...), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, err
	}
	var first []byte
	for buf := make([]byte, 1<<16); ; {
		n, _, err := unix.Recvfrom(f.fd, buf, 0)
		if err != nil {
			return nil, err
		}
		for b := buf[:n]; len(b) >= unix.SizeofNlMsghdr; {
			size := int(binary.NativeEndian.Uint32(b))
			if size < unix.SizeofNlMsghdr || size > len(b) {
				break
			}
			if binary.NativeEndian.Uint16(b[4:]) == unix.NLMSG_ERROR && size >= unix.SizeofNlMsghdr+4 {
				if errno := int32(binary.NativeEndian.Uint32(b[unix.SizeofNlMsghdr:])); errno != 0 {
					return nil, unix.Errno(-errno)
				}
				return first, nil
			}
			if first == nil && size >= header {
				first = append([]byte{}, b[header:size]...)
			}
			b = b[min((size+3)&^3, len(b)):]
		}
	}
}

// attribute appends an attribute.
func attribute(b []byte, kind uint16, value []byte) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(unix.NLA_HDRLEN+len(value)))
	b = append(binary.NativeEndian.AppendUint16(b, kind), value...)
	return append(b, make([]byte, -len(value)&3)...)
}

func number32(b []byte, kind uint16, v uint32) []byte {
	return attribute(b, kind, binary.NativeEndian.AppendUint32(nil, v))
}

func number64(b []byte, kind uint16, v uint64) []byte {
	return attribute(b, kind, binary.NativeEndian.AppendUint64(nil, v))
}
