package chaos

import (
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Weather is what a Proxy does to the bytes of one direction. The zero Weather lets
// them through.
type Weather struct {
	Delay time.Duration // of every byte; order is kept
	Rate  int           // bytes a second, if it is not 0

	// Stall: nothing is forwarded and soon nothing read either, until it ends. No byte
	// is lost. The sender sees a closed window.
	Stall bool

	// Silence: bytes are taken and lost, and so is the end of the connection. What has
	// lost a byte stays silent when the weather changes: there are no gaps in TCP.
	Silence bool

	// Corrupt flips one bit of the byte that comes after so many others, once, if it is
	// not 0. Which bit follows from the number.
	Corrupt int

	// Reset ends the connection, both ways and without notice (RST), after so many
	// bytes, if it is not 0.
	Reset int
}

// Directions of a Proxy.
const (
	Forth = iota // from who dialled
	Back
)

// Limits of a Proxy.
const (
	chunkSize  = 16 << 10
	chunkQueue = 64
	stallCheck = 2 * time.Millisecond
)

// Proxy is a TCP relay between the daemons with weather. All methods may be called
// from any goroutine.
type Proxy struct {
	listener net.Listener
	target   string
	wg       sync.WaitGroup

	mu      sync.Mutex
	weather [2]Weather          // guarded by mu
	refuse  bool                // guarded by mu
	links   map[*relay]struct{} // guarded by mu
	closed  bool                // guarded by mu
}

// relay is one connection through the proxy.
type relay struct {
	proxy *Proxy
	ends  [2]*net.TCPConn // who dialled, whom we dialled
	once  sync.Once
	quit  chan struct{}  // closed with the connection
	mute  [2]atomic.Bool // a byte of this direction was lost
}

// NewProxy listens at a free port of the loopback interface for connections to target.
func NewProxy(target string) (*Proxy, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &Proxy{listener: l, target: target, links: make(map[*relay]struct{})}
	p.wg.Go(p.accept)
	return p, nil
}

// Address is where the proxy listens.
func (p *Proxy) Address() string { return p.listener.Addr().String() }

// Set changes the weather of a direction.
func (p *Proxy) Set(direction int, w Weather) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.weather[direction] = w
}

// Refuse makes the proxy close new connections at once, or accept them again.
func (p *Proxy) Refuse(on bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refuse = on
}

// Cut resets every connection.
func (p *Proxy) Cut() {
	p.mu.Lock()
	list := make([]*relay, 0, len(p.links))
	for r := range p.links {
		list = append(list, r)
	}
	p.mu.Unlock()
	for _, r := range list {
		r.reset()
	}
}

// Heal brings good weather and resets what is silent or stalled, as when a
// cable is put back.
func (p *Proxy) Heal() {
	p.Set(Forth, Weather{})
	p.Set(Back, Weather{})
	p.Refuse(false)
	p.Cut()
}

// Close ends the proxy and every connection through it.
func (p *Proxy) Close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	_ = p.listener.Close()
	p.Cut()
	p.wg.Wait()
}

func (p *Proxy) accept() {
	for {
		c, err := p.listener.Accept()
		if err != nil {
			return // closed
		}
		p.wg.Go(func() { p.serve(c.(*net.TCPConn)) })
	}
}

// serve relays one connection until it ends.
func (p *Proxy) serve(c *net.TCPConn) {
	p.mu.Lock()
	refuse := p.refuse || p.closed
	p.mu.Unlock()
	if refuse {
		_ = c.Close()
		return
	}
	other, err := net.Dial("tcp", p.target)
	if err != nil {
		_ = c.Close()
		return
	}
	r := &relay{proxy: p, ends: [2]*net.TCPConn{c, other.(*net.TCPConn)}, quit: make(chan struct{})}
	p.mu.Lock()
	p.links[r] = struct{}{}
	closed := p.closed
	p.mu.Unlock()
	if closed {
		r.reset()
	}
	var wg sync.WaitGroup
	for direction := range r.ends {
		q := make(chan chunk, chunkQueue)
		wg.Go(func() { r.read(direction, q) })
		wg.Go(func() { r.write(direction, q) })
	}
	wg.Wait()
	p.mu.Lock()
	delete(p.links, r)
	p.mu.Unlock()
}

// chunk is what was read at once, and when.
type chunk struct {
	at   time.Time
	data []byte
}

func (r *relay) weather(direction int) Weather {
	r.proxy.mu.Lock()
	defer r.proxy.mu.Unlock()
	return r.proxy.weather[direction]
}

// read takes bytes from one end.
func (r *relay) read(direction int, q chan<- chunk) {
	defer close(q)
	for {
		buf := make([]byte, chunkSize)
		n, err := r.ends[direction].Read(buf)
		if n > 0 {
			select {
			case q <- chunk{time.Now(), buf[:n]}:
			case <-r.quit:
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// write gives them to the other end, in the weather of the moment.
func (r *relay) write(direction int, q <-chan chunk) {
	forwarded := 0
	for c := range q {
		w := r.weather(direction)
		if !r.hold(direction, c.at, len(c.data), &w) {
			return
		}
		if w.Silence {
			r.mute[direction].Store(true)
		}
		if r.mute[direction].Load() {
			continue
		}
		data := c.data
		if at := w.Corrupt - 1 - forwarded; at >= 0 && at < len(data) {
			data[at] ^= 1 << (w.Corrupt % 8)
		}
		if w.Reset > 0 && forwarded+len(data) >= w.Reset {
			data = data[:max(0, w.Reset-forwarded)]
			_, _ = r.ends[1-direction].Write(data)
			r.reset()
			return
		}
		if _, err := r.ends[1-direction].Write(data); err != nil {
			r.reset()
			return
		}
		forwarded += len(data)
	}
	if r.mute[direction].Load() || r.weather(direction).Silence {
		<-r.quit // nobody hears of the end
		return
	}
	r.close()
}

// hold waits as long as the weather asks for and returns false if the connection ends
// meanwhile. w is the weather afterwards.
func (r *relay) hold(direction int, since time.Time, size int, w *Weather) bool {
	began := time.Now()
	for w.holds(since, began, size) {
		select {
		case <-r.quit:
			return false
		case <-time.After(min(stallCheck, max(w.Delay, stallCheck))):
		}
		*w = r.weather(direction)
	}
	return true
}

// holds says whether so many bytes that came at since, and whose turn it was at began, have to
// wait.
func (w *Weather) holds(since, began time.Time, size int) bool {
	return w.Stall || w.Delay > time.Since(since) ||
		w.Rate > 0 && time.Since(began) < time.Duration(size)*time.Second/time.Duration(w.Rate)
}

// reset ends both ends without notice.
func (r *relay) reset() {
	for _, c := range r.ends {
		_ = c.SetLinger(0) // fails only if it is closed already
	}
	r.close()
}

func (r *relay) close() {
	r.once.Do(func() {
		close(r.quit)
		for _, c := range r.ends {
			_ = c.Close()
		}
	})
}
