package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// startTime is how long a daemon may take until it answers, stopTime until it has
// wound down.
const (
	startTime = 10 * time.Second
	stopTime  = 30 * time.Second
)

// daemon is one node: a replblk run in a process of its own.
type daemon struct {
	demo *demo
	name string
	port int
	cmd  *exec.Cmd // nil: not running
	done chan error
}

func newDaemon(d *demo, name string, port int) *daemon {
	return &daemon{demo: d, name: name, port: port}
}

func (n *daemon) path(suffix string) string { return filepath.Join(n.demo.dir, n.name+suffix) }
func (n *daemon) disk() string              { return n.path(".disk") }
func (n *daemon) nbd() string               { return n.path(".nbd") }
func (n *daemon) uri() string               { return "nbd+unix:///r0?socket=" + n.nbd() }

// writeConfig writes the drbd.conf that both nodes share, and a replblk.conf for each.
func (d *demo) writeConfig() error {
	res := fmt.Sprintf(`resource r0 {
	device /dev/drbd0;
	meta-disk internal;
	net { protocol C; connect-int 1; }
	disk { c-max-rate 16M; c-min-rate 16M; resync-rate 16M; }	# so that there is something to see
	on alpha { address 127.0.0.1:%d; disk %q; }
	on bravo { address 127.0.0.1:%d; disk %q; }
}
`, d.alpha.port, d.alpha.disk(), d.bravo.port, d.bravo.disk())
	if err := os.WriteFile(d.resPath(), []byte(res), 0o600); err != nil {
		return err
	}
	fmt.Printf("\n%s\n", res)
	for _, n := range []*daemon{d.alpha, d.bravo} {
		conf := fmt.Sprintf("control { socket %q; }\nnbd r0 { listen \"unix:%s\"; resource r0; }\n", n.path(".control"), n.nbd())
		if err := os.WriteFile(n.path(".conf"), []byte(conf), 0o600); err != nil {
			return err
		}
	}
	return nil
}

func (d *demo) resPath() string { return filepath.Join(d.dir, "r0.res") }

func (n *daemon) args(args ...string) []string {
	return append([]string{"-c", n.demo.resPath(), "--config", n.path(".conf"), "--node", n.name}, args...)
}

