package nbd

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"time"
)

// Options of a Server. The zero value is usable.
type Options struct {
	// Log gets one line per connection and fault; nil is silent.
	Log *slog.Logger
	// HandshakeTimeout bounds negotiation; 0 is 10 s.
	HandshakeTimeout time.Duration
	// MaxConns bounds the connections at once; 0 is 1024.
	MaxConns int
	// TLS is what clients who ask for TLS get; nil refuses them. Who must ask is
	// said per export.
	TLS *tls.Config
}

// Server serves exports to NBD clients. All methods may be called from any goroutine.
type Server struct {
	opt   Options
	log   *slog.Logger
	stats serverCounters

	mu        sync.Mutex
	exports   map[string]*export
	listeners map[net.Listener]struct{}
	conns     map[net.Conn]struct{} // all, including those that negotiate
	closed    bool
	wg        sync.WaitGroup
}

// NewServer returns a server without exports.
func NewServer(opt Options) *Server {
	if opt.HandshakeTimeout <= 0 {
		opt.HandshakeTimeout = 10 * time.Second
	}
	if opt.MaxConns <= 0 {
		opt.MaxConns = 1024
	}
	log := opt.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Server{
		opt: opt, log: log,
		exports:   make(map[string]*export),
		listeners: make(map[net.Listener]struct{}),
		conns:     make(map[net.Conn]struct{}),
	}
}

