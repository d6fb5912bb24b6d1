// Package transport carries the two streams of a connection: the data socket
// (bulk data and requests, processed strictly in order) and the meta socket
// (acknowledgements and pings). Spec 3.1 to 3.3.
//
// It has four parts: Connect runs the establishment algorithm until both sockets
// stand; a Reader cuts a stream into packets; a Writer queues packets and hands as
// many as possible to the kernel in one system call; and a Network supplies
// sockets, either real ones (TCP) or buffers in memory (Memory), so that what is
// above can be tested without a kernel's timing.
//
// Nothing here knows what a packet means, with one exception: the Reader must know
// which commands carry bulk data, because bulk data is read straight into the
// memory where a disk will find it.
package transport

import (
	"context"
	"io"
	"time"
)

// Network opens listeners and outgoing connections.
type Network interface {
	// Listen binds addr ("host:port").
	Listen(addr string) (Listener, error)
	// Dial connects from local (a host or "host:port", of which only the host is
	// used; may be empty) to remote ("host:port").
	Dial(ctx context.Context, local, remote string) (Socket, error)
}

// Listener accepts connections until it is closed.
type Listener interface {
	Accept() (Socket, error)
	Close() error
	// Addr returns the bound address, with the real port.
	Addr() string
}

// Socket is one established stream. One goroutine may read and one may write at
// the same time; TryWrite and WaitWrite exclude each other (a Writer sees to it);
// Close, CloseWrite and Alive may be called at any time.
type Socket interface {
	io.Reader

	// TryWrite hands as much of bufs as fits to the kernel, without waiting, and
	// returns the number of bytes taken. Nothing taken is not an error.
	TryWrite(bufs [][]byte) (int, error)

	// WaitWrite is TryWrite that waits until at least one byte was taken.
	WaitWrite(bufs [][]byte) (int, error)

	// SetReadDeadline makes reads that are still waiting at t fail. The zero
	// time means never.
	SetReadDeadline(t time.Time) error

	// Alive says whether the stream has not been seen to end: data is waiting or
	// may still come. It does not wait and consumes nothing.
	Alive() bool

	// CloseWrite sends end of file. Reading stays possible.
	CloseWrite() error

	// Close ends both directions and wakes everybody who waits.
	Close() error

	// RemoteAddr returns the peer's address, "host:port".
	RemoteAddr() string
}

// Options are what a connected TCP socket is set to.
type Options struct {
	// UserTimeout is TCP_USER_TIMEOUT: how long sent data may stay
	// unacknowledged before the kernel gives the connection up. 0: kernel's choice.
	UserTimeout time.Duration
	// SendBuffer and ReceiveBuffer are sizes in bytes, 0: let the kernel tune.
	SendBuffer, ReceiveBuffer int
}