// start runs the daemon and waits until it answers.
func (n *daemon) start(ctx context.Context) error {
	log, err := os.OpenFile(n.path(".log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }()
	fmt.Printf("    %s$ replblk run\n", n.name)
	n.cmd = exec.Command(n.demo.binary, n.args("run")...)
	n.cmd.Stderr = log
	if err := n.cmd.Start(); err != nil {
		n.cmd = nil
		return err
	}
	n.done = make(chan error, 1)
	cmd, done := n.cmd, n.done
	go func() { done <- cmd.Wait() }()
	for end := time.Now().Add(startTime); ; time.Sleep(20 * time.Millisecond) {
		select {
		case err := <-n.done:
			n.cmd = nil
			return fmt.Errorf("%s ended at once: %w, see %s", n.name, err, log.Name())
		default:
		}
		if out, err := n.quiet(ctx, "status"); err == nil && strings.Contains(out, "r0 ") {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("%s does not answer, see %s", n.name, log.Name())
		}
	}
}

// kill ends the daemon as a crash does.
func (n *daemon) kill() error { return n.end(syscall.SIGKILL) }

// stop ends it in order.
func (n *daemon) stop() error { return n.end(syscall.SIGTERM) }

func (n *daemon) end(sig syscall.Signal) error {
	if n.cmd == nil {
		return nil
	}
	if err := n.cmd.Process.Signal(sig); err != nil {
		return err
	}
	select {
	case err := <-n.done:
		n.cmd = nil
		var exit *exec.ExitError
		if sig == syscall.SIGKILL && errors.As(err, &exit) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("%s: %w, see %s", n.name, err, n.path(".log"))
		}
		return nil
	case <-time.After(stopTime):
		_ = n.cmd.Process.Kill()
		return fmt.Errorf("%s did not end in %v", n.name, stopTime)
	}
}

// do shows and carries out a command on the node.
func (n *daemon) do(ctx context.Context, args ...string) (string, error) {
	fmt.Printf("    %s$ replblk %s\n", n.name, strings.Join(args, " "))
	return n.quiet(ctx, args...)
}

func (n *daemon) quiet(ctx context.Context, args ...string) (string, error) {
	var out, errs bytes.Buffer
	c := exec.CommandContext(ctx, n.demo.binary, n.args(args...)...)
	c.Stdout, c.Stderr = &out, &errs
	if err := c.Run(); err != nil {
		return out.String(), fmt.Errorf("%s: replblk %s: %w: %s", n.name, strings.Join(args, " "), err, strings.TrimSpace(errs.String()))
	}
	return out.String(), nil
}

// progress carries out a command that draws on the terminal.
func (n *daemon) progress(ctx context.Context, args ...string) error {
	fmt.Printf("    %s$ replblk %s\n", n.name, strings.Join(args, " "))
	c := exec.CommandContext(ctx, n.demo.binary, n.args(args...)...)
	c.Stdout, c.Stderr = os.Stdout, os.Stderr
	return c.Run()
}

// retry carries out a command until it succeeds: a node needs a moment to notice that
// its peer is gone.
func (n *daemon) retry(ctx context.Context, limit time.Duration, args ...string) error {
	fmt.Printf("    %s$ replblk %s\n", n.name, strings.Join(args, " "))
	for end := time.Now().Add(limit); ; time.Sleep(100 * time.Millisecond) {
		_, err := n.quiet(ctx, args...)
		if err == nil || time.Now().After(end) {
			return err
		}
	}
}

// status shows the state, which must have the given words.
func (n *daemon) status(ctx context.Context, words ...string) error {
	out, err := n.do(ctx, "status", "r0")
	if err != nil {
		return err
	}
	for line := range strings.Lines(strings.TrimSpace(out)) {
		detail("%s", strings.TrimRight(line, "\n"))
	}
	for _, w := range words {
		if !strings.Contains(out, w) {
			return fmt.Errorf("the state of %s should have %q", n.name, w)
		}
	}
	return nil
}

// What the demo needs of status --json. Sizes are KiB.
type (
	jsonStatus struct {
		Devices     []jsonDevice `json:"devices"`
		Connections []struct {
			PeerDevices []jsonPeer `json:"peer_devices"`
		} `json:"connections"`
	}
	jsonDevice struct {
		Size int64 `json:"size"`
	}
	jsonPeer struct {
		OutOfSync uint64 `json:"out-of-sync"`
		Received  uint64 `json:"received"`
	}
)

func (n *daemon) json(ctx context.Context) (*jsonStatus, error) {
	out, err := n.quiet(ctx, "status", "--json", "r0")
	if err != nil {
		return nil, err
	}
	var list []jsonStatus
	if err := json.Unmarshal([]byte(out), &list); err != nil {
		return nil, err
	}
	if len(list) != 1 || len(list[0].Devices) != 1 || len(list[0].Connections) != 1 || len(list[0].Connections[0].PeerDevices) != 1 {
		return nil, fmt.Errorf("%s: status has not one volume with one peer: %s", n.name, out)
	}
	return &list[0], nil
}

func (n *daemon) peer(ctx context.Context) (jsonPeer, error) {
	s, err := n.json(ctx)
	if err != nil {
		return jsonPeer{}, err
	}
	return s.Connections[0].PeerDevices[0], nil
}

func (n *daemon) device(ctx context.Context) (jsonDevice, error) {
	s, err := n.json(ctx)
	if err != nil {
		return jsonDevice{}, err
	}
	return s.Devices[0], nil
}

// freePorts finds TCP ports on the loopback address that nobody uses now.
func freePorts(n int) ([]int, error) {
	var ports []int
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer func() { _ = l.Close() }()
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports, nil
}
