package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"slices"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Sizes of a 4 KiB write and its acknowledgement, as NBD has them. The mirror's
// packets are 20 bytes longer.
const (
	pingBytes = 4096 + 28
	pongBytes = 16
)

// pongCommand answers pingBytes with pongBytes on one connection. It blocks in the
// kernel without Go's scheduler knowing, so that only the socket is measured.
func pongCommand(_ context.Context, args []string) error {
	f := flag.NewFlagSet("pong", flag.ExitOnError)
	network := f.String("network", "unix", "unix or tcp")
	addr := f.String("addr", "", "address to listen on")
	_ = f.Parse(args) // exits on error
	l, err := net.Listen(*network, *addr)
	if err != nil {
		return err
	}
	c, err := l.Accept()
	if err != nil {
		return err
	}
	fd, err := rawFD(c)
	if err != nil {
		return err
	}
	runtime.LockOSThread()
	buf := make([]byte, pingBytes)
	for {
		if err := rawRead(fd, buf); err != nil {
			return nil //nolint:nilerr // the other side is done
		}
		if err := rawWrite(fd, buf[:pongBytes]); err != nil {
			return err
		}
	}
}

// pingPong measures round trips for d and returns the mean and the median.
func pingPong(network, addr string, d time.Duration) (mean, median time.Duration, err error) {
	c, err := dialRetry(network, addr)
	if err != nil {
		return 0, 0, err
	}
	fd, err := rawFD(c)
	if err != nil {
		return 0, 0, err
	}
	defer func() { _ = unix.Close(fd) }()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	buf := make([]byte, pingBytes)
	var took []time.Duration
	began := time.Now()
	for last := began; last.Sub(began) < d; {
		if err := errors.Join(rawWrite(fd, buf), rawRead(fd, buf[:pongBytes])); err != nil {
			return 0, 0, fmt.Errorf("ping %s: %w", addr, err)
		}
		now := time.Now()
		took = append(took, now.Sub(last))
		last = now
	}
	mean = time.Since(began) / time.Duration(len(took))
	slices.Sort(took)
	return mean, took[len(took)/2], nil
}

func dialRetry(network, addr string) (c net.Conn, err error) {
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if c, err = net.Dial(network, addr); err == nil {
			return c, nil
		}
	}
	return nil, err
}

// rawFD takes the descriptor out of c and makes it blocking.
func rawFD(c net.Conn) (int, error) {
	defer c.Close()
	sc, ok := c.(interface{ File() (*os.File, error) })
	if !ok {
		return 0, fmt.Errorf("%T has no descriptor", c)
	}
	file, err := sc.File()
	if err != nil {
		return 0, err
	}
	defer file.Close()
	fd, err := unix.Dup(int(file.Fd()))
	if err != nil {
		return 0, err
	}
	return fd, unix.SetNonblock(fd, false)
}

func rawRead(fd int, p []byte) error  { return rawAll(unix.SYS_READ, fd, p) }
func rawWrite(fd int, p []byte) error { return rawAll(unix.SYS_WRITE, fd, p) }

func rawAll(trap uintptr, fd int, p []byte) error {
	for len(p) > 0 {
		n, _, errno := syscall.RawSyscall(trap, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)))
		switch {
		case errno == syscall.EINTR:
		case errno != 0:
			return errno
		case n == 0:
			return io.ErrUnexpectedEOF
		default:
			p = p[n:]
		}
	}
	return nil
}
