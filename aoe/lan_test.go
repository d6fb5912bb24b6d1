package aoe

import (
	"bytes"
	"context"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// lan is a learning bridge with interfaces that filter by what they were told to
// receive.
type lan struct {
	mu      sync.Mutex
	ports   []*lanLink
	learned map[MAC]*lanLink
	moves   int // addresses that were learned on another port than before
}

type lanLink struct {
	lan  *lan
	addr MAC
	rx   chan []byte
	stop chan struct{}
	once sync.Once
	gone atomic.Bool
	cut  atomic.Bool // the cable is out
	seen atomic.Bool // cut, at the last Refresh
	want atomic.Pointer[Reception]
	all  bool // a client: takes everything that is for it
}

func newLAN() *lan { return &lan{learned: make(map[MAC]*lanLink)} }

func (n *lan) plug(addr MAC) *lanLink {
	l := &lanLink{lan: n, addr: addr, rx: make(chan []byte, 4096), stop: make(chan struct{})}
	l.want.Store(&Reception{})
	n.mu.Lock()
	defer n.mu.Unlock()
	n.ports = append(n.ports, l)
	return l
}

// takes is the interface's address filter and the socket's.
func (l *lanLink) takes(b []byte) bool {
	dst, r := MAC(b[:6]), l.want.Load()
	if dst != l.addr && dst != Broadcast && !slices.Contains(r.MACs, dst) {
		return false
	}
	return l.all || Flags(b[14])&FlagResponse != 0 || len(r.Requests) > 0
}

func (l *lanLink) Send(frames [][]byte) (int, error) {
	n := l.lan
	n.mu.Lock()
	defer n.mu.Unlock()
	if l.cut.Load() {
		return 0, syscall.ENETDOWN
	}
	for _, f := range frames {
		if src := MAC(f[6:12]); n.learned[src] != l {
			if n.learned[src] != nil {
				n.moves++
			}
			n.learned[src] = l
		}
		to := n.learned[MAC(f[:6])]
		for _, p := range n.ports {
			if p != l && !p.cut.Load() && (to == nil || to == p) && p.takes(f) {
				select {
				case p.rx <- bytes.Clone(f):
				default:
				}
			}
		}
	}
	return len(frames), nil
}

func (l *lanLink) Recv(bufs [][]byte, times []time.Time) (int, error) {
	select {
	case b := <-l.rx:
		bufs[0] = bufs[0][:copy(bufs[0], b)]
		if times != nil {
			times[0] = time.Now()
		}
		return 1, nil
	case <-l.stop:
		return 0, os.ErrDeadlineExceeded
	}
}

// TryRecv delivers all that is there, so that there are bursts.
func (l *lanLink) TryRecv(bufs [][]byte, times []time.Time) (n int, err error) {
	for n < len(bufs) {
		select {
		case b := <-l.rx:
			bufs[n] = bufs[n][:copy(bufs[n], b)]
			if times != nil {
				times[n] = time.Now()
			}
			n++
		default:
			return n, nil
		}
	}
	return n, nil
}

func (l *lanLink) StopRecv() error          { l.once.Do(func() { close(l.stop) }); return nil }
func (l *lanLink) Listen(r Reception) error { l.want.Store(&r); return nil }
func (l *lanLink) Up() bool                 { return !l.cut.Load() }
func (l *lanLink) MTU() int                 { return 1500 }
func (l *lanLink) HardwareAddr() [6]byte    { return l.addr }
func (l *lanLink) Refresh() (bool, error) {
	if l.gone.Load() {
		return false, syscall.ENODEV
	}
	return l.cut.Load() != l.seen.Swap(l.cut.Load()), nil
}

// end is one end of a mirror: both work on one device.
type end struct {
	*Target
	port  *Port
	link  *lanLink
	quiet atomic.Int32 // times it fell silent because of the other
}

var vmac = VirtualMAC(7, 3, 0)

func newEnd(t *testing.T, n *lan, dev *slow, addr MAC, more ...func(*Options)) *end {
	t.Helper()
	e := &end{link: n.plug(addr)}
	e.Target = newTestTarget(t, dev, func(o *Options) {
		o.Virtual, o.Standby, o.Commit = true, true, CommitNone
		for _, f := range more {
			f(o)
		}
		o.OnConflict = func(_ MAC, silent bool) {
			if silent {
				e.quiet.Add(1)
			}
		}
	})
	var err error
	if e.port, err = NewPort(); err == nil {
		err = e.port.Add(e.Target, vmac)
	}
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- e.port.Serve(ctx, e.link, ServeOptions{DrainTimeout: 100 * time.Millisecond}) }()
	t.Cleanup(func() { e.SetServing(false); cancel(); <-done })
	return e
}

// lanClient is an initiator on the LAN.
type lanClient struct {
	*lanLink
	t *testing.T
}

func newLANClient(t *testing.T, n *lan) *lanClient {
	c := &lanClient{n.plug(clientMAC), t}
	c.all = true
	return c
}

func (c *lanClient) write(tag uint32, lba uint64, v byte) {
	b := writeFrame(tag, lba, v, 1)
	copy(b[:6], vmac[:])
	_, _ = c.Send([][]byte{b})
}

// answer returns the tag of the next ATA answer, 0 if there is none in time.
func (c *lanClient) answer(limit time.Duration) uint32 {
	timeout := time.After(limit)
	for {
		select {
		case b := <-c.rx:
			var h Header
			if err := h.DecodeFrom(b); err != nil {
				c.t.Fatal(err)
			}
			if h.Command == CommandATA {
				if h.Src != vmac || b[27] != StatusReady {
					c.t.Errorf("answer % x", b[:DataOffset])
				}
				return h.Tag
			}
		case <-timeout:
			return 0
		}
	}
}

// patience is how long a test waits for what must come. It is far above what it takes.
const patience = time.Minute

func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !cond(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal(what)
		}
	}
}

func twoEnds(t *testing.T, more ...func(*Options)) (n *lan, dev *slow, a, b *end, c *lanClient) {
	n, dev = newLAN(), newSlow(100)
	a, b = newEnd(t, n, dev, serverMAC, more...), newEnd(t, n, dev, otherMAC, more...)
	c = newLANClient(t, n)
	a.SetServing(true)
	n.learns(t, a.link)
	return n, dev, a, b, c
}

// learns waits until the virtual address is known to be at l.
func (n *lan) learns(t *testing.T, l *lanLink) {
	t.Helper()
	eventually(t, "the bridge has not learned", func() bool {
		n.mu.Lock()
		defer n.mu.Unlock()
		return n.learned[vmac] == l
	})
}
