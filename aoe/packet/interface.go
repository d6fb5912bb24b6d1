package packet

import (
	"encoding/binary"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Name returns the name of the interface.
func (s *Socket) Name() string { return s.name }

// MTU returns the interface's MTU as of the last Refresh, in bytes.
func (s *Socket) MTU() int { return int(s.mtu.Load()) }

// HardwareAddr returns the interface's address as of the last Refresh.
func (s *Socket) HardwareAddr() [6]byte {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], s.addr.Load())
	return [6]byte(b[2:])
}

// Up says whether the interface was up, with a carrier, at the last Refresh.
func (s *Socket) Up() bool { return s.up.Load() }

// Refresh reads MTU, address and state of the interface, and returns whether
// one has changed. The error wraps syscall.ENODEV when the interface of that
// name is gone, or is another one now; the socket is useless then.
func (s *Socket) Refresh() (changed bool, err error) {
	err = s.control(func(fd uintptr) error {
		index, err := s.ask(fd, unix.SIOCGIFINDEX)
		if err != nil {
			return err
		}
		if got := int(binary.NativeEndian.Uint32(index.data[:])); got != s.index {
			return fmt.Errorf("index %d, was %d: %w", got, s.index, unix.ENODEV)
		}
		mtu, err := s.ask(fd, unix.SIOCGIFMTU)
		if err != nil {
			return err
		}
		flags, err := s.ask(fd, unix.SIOCGIFFLAGS)
		if err != nil {
			return err
		}
		hw, err := s.ask(fd, unix.SIOCGIFHWADDR)
		if err != nil {
			return err
		}
		var addr [8]byte
		copy(addr[2:], hw.data[2:8])
		const running = unix.IFF_UP | unix.IFF_RUNNING // the second is the carrier
		up := binary.NativeEndian.Uint16(flags.data[:])&running == running
		a, m := binary.BigEndian.Uint64(addr[:]), int64(binary.NativeEndian.Uint32(mtu.data[:]))
		if err := s.fitRing(int(fd), int(m)); err != nil {
			return err
		}
		changed = s.addr.Swap(a) != a
		changed = s.mtu.Swap(m) != m || changed
		changed = s.up.Swap(up) != up || changed
		return nil
	})
	if err != nil {
		return false, fmt.Errorf("interface %s: %w", s.name, err)
	}
	return changed, nil
}

// ask returns the kernel's answer to a request of netdevice(7) about the interface.
func (s *Socket) ask(fd, req uintptr) (r ifreq, err error) {
	copy(r.name[:len(r.name)-1], s.name)
	return r, r.ioctl(fd, req)
}

// ifreq is struct ifreq of netdevice(7). x/sys has one, without the hardware
// address.
//
//	offset  size  field
//	     0    16  name, ends with a zero
//	    16    24  by request: int32, or a sockaddr with the address at 18
type ifreq struct {
	name [unix.IFNAMSIZ]byte
	data [24]byte
}

func (r *ifreq) ioctl(fd, req uintptr) error {
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, fd, req, uintptr(unsafe.Pointer(r))); errno != 0 {
		return errno
	}
	return nil
}
