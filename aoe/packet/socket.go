package packet

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/mdlayher/packet"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// DefaultBuffer is the size of the socket's buffers in bytes, each direction:
// some hundred jumbo frames of several initiators. A frame lost here costs its
// initiator a retransmission timeout.
const DefaultBuffer = 16 << 20

// Options of Open.
type Options struct {
	Filter Filter
	// Buffer is the size of the receive and of the send buffer in bytes; 0
	// means DefaultBuffer. Without CAP_NET_ADMIN the kernel's limits apply.
	Buffer int
}

// Stats are a socket's counters.
type Stats struct {
	Received   uint64 // frames
	Sent       uint64 // frames
	Truncated  uint64 // frames longer than the buffer they came into
	Overruns   uint64 // frames that the kernel dropped because the socket's buffer was full
	SendErrors uint64 // frames that the interface refused
	NoBuffers  uint64 // times that the interface's queue was full
	LinkDowns  uint64 // times that the interface went down
}

// Socket is an AF_PACKET socket. Recv and Send may run at the same time, each
// in one goroutine; the other methods may be called from any.
type Socket struct {
	name  string
	index int
	conn  *packet.Conn
	raw   syscall.RawConn
	rx    vector
	tx    vector

	mtu  atomic.Int64
	addr atomic.Uint64
	up   atomic.Bool

	memberMu sync.Mutex
	members  []membership // guarded by memberMu

	statsMu    sync.Mutex // guards overruns: the kernel resets its count on reading
	overruns   uint64
	received   atomic.Uint64
	sent       atomic.Uint64
	truncated  atomic.Uint64
	sendErrors atomic.Uint64
	noBuffers  atomic.Uint64
	linkDowns  atomic.Uint64
}

// Open opens a socket for AoE frames on the named interface. The filter is in
// place before the first frame can arrive.
func Open(name string, o Options) (*Socket, error) {
	ifi, err := net.InterfaceByName(name)
	if err != nil {
		return nil, fmt.Errorf("interface %s: %w", name, noDevice(err))
	}
	filter, err := bpf.Assemble(o.Filter.instructions())
	if err != nil {
		return nil, fmt.Errorf("assemble filter: %w", err)
	}
	conn, err := packet.Listen(ifi, packet.Raw, EtherType, &packet.Config{Filter: filter})
	if err != nil {
		if errors.Is(err, os.ErrPermission) {
			return nil, fmt.Errorf("interface %s: raw sockets need root or CAP_NET_RAW: %w", name, err)
		}
		return nil, fmt.Errorf("interface %s: %w", name, err)
	}
	s := &Socket{name: name, index: ifi.Index, conn: conn}
	if err := s.setup(o); err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("interface %s: %w", name, err)
	}
	return s, nil
}

// noDevice makes a missing interface recognizable: package net has only text.
func noDevice(err error) error {
	var op *net.OpError
	if errors.As(err, &op) && op.Err != nil && op.Err.Error() == "no such network interface" {
		return syscall.ENODEV
	}
	return err
}

func (s *Socket) setup(o Options) error {
	var err error
	if s.raw, err = s.conn.SyscallConn(); err != nil {
		return err
	}
	size := o.Buffer
	if size <= 0 {
		size = DefaultBuffer
	}
	err = s.control(func(fd uintptr) error {
		for _, opt := range [][2]int{{unix.SO_RCVBUFFORCE, unix.SO_RCVBUF}, {unix.SO_SNDBUFFORCE, unix.SO_SNDBUF}} {
			if unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, opt[0], size) == nil {
				continue
			}
			if err := unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, opt[1], size); err != nil {
				return os.NewSyscallError("setsockopt", err)
			}
		}
		return os.NewSyscallError("setsockopt", unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1))
	})
	if err != nil {
		return err
	}
	_, err = s.Refresh()
	return err
}

// control runs f with the file descriptor.
func (s *Socket) control(f func(fd uintptr) error) error {
	var inner error
	if err := s.raw.Control(func(fd uintptr) { inner = f(fd) }); err != nil {
		return err
	}
	return inner
}

