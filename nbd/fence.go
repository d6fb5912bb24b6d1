package nbd

import "time"

// stallLimit is how long a request may have waited in the server before the
// reader makes sure that its client is still there. Clients give up after
// seconds, so a second is early enough, and a look per second costs nothing.
const stallLimit = time.Second

// attach registers a connection that is about to serve requests. Connections
// whose client has hung up are ended first: what they still have unread was
// sent before the client connected anew, and must not be executed after what
// the new connection brings. The fence is up for them from here on, not only when
// their reader notices: it may have a request in hand.
func (x *export) attach(c *conn) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.closed {
		return false
	}
	for other := range x.conns {
		if other.hungUp() {
			other.kill()
			x.drainLocked(other)
		}
	}
	x.conns[c] = struct{}{}
	return true
}

// beginDrain is called by the reader of a connection that ended, before it
// waits for its requests. From here on the fence is up.
func (x *export) beginDrain(c *conn) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.drainLocked(c)
}

// drainLocked counts c among the draining, once. x.mu is held.
func (x *export) drainLocked(c *conn) {
	if !c.draining {
		c.draining = true
		x.draining.Add(1)
	}
}

// endDrain is called when the last request of the connection has left.
func (x *export) endDrain(c *conn) {
	x.mu.Lock()
	defer x.mu.Unlock()
	delete(x.conns, c)
	x.draining.Add(-1)
	x.changed.Broadcast()
}

// passFence waits until no ended connection has requests in the device. It
// returns false if c was told to stop meanwhile.
func (x *export) passFence(c *conn) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	for x.draining.Load() > 0 && !c.stopping.Load() {
		x.changed.Wait()
	}
	return !c.stopping.Load()
}

// stopConns tells every connection to finish and returns them.
func (x *export) stopConns() []*conn {
	x.mu.Lock()
	defer x.mu.Unlock()
	all := make([]*conn, 0, len(x.conns))
	for c := range x.conns {
		c.stop()
		all = append(all, c)
	}
	x.changed.Broadcast()
	return all
}

// forget removes a connection that never began to serve.
func (x *export) forget(c *conn) {
	x.mu.Lock()
	defer x.mu.Unlock()
	delete(x.conns, c)
	if c.draining {
		x.draining.Add(-1)
		x.changed.Broadcast()
	}
}
