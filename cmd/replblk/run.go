package main

import (
	"context"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"syscall"
	"time"

	sd "github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"

	"github.com/replblk/replblk/internal/config"
)

func runCommand(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:     "run [RESOURCE...]",
		Aliases: []string{"daemon"},
		Short:   "run the daemon in the foreground, for all resources or for those named",
		GroupID: groupDaemon,
		Long: `Run the daemon in the foreground: bring all resources of this node up (or those
named), export them by NBD and AoE while they are Primary, and obey the
other commands. SIGTERM ends it in order: clients are answered and sent away,
resources demoted, disconnected and detached.`,
		RunE: func(cmd *cobra.Command, args []string) error { return g.run(cmd.Context(), args) },
	}
}

// run is the daemon.
func (g *globals) run(ctx context.Context, names []string) error {
	conf, err := g.loadConfig()
	if err != nil {
		return err
	}
	dc, err := g.loadDaemon()
	if err != nil {
		return err
	}
	if err := dc.Check(conf); err != nil {
		return err
	}
	if g.socket != "" {
		dc.Control.Socket = g.socket
	}
	nodeName, err := g.nodeName()
	if err != nil {
		return err
	}
	queue := newLogQueue(os.Stderr)
	defer queue.end()
	log := newLogger(dc.Log, queue)
	for _, w := range conf.Warnings {
		log.Warn("configuration", "at", w.String())
	}
	for _, w := range dc.Warnings {
		log.Warn("configuration", "at", w.String())
	}
	d, err := newDaemon(conf, dc, nodeName, names, log)
	if err != nil {
		return err
	}
	d.load = g.loadConfig
	for _, m := range d.resources {
		m.sizeDir = g.sizeDir
	}
	log.Info("starting", "node", nodeName, "resources", len(d.resources), "control", dc.Control.Socket, "go", runtime.Version())
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	stop := context.AfterFunc(ctx, func() { notify(log, sd.SdNotifyStopping) })
	defer stop()
	return d.run(ctx, func() {
		log.Info("ready")
		notify(log, sd.SdNotifyReady)
		go watchdog(ctx, d, log)
		go g.recheck(ctx, hup, conf, dc, log)
	})
}

// recheck reads the configuration again at every SIGHUP and says what is wrong with it, or
// that it has changed. To take it over is the operator's decision, see adjust.
func (g *globals) recheck(ctx context.Context, hup <-chan os.Signal, conf *config.Config, dc *config.Daemon, log *slog.Logger) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-hup:
		}
		newConf, err := g.loadConfig()
		var newDaemon *config.Daemon
		if err == nil {
			newDaemon, err = g.loadDaemon()
		}
		if err == nil {
			err = newDaemon.Check(newConf)
		}
		switch {
		case err != nil:
			log.Error("configuration has mistakes, the daemon goes on with the old one", "err", err)
		case newConf.Dump() != conf.Dump() || newDaemon.Dump() != dc.Dump():
			log.Warn("configuration has changed: replblk adjust takes over what can change in a running daemon, and says what cannot")
		default:
			log.Info("configuration has not changed")
		}
	}
}

// notify tells systemd, if it has asked to be told.
func notify(log *slog.Logger, text string) {
	if _, err := sd.SdNotify(false, text); err != nil {
		log.Warn("systemd was not notified", "err", err)
	}
}

// watchdog tells systemd that the daemon lives, twice as often as it asks for, and only
// while every resource answers.
func watchdog(ctx context.Context, d *daemon, log *slog.Logger) {
	interval, err := sd.SdWatchdogEnabled(false)
	if err != nil || interval <= 0 {
		return
	}
	tick := time.NewTicker(interval / 2)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			d.snapshots()
			notify(log, sd.SdNotifyWatchdog)
		}
	}
}

// newLogger makes the daemon's log.
func newLogger(o config.LogOptions, out io.Writer) *slog.Logger {
	levels := map[config.LogLevel]slog.Level{
		config.LogDebug: slog.LevelDebug, config.LogInfo: slog.LevelInfo, config.LogWarn: slog.LevelWarn, config.LogError: slog.LevelError,
	}
	opt := &slog.HandlerOptions{Level: levels[o.Level]}
	if o.Format == config.LogJSON {
		return slog.New(slog.NewJSONHandler(out, opt))
	}
	return slog.New(slog.NewTextHandler(out, opt))
}
