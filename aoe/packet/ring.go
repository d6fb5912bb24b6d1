package packet

import (
	"encoding/binary"
	"errors"
	"os"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ring is a receive ring of packet(7), TPACKET_V2: memory that the kernel puts frames
// into, so that receiving costs no system call and no socket buffer per frame. A slot
// is the kernel's or ours, which its status says.
//
//	offset  size  field of a slot, native byte order
//	     0     4  status, TP_STATUS_USER when it is ours
//	     4     4  length of the frame
//	     8     4  how much of it is here
//	    12     2  offset of the frame in the slot
//	    16     4  seconds since 1970 of its arrival
//	    20     4  and nanoseconds
type ring struct {
	mem   []byte
	block int // bytes
	slot  int // bytes
	each  int // slots of a block
	count int // slots
	next  int // slot that is filled next
	room  int // bytes of the longest frame that a slot holds
}

const (
	// ringHead is the most of a slot that is not the frame: the kernel's header, an
	// address, and what aligns the network header.
	ringHead = 128
	// ringBlock is the unit of the ring's memory: so many slots as fit.
	ringBlock = 256 << 10
	// maxRingSlots limits rings of short frames.
	maxRingSlots = 2048
)

// newRing gives socket fd a ring of at most size bytes for frames of room bytes. What
// the socket has received before and not delivered is lost.
func newRing(fd int, size, room int) (*ring, error) {
	slot := (room + ringHead + unix.TPACKET_ALIGNMENT - 1) &^ (unix.TPACKET_ALIGNMENT - 1)
	block := ringBlock
	for block < slot {
		block *= 2
	}
	each := block / slot
	blocks := max(1, min(size/block, maxRingSlots/each))
	if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_VERSION, unix.TPACKET_V2); err != nil {
		return nil, os.NewSyscallError("setsockopt", err)
	}
	if err := requestRing(fd, unix.TpacketReq{
		Block_size: uint32(block), Block_nr: uint32(blocks), //nolint:gosec // far below
		Frame_size: uint32(slot), Frame_nr: uint32(blocks * each), //nolint:gosec // far below
	}); err != nil {
		return nil, err
	}
	mem, err := unix.Mmap(fd, 0, block*blocks, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, errors.Join(os.NewSyscallError("mmap", err), requestRing(fd, unix.TpacketReq{}))
	}
	return &ring{mem: mem, block: block, slot: slot, each: each, count: blocks * each, room: room}, nil
}

// close takes the ring from the socket.
func (r *ring) close(fd int) error {
	if err := r.unmap(); err != nil {
		return err
	}
	return requestRing(fd, unix.TpacketReq{})
}

// unmap gives up the memory of a ring whose socket is closed.
func (r *ring) unmap() error { return os.NewSyscallError("munmap", unix.Munmap(r.mem)) }

func requestRing(fd int, req unix.TpacketReq) error {
	if _, _, errno := unix.Syscall6(unix.SYS_SETSOCKOPT, uintptr(fd), unix.SOL_PACKET, unix.PACKET_RX_RING,
		uintptr(unsafe.Pointer(&req)), unsafe.Sizeof(req), 0); errno != 0 {
		return os.NewSyscallError("setsockopt", errno)
	}
	return nil
}

// head returns the slot that is filled next.
func (r *ring) head() []byte {
	at := r.next/r.each*r.block + r.next%r.each*r.slot
	return r.mem[at : at+r.slot : at+r.slot]
}

func status(slot []byte) *atomic.Uint32 { return (*atomic.Uint32)(unsafe.Pointer(&slot[0])) }

// receive copies the frames that are there into bufs, as Socket.Recv does.
func (r *ring) receive(bufs [][]byte, times []time.Time) (n, truncated int) {
	var c clock
	for n < len(bufs) {
		slot := r.head()
		st := status(slot)
		if st.Load()&unix.TP_STATUS_USER == 0 {
			break
		}
		length, here := binary.NativeEndian.Uint32(slot[4:]), binary.NativeEndian.Uint32(slot[8:])
		frame := slot[binary.NativeEndian.Uint16(slot[12:]):][:here]
		if int(here) < int(length) || len(frame) > len(bufs[n]) {
			frame = nil
			truncated++
		}
		bufs[n] = bufs[n][:copy(bufs[n], frame)]
		if times != nil {
			times[n] = c.arrival(int64(binary.NativeEndian.Uint32(slot[16:])), int64(binary.NativeEndian.Uint32(slot[20:])))
		}
		st.Store(unix.TP_STATUS_KERNEL)
		if r.next++; r.next == r.count {
			r.next = 0
		}
		n++
	}
	return n, truncated
}

// clock turns the kernel's times of arrival into times of this process: now less the
// age by the wall clock. If that clock was set meanwhile the age is wrong, and what
// looks old is dropped, which costs a repetition. The zero value is now, at its first use.
type clock struct {
	now  time.Time
	wall int64
}

// arrival returns the time that is sec and nsec after 1970.
func (c *clock) arrival(sec, nsec int64) time.Time {
	if c.wall == 0 {
		c.now = time.Now()
		c.wall = c.now.UnixNano()
	}
	age := max(0, c.wall-(sec*int64(time.Second)+nsec))
	return c.now.Add(-time.Duration(age))
}
