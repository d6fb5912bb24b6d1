package packet

import (
	"encoding/binary"
	"os"
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

// times returns when the kernel received the first len(to) frames.
func (v *vector) times(to []time.Time) {
	var c clock
	for i := range to {
		if int(v.msgs[i].hdr.Controllen) < len(v.stamp[i]) {
			to[i] = time.Now()
			continue
		}
		d := v.stamp[i][stampOffset:]
		to[i] = c.arrival(int64(binary.NativeEndian.Uint64(d)), int64(binary.NativeEndian.Uint64(d[8:]))) //nolint:gosec // a time
	}
}

// clear drops the references to the buffers, which change owner.
func (v *vector) clear(n int) {
	for i := range v.iovs[:n] {
		v.iovs[i].Base = nil
	}
}

// receive receives into bufs without waiting, as Socket.Recv does.
func (v *vector) receive(fd uintptr, bufs [][]byte, times []time.Time) (n, truncated int, err error) {
	want := v.set(bufs)
	defer v.clear(want)
	if times != nil {
		v.wantTimes(want)
	}
	n, errno := call(unix.SYS_RECVMMSG, fd, unsafe.Pointer(&v.msgs[0]), want)
	switch errno {
	case 0:
	case unix.EAGAIN:
		return 0, 0, nil
	default:
		return 0, 0, os.NewSyscallError("recvmmsg", errno)
	}
	for i := range n {
		m := &v.msgs[i]
		if m.hdr.Flags&unix.MSG_TRUNC != 0 {
			truncated++
			m.len = 0
		}
		bufs[i] = bufs[i][:m.len]
	}
	if times != nil {
		v.times(times[:n])
	}
	return n, truncated, nil
}

// sendmmsg sends the frames from first to n without waiting. An error concerns
// the first of them: those before it are counted as sent.
func (v *vector) sendmmsg(fd uintptr, first, n int) (int, syscall.Errno) {
	if n-first == 1 { // of which the kernel has less to read so
		if _, errno := call(unix.SYS_SENDTO, fd, unsafe.Pointer(v.iovs[first].Base), int(v.iovs[first].Len)); errno != 0 { //nolint:gosec // a frame
			return 0, errno
		}
		return 1, 0
	}
	return call(unix.SYS_SENDMMSG, fd, unsafe.Pointer(&v.msgs[first]), n-first)
}

// call calls the kernel with the n messages or bytes at p. It does not wait, so the scheduler need not
// know of it.
func call(trap, fd uintptr, p unsafe.Pointer, n int) (int, syscall.Errno) {
	for {
		r, _, errno := unix.RawSyscall6(trap, fd, uintptr(p), uintptr(n), unix.MSG_DONTWAIT, 0, 0)
		if errno != unix.EINTR {
			return int(r), errno
		}
	}
}
