package nbd

import (
	"crypto/tls"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// conn is one client in transmission.
type conn struct {
	sock net.Conn
	raw  syscall.RawConn // of sock; nil if it has no file descriptor
	tls  *tls.Conn       // over sock; nil without TLS
	rd   *reader
	ses  session

	// stopping: finish what was submitted, submit nothing more. Set once, with
	// the read deadline in the past so that the reader notices.
	stopping atomic.Bool
	finished chan struct{} // closed when the connection is gone
	draining bool          // the fence is up for it; guarded by export.mu

	mu       sync.Mutex
	slots    sync.Cond // a slot or bytes came free, or the connection broke
	waiting  bool      // the reader waits on slots
	free     *job
	made     int // jobs that exist
	inflight int // jobs between acquire and release
	bytes    int // payload of those
	broken   bool
	out      out
}

func newConn(sock net.Conn, h *handshaker) *conn {
	c := &conn{sock: sock, raw: rawConn(sock), tls: h.tls, rd: h.rd, ses: h.ses, finished: make(chan struct{})}
	c.slots.L = &c.mu
	c.rd.transmission()
	c.out.init(c)
	return c
}

// serve runs the connection until it ends, and returns when the last of its
// requests has left the device.
func (c *conn) serve() error {
	x := c.ses.export
	x.stats.connections.Add(1)
	x.stats.active.Add(1)
	go c.out.loop()
	err := c.transmit()
	x.beginDrain(c)
	c.drain(err)
	x.endDrain(c)
	x.release(c.ses.device)
	x.stats.active.Add(^uint64(0))
	close(c.finished)
	return err
}

// drain waits for everything in flight and closes the socket. The replies are
// still sent, which after DISC or a stop the client may count on, unless the
// client broke the connection or the protocol.
func (c *conn) drain(err error) {
	if err != nil {
		c.fail()
	}
	c.mu.Lock()
	for c.inflight > 0 {
		c.waiting = true
		c.slots.Wait()
	}
	c.mu.Unlock()
	if c.tls != nil && err == nil {
		closeTLS(c.tls)
	}
	c.fail()
	close(c.out.wake)
}

// stop asks the connection to finish what it has submitted. The deadline pops
// the reader out of Read; a request it has half read is dropped.
func (c *conn) stop() {
	c.stopping.Store(true)
	_ = c.sock.SetReadDeadline(time.Unix(1, 0))
	c.mu.Lock()
	c.slots.Broadcast()
	c.mu.Unlock()
}

// kill ends the connection without waiting for the client.
func (c *conn) kill() {
	c.stop()
	c.fail()
}

// fail gives up the socket: replies are dropped from now on.
func (c *conn) fail() {
	c.mu.Lock()
	c.broken = true
	c.slots.Broadcast()
	c.mu.Unlock()
	_ = c.sock.Close()
}

// acquire takes a job and room for n bytes of payload, and waits for them if it
// must, after sending the replies in b. It returns nil if the connection is
// ending. stalled says that the wait was long.
func (c *conn) acquire(n int, b *batch) (j *job, stalled bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.full(n) && !c.ending() {
		start := time.Now()
		c.mu.Unlock()
		c.sendBatch(b)
		c.mu.Lock()
		for c.full(n) && !c.ending() {
			c.waiting = true
			c.slots.Wait()
		}
		c.waiting = false
		stalled = time.Since(start) > stallLimit
	}
	if c.ending() {
		return nil, stalled
	}
	if j = c.free; j != nil {
		c.free = j.next
	} else {
		j = &job{conn: c}
		j.req.Done = j.complete
		c.made++
	}
	j.next, j.charge = nil, n
	c.inflight++
	c.bytes += n
	return j, stalled
}

// full says whether a request with n bytes has to wait. One request always
// fits, however large.
func (c *conn) full(n int) bool {
	return c.inflight >= maxInflight || c.bytes > 0 && c.bytes+n > maxInflightBytes
}

func (c *conn) ending() bool { return c.broken || c.stopping.Load() }

// release frees the slot of a disposed job. c.mu is held.
func (c *conn) release(j *job) {
	j.next, c.free = c.free, j
	c.inflight--
	c.bytes -= j.charge
	if c.waiting {
		c.slots.Broadcast()
	}
}

// abandon releases a job that never got a reply.
func (c *conn) abandon(j *job) {
	j.dispose()
	c.mu.Lock()
	c.release(j)
	c.mu.Unlock()
}
