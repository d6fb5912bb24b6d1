package netif

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"syscall"
	"time"

	"github.com/replblk/replblk/aoe"
	"github.com/replblk/replblk/aoe/packet"
)

const (
	// lookInterval is how often a missing interface is looked for without news.
	lookInterval = time.Second
	// settleTime is the least time between two sockets.
	settleTime = 20 * time.Millisecond
)

// Options of New.
type Options struct {
	// Buffer is the size of the socket's buffers in bytes; 0 is the default.
	Buffer int
	// Log gets what happens to the interface. Nil is silence.
	Log *slog.Logger
}

// Interface serves a port on the interface of a name.
type Interface struct {
	name   string
	port   *aoe.Port
	buffer int
	log    *slog.Logger
	news   chan struct{} // capacity 1: something has happened to a link
	ready  chan struct{} // closed when frames have first been listened for

	once sync.Once // closes ready

	mu       sync.Mutex
	sock     *packet.Socket // guarded by mu: the newest, nil while there is none
	past     packet.Stats   // guarded by mu: of sockets that were closed
	reopened uint64         // guarded by mu
	problem  string         // guarded by mu: why there is no socket
}

// New returns an Interface that does nothing yet.
func New(name string, port *aoe.Port, o Options) *Interface {
	log := o.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Interface{
		name: name, port: port, buffer: o.Buffer, log: log.With("interface", name),
		news: make(chan struct{}, 1), ready: make(chan struct{}),
	}
}

// Open opens the socket, so that a mistake shows before the service starts. An
// interface that does not exist is not one: Run waits for it.
func (i *Interface) Open() error {
	err := i.open()
	if errors.Is(err, syscall.ENODEV) {
		i.log.Warn("interface does not exist yet, waiting for it")
		return nil
	}
	return err
}

// Close closes the socket of an Interface that is not run after all.
func (i *Interface) Close() {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.sock != nil {
		_ = i.sock.Close()
		i.sock = nil
	}
}

// Ready is closed when the interface has been there and its frames are received.
func (i *Interface) Ready() <-chan struct{} { return i.ready }

func (i *Interface) open() error {
	sock, err := packet.Open(i.name, packet.Options{Buffer: i.buffer})
	i.mu.Lock()
	defer i.mu.Unlock()
	if err != nil {
		i.problem = err.Error()
		return err
	}
	i.sock, i.problem = sock, ""
	return nil
}

// Run serves until ctx ends. The error says that not every request that was received
// has been answered.
func (i *Interface) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { i.follow(ctx) })
	for {
		sock := i.await(ctx)
		if sock == nil {
			return nil
		}
		i.warnAddresses()
		lost, done := make(chan struct{}), make(chan error, 1)
		wg.Go(func() {
			done <- i.port.Serve(ctx, &link{sock, i}, aoe.ServeOptions{Lost: func(err error) {
				i.log.Warn("interface lost", "err", err)
				i.drop(sock)
				close(lost)
			}})
			i.close(sock)
		})
		select {
		case <-lost: // what it still has to send goes on beside the next one
		case err := <-done:
			select {
			case <-lost: // both at once
				continue
			default:
				return err
			}
		}
	}
}

// await returns the open socket, or waits until one can be opened; nil if ctx ended.
func (i *Interface) await(ctx context.Context) *packet.Socket {
	tick := time.NewTicker(lookInterval)
	defer tick.Stop()
	for first := true; ; first = false {
		i.mu.Lock()
		sock, problem := i.sock, i.problem
		i.mu.Unlock()
		if sock != nil {
			return sock
		}
		err := i.open()
		if err == nil {
			i.log.Info("interface found")
			continue
		}
		if first || err.Error() != problem {
			i.log.Warn("no service on the interface", "err", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-i.news:
			time.Sleep(settleTime)
		case <-tick.C:
		}
	}
}

// drop forgets a socket whose interface is gone.
func (i *Interface) drop(sock *packet.Socket) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.sock == sock {
		i.sock, i.problem = nil, "interface lost"
		i.reopened++
	}
}

func (i *Interface) close(sock *packet.Socket) {
	st := sock.Stats()
	_ = sock.Close()
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.sock == sock {
		i.sock = nil
	}
	i.past = add(i.past, st)
}

// Status is what is known of the interface.
type Status struct {
	Name     string
	Up       bool   // there is one of that name, and it is up
	Problem  string // why there is none that can be used
	MTU      int
	Lost     uint64 // times that the interface was lost
	Counters packet.Stats
}

// Status returns the present state, with counters since New.
func (i *Interface) Status() Status {
	i.mu.Lock()
	defer i.mu.Unlock()
	st := Status{Name: i.name, Problem: i.problem, Lost: i.reopened, Counters: i.past}
	if i.sock != nil {
		st.Up, st.MTU = i.sock.Up(), i.sock.MTU()
		st.Counters = add(i.past, i.sock.Stats())
	}
	return st
}

func add(a, b packet.Stats) packet.Stats {
	a.Received += b.Received
	a.Sent += b.Sent
	a.Truncated += b.Truncated
	a.Overruns += b.Overruns
	a.SendErrors += b.SendErrors
	a.NoBuffers += b.NoBuffers
	a.LinkDowns += b.LinkDowns
	return a
}

// link is a socket as a port knows it.
type link struct {
	*packet.Socket
	owner *Interface
}

var _ aoe.Link = (*link)(nil)

// Listen implements aoe.Link.
func (l *link) Listen(r aoe.Reception) error {
	f := packet.Filter{Targets: make([]packet.Address, 0, len(r.Requests))}
	for _, a := range r.Requests {
		f.Targets = append(f.Targets, packet.Address(a))
	}
	addrs := make([][6]byte, 0, len(r.MACs))
	for _, m := range r.MACs {
		addrs = append(addrs, m)
	}
	if err := errors.Join(l.SetFilter(f), l.SetAddresses(addrs)); err != nil {
		l.owner.log.Warn("interface does not receive what it should", "err", err)
		return fmt.Errorf("listen: %w", err)
	}
	l.owner.once.Do(func() { close(l.owner.ready) })
	return nil
}
