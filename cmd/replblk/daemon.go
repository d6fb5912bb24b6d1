package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/replblk/replblk/internal/config"
	"github.com/replblk/replblk/internal/control"
	"github.com/replblk/replblk/internal/metrics"
	"github.com/replblk/replblk/node"
)

// drainTimeout is how long the frontends may take at the end.
const drainTimeout = 10 * time.Second

// diskTimesFor makes the histograms of a volume.
type diskTimesFor func(resource string, volume uint16, minor uint32) *metrics.DiskTimes

// daemon is everything that replblk run runs.
type daemon struct {
	conf      *config.Daemon
	node      string                         // name of this node in drbd.conf
	load      func() (*config.Config, error) // reads drbd.conf again
	log       *slog.Logger
	resources []*managed // in the order of drbd.conf; immutable

	control  net.Listener
	nbd      []*nbdServer
	aoe      []*aoePort
	metrics  []net.Listener
	registry *prometheus.Registry
}

// newDaemon prepares a daemon for the named resources, all of this node if there are no
// names, and binds every address. Nothing runs yet.
func newDaemon(conf *config.Config, dc *config.Daemon, nodeName string, names []string, log *slog.Logger) (*daemon, error) {
	d := &daemon{conf: dc, node: nodeName, log: log, registry: prometheus.NewRegistry()}
	times := metrics.NewTimes(d.registry)
	order := node.NewOrder()
	for _, r := range conf.Resources {
		if len(names) > 0 && !slices.Contains(names, r.Name) {
			continue
		}
		s, err := findSection(r, nodeName)
		if errors.Is(err, config.ErrNotLocal) && len(names) == 0 {
			continue
		}
		if err != nil {
			return nil, &exitError{exitConfig, fmt.Sprintf("%s: %v", r.Pos, err)}
		}
		s.conf, s.common = conf.Files[0], &conf.Common
		d.resources = append(d.resources, newManaged(s, dc, order, times.Disk, log))
	}
	for _, n := range names {
		if d.find(n) == nil {
			return nil, &exitError{exitConfig, fmt.Sprintf("resource %s is not in the configuration", n)}
		}
	}
	if len(d.resources) == 0 {
		return nil, &exitError{exitConfig, fmt.Sprintf("no resource of the configuration has a section for node %s", nodeName)}
	}
	if err := d.bind(); err != nil {
		d.unbind()
		return nil, err
	}
	return d, nil
}

// bind opens every listener, so that a mistake shows before anything is attached.
func (d *daemon) bind() (err error) {
	if d.control, err = control.Listen(d.conf.Control.Socket); err != nil {
		return fmt.Errorf("control socket: %w", err)
	}
	if d.nbd, err = openNBD(d.conf, d.find, d.log); err != nil {
		return err
	}
	if d.aoe, err = openAoE(d.conf, d.find, d.log); err != nil {
		return err
	}
	for _, addr := range d.conf.Metrics.Listen {
		l, err := net.Listen("tcp", addr)
		if err != nil {
			return fmt.Errorf("metrics: %w", err)
		}
		d.metrics = append(d.metrics, l)
	}
	return nil
}

// unbind closes what bind has opened.
func (d *daemon) unbind() {
	if d.control != nil {
		_ = d.control.Close()
	}
	for _, s := range d.nbd {
		_ = s.listener.Close()
	}
	for _, p := range d.aoe {
		p.Close()
	}
	for _, l := range d.metrics {
		_ = l.Close()
	}
}

// find returns a resource by name, nil if there is none.
func (d *daemon) find(name string) *managed {
	for _, m := range d.resources {
		if m.name() == name {
			return m
		}
	}
	return nil
}

// run serves until ctx ends, and then winds down in order: no new work, what was begun
// is answered, resources are demoted, disconnected and detached.
func (d *daemon) run(ctx context.Context, ready func()) error {
	d.registry.MustRegister(metrics.New(d.snapshots))
	serveCtx, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	var wg sync.WaitGroup
	failed := make(chan error, 1+len(d.nbd)+len(d.metrics))
	serve := func(fn func() error) {
		wg.Go(func() {
			if err := fn(); err != nil && serveCtx.Err() == nil {
				failed <- err
			}
		})
	}
	serve(func() error { return control.Serve(serveCtx, d.control, d, d.log) })
	for _, s := range d.nbd {
		serve(func() error {
			if err := s.server.Serve(serveCtx, s.listener); err != nil {
				return fmt.Errorf("nbd %s: %w", s.addr, err)
			}
			return nil
		})
	}
	for _, p := range d.aoe {
		wg.Go(func() {
			if err := p.Run(serveCtx); err != nil {
				d.log.Warn("aoe", "interface", p.name, "err", err)
			}
		})
	}
	for _, l := range d.metrics {
		serve(func() error { return metrics.Serve(serveCtx, l, d.registry) })
	}
	for _, m := range d.resources {
		wg.Go(func() { m.follow(serveCtx) })
	}
	wg.Go(func() { d.sample(serveCtx) })

	d.upAll(ctx)
	ready()
	var err error
	select {
	case <-ctx.Done():
	case err = <-failed:
		d.log.Error("service ended", "err", err)
	}
	d.log.Info("stopping")
	d.wind()
	stop()
	wg.Wait()
	return err
}

// upAll brings all resources up. One that cannot be does not keep the others from
// working: the operator sees why, and tries again with replblk up.
func (d *daemon) upAll(ctx context.Context) {
	var wg sync.WaitGroup
	for _, m := range d.resources {
		wg.Go(func() {
			if err := m.up(ctx); err != nil {
				m.log.Error("resource not up", "err", err)
			}
			close(m.started)
		})
	}
	wg.Wait()
}

// wind ends frontends and resources.
func (d *daemon) wind() {
	ctx, cancel := context.WithTimeout(context.Background(), drainTimeout)
	defer cancel()
	var wg sync.WaitGroup
	for _, s := range d.nbd {
		wg.Go(func() {
			if err := s.server.Shutdown(ctx); err != nil {
				d.log.Warn("nbd clients were cut off", "listen", s.addr, "err", err)
			}
		})
	}
	wg.Wait()
	for _, m := range d.resources {
		wg.Go(func() { _ = m.down(context.Background(), true) }) // logs by itself
	}
	wg.Wait()
}

// sample looks at running resyncs, so that a rate is known when somebody asks.
func (d *daemon) sample(ctx context.Context) {
	tick := time.NewTicker(markInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for _, m := range d.resources {
			if m.sync.busy() {
				m.snapshot()
			}
		}
	}
}

func (d *daemon) snapshots() []control.Resource {
	list := make([]control.Resource, 0, len(d.resources))
	for _, m := range d.resources {
		list = append(list, m.snapshot())
	}
	return list
}

// parseTarget reads RES or RES/VOL.
func parseTarget(s string) (name string, volume *uint16, err error) {
	name, number, found := strings.Cut(s, "/")
	if !found {
		return name, nil, nil
	}
	n, err := strconv.ParseUint(number, 10, 16)
	if err != nil {
		return "", nil, &exitError{control.ExitUsage, fmt.Sprintf("%q: volume %q is not a number from 0 to 65535", s, number)}
	}
	v := uint16(n)
	return name, &v, nil
}
