package transport

import (
	"context"
	"errors"
	"fmt"
	"net"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// maxIovecs bounds one writev. The kernel's limit is 1024.
const maxIovecs = 512

// TCP is the Network of real sockets.
type TCP struct {
	Options Options
}

// Listen binds addr. SO_REUSEADDR is set, so that a restart need not wait for
// old connections to be forgotten.
func (n *TCP) Listen(addr string) (Listener, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, err
	}
	return &tcpListener{l: l.(*net.TCPListener), opt: n.Options}, nil
}

// Dial connects to remote, bound to the host of local with a port of the
// kernel's choice: the peer may insist on the configured address.
func (n *TCP) Dial(ctx context.Context, local, remote string) (Socket, error) {
	var d net.Dialer
	d.KeepAlive = -1 // the protocol has its own pings
	if local != "" {
		host, _, err := net.SplitHostPort(local)
		if err != nil {
			host = local
		}
		ip, err := net.ResolveIPAddr("ip", host)
		if err != nil {
			return nil, fmt.Errorf("local address %q: %w", local, err)
		}
		if !ip.IP.IsUnspecified() {
			d.LocalAddr = &net.TCPAddr{IP: ip.IP, Zone: ip.Zone}
		}
	}
	c, err := d.DialContext(ctx, "tcp", remote)
	if err != nil {
		return nil, err
	}
	return newTCPSocket(c.(*net.TCPConn), n.Options)
}

type tcpListener struct {
	l   *net.TCPListener
	opt Options
}

func (l *tcpListener) Accept() (Socket, error) {
	for {
		c, err := l.l.AcceptTCP()
		if err != nil {
			return nil, err
		}
		// A connection that died in the backlog is not the listener's fault.
		if s, err := newTCPSocket(c, l.opt); err == nil {
			return s, nil
		}
	}
}

func (l *tcpListener) Close() error { return l.l.Close() }
func (l *tcpListener) Addr() string { return l.l.Addr().String() }

// tcpSocket writes with its own writev instead of net.Buffers: net.Buffers waits
// until everything is written, and the caller of TryWrite must not wait.
type tcpSocket struct {
	c    *net.TCPConn
	raw  syscall.RawConn
	peer string

	// State of the write in progress, here instead of in a closure so that a
	// write allocates nothing.
	iov      []unix.Iovec
	wrote    int
	writeErr error
	tryFn    func(fd uintptr) bool
	waitFn   func(fd uintptr) bool
}

func newTCPSocket(c *net.TCPConn, opt Options) (Socket, error) {
	raw, err := c.SyscallConn()
	if err == nil {
		err = setOptions(c, raw, opt)
	}
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	s := &tcpSocket{c: c, raw: raw, peer: c.RemoteAddr().String(), iov: make([]unix.Iovec, 0, 64)}
	s.tryFn = func(fd uintptr) bool { s.writev(fd); return true }
	s.waitFn = func(fd uintptr) bool { s.writev(fd); return s.wrote > 0 || s.writeErr != nil }
	return s, nil
}

func setOptions(c *net.TCPConn, raw syscall.RawConn, opt Options) error {
	if err := c.SetNoDelay(true); err != nil {
		return err
	}
	if opt.SendBuffer > 0 {
		if err := c.SetWriteBuffer(opt.SendBuffer); err != nil {
			return err
		}
	}
	if opt.ReceiveBuffer > 0 {
		if err := c.SetReadBuffer(opt.ReceiveBuffer); err != nil {
			return err
		}
	}
	if opt.UserTimeout <= 0 {
		return nil
	}
	var optErr error
	err := raw.Control(func(fd uintptr) {
		optErr = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(opt.UserTimeout.Milliseconds()))
	})
	return errors.Join(err, optErr)
}

func (s *tcpSocket) Read(p []byte) (int, error)           { return s.c.Read(p) }
func (s *tcpSocket) SetReadDeadline(t time.Time) error    { return s.c.SetReadDeadline(t) }
func (s *tcpSocket) Close() error                         { return s.c.Close() }
func (s *tcpSocket) CloseWrite() error                    { return s.c.CloseWrite() }
func (s *tcpSocket) RemoteAddr() string                   { return s.peer }
func (s *tcpSocket) TryWrite(b [][]byte) (int, error)     { return s.write(b, s.tryFn) }
func (s *tcpSocket) WaitWrite(bufs [][]byte) (int, error) { return s.write(bufs, s.waitFn) }

func (s *tcpSocket) write(bufs [][]byte, fn func(uintptr) bool) (int, error) {
	s.iov = s.iov[:0]
	for _, b := range bufs {
		if len(b) == 0 {
			continue
		}
		if len(s.iov) == maxIovecs {
			break
		}
		v := unix.Iovec{Base: unsafe.SliceData(b)}
		v.SetLen(len(b))
		s.iov = append(s.iov, v)
	}
	if len(s.iov) == 0 {
		return 0, nil
	}
	s.wrote, s.writeErr = 0, nil
	err := s.raw.Write(fn)
	clear(s.iov) // the payload must not stay reachable through us
	if err == nil {
		err = s.writeErr
	}
	return s.wrote, err
}

// writev makes one attempt. The descriptor is non-blocking, as all of Go's are.
func (s *tcpSocket) writev(fd uintptr) {
	for {
		n, _, errno := unix.Syscall(unix.SYS_WRITEV, fd, uintptr(unsafe.Pointer(&s.iov[0])), uintptr(len(s.iov)))
		switch errno {
		case 0:
			s.wrote = int(n)
			return
		case unix.EINTR:
		case unix.EAGAIN:
			return
		default:
			s.writeErr = errno
			return
		}
	}
}

func (s *tcpSocket) Alive() bool {
	alive := false
	err := s.raw.Control(func(fd uintptr) {
		var b [1]byte
		n, _, err := unix.Recvfrom(int(fd), b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
		alive = n > 0 || errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR)
	})
	return err == nil && alive
}
