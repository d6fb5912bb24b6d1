package main

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/replblk/replblk/block"
	"github.com/replblk/replblk/block/file"
	"github.com/replblk/replblk/internal/mdtool"
	"github.com/replblk/replblk/internal/metrics"
	"github.com/replblk/replblk/metadata"
	"github.com/replblk/replblk/node/transport"
)

// measured is a backing device whose requests are counted, data and metadata apart.
// What else the device can do is promoted from file.File.
type measured struct {
	*file.File
	c      *diskCounters
	layout atomic.Pointer[metadata.Layout] // nil: nothing on this device is metadata
	uuid   uint64                          // of the device, if it has metadata
	ticket atomic.Uint32
}

// diskCounters count for one volume; they stay when the disk goes and comes back.
type diskCounters struct {
	read, written      atomic.Uint64 // bytes
	flushes            atomic.Uint64
	alWrites, bmWrites atomic.Uint64
	errors             atomic.Uint64 // among the requests that were timed
	times              *metrics.DiskTimes
	disk               atomic.Pointer[measured] // the disk, if its metadata is internal
}

// sampleOne of so many requests is timed: the clock and the histogram together cost
// more than the hand-off that they would measure.
const sampleOne = 16

// measure wraps f, which holds metadata if m is not nil.
func measure(f *file.File, m *mdtool.Meta, c *diskCounters) *measured {
	d := &measured{File: f, c: c}
	if m != nil {
		d.layout.Store(&m.Layout)
		d.uuid = m.Superblock.DeviceUUID
	}
	return d
}

// moved follows metadata that has moved to the end of the device.
func (d *measured) moved() {
	if l := d.layout.Load(); l != nil {
		if to, err := l.Grown(d.Geometry().Sectors); err == nil {
			d.layout.Store(&to)
		}
	}
}

// Submit implements block.Device.
func (d *measured) Submit(r *block.Request) {
	n := uint64(r.Sectors) * block.SectorSize
	switch r.Op {
	case block.Read:
		if !d.isMeta(r.Sector) {
			d.c.read.Add(n)
		}
	case block.Flush:
		d.c.flushes.Add(1)
		d.timed(r)
		return
	default:
		switch l := d.layout.Load(); {
		case !d.isMeta(r.Sector):
			d.c.written.Add(n)
		case r.Sector >= l.Bitmap && r.Sector < l.Bitmap+l.BitmapSectors:
			d.c.bmWrites.Add(1)
		case r.Sector != l.Superblock:
			d.c.alWrites.Add(1)
		}
	}
	if d.ticket.Add(1)%sampleOne == 0 {
		d.timed(r)
		return
	}
	d.File.Submit(r)
}

func (d *measured) isMeta(sector uint64) bool {
	l := d.layout.Load()
	return l != nil && (!l.Placement.IsInternal() || sector >= l.First())
}

// timed submits r and observes how long it takes.
func (d *measured) timed(r *block.Request) {
	done, op, began := r.Done, r.Op, time.Now()
	r.Done = func(r *block.Request) {
		r.Done = done
		d.c.times.Observe(op, time.Since(began))
		if r.Err != nil {
			d.c.errors.Add(1)
		}
		done(r)
	}
	d.File.Submit(r)
}

// netCounters count the bytes of a resource's connections.
type netCounters struct{ sent, received atomic.Uint64 }

// countedNetwork is a Network whose bytes are counted.
type countedNetwork struct {
	transport.Network
	c *netCounters
}

// Listen implements transport.Network.
func (n *countedNetwork) Listen(addr string) (transport.Listener, error) {
	l, err := n.Network.Listen(addr)
	if err != nil {
		return nil, err
	}
	return &countedListener{l, n.c}, nil
}

// Dial implements transport.Network.
func (n *countedNetwork) Dial(ctx context.Context, local, remote string) (transport.Socket, error) {
	s, err := n.Network.Dial(ctx, local, remote)
	if err != nil {
		return nil, err
	}
	return &countedSocket{s, n.c}, nil
}

type countedListener struct {
	transport.Listener
	c *netCounters
}

// Accept implements transport.Listener.
func (l *countedListener) Accept() (transport.Socket, error) {
	s, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &countedSocket{s, l.c}, nil
}

type countedSocket struct {
	transport.Socket
	c *netCounters
}

// Read implements transport.Socket.
func (s *countedSocket) Read(p []byte) (int, error) {
	n, err := s.Socket.Read(p)
	s.c.received.Add(uint64(n))
	return n, err
}

// TryWrite implements transport.Socket.
func (s *countedSocket) TryWrite(bufs [][]byte) (int, error) {
	n, err := s.Socket.TryWrite(bufs)
	s.c.sent.Add(uint64(n))
	return n, err
}

// WaitWrite implements transport.Socket.
func (s *countedSocket) WaitWrite(bufs [][]byte) (int, error) {
	n, err := s.Socket.WaitWrite(bufs)
	s.c.sent.Add(uint64(n))
	return n, err
}
