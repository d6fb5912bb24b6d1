package node

import (
	"context"
	"errors"
	"log/slog"
	"os/exec"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/replblk/replblk/replication"
)

const (
	// handlerTimeout ends a handler that hangs: the core waits for some of them.
	handlerTimeout = 2 * time.Minute

	// maxHandlers bounds how many run at once. The core starts few.
	maxHandlers = 16

	// handlerFailed is the exit code of a handler that could not be started.
	// DRBD goes on as if it had succeeded (spec 10.5).
	handlerFailed = 0

	handlerOutput = 4096 // bytes of output that are logged
)

// HandlerConfig is what the handlers section and its environment say (spec 10.5).
type HandlerConfig struct {
	Commands map[string]string // by handler name, for /bin/sh -c
	Env      []string          // "DRBD_RESOURCE=r0" and so on, for all handlers
	// VolumeEnv holds what is added for handlers of a volume: DRBD_MINOR,
	// DRBD_VOLUME, DRBD_LL_DISK.
	VolumeEnv map[uint16][]string
	Timeout   time.Duration // 0: two minutes
}

// handlers runs them, each on a goroutine.
type handlers struct {
	cfg  atomic.Pointer[HandlerConfig]
	log  *slog.Logger
	loop *loop
	ctx  context.Context // ends with the resource
	free chan struct{}   // one for each that may run
	tell func(Change)
	wg   sync.WaitGroup
}

func newHandlers(ctx context.Context, cfg HandlerConfig, l *loop, log *slog.Logger, tell func(Change)) *handlers {
	h := &handlers{log: log, loop: l, ctx: ctx, free: make(chan struct{}, maxHandlers), tell: tell}
	h.configure(cfg)
	return h
}

// configure changes what the handlers to come are.
func (h *handlers) configure(cfg HandlerConfig) {
	if cfg.Timeout <= 0 {
		cfg.Timeout = handlerTimeout
	}
	h.cfg.Store(&cfg)
}

// start runs a handler and reports its exit code if io is not zero. It does not
// wait. A handler that is not configured succeeds at once.
func (h *handlers) start(kind replication.Handler, vol uint16, io replication.IOID) {
	cfg := h.cfg.Load()
	command := cfg.Commands[kind.String()]
	if command == "" {
		h.report(io, 0)
		return
	}
	h.wg.Go(func() {
		h.free <- struct{}{}
		defer func() { <-h.free }()
		h.report(io, h.run(cfg, kind, vol, command))
	})
}

func (h *handlers) report(io replication.IOID, exit int) {
	if io != 0 {
		h.loop.post(&replication.Event{Kind: replication.EvHandler, IO: io, Exit: exit})
	}
}

func (h *handlers) run(cfg *HandlerConfig, kind replication.Handler, vol uint16, command string) int {
	ctx, cancel := context.WithTimeout(h.ctx, cfg.Timeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", command)
	cmd.Env = slices.Concat([]string{"HOME=/", "TERM=linux", "PATH=/sbin:/usr/sbin:/bin:/usr/bin"}, cfg.Env)
	if !kind.OfConnection() {
		cmd.Env = slices.Concat(cmd.Env, []string{"DRBD_VOLUME=" + strconv.Itoa(int(vol))}, cfg.VolumeEnv[vol])
	}
	// A group of its own, so that what the shell started ends with it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	began := time.Now()
	out, err := cmd.CombinedOutput()
	exit := exitCode(err)
	level, timedOut := slog.LevelInfo, ctx.Err() != nil && h.ctx.Err() == nil
	if timedOut || err != nil && exit == handlerFailed {
		level = slog.LevelError
	}
	h.log.Log(h.ctx, level, "handler ended", "handler", kind.String(), "volume", vol, "command", command,
		"exit", exit, "timed-out", timedOut, "duration", time.Since(began), "err", err, "output", string(out[:min(len(out), handlerOutput)]))
	h.tell(Change{Kind: ChangeHandler, Volume: vol, Handler: kind, Exit: exit, TimedOut: timedOut})
	return exit
}

func exitCode(err error) int {
	var ended *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &ended):
		if code := ended.ExitCode(); code >= 0 {
			return code
		}
		return 255 // killed
	default:
		return handlerFailed
	}
}
