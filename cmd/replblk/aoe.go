package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/replblk/replblk/aoe"
	"github.com/replblk/replblk/aoe/netif"
	"github.com/replblk/replblk/block"
	"github.com/replblk/replblk/internal/config"
	"github.com/replblk/replblk/internal/control"
	"github.com/replblk/replblk/internal/targets"
	"github.com/replblk/replblk/node"
)

// aoeExport is a volume under an AoE address, on all interfaces that its section lists.
type aoeExport struct {
	cfg    *config.AoETarget
	target *aoe.Target
	addrs  []aoe.MAC // by interface; zero is the interface's own
	ports  []*aoePort
	open   atomic.Bool // the target serves, and so uses the volume
}

// serve makes the target answer, or fall silent.
func (e *aoeExport) serve(r *node.Resource, on bool) {
	e.target.SetServing(on)
	e.use(r, on)
}

// use counts the target as a user of the volume. There is no telling whether a client
// uses it, so a target that answers counts as used.
func (e *aoeExport) use(r *node.Resource, on bool) {
	if e.open.Swap(on) == on || r == nil {
		return
	}
	if v := r.Volume(uint16(e.cfg.Volume)); on { //nolint:gosec // config has checked it
		v.Open()
	} else {
		v.Release()
	}
}

// aoePort serves all targets of one interface.
type aoePort struct {
	name string
	port *aoe.Port
	*netif.Interface
}

// openAoE makes the targets of the resources that are managed, silent, and opens those
// of their interfaces that exist.
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
		for i, name := range cfg.Interfaces {
			p := byName[name]
			if p == nil {
				if p, err = openAoEPort(name, log); err != nil {
					return list, fmt.Errorf("%s: aoe %s: %w", cfg.Pos, cfg.Name, err)
				}
				byName[name] = p
				list = append(list, p)
			}
			if err := p.port.Add(e.target, e.addrs[i]); err != nil {
				return list, fmt.Errorf("%s: aoe %s: %w", cfg.Pos, cfg.Name, err)
			}
			e.ports = append(e.ports, p)
		}
		m.aoe = append(m.aoe, e)
	}
	return list, nil
}

func openAoEPort(name string, log *slog.Logger) (*aoePort, error) {
	port, err := aoe.NewPort()
	if err != nil {
		return nil, err
	}
	p := &aoePort{name, port, netif.New(name, port, netif.Options{Log: log})}
	return p, p.Open()
}

// aoeAddresses returns the address of a target on each of its interfaces.
func aoeAddresses(cfg *config.AoETarget) ([]aoe.MAC, error) {
	list := make([]aoe.MAC, len(cfg.Interfaces))
	switch cfg.Address {
	case config.AoEAddressOwn:
		return list, nil
	case config.AoEAddressVirtual:
		for i := range list {
			list[i] = aoe.VirtualMAC(uint16(cfg.Shelf), uint8(cfg.Slot), uint8(i)) //nolint:gosec // checked by config
		}
		return list, nil
	}
	first, err := aoe.ParseMAC(cfg.Address)
	if err != nil {
		return nil, err
	}
	for i := range list {
		list[i] = first
		list[i][5] += byte(i) // config has checked that it does not overflow
	}
	return list, nil
}

