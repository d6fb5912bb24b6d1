package packet

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Recv waits for frames and receives each into one of bufs, which it cuts to
// the frame's length; a frame that did not fit has length zero. It returns how
// many. times, unless nil, is as long as bufs and gets the kernel's times of
// arrival. Recv returns syscall.ENETDOWN once when the interface goes down; the
// next call waits until it is up and a frame comes.
func (s *Socket) Recv(bufs [][]byte, times []time.Time) (int, error) {
	s.recvMu.Lock()
	defer s.recvMu.Unlock()
	for {
		if err := s.mayRecv(); err != nil {
			return 0, err
		}
		n, truncated, err := s.receive(bufs, times)
		if n == 0 && err == nil {
			// A ring does not tell that the interface went down; the wait does.
			if err = s.wait(); err == nil {
				continue
			}
		}
		return s.counted(n, truncated, err)
	}
}

// TryRecv is Recv without the waiting: it may return no frames.
func (s *Socket) TryRecv(bufs [][]byte, times []time.Time) (int, error) {
	s.recvMu.Lock()
	defer s.recvMu.Unlock()
	if err := s.mayRecv(); err != nil {
		return 0, err
	}
	n, truncated, err := s.receive(bufs, times)
	return s.counted(n, truncated, err)
}

// counted counts what was received, and says what Recv makes of it.
func (s *Socket) counted(n, truncated int, err error) (int, error) {
	switch {
	case errors.Is(err, unix.ENETDOWN):
		s.linkDowns.Add(1)
		return 0, unix.ENETDOWN
	case errors.Is(err, unix.ENOBUFS): // memory, passes
		return 0, nil
	case err != nil:
		return 0, err
	}
	s.received.Add(uint64(n)) //nolint:gosec // not negative
	if truncated > 0 {
		s.truncated.Add(uint64(truncated)) //nolint:gosec // positive
		_ = s.refit()                      // the next ones may fit; Refresh tells what is wrong
	}
	return n, nil
}

// mayRecv returns why Recv must return.
func (s *Socket) mayRecv() error {
	switch d := s.deadline.Load(); {
	case s.closed.Load():
		return os.ErrClosed
	case s.stopped.Load(), d != 0 && time.Since(s.opened) >= time.Duration(d):
		return fmt.Errorf("interface %s: %w", s.name, os.ErrDeadlineExceeded)
	}
	return nil
}

// receive receives without waiting.
func (s *Socket) receive(bufs [][]byte, times []time.Time) (n, truncated int, err error) {
	s.ringMu.Lock()
	defer s.ringMu.Unlock()
	if s.ring != nil {
		n, truncated = s.ring.receive(bufs, times)
		return n, truncated, nil
	}
	return s.rx.receive(uintptr(s.fd), bufs, times)
}

// await waits until there may be something to receive, or a reason to return.
func (s *Socket) await() error {
	timeout := -1
	if d := s.deadline.Load(); d != 0 {
		left := time.Duration(d) - time.Since(s.opened)
		timeout = int(max(0, left+time.Millisecond-1) / time.Millisecond)
	}
	fds := [...]unix.PollFd{{Fd: int32(s.fd), Events: unix.POLLIN}, {Fd: int32(s.wake), Events: unix.POLLIN}} //nolint:gosec // descriptors
	if _, err := unix.Poll(fds[:], timeout); err != nil && !errors.Is(err, unix.EINTR) {
		return os.NewSyscallError("poll", err)
	}
	if fds[0].Revents&unix.POLLERR == 0 {
		return nil
	}
	n, err := unix.GetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_ERROR)
	if err == nil && n != 0 {
		err = syscall.Errno(n) //nolint:gosec // an errno
	}
	return os.NewSyscallError("recv", err)
}

// Attempts at a full queue: about 20 ms in all, then the frame is lost.
const (
	sendAttempts = 20
	sendPause    = time.Millisecond
)

// Send sends frames and returns how many the interface took. It skips frames
// that it does not take, and returns the error of the last of those.
func (s *Socket) Send(frames [][]byte) (int, error) {
	tx := s.sender()
	defer tx.mu.Unlock()
	var sent int
	var last error
	for part := range slices.Chunk(frames, maxBatch) {
		n, err := s.sendBatch(&tx.vector, part)
		sent += n
		if err != nil {
			last = err
		}
	}
	s.sent.Add(uint64(sent)) //nolint:gosec // not negative
	s.sendErrors.Add(uint64(len(frames) - sent))
	return sent, last
}

func (s *Socket) sendBatch(tx *vector, frames [][]byte) (sent int, last error) {
	want := tx.set(frames)
	defer tx.clear(want)
	attempts := 0
	for next := 0; next < want; {
		if s.closed.Load() {
			return sent, os.ErrClosed
		}
		n, errno := tx.sendmmsg(uintptr(s.fd), next, want)
		switch {
		case errno == 0:
			next += n
			sent += n
			attempts = 0
		case errno == unix.EAGAIN: // what was sent has not left the buffer
			s.awaitSpace()
		case errno == unix.ENOBUFS && attempts < sendAttempts:
			s.noBuffers.Add(1)
			attempts++
			time.Sleep(sendPause)
		case errno == unix.ENETDOWN || errno == unix.ENXIO:
			return sent, errno // no other frame would fare better
		default:
			last = os.NewSyscallError("sendmmsg", errno)
			next++
			attempts = 0
		}
	}
	return sent, last
}

// spaceLook is how often Send looks whether the socket was closed while it waits.
const spaceLook = 100 * time.Millisecond

// maxSenders is how many Sends may be at work at once: two receivers, and who sends
// what comes later.
const maxSenders = 3

// sender is what one Send needs.
type sender struct {
	mu sync.Mutex
	vector
}

// sender returns a free one, locked.
func (s *Socket) sender() *sender {
	for i := range s.tx {
		if s.tx[i].mu.TryLock() {
			return &s.tx[i]
		}
	}
	s.tx[0].mu.Lock()
	return &s.tx[0]
}

// awaitSpace waits until there may be room in the socket's buffer.
func (s *Socket) awaitSpace() {
	fds := [...]unix.PollFd{{Fd: int32(s.fd), Events: unix.POLLOUT}} //nolint:gosec // a descriptor
	_, _ = unix.Poll(fds[:], int(spaceLook/time.Millisecond))        // the next attempt tells
}
