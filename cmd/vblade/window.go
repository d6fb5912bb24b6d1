package main

import (
	"fmt"
	"syscall"

	"github.com/replblk/replblk/block"
)

// window is a range of another device (options -o and -l). Requests pass
// through it with their start moved; they come back to the submitter moved,
// which is why Sector must not be read in Done.
type window struct {
	block.Device
	start  uint64
	length uint64 // 0: to the end, wherever that is
}

// newWindow returns the sectors of dev from start on, all if length is nil.
func newWindow(dev block.Device, start uint64, length *uint64) (block.Device, error) {
	size := dev.Geometry().Sectors
	if start >= size {
		return nil, fmt.Errorf("offset %d too large for %d-sector export", start, size)
	}
	w := &window{Device: dev, start: start}
	if length != nil {
		if n := size - start; *length == 0 || *length > n {
			return nil, fmt.Errorf("length %d does not fit, %d sectors follow offset %d", *length, n, start)
		}
		w.length = *length
	}
	if *w == (window{Device: dev}) {
		return dev, nil
	}
	return w, nil
}

// Geometry implements block.Device.
func (w *window) Geometry() block.Geometry {
	g := w.Device.Geometry()
	g.Sectors -= min(g.Sectors, w.start)
	if w.length > 0 {
		g.Sectors = min(g.Sectors, w.length)
	}
	return g
}

// Submit implements block.Device.
func (w *window) Submit(r *block.Request) {
	if w.move(r) {
		w.Device.Submit(r)
	}
}

// SubmitBatch implements block.Batcher.
func (w *window) SubmitBatch(rs []*block.Request) {
	inside := make([]*block.Request, 0, len(rs))
	for _, r := range rs {
		if w.move(r) {
			inside = append(inside, r)
		}
	}
	block.SubmitAll(w.Device, inside)
}

// move gives r its place on the device below, or fails it.
func (w *window) move(r *block.Request) bool {
	if r.Op == block.Flush {
		return true
	}
	if sectors := w.Geometry().Sectors; r.Sector > sectors || uint64(r.Sectors) > sectors-r.Sector {
		r.Complete(r.Fail(syscall.EINVAL))
		return false
	}
	r.Sector += w.start
	return true
}
