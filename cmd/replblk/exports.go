package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"

	"github.com/replblk/replblk/block"
	"github.com/replblk/replblk/internal/config"
	"github.com/replblk/replblk/internal/control"
	"github.com/replblk/replblk/nbd"
	"github.com/replblk/replblk/node"
	"github.com/replblk/replblk/replication/state"
)

// nbdExport is a volume under a name, on all addresses that its section lists.
type nbdExport struct {
	cfg     *config.NBDExport
	servers []*nbd.Server
}

// nbdServer serves all exports of one address.
type nbdServer struct {
	addr     string // as configured
	server   *nbd.Server
	listener net.Listener
}

// active counts the clients.
func (e *nbdExport) active() (n uint64) {
	for _, s := range e.servers {
		if st, ok := s.ExportStats(e.cfg.ExportName); ok {
			n += st.Active
		}
	}
	return n
}

func (e *nbdExport) snapshot() control.NBD {
	s := control.NBD{Name: e.cfg.ExportName, Listen: e.cfg.Listen, Volume: uint16(e.cfg.Volume)}
	for _, srv := range e.servers {
		st, _ := srv.ExportStats(e.cfg.ExportName)
		s.Active += st.Active
		s.Connections += st.Connections
		s.Reads += st.Reads
		s.Writes += st.Writes
		s.Flushes += st.Flushes
		s.Trims += st.Trims
		s.Zeroes += st.Zeroes
		s.ReadBytes += st.ReadBytes
		s.WriteBytes += st.WriteBytes
		s.Errors += st.Errors
	}
	return s
}

// openNBD makes the exports of the resources that are managed, and binds their
// addresses.
func openNBD(d *config.Daemon, find func(string) *managed, log *slog.Logger) ([]*nbdServer, error) {
	byAddr := make(map[string]*nbdServer)
	options, err := nbdOptions(d, log)
	if err != nil {
		return nil, err
	}
	var list []*nbdServer
	for _, cfg := range d.NBD {
		m := find(cfg.Resource)
		if m == nil {
			continue // not of this node, or not asked for
		}
		e := &nbdExport{cfg: cfg}
		for _, addr := range cfg.Listen {
			s := byAddr[addr]
			if s == nil {
				l, err := listenNBD(addr)
				if err != nil {
					return list, fmt.Errorf("%s: nbd %s: listen %s: %w", cfg.Pos, cfg.Name, addr, err)
				}
				s = &nbdServer{addr: addr, listener: l, server: nbd.NewServer(options[addr])}
				byAddr[addr] = s
				list = append(list, s)
			}
			if err := s.server.Add(m.nbdExport(cfg)); err != nil {
				return list, fmt.Errorf("%s: nbd %s: %w", cfg.Pos, cfg.Name, err)
			}
			e.servers = append(e.servers, s.server)
		}
		m.nbd = append(m.nbd, e)
	}
	return list, nil
}

// nbdOptions returns the options of the server of each address: its clients are
// those of all its exports, and it offers TLS if one of them does.
func nbdOptions(d *config.Daemon, log *slog.Logger) (map[string]nbd.Options, error) {
	tlsConf, err := serverTLS(d.TLS, log)
	if err != nil {
		return nil, err
	}
	options := make(map[string]nbd.Options)
	for _, cfg := range d.NBD {
		for _, addr := range cfg.Listen {
			o := options[addr]
			o.Log = log.With("listen", addr)
			o.MaxConns += int(cfg.MaxConnections)
			if cfg.TLS != config.TLSNo {
				o.TLS = tlsConf
			}
			options[addr] = o
		}
	}
	return options, nil
}

// listenNBD binds "unix:/path" or "tcp:host:port".
func listenNBD(addr string) (net.Listener, error) {
	kind, where, _ := strings.Cut(addr, ":")
	if kind == "unix" {
		return control.Listen(where)
	}
	return net.Listen(kind, where)
}

// nbdExport is what an NBD server must know of a volume. Only a Primary serves; on a
// Secondary the export exists and says why it refuses.
func (m *managed) nbdExport(cfg *config.NBDExport) nbd.Export {
	return nbd.Export{
		Name: cfg.ExportName, Description: cfg.Description, ReadOnly: cfg.ReadOnly, RequireTLS: cfg.TLS == config.TLSRequire,
		Open: func() (block.Device, error) {
			r := m.res.Load()
			if r == nil {
				return nil, fmt.Errorf("resource %s is down", m.name())
			}
			st := r.State(uint16(cfg.Volume))
			switch {
			case st.Role != state.Primary && st.Peer == state.Primary:
				return nil, fmt.Errorf("resource %s is Secondary here, %s is Primary", m.name(), m.sec.peerName())
			case st.Role != state.Primary:
				return nil, fmt.Errorf("resource %s is Secondary here, nobody is known to be Primary", m.name())
			case m.closing.Load():
				return nil, fmt.Errorf("resource %s is about to become Secondary", m.name())
			}
			v := r.Volume(uint16(cfg.Volume))
			v.Open()
			return v, nil
		},
		Close: func(d block.Device) { d.(*node.Volume).Release() },
	}
}

// hush closes the exports: what was begun is answered, nothing new is begun. AoE
// targets hold what arrives until announce or silenceAoE.
func (m *managed) hush(ctx context.Context) error {
	errs := make([]error, len(m.nbd)+1)
	var wg sync.WaitGroup
	for i, e := range m.nbd {
		wg.Go(func() {
			for _, s := range e.servers {
				errs[i] = errors.Join(errs[i], s.Disconnect(ctx, e.cfg.ExportName))
			}
		})
	}
	wg.Go(func() { errs[len(m.nbd)] = m.holdAoE(ctx) })
	wg.Wait()
	return errors.Join(errs...)
}

// announce opens the exports that cannot be asked by a client whether they are open.
func (m *managed) announce() {
	if !m.isPrimary() {
		return
	}
	for _, e := range m.aoe {
		e.serve(m.res.Load(), true)
	}
}
