// Command nbd attaches /dev/nbd0 of the machine of the interop tests to an export until SIGTERM. When
// the connection is lost and -dead is given it makes another one and gives it to the kernel, whose
// way that is for a device to survive its server (netlink, family "nbd").
package main

import (
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"time"

	"golang.org/x/sys/unix"
)

func main() {
	server := flag.String("server", "", "address of the server")
	export := flag.String("export", "", "name of the export")
	timeout := flag.Duration("timeout", 0, "after which the kernel sends a request again; 0: never")
	dead := flag.Duration("dead", 0, "how long the kernel waits for another connection; 0: requests fail at once")
	flag.Parse()
	if err := run(*server, *export, *timeout, *dead); err != nil {
		fmt.Println("nbd:", err)
		os.Exit(1)
	}
}

// Commands and attributes of the kernel's nbd family.
const (
	cmdConnect     = 1
	cmdDisconnect  = 2
	cmdReconfigure = 3

	attrIndex       = 1
	attrSize        = 2
	attrBlock       = 3
	attrTimeout     = 4
	attrServerFlags = 5
	attrSockets     = 7
	attrDead        = 8
	attrSockItem    = 1
	attrSockFD      = 1
)

func run(server, export string, timeout, dead time.Duration) error {
	k, err := openFamily("nbd")
	if err != nil {
		return err
	}
	ended, stop := signal.NotifyContext(context.Background(), unix.SIGTERM)
	defer stop()
	context.AfterFunc(ended, func() {
		// A family of its own: the other one may be waiting for an answer.
		if k, err := openFamily("nbd"); err == nil {
			_ = k.call(cmdDisconnect, number32(nil, attrIndex, 0))
		}
		os.Exit(0)
	})
	for command := byte(cmdConnect); ; command = cmdReconfigure {
		c, size, flags, err := dial(server, export)
		for ; err != nil; c, size, flags, err = dial(server, export) {
			if command == cmdConnect {
				return err
			}
			time.Sleep(100 * time.Millisecond)
		}
		f, err := c.(*net.TCPConn).File()
		if err != nil {
			return err
		}
		attrs := number32(nil, attrIndex, 0)
		attrs = number64(attrs, attrSize, size)
		attrs = number64(attrs, attrBlock, 4096)
		attrs = number64(attrs, attrServerFlags, uint64(flags))
		if timeout > 0 {
			attrs = number64(attrs, attrTimeout, uint64(timeout/time.Second))
		}
		if dead > 0 {
			attrs = number64(attrs, attrDead, uint64(dead/time.Second))
		}
		attrs = attribute(attrs, attrSockets|unix.NLA_F_NESTED, attribute(nil, attrSockItem|unix.NLA_F_NESTED, number32(nil, attrSockFD, uint32(f.Fd()))))
		if err := k.call(command, attrs); err != nil {
			return fmt.Errorf("nbd command %d: %w", command, err)
		}
		fmt.Printf("attached, %d bytes\n", size)
		poll := []unix.PollFd{{Fd: int32(f.Fd()), Events: unix.POLLRDHUP}}
		for {
			if _, err := unix.Poll(poll, -1); !errors.Is(err, unix.EINTR) {
				break
			}
		}
		_, _ = f.Close(), c.Close() // the kernel has its own, and has lost it
		if dead == 0 {
			return errors.New("the connection is lost")
		}
	}
}

// dial connects and asks for an export by name, the oldest of the handshakes that all
// servers know.
func dial(server, export string) (c net.Conn, size uint64, flags uint16, err error) {
	if c, err = net.DialTimeout("tcp", server, 5*time.Second); err != nil {
		return nil, 0, 0, err
	}
	conn := c
	defer func() {
		if err != nil {
			_ = conn.Close()
		}
	}()
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	hello := make([]byte, 18)
	if _, err = io.ReadFull(c, hello); err != nil {
		return nil, 0, 0, err
	}
	ask := append([]byte{0, 0, 0, 3}, "IHAVEOPT\x00\x00\x00\x01"...) // no zeroes at the end
	ask = append(binary.BigEndian.AppendUint32(ask, uint32(len(export))), export...)
	if _, err = c.Write(ask); err != nil {
		return nil, 0, 0, err
	}
	about := make([]byte, 10)
	if _, err = io.ReadFull(c, about); err != nil {
		return nil, 0, 0, err
	}
	return c, binary.BigEndian.Uint64(about), binary.BigEndian.Uint16(about[8:]), c.SetDeadline(time.Time{})
}
