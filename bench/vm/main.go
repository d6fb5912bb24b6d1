// Command vm compares DRBD's kernel module with replblk in the same two virtual machines:
// 4 KiB writes at depth 1 and 16 through a replicated device, and a full resync of its
// disk, once with /dev/drbd0 on both sides and once with replblk on both sides and the
// kernel's nbd client in front of it. Both pay alike for the emulation, so the ratios mean
// something and the absolute numbers nothing. It counts what a write costs each of them:
// processor time, context switches, system calls, packets, writes and flushes of the disk.
//
// It needs root, Debian, and what interop/lab/setup.sh prepares. `make bench-vm` starts it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// insideEnv says that the process runs in its own network namespace, and where the lab is.
const insideEnv = "REPLBLK_BENCH_LAB"

// plan is what the command line asks for.
type plan struct {
	out       string
	replblk   string
	where     string        // folder of the disks
	size      int64         // of a disk in bytes
	reps      int           // rounds of both systems
	runtime   time.Duration // of one load
	exclusive []string      // command that runs its arguments while nothing else runs
	direct    string        // direct-io of replblk
	env       string        // NAME=VALUE... of replblk
	systems   []string
	depths    []int
}

func main() {
	var p plan
	flag.StringVar(&p.out, "out", "bench/out", "folder for vm.md, consoles and logs")
	flag.StringVar(&p.replblk, "replblk", "bin/replblk", "static program to measure")
	flag.StringVar(&p.where, "where", "/dev/shm", "folder of the two disks")
	size := flag.Int64("size", 512, "MiB of a disk")
	flag.IntVar(&p.reps, "reps", 3, "rounds, each with both systems")
	flag.DurationVar(&p.runtime, "runtime", 8*time.Second, "of one load; the first quarter is not counted")
	exclusive := flag.String("exclusive", "", "command that runs its arguments while nothing else runs on this computer")
	flag.StringVar(&p.direct, "direct-io", "auto", "of replblk")
	flag.StringVar(&p.env, "env", "", "environment of replblk in the machines, NAME=VALUE...")
	only := flag.String("systems", "kernel replblk", "what to measure")
	flag.Parse()
	p.size, p.exclusive, p.systems, p.depths = *size<<20, strings.Fields(*exclusive), strings.Fields(*only), []int{1, 16}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	err := start(ctx, p)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench-vm:", err)
		os.Exit(1)
	}
}

// start runs the program again in a namespace that ends with it.
func start(ctx context.Context, p plan) error {
	if lab := os.Getenv(insideEnv); lab != "" {
		return inside(ctx, p, lab)
	}
	if os.Getuid() != 0 {
		return errors.New("needs root: it makes a network namespace and boots two machines in it")
	}
	setup := exec.CommandContext(ctx, filepath.Join("interop", "lab", "setup.sh"))
	setup.Stderr = os.Stderr
	lab, err := setup.Output()
	if err != nil {
		return fmt.Errorf("interop/lab/setup.sh: %w", err)
	}
	self := exec.CommandContext(ctx, "/proc/self/exe", os.Args[1:]...) //nolint:gosec // ourselves
	self.Stdout, self.Stderr = os.Stdout, os.Stderr
	self.Env = append(os.Environ(), insideEnv+"="+strings.TrimSpace(string(lab)))
	self.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	return self.Run()
}

// inside boots the machines and measures.
func inside(ctx context.Context, p plan, lab string) error {
	if err := os.MkdirAll(p.out, 0o755); err != nil { //nolint:gosec // for everybody
		return err
	}
	scratch, err := os.MkdirTemp(p.where, "replblk-bench-vm-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(scratch) }()
	initrd, err := buildInitrd(ctx, p, lab, scratch)
	if err != nil {
		return err
	}
	if err := network(ctx); err != nil {
		return err
	}
	var nodes [2]*machine
	for i, name := range nodeNames {
		m, err := boot(ctx, p, lab, initrd, scratch, name, i)
		if err != nil {
			return err
		}
		defer m.halt()
		nodes[i] = m
	}
	for _, m := range nodes {
		if err := m.ready(); err != nil {
			return err
		}
	}
	b := &bench{plan: p, nodes: nodes}
	if err := b.all(ctx); err != nil {
		return err
	}
	return b.report.save(filepath.Join(p.out, "vm.md"))
}

// network makes a bridge with a tap device for each machine.
func network(ctx context.Context) error {
	lines := []string{"link set lo up", "link add br0 type bridge", "link set br0 up"}
	for _, name := range nodeNames {
		lines = append(lines, "tuntap add tap"+name+" mode tap", "link set tap"+name+" master br0 up")
	}
	for _, line := range lines {
		if out, err := exec.CommandContext(ctx, "ip", strings.Fields(line)...).CombinedOutput(); err != nil { //nolint:gosec // constants
			return fmt.Errorf("ip %s: %w: %s", line, err, out)
		}
	}
	return nil
}
