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
// vblade --config FILE serves every aoe section of a replblk.conf that has a file in it,
// each on all of its interfaces, as with -s.
//
// --metrics ADDR serves Prometheus metrics of each export and each of its initiators at
// http://ADDR/metrics, under the names that replblk run has. --state DIR keeps what initiators
// set (config string, mask and reserve list) in DIR/eSHELF.SLOT.json: an answer to a change is
// sent when the change is durable. Both come before all other arguments.
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
	"net"
	"os"
	"os/signal"
	"syscall"
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
	set, err := arguments(args)
	if err != nil {
		return err
	}
	s := &service{log: slog.New(slog.NewTextHandler(stderr, nil)), stdout: stdout, stderr: stderr}
	defer s.close()
	for _, o := range set.exports {
		if err := s.add(ctx, o); err != nil {
			return err
		}
	}
	if set.metrics != "" {
		if s.metrics, err = net.Listen("tcp", set.metrics); err != nil {
			return fmt.Errorf("metrics: %w", err)
		}
	}
	return s.run(ctx)
}
