package packet

import (
	"encoding/binary"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// maxBatch is how many frames go through one system call.
const maxBatch = 64

// mmsghdr is struct mmsghdr of recvmmsg(2): a message and, on return, how many
// bytes were transferred. The compiler pads it as C does.
type mmsghdr struct {
	hdr unix.Msghdr
	len uint32
}

// vector is the arguments of one batched call, allocated once. One goroutine
// uses it at a time.
type vector struct {
	msgs  [maxBatch]mmsghdr
	iovs  [maxBatch]unix.Iovec
	stamp [maxBatch]stamp
}

// stamp takes the only control message that the socket asks for, SCM_TIMESTAMPNS.
//
//	offset  size  field
//	     0    16  struct cmsghdr
//	    16     8  seconds since 1970, native byte order
//	    24     8  nanoseconds
type stamp [32]byte

// stampOffset is where the control message's data begins.
const stampOffset = unix.SizeofCmsghdr

// set points the vector at bufs, at most maxBatch of them, and returns how many.
func (v *vector) set(bufs [][]byte) int {
	n := min(len(bufs), maxBatch)
	for i, b := range bufs[:n] {
		v.iovs[i].Base = unsafe.SliceData(b)
		v.iovs[i].SetLen(len(b))
		v.msgs[i] = mmsghdr{}
		v.msgs[i].hdr.Iov = &v.iovs[i]
		v.msgs[i].hdr.SetIovlen(1)
	}
	return n
}

// wantTimes makes the next receive deliver the times of arrival.
func (v *vector) wantTimes(n int) {
	for i := range n {
		v.msgs[i].hdr.Control = &v.stamp[i][0]
		v.msgs[i].hdr.SetControllen(len(v.stamp[i]))
	}
}

// times returns when the kernel received the first len(to) frames, as times of this
// process: now less the age by the wall clock. If that clock was set meanwhile the
// age is wrong, and what looks old is dropped, which costs a repetition.
func (v *vector) times(to []time.Time) {
	now := time.Now()
	wall := now.UnixNano()
	for i := range to {
		to[i] = now
		if int(v.msgs[i].hdr.Controllen) < len(v.stamp[i]) {
			continue
		}
		d := v.stamp[i][stampOffset:]
		at := int64(binary.NativeEndian.Uint64(d))*int64(time.Second) + int64(binary.NativeEndian.Uint64(d[8:]))
		if age := wall - at; age > 0 {
			to[i] = now.Add(-time.Duration(age))
		}
	}
}

// clear drops the references to the buffers, which change owner.
func (v *vector) clear(n int) {
	for i := range v.iovs[:n] {
		v.iovs[i].Base = nil
	}
}

// recvmmsg receives up to n frames without waiting.
func (v *vector) recvmmsg(fd uintptr, n int) (int, syscall.Errno) {
	return v.call(unix.SYS_RECVMMSG, fd, 0, n)
}

// sendmmsg sends the frames from first to n without waiting. An error concerns
// the first of them: those before it are counted as sent.
func (v *vector) sendmmsg(fd uintptr, first, n int) (int, syscall.Errno) {
	return v.call(unix.SYS_SENDMMSG, fd, first, n-first)
}

func (v *vector) call(trap, fd uintptr, first, n int) (int, syscall.Errno) {
	for {
		r, _, errno := unix.Syscall6(trap, fd, uintptr(unsafe.Pointer(&v.msgs[first])), uintptr(n), unix.MSG_DONTWAIT, 0, 0)
		if errno != unix.EINTR {
			return int(r), errno
		}
	}
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
