package nbd

import (
	"context"
	"net"
)

// Shutdown stops accepting, lets every connection answer what it has submitted,
// and closes it without a word about why: clients take a dropped connection for
// a reason to come back, and any error for an error. When ctx ends first the
// sockets are closed at once. After Shutdown the server is of no more use.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	s.closed = true
	for l := range s.listeners {
		_ = l.Close()
	}
	s.mu.Unlock()

	var serving []*conn
	for _, x := range s.sorted() {
		x.mu.Lock()
		x.closed = true
		x.mu.Unlock()
		serving = append(serving, x.stopConns()...)
	}
	s.closeNegotiating(serving)
	if err := wait(ctx, serving); err != nil {
		return err
	}
	s.wg.Wait()
	return nil
}

// closeNegotiating closes the sockets that have not reached transmission.
func (s *Server) closeNegotiating(serving []*conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	skip := make(map[net.Conn]bool, len(serving))
	for _, c := range serving {
		skip[c.sock] = true
	}
	for nc := range s.conns {
		if !skip[nc] {
			_ = nc.Close()
		}
	}
}

func (s *Server) isClosed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}

func (s *Server) addListener(l net.Listener) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.listeners[l] = struct{}{}
	return true
}

func (s *Server) dropListener(l net.Listener) {
	_ = l.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.listeners, l)
}

// track counts a connection in, unless the server is closed or full.
func (s *Server) track(nc net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	if len(s.conns) >= s.opt.MaxConns {
		s.stats.refusedAtMaximum.Add(1)
		return false
	}
	s.stats.accepted.Add(1)
	s.conns[nc] = struct{}{}
	s.wg.Add(1)
	return true
}

func (s *Server) untrack(nc net.Conn) {
	s.mu.Lock()
	delete(s.conns, nc)
	s.mu.Unlock()
	s.wg.Done()
}
