package packet

import (
	"errors"
	"fmt"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// membership is what packet(7) calls so: the interface receives one more address, or
// everything, for as long as the socket lives. A process that is killed gives its
// addresses up that way.
type membership struct {
	kind uint16 // unix.PACKET_MR_*
	addr [6]byte
}

// SetAddresses makes the interface receive what is sent to addrs, group addresses
// included, beside its own address, and no longer what an earlier call named.
//
// An interface that cannot filter by more addresses becomes promiscuous; the kernel
// sees to that. A bridge has no filter at all: it passes frames for an unknown
// address up only if it is promiscuous, so it is made to.
func (s *Socket) SetAddresses(addrs [][6]byte) error {
	s.memberMu.Lock()
	defer s.memberMu.Unlock()
	want := make([]membership, 0, len(addrs))
	for _, a := range addrs {
		kind := uint16(unix.PACKET_MR_UNICAST)
		if a[0]&1 != 0 {
			kind = unix.PACKET_MR_MULTICAST
		}
		want = append(want, membership{kind, a})
	}
	return s.control(func(fd uintptr) error {
		if len(want) > 0 && s.isBridge(fd) {
			want = []membership{{kind: unix.PACKET_MR_PROMISC}}
		}
		var errs []error
		for _, m := range want {
			if slices.Contains(s.members, m) {
				continue
			}
			if err := s.member(fd, unix.PACKET_ADD_MEMBERSHIP, m); err != nil {
				errs = append(errs, err)
				continue
			}
			s.members = append(s.members, m)
		}
		s.members = slices.DeleteFunc(s.members, func(m membership) bool {
			return !slices.Contains(want, m) && s.member(fd, unix.PACKET_DROP_MEMBERSHIP, m) == nil
		})
		return errors.Join(errs...)
	})
}

func (s *Socket) member(fd uintptr, opt int, m membership) error {
	req := unix.PacketMreq{Ifindex: int32(s.index), Type: m.kind, Alen: uint16(len(m.addr))}
	copy(req.Address[:], m.addr[:])
	if err := unix.SetsockoptPacketMreq(int(fd), unix.SOL_PACKET, opt, &req); err != nil {
		return fmt.Errorf("interface %s: receive for %x: %w", s.name, m.addr, os.NewSyscallError("setsockopt", err))
	}
	return nil
}

// isBridge says whether the interface is a Linux bridge.
func (s *Socket) isBridge(fd uintptr) bool {
	info, err := unix.IoctlGetEthtoolDrvinfo(int(fd), s.name)
	return err == nil && unix.ByteSliceToString(info.Driver[:]) == "bridge"
}
