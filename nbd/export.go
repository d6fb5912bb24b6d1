package nbd

import (
	"sync"
	"sync/atomic"

	"github.com/replblk/replblk/block"
	"github.com/replblk/replblk/nbd/wire"
)

// Export is a device under a name.
type Export struct {
	Name        string
	Description string

	// Device is served to every client, unless Open is set.
	Device block.Device
	// Open is called for each client that asks for the export or for
	// information about it, and may refuse: an error that is ErrUnknownExport
	// or fs.ErrNotExist reads as "no such export", others as a refusal with
	// their text. Connections to one export must get the same contents: they
	// are advertised as one device (CAN_MULTI_CONN).
	Open func() (block.Device, error)
	// Close is called with what Open returned, after the last request of the
	// connection has left the device.
	Close func(block.Device)

	// ReadOnly refuses modifications whatever the device allows.
	ReadOnly bool
	// RequireTLS hides the export from clients that do not use TLS.
	RequireTLS bool
	// Default makes this the export that clients get who give no name. The
	// export named "", or the only one, is the default without being marked.
	Default bool
}

// Allocator is implemented by devices that know which ranges are unused. The
// first n of the sectors starting at sector (1 <= n <= sectors) read as zeroes
// and take no space if zero is set; where that is not known, it is not. It is
// called on the connection's reader, so it may take as long as a look into a
// file system's tables, and no longer.
type Allocator interface {
	Allocation(sector, sectors uint64) (n uint64, zero bool)
}

// FastZeroer is implemented by devices that know whether zeroing a range is
// cheaper than writing zeroes. FAST_ZERO is advertised for those only.
type FastZeroer interface {
	FastZero(noHole bool) bool
}

// export is a registered Export with its connections.
type export struct {
	Export
	stats counters

	// draining counts ended connections with requests still in the device. The
	// fast path of the fence reads it without the lock.
	draining atomic.Int32

	mu      sync.Mutex
	changed sync.Cond // draining or a connection's stopping changed
	conns   map[*conn]struct{}
	closed  bool
}

func newExport(e Export) *export {
	x := &export{Export: e, conns: make(map[*conn]struct{})}
	x.changed.L = &x.mu
	return x
}

// open returns the device for one client.
func (x *export) open() (block.Device, error) {
	x.mu.Lock()
	closed := x.closed
	x.mu.Unlock()
	if closed {
		return nil, ErrUnknownExport
	}
	if x.Open == nil {
		return x.Device, nil
	}
	return x.Open()
}

func (x *export) release(d block.Device) {
	if x.Open != nil && x.Close != nil {
		x.Close(d)
	}
}

// geometry returns the geometry as clients see it.
func (x *export) geometry(d block.Device) block.Geometry {
	g := d.Geometry()
	g.ReadOnly = g.ReadOnly || x.ReadOnly
	return g
}

// transmissionFlags returns what is advertised for the device. FLUSH and FUA
// are what every file system relies on; MULTI_CONN is true because all
// connections share the device, and nothing is cached per connection.
func (x *export) transmissionFlags(d block.Device, structured bool) uint16 {
	g := x.geometry(d)
	flags := uint16(wire.FlagHasFlags | wire.FlagFlush | wire.FlagFUA | wire.FlagTrim | wire.FlagWriteZeroes | wire.FlagMultiConn | wire.FlagCache)
	if g.ReadOnly {
		flags |= wire.FlagReadOnly
	}
	if g.Rotational {
		flags |= wire.FlagRotational
	}
	if structured {
		flags |= wire.FlagDF
	}
	if _, ok := d.(FastZeroer); ok {
		flags |= wire.FlagFastZero
	}
	return flags
}
