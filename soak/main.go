package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "soak:", err)
		os.Exit(1)
	}
}

// run carries out a command line.
func run(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return errors.New("usage: soak kill-points | run [options]; -h lists them")
	}
	flags := flag.NewFlagSet("soak "+args[0], flag.ContinueOnError)
	binary := flags.String("binary", "bin/replblk", "the replblk to run")
	dir := flags.String("dir", defaultDir(), "`folder` for disks, sockets and logs")
	seed := flags.Uint64("seed", 0, "of everything random; 0: any")
	points := flags.Int("points", 2000, "kill-points: how many")
	parallel := flags.Int("parallel", 6, "kill-points: pairs at a time")
	duration := flags.Duration("duration", 10*time.Minute, "run: for how long")
	cycles := flags.Int("cycles", 0, "run: ends after so many, if not 0")
	if err := flags.Parse(args[1:]); err != nil {
		return err
	}
	if *seed == 0 {
		*seed = rand.Uint64()
	}
	work, err := os.MkdirTemp(*dir, "soak-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(work) }() // what matters was kept elsewhere
	fmt.Printf("soak %s -seed %d\n", args[0], *seed)
	var fig *figures
	began := time.Now()
	switch args[0] {
	case "kill-points":
		fig, err = killPoints(ctx, killOptions{binary: *binary, dir: work, points: *points, parallel: *parallel, seed: *seed})
	case "run":
		fig, err = soak(ctx, soakOptions{binary: *binary, dir: work, duration: *duration, cycles: *cycles, seed: *seed})
	default:
		return fmt.Errorf("no command %q", args[0])
	}
	fig.print(os.Stdout)
	if err != nil {
		return fmt.Errorf("seed %d, after %v: %w", *seed, time.Since(began).Round(time.Second), err)
	}
	return nil
}

// defaultDir prefers memory: a kill needs no disk that survives it.
func defaultDir() string {
	if info, err := os.Stat("/dev/shm"); err == nil && info.IsDir() {
		return "/dev/shm"
	}
	return os.TempDir()
}
