package main

import (
	"context"
	"flag"
	"io"
	"net"
	"os"
	"time"
)

// copyBlock is the unit of the plain copy.
const copyBlock = 1 << 20

// receiveCommand writes what one connection sends to a file, and answers with one
// byte when it has everything: the far side of the plain copy that a resync is
// compared with.
func receiveCommand(_ context.Context, args []string) error {
	f := flag.NewFlagSet("receive", flag.ExitOnError)
	path := f.String("file", "", "existing file to overwrite")
	addr := f.String("addr", "", "host:port to listen on")
	_ = f.Parse(args) // exits on error
	l, err := net.Listen("tcp", *addr)
	if err != nil {
		return err
	}
	c, err := l.Accept()
	if err != nil {
		return err
	}
	defer c.Close()
	out, err := os.OpenFile(*path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer out.Close()
	// Wrapped, so that no splice is used: the data passes through memory, as
	// it does in a resync.
	if _, err := io.CopyBuffer(struct{ io.Writer }{out}, struct{ io.Reader }{c}, make([]byte, copyBlock)); err != nil {
		return err
	}
	_, err = c.Write([]byte{1})
	return err
}

// plainCopy sends n bytes of a file to a receiver and returns how long it took.
func plainCopy(path, addr string, n int64) (time.Duration, error) {
	in, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer in.Close()
	c, err := dialRetry("tcp", addr)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	began := time.Now()
	src := struct{ io.Reader }{io.LimitReader(in, n)}
	if _, err := io.CopyBuffer(struct{ io.Writer }{c}, src, make([]byte, copyBlock)); err != nil {
		return 0, err
	}
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		return 0, err
	}
	if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
		return 0, err
	}
	return time.Since(began), nil
}
