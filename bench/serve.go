package main

import (
	"context"
	"errors"
	"flag"
	"net"
	"net/http"
	_ "net/http/pprof" //nolint:gosec // only with -pprof, on an address the user chose
	"time"

	"github.com/replblk/replblk/block"
	"github.com/replblk/replblk/block/file"
	"github.com/replblk/replblk/nbd"
)

// serveCommand is an NBD server on a file, without a mirror.
func serveCommand(ctx context.Context, args []string) error {
	f := flag.NewFlagSet("serve", flag.ExitOnError)
	path := f.String("file", "", "file to serve")
	unix := f.String("unix", "", "path of a unix socket to listen on")
	tcp := f.String("tcp", "", "host:port to listen on")
	direct := f.Bool("direct", false, "open the file with O_DIRECT")
	prof := f.String("pprof", "", "host:port for net/http/pprof")
	_ = f.Parse(args) // exits on error
	servePprof(*prof)
	dev, err := file.Open(*path, file.Options{Direct: directMode(*direct)})
	if err != nil {
		return err
	}
	defer func() { _ = dev.Close() }()
	return serveNBD(ctx, nbd.Export{Device: dev}, *unix, *tcp)
}

func directMode(on bool) file.DirectMode {
	if on {
		return file.DirectOn
	}
	return file.DirectOff
}

// serveNBD serves one export on both addresses that are given until ctx ends.
func serveNBD(ctx context.Context, e nbd.Export, unix, tcp string) error {
	s := nbd.NewServer(nbd.Options{})
	if err := s.Add(e); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	failed := make(chan error, 2)
	for network, addr := range map[string]string{"unix": unix, "tcp": tcp} {
		if addr == "" {
			continue
		}
		l, err := net.Listen(network, addr)
		if err != nil {
			return err
		}
		go func() { failed <- s.Serve(ctx, l) }()
	}
	select {
	case <-ctx.Done():
	case err := <-failed:
		return err
	}
	end, stop := context.WithTimeout(context.Background(), 5*time.Second)
	defer stop()
	if err := s.Shutdown(end); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return nil
}

func servePprof(addr string) {
	if addr != "" {
		go func() { _ = http.ListenAndServe(addr, nil) }() //nolint:gosec // for the duration of a measurement
	}
}

var _ block.Device = (*file.File)(nil)
