package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/replblk/replblk/aoe"
	"github.com/replblk/replblk/aoe/netif"
	"github.com/replblk/replblk/block"
	"github.com/replblk/replblk/block/file"
	"github.com/replblk/replblk/block/remote"
	"github.com/replblk/replblk/internal/metrics"
	"github.com/replblk/replblk/internal/targets"
)

// service is all exports of the process, on all their interfaces.
type service struct {
	log            *slog.Logger
	stdout, stderr io.Writer
	exports        []*export
	links          []*link
	metrics        net.Listener // nil: nobody asks
}

// export is a target with what is behind it.
type export struct {
	*options
	backing backing
	device  block.Device // the part of the backing that is exported
	target  *aoe.Target
	links   []*link
}

// link is an interface with the targets that it serves.
type link struct {
	name string
	port *aoe.Port
	*netif.Interface
}

// add opens what is to be exported, and its interfaces if they exist.
func (s *service) add(ctx context.Context, o *options) error {
	backing, err := o.open(ctx)
	if err != nil {
		return err
	}
	e := &export{options: o, backing: backing}
	s.exports = append(s.exports, e)
	if e.device, err = newWindow(backing, o.offset, o.length); err != nil {
		return err
	}
	to, err := o.targetOptions(e.device, s.stderr)
	if err != nil {
		return err
	}
	if e.target, err = aoe.NewTarget(to); err != nil {
		return err
	}
	for _, name := range o.netifs {
		l, err := s.link(name)
		if err != nil {
			return err
		}
		if err := l.port.Add(e.target, aoe.MAC{}); err != nil {
			return err
		}
		e.links = append(e.links, l)
	}
	return nil
}

// link returns the interface of that name.
func (s *service) link(name string) (*link, error) {
	for _, l := range s.links {
		if l.name == name {
			return l, nil
		}
	}
	port, err := aoe.NewPort()
	if err != nil {
		return nil, err
	}
	l := &link{name, port, netif.New(name, port, netif.Options{Log: s.log})}
	if err := l.Open(); err != nil {
		return nil, err
	}
	s.links = append(s.links, l)
	return l, nil
}

// snapshots say what the exports do.
func (s *service) snapshots() []metrics.Target {
	list := make([]metrics.Target, 0, len(s.exports))
	for _, e := range s.exports {
		var links []targets.Link
		for _, l := range e.links {
			links = append(links, targets.Link{Interface: l.Interface, Port: l.port})
		}
		list = append(list, metrics.Target{Name: e.path, AoE: targets.Snapshot(e.target, links)})
	}
	return list
}

// serveMetrics answers who asks for metrics, until ctx ends. The exports do not need it.
func (s *service) serveMetrics(ctx context.Context) {
	if s.metrics == nil {
		return
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(metrics.NewTargets(s.snapshots))
	if err := metrics.Serve(ctx, s.metrics, registry); err != nil {
		s.log.Error("no metrics any more", "err", err)
	}
}

// close gives everything back.
func (s *service) close() {
	if s.metrics != nil {
		_ = s.metrics.Close() // Serve has closed it, if it came to that
	}
	for _, l := range s.links {
		l.Close()
	}
	for _, e := range s.exports {
		if e.target != nil {
			e.target.Close()
		}
		_ = e.backing.Close()
	}
}

// run serves until ctx ends, or the server behind an export does.
func (s *service) run(ctx context.Context) error {
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	for _, e := range s.exports {
		var ports []*aoe.Port
		for _, l := range e.links {
			ports = append(ports, l.port)
		}
		switch b := e.backing.(type) {
		case *file.File:
			go followSize(ctx, b, e.device, ports, s.stderr)
		case *remote.Device:
			go endWhenLost(ctx, b, end)
		}
		go s.greet(ctx, e)
	}
	errs := make([]error, len(s.links))
	var wg sync.WaitGroup
	wg.Go(func() { s.serveMetrics(ctx) })
	for i, l := range s.links {
		wg.Go(func() {
			if errs[i] = l.Run(ctx); errs[i] != nil {
				end(nil) // an interface that cannot be served is not served in silence
			}
		})
	}
	wg.Wait()
	if cause := context.Cause(ctx); errors.Is(cause, errLost) {
		return cause
	}
	for _, e := range s.exports {
		if !e.readOnly {
			errs = append(errs, block.FlushAll(e.device))
		}
	}
	return errors.Join(errs...)
}

// greet says that an export is served, in vblade's words, as soon as its first interface is
// up: a script that waits for the line may discover at once.
func (s *service) greet(ctx context.Context, e *export) {
	select {
	case <-e.links[0].Ready():
	case <-ctx.Done():
		return
	}
	mode := "O_RDWR"
	if e.readOnly {
		mode = "O_RDONLY"
	}
	fmt.Fprintf(s.stdout, "pid %d: e%d.%d, %d sectors %s\n", os.Getpid(), e.shelf, e.slot, e.device.Geometry().Sectors, mode)
}
