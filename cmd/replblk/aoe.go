package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/replblk/replblk/aoe"
	"github.com/replblk/replblk/aoe/packet"
	"github.com/replblk/replblk/block"
	"github.com/replblk/replblk/internal/config"
	"github.com/replblk/replblk/internal/control"
	"github.com/replblk/replblk/node"
)

// aoeExport is a volume under an AoE address, on all interfaces that its section lists.
type aoeExport struct {
	cfg    *config.AoETarget
	target *aoe.Target
	ports  []*aoePort
	open   atomic.Bool // the target serves, and so uses the volume
}

// serve makes the target answer or fall silent. There is no telling whether a client
// uses it, so a target that answers counts as used.
func (e *aoeExport) serve(r *node.Resource, on bool) {
	e.target.SetServing(on)
	if e.open.Swap(on) == on || r == nil {
		return
	}
	if v := r.Volume(uint16(e.cfg.Volume)); on {
		v.Open()
	} else {
		v.Release()
	}
}

// aoePort serves all targets of one interface.
type aoePort struct {
	name    string
	port    *aoe.Port
	link    *packet.Socket
	targets []packet.Address
	log     *slog.Logger
}

// reopenInterval is how often a lost interface is looked for.
const reopenInterval = time.Second

// openAoE makes the targets of the resources that are managed, silent, and opens their
// interfaces.
func openAoE(d *config.Daemon, find func(string) *managed, log *slog.Logger) ([]*aoePort, error) {
	byName := make(map[string]*aoePort)
	var list []*aoePort
	for _, cfg := range d.AoE {
		m := find(cfg.Resource)
		if m == nil {
			continue
		}
		e, err := m.aoeExport(cfg, log)
		if err != nil {
			return list, fmt.Errorf("%s: aoe %s: %w", cfg.Pos, cfg.Name, err)
		}
		for _, name := range cfg.Interfaces {
			p := byName[name]
			if p == nil {
				port, err := aoe.NewPort()
				if err != nil {
					return list, fmt.Errorf("%s: aoe %s: %w", cfg.Pos, cfg.Name, err)
				}
				p = &aoePort{name: name, port: port, log: log.With("interface", name)}
				byName[name] = p
				list = append(list, p)
			}
			if err := p.port.Add(e.target); err != nil {
				return list, fmt.Errorf("%s: aoe %s: %w", cfg.Pos, cfg.Name, err)
			}
			p.targets = append(p.targets, packet.Address{Shelf: uint16(cfg.Shelf), Slot: uint8(cfg.Slot)})
			e.ports = append(e.ports, p)
		}
		m.aoe = append(m.aoe, e)
	}
	for _, p := range list {
		link, err := packet.Open(p.name, p.options())
		if err != nil {
			return list, fmt.Errorf("aoe: interface %s: %w", p.name, err)
		}
		p.link = link
	}
	return list, nil
}

func (p *aoePort) options() packet.Options {
	return packet.Options{Filter: packet.Filter{Targets: p.targets}}
}

func (m *managed) aoeExport(cfg *config.AoETarget, log *slog.Logger) (*aoeExport, error) {
	st := aoe.State{Config: []byte(cfg.ConfigString)}
	for _, s := range cfg.MACs {
		mac, err := aoe.ParseMAC(s)
		if err != nil {
			return nil, err
		}
		st.Mask = append(st.Mask, mac)
	}
	target, err := aoe.NewTarget(aoe.Options{
		Shelf: uint16(cfg.Shelf), Slot: uint8(cfg.Slot),
		Device: &lateVolume{m: m, number: uint16(cfg.Volume), readOnly: cfg.ReadOnly},
		// The same on both nodes, so that an initiator sees one disk.
		Identity: aoe.Identity{Serial: m.name() + "/" + strconv.Itoa(int(cfg.Volume)), Firmware: "replblk", Model: "replblk " + m.name()},
		State:    st,
		Standby:  true,
		OnConflict: func(mac aoe.MAC) {
			log.Warn("another station answers for this target", "aoe", cfg.Name, "station", mac.String())
		},
	})
	if err != nil {
		return nil, err
	}
	return &aoeExport{cfg: cfg, target: target}, nil
}

// lateVolume is the volume of a resource that may be down, or brought up anew.
type lateVolume struct {
	m        *managed
	number   uint16
	readOnly bool
}

// Submit implements block.Device.
func (v *lateVolume) Submit(r *block.Request) {
	res := v.m.res.Load()
	switch {
	case res == nil:
		r.Complete(r.Fail(syscall.ENODEV))
	case v.readOnly && r.Op.Modifies():
		r.Complete(r.Fail(syscall.EROFS))
	default:
		res.Volume(v.number).Submit(r)
	}
}

// Geometry implements block.Device.
func (v *lateVolume) Geometry() block.Geometry {
	g := block.Geometry{LogicalBlock: block.SectorSize, PhysicalBlock: 4096, ReadOnly: true}
	if res := v.m.res.Load(); res != nil {
		g = res.Volume(v.number).Geometry()
	}
	g.ReadOnly = g.ReadOnly || v.readOnly
	return g
}

// serve runs the port until ctx ends, on a new socket whenever the interface was
// removed and is there again.
func (p *aoePort) serve(ctx context.Context) {
	for {
		err := p.port.Serve(ctx, p.link, aoe.ServeOptions{})
		_ = p.link.Close()
		if ctx.Err() != nil {
			return
		}
		p.log.Warn("aoe interface lost", "err", err)
		if !errors.Is(err, syscall.ENODEV) || !p.reopen(ctx) {
			return
		}
		p.log.Info("aoe interface is back")
	}
}

// reopen waits for the interface; false if ctx ended first.
func (p *aoePort) reopen(ctx context.Context) bool {
	tick := time.NewTicker(reopenInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return false
		case <-tick.C:
		}
		if link, err := packet.Open(p.name, p.options()); err == nil {
			p.link = link
			return true
		}
	}
}

func (e *aoeExport) snapshot() control.AoE {
	c := e.target.Counters()
	s := control.AoE{
		Shelf: e.target.Shelf(), Slot: e.target.Slot(), Interfaces: slices.Clone(e.cfg.Interfaces), Volume: uint16(e.cfg.Volume),
		Serving: e.target.Serving(), Requests: c.Requests.Load(), Responses: c.Responses.Load(),
		Reads: c.Reads.Load(), Writes: c.Writes.Load(), Flushes: c.Flushes.Load(),
		ReadBytes: c.ReadBytes.Load(), WriteBytes: c.WriteBytes.Load(),
		Errors: c.ATAErrors.Load() + c.AoEErrors.Load(), Duplicates: c.Duplicates.Load(),
		Dropped: make(map[string]uint64),
	}
	for _, r := range aoe.DropReasons() {
		s.Dropped[r.String()] = c.Drops(r)
	}
	return s
}