func (m *managed) aoeExport(cfg *config.AoETarget, log *slog.Logger) (*aoeExport, error) {
	st, err := aoeState(cfg)
	if err != nil {
		return nil, err
	}
	addrs, err := aoeAddresses(cfg)
	if err != nil {
		return nil, err
	}
	target, err := aoe.NewTarget(aoe.Options{
		Shelf: uint16(cfg.Shelf), Slot: uint8(cfg.Slot),
		Device: &lateVolume{m: m, number: uint16(cfg.Volume)},
		// The same on both nodes, so that an initiator sees one disk.
		Identity: aoe.Identity{Serial: m.name() + "/" + strconv.Itoa(int(cfg.Volume)), Firmware: "replblk", Model: "replblk " + m.name()},
		State:    st,
		Permit:   aoePermit(cfg),
		OnState: func(st aoe.State) error {
			err := targets.Keep(cfg.StateFile, st)
			if err != nil {
				log.Error("what an initiator has set cannot be kept", "aoe", cfg.Name, "err", err)
			}
			return err
		},
		Mirrored: m.isConnected,
		OnUnconfirmed: func() {
			log.Warn("what an initiator has set is not answered: the other node's target does not say that it has it", "aoe", cfg.Name)
		},
		Secret:  func() []byte { return []byte(m.options.Load().res.Net.SharedSecret) },
		Standby: true,
		Virtual: cfg.Address != config.AoEAddressOwn,
		OnConflict: func(mac aoe.MAC, silent bool) {
			if silent {
				log.Error("the other node serves this target too: silent until replblk primary", "aoe", cfg.Name, "address", mac.String())
				return
			}
			log.Warn("another station answers for this target", "aoe", cfg.Name, "station", mac.String())
		},
	})
	if err != nil {
		return nil, err
	}
	return &aoeExport{cfg: cfg, target: target, addrs: addrs}, nil
}

// lateVolume is the volume of a resource that may be down, or brought up anew.
type lateVolume struct {
	m      *managed
	number uint16
}

// Submit implements block.Device.
func (v *lateVolume) Submit(r *block.Request) {
	if res := v.m.res.Load(); res != nil {
		res.Volume(v.number).Submit(r)
		return
	}
	r.Complete(r.Fail(syscall.ENODEV))
}

// Geometry implements block.Device.
func (v *lateVolume) Geometry() block.Geometry {
	if res := v.m.res.Load(); res != nil {
		return res.Volume(v.number).Geometry()
	}
	return block.Geometry{LogicalBlock: block.SectorSize, PhysicalBlock: 4096, ReadOnly: true}
}

// askTime is how long the network is asked before a promotion. It is part of the time
// that a failover takes.
const askTime = 40 * time.Millisecond

// otherServer returns who serves one of the resource's AoE targets now, as an error: a
// node that lost the connection to its peer but not to the clients (rule R11).
func (m *managed) otherServer(ctx context.Context) error {
	var mu sync.Mutex
	var errs []error
	var wg sync.WaitGroup
	for _, e := range m.aoe {
		for _, p := range e.ports {
			wg.Go(func() {
				for _, mac := range p.port.Ask(ctx, e.target, askTime) {
					mu.Lock()
					errs = append(errs, fmt.Errorf("%v on interface %s still serves e%d.%d", mac, p.name, e.cfg.Shelf, e.cfg.Slot))
					mu.Unlock()
				}
			})
		}
	}
	wg.Wait()
	return errors.Join(errs...)
}

// holdAoE makes the targets finish what they have accepted. What arrives until somebody
// serves again is kept, if the other node will have the same address.
func (m *managed) holdAoE(ctx context.Context) error {
	errs := make([]error, len(m.aoe))
	var wg sync.WaitGroup
	for i, e := range m.aoe {
		e.target.Hold()
		e.use(m.res.Load(), false)
		wg.Go(func() { errs[i] = e.target.Drain(ctx) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// silenceAoE makes the targets silent; those that hold frames for the other node go on
// holding them if keep is set.
func (m *managed) silenceAoE(keep bool) {
	for _, e := range m.aoe {
		if keep && e.cfg.Address != config.AoEAddressOwn && e.target.Mode() == aoe.Holding {
			e.target.Yield()
			continue
		}
		e.serve(m.res.Load(), false)
	}
}

func (e *aoeExport) snapshot() control.AoE {
	links := make([]targets.Link, len(e.ports))
	for i, p := range e.ports {
		links[i] = targets.Link{Interface: p.Interface, Port: p.port, Addr: e.addrs[i]}
	}
	s := targets.Snapshot(e.target, links)
	s.Volume = uint16(e.cfg.Volume) //nolint:gosec // config has checked it
	return s
}
