// Package record is a filter in front of a block device that remembers every
// modification and every flush, and when each began and ended. From that it makes the
// disk as a power loss at any moment could leave it: what was flushed is there, of the
// rest any subset of sectors.
package record

import (
	"sync"
	"sync/atomic"

	"github.com/replblk/replblk/block"
)

// Clock gives numbers to moments. Devices that are to lose power together share one.
type Clock struct{ now atomic.Uint64 }

// Tick returns a new moment, later than every one before.
func (c *Clock) Tick() uint64 { return c.now.Add(1) }

// Entry is one recorded request.
type Entry struct {
	Op      block.Op
	FUA     bool
	Sector  uint64
	Sectors uint32
	Data    []byte // a copy; nil for zeroes

	Began, Ended uint64 // moments; Ended is 0 while it is in flight
	Failed       bool
}

// Device is the filter. It implements block.Device.
type Device struct {
	inner block.Device
	clock *Clock

	mu  sync.Mutex
	log []*Entry // guarded by mu: in the order of submission
}

// New returns a filter in front of inner.
func New(inner block.Device, c *Clock) *Device { return &Device{inner: inner, clock: c} }

// Geometry implements block.Device.
func (d *Device) Geometry() block.Geometry { return d.inner.Geometry() }

// Submit implements block.Device.
func (d *Device) Submit(r *block.Request) {
	if r.Op == block.Read {
		d.inner.Submit(r)
		return
	}
	e := &Entry{Op: r.Op, FUA: r.Flags&block.FUA != 0, Sector: r.Sector, Sectors: r.Sectors}
	if r.Op == block.Write {
		e.Data = append([]byte(nil), r.Data...)
	}
	d.mu.Lock()
	e.Began = d.clock.Tick()
	d.log = append(d.log, e)
	d.mu.Unlock()
	copied := &block.Request{Op: r.Op, Flags: r.Flags, Sector: r.Sector, Sectors: r.Sectors, Data: r.Data}
	copied.Done = func(*block.Request) {
		d.mu.Lock()
		e.Ended, e.Failed = d.clock.Tick(), copied.Err != nil
		d.mu.Unlock()
		r.Complete(copied.Err)
	}
	d.inner.Submit(copied)
}

// Entries returns a copy of what was recorded, in the order of submission.
func (d *Device) Entries() []Entry {
	d.mu.Lock()
	defer d.mu.Unlock()
	list := make([]Entry, len(d.log))
	for i, e := range d.log {
		list[i] = *e
	}
	return list
}

// Keep says whether one sector of a write that is not certain survives: i counts the
// sectors in doubt from 0, in the order of submission.
type Keep func(i int) bool

// Lose changes image, which is what the device held when the recording began, to what a
// power loss at a moment leaves. It returns how many sectors were in doubt.
func Lose(log []Entry, at uint64, image []byte, keep Keep) int {
	doubts := 0
	for i := range log {
		e := &log[i]
		if e.Began > at || e.Op == block.Flush {
			continue
		}
		certain := durable(log, e, at)
		for s := range uint64(e.Sectors) {
			if !certain {
				doubts++
				if !keep(doubts - 1) {
					continue
				}
			}
			to := image[block.Bytes(e.Sector+s):block.Bytes(e.Sector+s+1)]
			if e.Data == nil {
				clear(to)
				continue
			}
			copy(to, e.Data[block.Bytes(s):block.Bytes(s+1)])
		}
	}
	return doubts
}

// durable says whether a write was on stable storage at a moment: it ended well before
// that as FUA, or a flush has succeeded that began after its end.
func durable(log []Entry, e *Entry, at uint64) bool {
	if e.Ended == 0 || e.Ended > at || e.Failed {
		return false
	}
	if e.FUA {
		return true
	}
	for i := range log {
		if f := &log[i]; f.Op == block.Flush && f.Began > e.Ended && f.Ended != 0 && f.Ended <= at && !f.Failed {
			return true
		}
	}
	return false
}
