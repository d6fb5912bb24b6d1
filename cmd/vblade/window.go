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
	start   uint64
	sectors uint64
}

// newWindow returns the sectors of dev from start on, all if length is nil.
func newWindow(dev block.Device, start uint64, length *uint64) (block.Device, error) {
	size := dev.Geometry().Sectors
	if start >= size {
		return nil, fmt.Errorf("offset %d too large for %d-sector export", start, size)
	}
	n := size - start
	if length != nil {
		if *length == 0 || *length > n {
			return nil, fmt.Errorf("length %d does not fit, %d sectors follow offset %d", *length, n, start)
		}
		n = *length
	}
	if start == 0 && n == size {
		return dev, nil
	}
	return &window{Device: dev, start: start, sectors: n}, nil
}

// Geometry implements block.Device.
func (w *window) Geometry() block.Geometry {
	g := w.Device.Geometry()
	g.Sectors = w.sectors
	return g
}

// Submit implements block.Device.
func (w *window) Submit(r *block.Request) {
	if r.Op != block.Flush {
		if r.Sector > w.sectors || uint64(r.Sectors) > w.sectors-r.Sector {
			r.Complete(r.Fail(syscall.EINVAL))
			return
		}
		r.Sector += w.start
	}
	w.Device.Submit(r)
}
