// Command vblade exports a file, a block device or an NBD export by ATA over
// Ethernet.
//
// It takes the options of vblade 25 with the same meaning and prints the same
// line at start-up, so vbladed, Debian's vblade@.service and the OCF agent
// AoEtarget run it unchanged. It differs where vblade does harm:
//
//   - It goes on when the interface goes down, away, or is renamed, and serves again
//     when there is one of that name; vblade exits. It waits for one that is not
//     there yet.
//   - An address, number or MAC address that cannot be read is an error; vblade
//     takes 0, or exports to everybody.
//   - The file is locked against a second writer.
//   - SIGTERM and SIGINT answer what was received, flush, and exit with 0.
//   - FLUSH CACHE flushes.
//   - A file that grows or shrinks is noticed (every second, and at SIGHUP), and
//     the export advertised again, so that initiators look at its new size.
//
// In place of the file there may be an NBD URI (nbd://HOST[:PORT]/EXPORT or
// nbd+unix:///EXPORT?socket=PATH). When that server goes, vblade falls silent and
// exits with 1: initiators repeat what was not answered until it is started again.
//
// Without -s a write is acknowledged when the page cache has it, as in vblade.
// With -s it is acknowledged when it is durable; requests that arrive together
// share one flush.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/replblk/replblk/aoe"
	"github.com/replblk/replblk/aoe/netif"
	"github.com/replblk/replblk/block"
	"github.com/replblk/replblk/block/file"
	"github.com/replblk/replblk/block/remote"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	// What reads the output may end before us (the logger of vbladed): that is no
	// reason to stop serving.
	signal.Ignore(syscall.SIGPIPE)
	if err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil {
		fmt.Fprintf(os.Stderr, "vblade: %v\n", err)
		if errors.Is(err, errUsage) {
			fmt.Fprintln(os.Stderr, usage)
		}
		os.Exit(1)
	}
}

// run is main without the process: it serves until ctx ends.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	o, err := parse(args)
	if err != nil {
		return err
	}
	backing, err := o.open(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = backing.Close() }()
	dev, err := newWindow(backing, o.offset, o.length)
	if err != nil {
		return err
	}
	target, err := aoe.NewTarget(o.targetOptions(dev, stderr))
	if err != nil {
		return err
	}
	defer target.Close()
	port, err := aoe.NewPort(target)
	if err != nil {
		return err
	}
	iface := netif.New(o.netif, port, netif.Options{Log: slog.New(slog.NewTextHandler(stderr, nil))})
	if err := iface.Open(); err != nil {
		return err
	}
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	switch b := backing.(type) {
	case *file.File:
		go followSize(ctx, b, dev, port, stderr)
	case *remote.Device:
		go endWhenLost(ctx, b, end)
	}
	err = serve(ctx, iface, o, dev.Geometry().Sectors, stdout)
	if cause := context.Cause(ctx); errors.Is(cause, errLost) {
		return cause
	}
	if o.readOnly {
		return err
	}
	return errors.Join(err, block.FlushAll(dev))
}

// serve serves the interface until ctx ends, and says so as vblade does as soon as it is up.
func serve(ctx context.Context, iface *netif.Interface, o *options, sectors uint64, stdout io.Writer) error {
	served := make(chan error, 1)
	go func() { served <- iface.Run(ctx) }()
	select {
	case <-iface.Ready():
		// Not before: a script that waits for the line may discover at once.
		mode := "O_RDWR"
		if o.readOnly {
			mode = "O_RDONLY"
		}
		fmt.Fprintf(stdout, "pid %d: e%d.%d, %d sectors %s\n", os.Getpid(), o.shelf, o.slot, sectors, mode)
	case <-ctx.Done():
	}
	return <-served
}
