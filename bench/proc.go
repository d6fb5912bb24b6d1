package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// proc is a process that this run started.
type proc struct {
	name string
	cmd  *exec.Cmd
	done chan struct{}
}

// start runs a program with its output in dir/NAME.log.
func start(ctx context.Context, dir, name string, argv ...string) (*proc, error) {
	log, err := os.Create(filepath.Join(dir, name+".log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	fmt.Fprintln(log, "$", strings.Join(argv, " "))
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...) //nolint:gosec // the commands are in this folder
	cmd.Stdout, cmd.Stderr = log, log
	// A peer that outlives us would spoil the next run.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &proc{name: name, cmd: cmd, done: make(chan struct{})}
	go func() {
		_ = cmd.Wait() // the log says why
		close(p.done)
	}()
	return p, nil
}

// stop ends the process, by force after two seconds.
func (p *proc) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(2 * time.Second):
		_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
		<-p.done
	}
}

// ready waits until the process accepts connections.
func (p *proc) ready(network, addr string) error {
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		select {
		case <-p.done:
			return fmt.Errorf("%s ended at once, see its log", p.name)
		default:
		}
		if c, err := net.Dial(network, addr); err == nil {
			return c.Close()
		}
	}
	return fmt.Errorf("%s does not accept connections on %s", p.name, addr)
}

// residentKiB is the resident memory of the process.
func (p *proc) residentKiB() int {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			n, _ := strconv.Atoi(strings.Fields(v)[0])
			return n
		}
	}
	return 0
}

// cpu is the processor time that the process has used.
func (p *proc) cpu() (d time.Duration) {
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", p.cmd.Process.Pid))
	for _, t := range tasks {
		b, _ := os.ReadFile(t)
		used, _, _ := strings.Cut(string(b), " ")
		n, _ := strconv.ParseInt(used, 10, 64)
		d += time.Duration(n)
	}
	return d
}

// freePort returns a TCP address on loopback that nobody uses at the moment.
func freePort() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}
