package replication

import "github.com/replblk/replblk/replication/state"

// A process that was stopped for longer than ping-timeout may have been given up by its
// peer, which may be Primary by now. Nothing tells it so but the time that has passed: it
// may read an end of the connection later than an application's request. So it serves
// nobody until the peer has answered a ping that was sent after the pause (X06). Writes
// need the peer's answer anyway; reads do not, and would return what was overwritten.

// Lease is how long a driver may do by itself what FxReads allows after the last EvTick
// that it has carried out, and how long the core may be out of the world without losing
// its trust in the connection. It is ping-timeout, and some ticks at least.
func (c *Config) Lease() Time {
	return max(tenths(c.PingTimeoutTenths), 300*Millisecond)
}

// checkLease is called before every event.
func (r *Resource) checkLease(ev *Event) {
	gap := ev.Now - r.ticked
	if ev.Kind == EvTick {
		r.ticked = ev.Now
	}
	if gap <= r.cfg.Lease() || r.conn.doubted || !r.conn.established() || r.role() != state.Primary {
		return
	}
	r.conn.doubted = true
	r.afterPing(nil, func(*volume) {
		r.conn.doubted = false
		r.restless = true
	})
}
