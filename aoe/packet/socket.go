package packet

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

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
	// NoRing receives by recvmmsg, as it is done where there is no memory for a ring.
	NoRing bool
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

// linkRoom is how much longer than the MTU a frame can be: addresses, type, a VLAN tag.
const linkRoom = 18

// Socket is an AF_PACKET socket. Its methods may be called from any goroutine; Recv and
// TryRecv wait for each other.
type Socket struct {
	name  string
	index int
	fd    int // guarded by use, recvMu and those of tx: closed with all of them held
	wake  int // eventfd that ends the waiting of Recv; as fd

	closed   atomic.Bool
	stopped  atomic.Bool
	deadline atomic.Int64 // of Recv, as a time.Duration after opened; 0 is none
	opened   time.Time
	use      sync.RWMutex // held to read by who uses fd for a moment

	parallel bool       // there is a processor for others while Recv waits awake
	recvMu   sync.Mutex // guards rx and patience
	rx       vector
	patience patience
	tx       [maxSenders]sender

	ringMu   sync.Mutex // held while the ring is read or replaced
	ring     *ring      // guarded by ringMu: nil without one
	ringSize int        // at most, in bytes; 0 is no ring

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
	s := &Socket{name: name, index: ifi.Index, fd: -1, wake: -1, opened: time.Now(), parallel: runtime.GOMAXPROCS(0) > 1}
	if err := s.open(filter, o); err != nil {
		s.closed.Store(true)
		return nil, errors.Join(fmt.Errorf("interface %s: %w", name, err), s.release())
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

// open opens the socket. Nothing is received before the filter is in place.
func (s *Socket) open(filter []bpf.RawInstruction, o Options) (err error) {
	// The descriptor blocks, and every call says that it must not: the runtime's poller,
	// with which it would be registered otherwise, is woken by each frame that comes and
	// each that has left.
	s.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if errors.Is(err, os.ErrPermission) {
		return fmt.Errorf("raw sockets need root or CAP_NET_RAW: %w", os.NewSyscallError("socket", err))
	}
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	if s.wake, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return os.NewSyscallError("eventfd", err)
	}
	size := o.Buffer
	if size <= 0 {
		size = DefaultBuffer
	}
	if err := setBuffers(s.fd, size); err != nil {
		return err
	}
	if err := setFilter(s.fd, filter); err != nil {
		return err
	}
	s.ringSize = size
	if o.NoRing {
		s.ringSize = 0
		if err := wantTimes(s.fd); err != nil {
			return err
		}
	}
	if _, err := s.Refresh(); err != nil {
		return err
	}
	const etherType = EtherType&0xff<<8 | EtherType>>8 // in network byte order
	return os.NewSyscallError("bind", unix.Bind(s.fd, &unix.SockaddrLinklayer{Protocol: etherType, Ifindex: s.index}))
}

// setBuffers sets the sizes of the socket's buffers, or what the kernel permits.
func setBuffers(fd, size int) error {
	for _, opt := range [][2]int{{unix.SO_RCVBUFFORCE, unix.SO_RCVBUF}, {unix.SO_SNDBUFFORCE, unix.SO_SNDBUF}} {
		if unix.SetsockoptInt(fd, unix.SOL_SOCKET, opt[0], size) == nil {
			continue
		}
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, opt[1], size); err != nil {
			return os.NewSyscallError("setsockopt", err)
		}
	}
	return nil
}

// wantTimes makes recvmmsg deliver the times of arrival; a ring has them anyway.
func wantTimes(fd int) error {
	return os.NewSyscallError("setsockopt", unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1))
}

// fitRing makes the ring hold what the MTU admits, before anybody learns of that MTU.
// Where there is no memory for a ring the socket's buffer has to do.
func (s *Socket) fitRing(fd int, mtu int) error {
	s.ringMu.Lock()
	defer s.ringMu.Unlock()
	room := mtu + linkRoom
	if s.ringSize == 0 || s.ring != nil && s.ring.room >= room {
		return nil
	}
	old := s.ring
	s.ring = nil
	if old != nil {
		if err := old.close(fd); err != nil {
			return err
		}
	}
	var err error
	if s.ring, err = newRing(fd, s.ringSize, room); err != nil {
		s.ringSize = 0
		return wantTimes(fd)
	}
	return nil
}

