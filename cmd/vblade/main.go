// Command vblade exports a file or block device by ATA over Ethernet.
//
// It takes the options of vblade 25 with the same meaning and prints the same
// line at start-up, so vbladed, Debian's vblade@.service and the OCF agent
// AoEtarget run it unchanged. It differs where vblade does harm:
//
//   - It goes on when the interface goes down or away, and serves again when it
//     is back; vblade exits.
//   - An address, number or MAC address that cannot be read is an error; vblade
//     takes 0, or exports to everybody.
//   - The file is locked against a second writer.
//   - SIGTERM and SIGINT answer what was received, flush, and exit with 0.
//   - FLUSH CACHE flushes.
//   - A file that grows or shrinks is noticed (every second, and at SIGHUP), and
//     the export advertised again, so that initiators look at its new size.
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
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/replblk/replblk/aoe"
	"github.com/replblk/replblk/aoe/packet"
	"github.com/replblk/replblk/block"
	"github.com/replblk/replblk/block/file"
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
	backing, err := file.Open(o.path, o.fileOptions())
	if err != nil {
		return err
	}
	defer func() { _ = backing.Close() }()
	dev, err := newWindow(backing, o.offset, o.length)
	if err != nil {
		return err
	}
	// Opened before the start-up line is printed: a script that waits for the
	// line may discover at once.
	link, err := packet.Open(o.netif, o.packetOptions())
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
	mode := "O_RDWR"
	if o.readOnly {
		mode = "O_RDONLY"
	}
	fmt.Fprintf(stdout, "pid %d: e%d.%d, %d sectors %s\n", os.Getpid(), o.shelf, o.slot, dev.Geometry().Sectors, mode)
	go followSize(ctx, backing, dev, port, stderr)
	err = serve(ctx, port, link, o, stderr)
	if o.readOnly {
		return err
	}
	return errors.Join(err, block.FlushAll(dev))
}

// reopenInterval is how often a lost interface is looked for.
const reopenInterval = time.Second

// serve runs the port until ctx ends, on a new socket whenever the interface
// was removed and is there again.
func serve(ctx context.Context, port *aoe.Port, link *packet.Socket, o *options, stderr io.Writer) error {
	for {
		err := port.Serve(ctx, link, aoe.ServeOptions{})
		_ = link.Close()
		if ctx.Err() != nil || !errors.Is(err, syscall.ENODEV) {
			return err
		}
		fmt.Fprintf(stderr, "vblade: interface %s is gone, waiting for it\n", o.netif)
		if link = reopen(ctx, o); link == nil {
			return nil
		}
		fmt.Fprintf(stderr, "vblade: interface %s is back\n", o.netif)
	}
}

// reopen waits for the interface. It returns nil when ctx ends.
func reopen(ctx context.Context, o *options) *packet.Socket {
	tick := time.NewTicker(reopenInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if link, err := packet.Open(o.netif, o.packetOptions()); err == nil {
			return link
		}
	}
}
