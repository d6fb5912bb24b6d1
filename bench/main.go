// Command bench measures replblk beside named peers in the same run: the NBD server
// alone, the mirror over two nodes, a resync beside a plain copy, and the memory of
// an idle node. bench/run.sh builds and starts it; README.md in this folder says what
// each number means.
//
// Everything that is measured runs in processes of its own. This binary is also the
// servers that the product has no command for: serve, pong, receive.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	if len(os.Args) < 2 {
		usage()
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	commands := map[string]func(context.Context, []string) error{
		"run":     runCommand,
		"serve":   serveCommand,
		"pong":    pongCommand,
		"receive": receiveCommand,
	}
	run, ok := commands[os.Args[1]]
	if !ok {
		usage()
	}
	if err := run(ctx, os.Args[2:]); err != nil {
		fmt.Fprintf(os.Stderr, "bench %s: %v\n", os.Args[1], err)
		os.Exit(1)
	}
}

func usage() {
	fmt.Fprintln(os.Stderr, "usage: bench run|serve|pong|receive [flags]")
	os.Exit(2)
}
