// Command demo shows what replblk is for, on one machine, without root and without
// configuration: two daemons mirror a volume, the one that serves it is killed in the
// middle of writing, the other serves on, and nothing that was acknowledged is lost.
//
// It says what it does, line by line, and ends with an exit code other than 0 if
// anything that it claims is not so.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// timeLimit ends a demo that hangs.
const timeLimit = 2 * time.Minute

func main() {
	var o options
	flag.StringVar(&o.binary, "replblk", "", "the replblk to demonstrate (default: built from this tree)")
	flag.StringVar(&o.dir, "dir", "", "where the disks and logs go (default: a temporary directory)")
	flag.BoolVar(&o.keep, "keep", false, "keep disks and logs")
	flag.IntVar(&o.sizeMiB, "size", 256, "size of the disks in MiB, at least 128")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, timeLimit)
	defer cancel()
	began := time.Now()
	d := &demo{options: o}
	err := d.run(ctx)
	if err = errors.Join(err, d.close(err != nil)); err != nil {
		fmt.Fprintf(os.Stderr, "\n%s\n", coloured("31", fmt.Sprintf("The demo failed: %v", err)))
		os.Exit(1)
	}
	fmt.Printf("\nDone in %.0f s: every claim above was checked.\n", time.Since(began).Seconds())
}
