package chaos

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/replblk/replblk/internal/control"
	"github.com/replblk/replblk/internal/nbdclient"
)

// Resource is the name of the only resource of a Pair.
const Resource = "r0"

// Times that Host waits for.
const (
	pollInterval = 4 * time.Millisecond
	endTimeout   = 2 * time.Minute
	toolTimeout  = 2 * time.Minute
	askTimeout   = 10 * time.Second // a daemon that hangs, or is stopped, does not answer
)

// ErrDied is returned by Host.WaitFor when the daemon ends meanwhile.
var ErrDied = errors.New("the daemon has ended")

// Host is one node of a Pair: a configuration, a disk and at most one daemon. It is
// used by one goroutine, except for Dial and Snapshot.
type Host struct {
	Name   string
	dir    string
	binary string

	// Env is added to the environment of the next daemon, Wrap is the command that
	// runs it, if there is one: "prlimit --nofile=20".
	Env  []string
	Wrap []string
	// Log is where the next daemon's log goes, if not to the file ".log".
	Log *os.File

	cmd  *exec.Cmd     // nil: no daemon
	gone chan struct{} // closed when the daemon has ended
	how  error         // how it ended, once gone is closed
}

// Path returns the name of one of the host's files: ".img" is the disk, ".log" what the
// daemon has said, ".strace" what strace has seen, ".res" its drbd.conf.
func (h *Host) Path(suffix string) string { return filepath.Join(h.dir, h.Name+suffix) }

// Args puts the arguments before a command of replblk that make it talk about this host.
func (h *Host) Args(args ...string) []string {
	return append([]string{"-c", h.Path(".res"), "--config", h.Path(".conf"), "--node", h.Name}, args...)
}

// Start runs the daemon, under strace if there is an injection, and does not wait until
// it is ready: it may be about to die.
func (h *Host) Start(in *Injection) error {
	if h.Running() {
		return fmt.Errorf("%s runs already", h.Name)
	}
	log, err := os.OpenFile(h.Path(".log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }() // the daemon has its own
	command := append([]string(nil), h.Wrap...)
	if in != nil {
		fmt.Fprintf(log, "-- %v\n", in)
		command = append(command, in.command(h.Path(".strace"))...)
	}
	command = append(append(command, h.binary), h.Args("run")...)
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Stderr, cmd.Env = log, append(os.Environ(), h.Env...)
	if h.Log != nil {
		cmd.Stderr = h.Log
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	gone := make(chan struct{})
	h.cmd, h.gone = cmd, gone
	go func() {
		h.how = cmd.Wait()
		close(gone)
	}()
	return nil
}

// Running says whether there is a daemon. It is true for one that is stopped.
func (h *Host) Running() bool {
	if h.cmd == nil {
		return false
	}
	select {
	case <-h.gone:
		h.cmd = nil
		return false
	default:
		return true
	}
}

// Gone is closed when the daemon that was started last has ended.
func (h *Host) Gone() <-chan struct{} { return h.gone }

// Signal sends a signal to the daemon, if there is one.
func (h *Host) Signal(sig syscall.Signal) {
	if h.Running() {
		_ = h.cmd.Process.Signal(sig) // it may have ended since
	}
}

// End sends a signal and waits for the daemon's end, which is returned. A daemon that
// does not end in two minutes is an error.
func (h *Host) End(sig syscall.Signal) error {
	if !h.Running() {
		return nil
	}
	h.Signal(sig)
	select {
	case <-h.gone:
		h.cmd = nil
		return h.how
	case <-time.After(endTimeout):
		h.Signal(syscall.SIGKILL)
		return fmt.Errorf("%s did not end within %v of signal %v", h.Name, endTimeout, sig)
	}
}

// Tool runs a command of replblk in a process of its own, as an operator does.
func (h *Host) Tool(ctx context.Context, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, toolTimeout)
	defer cancel()
	out, err := exec.CommandContext(ctx, h.binary, h.Args(args...)...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s: replblk %v: %w: %s", h.Name, args, err, bytes.TrimSpace(out))
	}
	return string(out), nil
}

// Do sends a command to the daemon.
func (h *Host) Do(ctx context.Context, req control.Request) error {
	ctx, cancel := context.WithTimeout(ctx, toolTimeout)
	defer cancel()
	req.Resource = Resource
	c := control.Client{Path: h.Path(".ctl")}
	if err := c.Do(ctx, req, nil); err != nil {
		return fmt.Errorf("%s: %s: %w", h.Name, req.Command, err)
	}
	return nil
}

// Primary promotes the host.
func (h *Host) Primary(ctx context.Context) error {
	return h.Do(ctx, control.Request{Command: "primary"})
}

// Secondary demotes the host and sends its clients away.
func (h *Host) Secondary(ctx context.Context) error {
	return h.Do(ctx, control.Request{Command: "secondary", Force: true})
}

// Snapshot returns the state of the resource.
func (h *Host) Snapshot(ctx context.Context) (*control.Resource, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	c := control.Client{Path: h.Path(".ctl")}
	list, err := c.Snapshot(ctx, Resource)
	if err != nil {
		return nil, err
	}
	if len(list) != 1 || list[0].Up && len(list[0].Volumes) != 1 {
		return nil, fmt.Errorf("%s: snapshot of %d resources", h.Name, len(list))
	}
	return &list[0], nil
}

// WaitFor waits for a state of the resource, at most d. The error is ErrDied if the
// daemon ends, or tells the last state.
func (h *Host) WaitFor(ctx context.Context, d time.Duration, what string, cond func(*control.Resource) bool) (*control.Resource, error) {
	for end := time.Now().Add(d); ; time.Sleep(pollInterval) {
		r, err := h.Snapshot(ctx)
		switch {
		case err == nil && r.Up && !r.Changing && cond(r):
			return r, nil
		case !h.Running():
			return nil, fmt.Errorf("%s: %s: %w", h.Name, what, ErrDied)
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case time.Now().After(end):
			return nil, errors.Join(fmt.Errorf("%s: no %s within %v: %s", h.Name, what, d, Describe(r)), err)
		}
	}
}

// Dial connects to the host's export.
func (h *Host) Dial(ctx context.Context) (*nbdclient.Client, error) {
	return nbdclient.Dial(ctx, "unix:"+h.Path(".nbd"), Resource)
}

// InSync says whether both disks are connected and hold the same.
func InSync(r *control.Resource) bool {
	v := &r.Volumes[0]
	return r.Connection == "Connected" && v.State == "Connected" && v.Disk == "UpToDate" && v.PeerDisk == "UpToDate"
}

// Lost says whether the peer is gone.
func Lost(r *control.Resource) bool { return r.Connection != "Connected" }

// Describe is a snapshot in a line.
func Describe(r *control.Resource) string {
	if r == nil || !r.Up || len(r.Volumes) == 0 {
		return "down"
	}
	v := &r.Volumes[0]
	return fmt.Sprintf("%s/%s %s/%s %s/%s oos %d", r.Connection, v.State, r.Role, r.PeerRole, v.Disk, v.PeerDisk, v.OutOfSync)
}

// Pid is the process of the daemon, or of what wraps it; 0 if there is none.
func (h *Host) Pid() int {
	if !h.Running() {
		return 0
	}
	return h.cmd.Process.Pid
}
