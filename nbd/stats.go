package nbd

import (
	"sync/atomic"

	"github.com/replblk/replblk/nbd/wire"
)

// Stats counts what one export has served since it was added.
type Stats struct {
	Connections uint64 // clients that reached transmission
	Active      uint64 // of those, connected now
	Reads       uint64
	Writes      uint64
	Flushes     uint64
	Trims       uint64
	Zeroes      uint64
	ReadBytes   uint64
	WriteBytes  uint64
	Errors      uint64 // error replies
}

// ServerStats counts what concerns no export.
type ServerStats struct {
	Accepted         uint64
	HandshakeFailed  uint64 // left, refused or timed out before transmission
	ProtocolErrors   uint64
	RefusedAtMaximum uint64
}

type counters struct {
	connections, active   atomic.Uint64
	requests              [wire.Commands]atomic.Uint64
	readBytes, writeBytes atomic.Uint64
	errors                atomic.Uint64
}

func (c *counters) snapshot() Stats {
	return Stats{
		Connections: c.connections.Load(),
		Active:      c.active.Load(),
		Reads:       c.requests[wire.CmdRead].Load(),
		Writes:      c.requests[wire.CmdWrite].Load(),
		Flushes:     c.requests[wire.CmdFlush].Load(),
		Trims:       c.requests[wire.CmdTrim].Load(),
		Zeroes:      c.requests[wire.CmdWriteZeroes].Load(),
		ReadBytes:   c.readBytes.Load(),
		WriteBytes:  c.writeBytes.Load(),
		Errors:      c.errors.Load(),
	}
}

type serverCounters struct {
	accepted, handshakeFailed, protocolErrors, refusedAtMaximum atomic.Uint64
}