// SetFilter replaces the filter. Frames in the socket's buffer have passed the
// old one.
func (s *Socket) SetFilter(f Filter) error {
	raw, err := bpf.Assemble(f.instructions())
	if err != nil {
		return fmt.Errorf("assemble filter: %w", err)
	}
	return s.conn.SetBPF(raw)
}

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

func (s *Socket) ask(fd, req uintptr) (r ifreq, err error) {
	copy(r.name[:len(r.name)-1], s.name)
	return r, r.ioctl(fd, req)
}

// Recv waits for frames and receives each into one of bufs, which it cuts to
// the frame's length; a frame that did not fit has length zero. It returns how
// many. times, unless nil, is as long as bufs and gets the kernel's times of
// arrival. Recv returns syscall.ENETDOWN once when the interface goes down; the
// next call waits until it is up and a frame comes.
func (s *Socket) Recv(bufs [][]byte, times []time.Time) (int, error) {
	want := s.rx.set(bufs)
	if times != nil {
		s.rx.wantTimes(want)
	}
	defer s.rx.clear(want)
	var n int
	var errno syscall.Errno
	err := s.raw.Read(func(fd uintptr) bool {
		n, errno = s.rx.recvmmsg(fd, want)
		return errno != unix.EAGAIN
	})
	switch {
	case err != nil:
		return 0, err
	case errno == unix.ENETDOWN:
		s.linkDowns.Add(1)
		return 0, errno
	case errno == unix.ENOBUFS: // memory, passes
		return 0, nil
	case errno != 0:
		return 0, os.NewSyscallError("recvmmsg", errno)
	}
	s.received.Add(uint64(n))
	for i := range n {
		m := &s.rx.msgs[i]
		if m.hdr.Flags&unix.MSG_TRUNC != 0 {
			s.truncated.Add(1)
			m.len = 0
		}
		bufs[i] = bufs[i][:m.len]
	}
	if times != nil {
		s.rx.times(times[:n])
	}
	return n, nil
}

// Attempts at a full queue: about 20 ms in all, then the frame is lost.
const (
	sendAttempts = 20
	sendPause    = time.Millisecond
)

// Send sends frames and returns how many the interface took. It skips frames
// that it does not take, and returns the error of the last of those.
func (s *Socket) Send(frames [][]byte) (int, error) {
	var sent int
	var last error
	for part := range slices.Chunk(frames, maxBatch) {
		n, err := s.sendBatch(part)
		sent += n
		if err != nil {
			last = err
		}
	}
	s.sent.Add(uint64(sent))
	s.sendErrors.Add(uint64(len(frames) - sent))
	return sent, last
}

func (s *Socket) sendBatch(frames [][]byte) (sent int, last error) {
	want := s.tx.set(frames)
	defer s.tx.clear(want)
	attempts := 0
	for next := 0; next < want; {
		var n int
		var errno syscall.Errno
		err := s.raw.Write(func(fd uintptr) bool {
			n, errno = s.tx.sendmmsg(fd, next, want)
			return errno != unix.EAGAIN
		})
		switch {
		case err != nil:
			return sent, err // the socket is closed
		case errno == 0:
			next += n
			sent += n
			attempts = 0
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

// StopRecv makes Recv return an error that wraps os.ErrDeadlineExceeded, now
// and from now on. Send goes on.
func (s *Socket) StopRecv() error { return s.conn.SetReadDeadline(time.Unix(1, 0)) }

// SetRecvDeadline makes Recv return an error at time t; the zero time is never.
func (s *Socket) SetRecvDeadline(t time.Time) error { return s.conn.SetReadDeadline(t) }

// Stats returns the counters.
func (s *Socket) Stats() Stats {
	s.statsMu.Lock()
	defer s.statsMu.Unlock()
	if k, err := s.conn.Stats(); err == nil {
		s.overruns += uint64(k.Drops)
	}
	return Stats{
		Received: s.received.Load(), Sent: s.sent.Load(), Truncated: s.truncated.Load(),
		Overruns: s.overruns, SendErrors: s.sendErrors.Load(),
		NoBuffers: s.noBuffers.Load(), LinkDowns: s.linkDowns.Load(),
	}
}

// Close closes the socket.
func (s *Socket) Close() error { return s.conn.Close() }
