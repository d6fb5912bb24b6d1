package nbd

import (
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// rawConn returns the descriptor of the connection for system calls that
// package net does not have; nil if there is none.
func rawConn(nc net.Conn) syscall.RawConn {
	sc, ok := nc.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return nil
	}
	return raw
}

// tune prepares an accepted socket. The default buffers of a unix socket make a
// transfer of 1 MiB wake both sides five times.
func tune(nc net.Conn) {
	switch s := nc.(type) {
	case *net.UnixConn:
		_ = s.SetReadBuffer(socketBuffer)
		_ = s.SetWriteBuffer(socketBuffer)
	case *net.TCPConn:
		_ = s.SetNoDelay(true)
		_ = s.SetKeepAlive(true)
	}
}

// hungUp says whether the client has closed its end, even if there is still
// something to read from it.
func (c *conn) hungUp() bool {
	if c.raw == nil {
		return false
	}
	gone := false
	err := c.raw.Control(func(fd uintptr) {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
		n, err := unix.Poll(p, 0)
		gone = err == nil && n > 0 && p[0].Revents&(unix.POLLRDHUP|unix.POLLHUP|unix.POLLERR) != 0
	})
	return gone || err != nil
}