// Add registers an export.
func (s *Server) Add(e Export) error {
	if e.Device == nil && e.Open == nil {
		return fmt.Errorf("export %q has no device", e.Name)
	}
	if e.RequireTLS && s.opt.TLS == nil {
		return fmt.Errorf("export %q requires TLS, which the server does not offer", e.Name)
	}
	if len(e.Name) > maxName || len(e.Description) > maxName {
		return fmt.Errorf("export %.20q: name or description is longer than %d bytes", e.Name, maxName)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.exports[e.Name]; ok {
		return fmt.Errorf("export %q exists", e.Name)
	}
	for _, x := range s.exports {
		if e.Default && x.Default {
			return fmt.Errorf("export %q: %q is the default already", e.Name, x.Name)
		}
	}
	s.exports[e.Name] = newExport(e)
	return nil
}

// Disconnect drops the clients of an export, which stays registered, and waits
// until the last of their requests has been answered and has left the device.
// They get no error: dropped clients come back, and are then refused by Open if
// the device is not to be served any more (the resource became Secondary). When
// ctx ends first, the sockets are closed without waiting for replies, and the
// error is ctx's.
func (s *Server) Disconnect(ctx context.Context, name string) error {
	s.mu.Lock()
	x := s.exports[name]
	s.mu.Unlock()
	if x == nil {
		return ErrUnknownExport
	}
	return wait(ctx, x.stopConns())
}

// Remove forgets an export and disconnects its clients as Disconnect does.
func (s *Server) Remove(ctx context.Context, name string) error {
	s.mu.Lock()
	x := s.exports[name]
	delete(s.exports, name)
	s.mu.Unlock()
	if x == nil {
		return ErrUnknownExport
	}
	x.mu.Lock()
	x.closed = true
	x.mu.Unlock()
	return wait(ctx, x.stopConns())
}

// wait waits for the connections to end, killing them when ctx does.
func wait(ctx context.Context, conns []*conn) error {
	for _, c := range conns {
		select {
		case <-c.finished:
			continue
		case <-ctx.Done():
		}
		for _, c := range conns {
			c.kill()
		}
		return ctx.Err()
	}
	return nil
}

// Serve accepts clients until ctx ends, the listener fails, or Shutdown. It
// closes the listener.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	if !s.addListener(l) {
		_ = l.Close()
		return ErrClosed
	}
	defer s.dropListener(l)
	unhook := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer unhook()
	for {
		nc, err := l.Accept()
		switch {
		case err == nil:
			s.start(nc)
		case ctx.Err() != nil:
			return ctx.Err()
		case s.isClosed():
			return ErrClosed
		case errors.Is(err, net.ErrClosed):
			return err
		default:
			// Out of descriptors, or the client left before it was accepted:
			// a server must outlive both.
			s.log.Warn("accept", "err", err)
			select {
			case <-time.After(50 * time.Millisecond):
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
}

// start serves an accepted connection on a goroutine of its own.
func (s *Server) start(nc net.Conn) {
	if !s.track(nc) {
		_ = nc.Close()
		return
	}
	go func() {
		defer s.untrack(nc)
		_ = s.serveConn(nc) // logged there
	}()
}

// ServeConn serves one connected client and closes the connection. It returns
// nil if the client left in order or was disconnected by us.
func (s *Server) ServeConn(nc net.Conn) error {
	if !s.track(nc) {
		_ = nc.Close()
		return ErrClosed
	}
	defer s.untrack(nc)
	return s.serveConn(nc)
}

func (s *Server) serveConn(nc net.Conn) error {
	log := s.log.With("client", nc.RemoteAddr().String())
	tune(nc)
	c, err := s.negotiate(nc)
	if err != nil {
		s.stats.handshakeFailed.Add(1)
		s.countProtocol(err)
		log.Debug("negotiation ended", "err", err)
		_ = nc.Close()
		return err
	}
	log = log.With("export", c.ses.export.Name)
	if c.tls != nil {
		log = log.With(tlsAttrs(c.tls))
	}
	log.Info("client connected")
	err = c.serve()
	s.countProtocol(err)
	if err != nil {
		log.Warn("client lost", "err", err)
	} else {
		log.Info("client disconnected")
	}
	return err
}

// negotiate runs the handshake and registers the connection with its export.
func (s *Server) negotiate(nc net.Conn) (*conn, error) {
	_ = nc.SetDeadline(time.Now().Add(s.opt.HandshakeTimeout))
	h := &handshaker{s: s, sock: nc, rd: newReader(nc), w: nc}
	if err := h.run(); err != nil {
		return nil, err
	}
	_ = nc.SetDeadline(time.Time{})
	c := newConn(nc, h)
	// Registering after the deadline was lifted: a stop sets it again. Shutdown
	// removes this socket itself if it comes before.
	if !h.ses.export.attach(c) || s.isClosed() {
		h.ses.export.forget(c)
		h.ses.export.release(h.ses.device)
		return nil, ErrClosed
	}
	return c, nil
}

func (s *Server) countProtocol(err error) {
	if _, ok := errors.AsType[*ProtocolError](err); ok {
		s.stats.protocolErrors.Add(1)
	}
}

// find returns the export of that name, or the default for the empty name.
func (s *Server) find(name string) (*export, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if x := s.exports[name]; x != nil {
		return x, nil
	}
	if name != "" {
		return nil, ErrUnknownExport
	}
	for _, x := range s.exports {
		if x.Default || len(s.exports) == 1 {
			return x, nil
		}
	}
	return nil, ErrUnknownExport
}

func (s *Server) sorted() []*export {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]*export, 0, len(s.exports))
	for _, x := range s.exports {
		all = append(all, x)
	}
	slices.SortFunc(all, func(a, b *export) int { return strings.Compare(a.Name, b.Name) })
	return all
}

// Exports returns the names of all exports, sorted.
func (s *Server) Exports() []string {
	var names []string
	for _, x := range s.sorted() {
		names = append(names, x.Name)
	}
	return names
}

// ExportStats returns the counters of an export; ok is false if it is unknown.
func (s *Server) ExportStats(name string) (st Stats, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	x := s.exports[name]
	if x == nil {
		return Stats{}, false
	}
	return x.stats.snapshot(), true
}

// Stats returns the counters of the server.
func (s *Server) Stats() ServerStats {
	return ServerStats{
		Accepted:         s.stats.accepted.Load(),
		HandshakeFailed:  s.stats.handshakeFailed.Load(),
		ProtocolErrors:   s.stats.protocolErrors.Load(),
		RefusedAtMaximum: s.stats.refusedAtMaximum.Load(),
	}
}