// refit makes the ring hold what the MTU admits by now.
func (s *Socket) refit() error {
	return s.control(func(fd uintptr) error {
		mtu, err := s.ask(fd, unix.SIOCGIFMTU)
		if err != nil {
			return err
		}
		return s.fitRing(int(fd), int(binary.NativeEndian.Uint32(mtu.data[:])))
	})
}

// control runs f with the file descriptor.
func (s *Socket) control(f func(fd uintptr) error) error {
	s.use.RLock()
	defer s.use.RUnlock()
	if s.closed.Load() {
		return os.ErrClosed
	}
	return f(uintptr(s.fd))
}

func setFilter(fd int, prog []bpf.RawInstruction) error {
	filter := make([]unix.SockFilter, len(prog))
	for i, p := range prog {
		filter[i] = unix.SockFilter{Code: p.Op, Jt: p.Jt, Jf: p.Jf, K: p.K}
	}
	return os.NewSyscallError("setsockopt", unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
		&unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]})) //nolint:gosec // a short program
}

// SetFilter replaces the filter. Frames in the socket's buffer have passed the
// old one.
func (s *Socket) SetFilter(f Filter) error {
	raw, err := bpf.Assemble(f.instructions())
	if err != nil {
		return fmt.Errorf("assemble filter: %w", err)
	}
	return s.control(func(fd uintptr) error { return setFilter(int(fd), raw) })
}

// StopRecv makes Recv return an error that wraps os.ErrDeadlineExceeded, now
// and from now on. Send goes on.
func (s *Socket) StopRecv() error {
	s.stopped.Store(true)
	return s.control(func(uintptr) error { return s.interrupt() })
}

// interrupt ends the waiting of Recv, for good.
func (s *Socket) interrupt() error {
	one := [8]byte{}
	binary.NativeEndian.PutUint64(one[:], 1)
	_, err := unix.Write(s.wake, one[:])
	return os.NewSyscallError("write", err)
}

// SetRecvDeadline makes the next Recv return an error at time t; the zero time is never.
func (s *Socket) SetRecvDeadline(t time.Time) error {
	var d time.Duration
	if !t.IsZero() {
		d = max(1, t.Sub(s.opened))
	}
	s.deadline.Store(int64(d))
	return nil
}

// Stats returns the counters.
func (s *Socket) Stats() Stats {
	s.statsMu.Lock()
	defer s.statsMu.Unlock()
	_ = s.control(func(fd uintptr) error { // closed: there is nothing new
		k, err := unix.GetsockoptTpacketStats(int(fd), unix.SOL_PACKET, unix.PACKET_STATISTICS)
		if err == nil {
			s.overruns += uint64(k.Drops)
		}
		return err
	})
	return Stats{
		Received: s.received.Load(), Sent: s.sent.Load(), Truncated: s.truncated.Load(),
		Overruns: s.overruns, SendErrors: s.sendErrors.Load(),
		NoBuffers: s.noBuffers.Load(), LinkDowns: s.linkDowns.Load(),
	}
}

// Close closes the socket, after a Recv or Send that is running has returned.
func (s *Socket) Close() error {
	if s.closed.Swap(true) {
		return os.ErrClosed
	}
	err := s.interrupt()
	s.recvMu.Lock()
	defer s.recvMu.Unlock()
	for i := range s.tx {
		s.tx[i].mu.Lock()
		defer s.tx[i].mu.Unlock()
	}
	s.use.Lock()
	defer s.use.Unlock()
	return errors.Join(err, s.release())
}

// release gives back what the kernel has given.
func (s *Socket) release() error {
	var errs []error
	if s.ring != nil {
		errs = append(errs, s.ring.unmap())
		s.ring = nil
	}
	for _, fd := range []int{s.fd, s.wake} {
		if fd >= 0 {
			errs = append(errs, os.NewSyscallError("close", unix.Close(fd)))
		}
	}
	return errors.Join(errs...)
}
