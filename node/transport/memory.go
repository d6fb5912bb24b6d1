package transport

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// memoryBuffer is how much one direction of a Memory socket holds.
const memoryBuffer = 256 << 10

// Memory is a Network inside the process. It waits on conditions only, so that
// it works, time-outs included, under testing/synctest. The zero value is ready.
type Memory struct {
	mu        sync.Mutex
	listeners map[string]*memoryListener
	socks     map[*memorySocket]struct{}
	ports     int
	down      bool
}

// Listen binds addr, any string that is not in use.
func (m *Memory) Listen(addr string) (Listener, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.listeners == nil {
		m.listeners = make(map[string]*memoryListener)
	}
	if m.listeners[addr] != nil {
		return nil, &net.OpError{Op: "listen", Net: "memory", Err: syscall.EADDRINUSE}
	}
	l := &memoryListener{net: m, addr: addr, backlog: make(chan *memorySocket, 5), closed: make(chan struct{})}
	m.listeners[addr] = l
	return l, nil
}

// Dial connects to the listener at remote; it is refused if there is none or if
// the network is down.
func (m *Memory) Dial(ctx context.Context, local, remote string) (Socket, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	l := m.listeners[remote]
	if l == nil || m.down {
		return nil, &net.OpError{Op: "dial", Net: "memory", Err: syscall.ECONNREFUSED}
	}
	m.ports++
	near, far := newMemoryPair(m, local+"#"+strconv.Itoa(m.ports), remote)
	select {
	case l.backlog <- far:
	default:
		return nil, &net.OpError{Op: "dial", Net: "memory", Err: syscall.ETIMEDOUT}
	}
	if m.socks == nil {
		m.socks = make(map[*memorySocket]struct{})
	}
	m.socks[near], m.socks[far] = struct{}{}, struct{}{}
	return near, nil
}

// SetDown breaks every connection and refuses new ones, until it is called with
// false.
func (m *Memory) SetDown(down bool) {
	m.mu.Lock()
	m.down = down
	var socks []*memorySocket
	if down {
		for s := range m.socks {
			socks = append(socks, s)
		}
		m.socks = nil
	}
	m.mu.Unlock()
	for _, s := range socks {
		s.in.close(syscall.ECONNRESET)
		s.out.close(syscall.ECONNRESET)
	}
}

type memoryListener struct {
	net     *Memory
	addr    string
	backlog chan *memorySocket
	closed  chan struct{}
	once    sync.Once
}

func (l *memoryListener) Accept() (Socket, error) {
	select {
	case s := <-l.backlog:
		return s, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *memoryListener) Close() error {
	l.once.Do(func() {
		l.net.mu.Lock()
		delete(l.net.listeners, l.addr)
		l.net.mu.Unlock()
		close(l.closed)
		for {
			select {
			case s := <-l.backlog:
				_ = s.Close()
				continue
			default:
			}
			return
		}
	})
	return nil
}

func (l *memoryListener) Addr() string { return l.addr }

// memorySocket is one end of a connection: it reads from in and writes to out.
type memorySocket struct {
	net      *Memory
	in, out  *stream
	peerAddr string
}

func newMemoryPair(m *Memory, dialer, listener string) (near, far *memorySocket) {
	ab, ba := newStream(), newStream()
	return &memorySocket{net: m, in: ba, out: ab, peerAddr: listener}, &memorySocket{net: m, in: ab, out: ba, peerAddr: dialer}
}

func (s *memorySocket) Read(p []byte) (int, error)           { return s.in.read(p) }
func (s *memorySocket) TryWrite(bufs [][]byte) (int, error)  { return s.out.write(bufs, false) }
func (s *memorySocket) WaitWrite(bufs [][]byte) (int, error) { return s.out.write(bufs, true) }
func (s *memorySocket) SetReadDeadline(t time.Time) error    { s.in.setDeadline(t); return nil }
func (s *memorySocket) Alive() bool                          { return s.in.alive() }
func (s *memorySocket) CloseWrite() error                    { s.out.finish(); return nil }
func (s *memorySocket) RemoteAddr() string                   { return s.peerAddr }

func (s *memorySocket) Close() error {
	s.out.finish()             // the peer may read what was written
	s.out.close(net.ErrClosed) // but we write no more
	s.in.close(net.ErrClosed)  // and the peer writes in vain
	s.net.mu.Lock()
	delete(s.net.socks, s)
	s.net.mu.Unlock()
	return nil
}

// stream is one direction: a bounded byte queue.
type stream struct {
	mu       sync.Mutex
	cond     *sync.Cond // on mu: anything changed
	buf      []byte
	eof      bool  // the writer is finished, the rest may be read
	err      error // reading stops at once unless eof, writing stops
	deadline time.Time
	timer    *time.Timer
}

func newStream() *stream {
	s := &stream{}
	s.cond = sync.NewCond(&s.mu)
	return s
}

func (s *stream) read(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		switch {
		case s.err != nil && !s.eof:
			return 0, s.err
		case !s.deadline.IsZero() && !time.Now().Before(s.deadline):
			return 0, os.ErrDeadlineExceeded
		case len(s.buf) > 0:
			n := copy(p, s.buf)
			s.buf = s.buf[:copy(s.buf, s.buf[n:])]
			s.cond.Broadcast()
			return n, nil
		case s.eof:
			return 0, io.EOF
		}
		s.cond.Wait()
	}
}

func (s *stream) write(bufs [][]byte, wait bool) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		if s.err != nil || s.eof {
			return 0, syscall.EPIPE
		}
		if n := s.take(bufs); n > 0 || !wait {
			return n, nil
		}
		s.cond.Wait()
	}
}

// take appends what fits.
func (s *stream) take(bufs [][]byte) int {
	n := 0
	for _, b := range bufs {
		k := min(len(b), memoryBuffer-len(s.buf))
		s.buf = append(s.buf, b[:k]...)
		n += k
	}
	if n > 0 {
		s.cond.Broadcast()
	}
	return n
}

func (s *stream) setDeadline(t time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.deadline = t
	if s.timer != nil {
		s.timer.Stop()
		s.timer = nil
	}
	if !t.IsZero() {
		s.timer = time.AfterFunc(time.Until(t), s.wake)
	}
	s.cond.Broadcast()
}

func (s *stream) wake() {
	s.mu.Lock()
	s.cond.Broadcast()
	s.mu.Unlock()
}

func (s *stream) alive() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil && !s.eof {
		return false
	}
	return len(s.buf) > 0 || !s.eof
}

func (s *stream) finish() {
	s.mu.Lock()
	s.eof = true
	s.cond.Broadcast()
	s.mu.Unlock()
}

func (s *stream) close(err error) {
	s.mu.Lock()
	if s.err == nil {
		s.err = err
	}
	if !errors.Is(err, net.ErrClosed) { // a reset destroys what is in flight
		s.buf, s.eof = nil, false
	}
	if s.timer != nil {
		s.timer.Stop()
	}
	s.cond.Broadcast()
	s.mu.Unlock()
}
