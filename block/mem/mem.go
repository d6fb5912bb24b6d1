// Package mem is a block device in memory. With crash semantics (New) it is the
// disk of the tests: writes go to a volatile layer, Flush and FUA make them
// durable, and Crash keeps an arbitrary subset of what was not flushed, torn at
// sector boundaries. Without (NewVolatile) it is a RAM disk.
//
// Every request is served before Submit returns, so a test that needs requests
// in flight puts a block/faulty filter in front.
package mem

import (
	"sync"

	"github.com/replblk/replblk/block"
)

// maxLogged bounds the bytes of unflushed writes that are remembered. Beyond
// it everything becomes durable, as when the cache of a disk is full.
const maxLogged = 64 << 20

// Device is a memory block device. All methods may be called from any goroutine.
type Device struct {
	mu       sync.Mutex
	geometry block.Geometry
	volatile []byte // what reads see

	// The rest is unused (nil) for a device without crash semantics.
	durable []byte  // what is certain to survive
	log     []entry // writes since the last flush, in order
	logged  int     // bytes in log
	crashes bool
}

// entry is an unflushed write. data is nil for zeroes.
type entry struct {
	sector  uint64
	sectors uint32
	data    []byte
	fua     bool // survives every crash
}

// New returns a device of the given number of sectors, all zero and durable,
// that remembers which writes a crash may lose.
func New(sectors uint64) *Device {
	d := NewVolatile(sectors)
	d.durable = make([]byte, block.Bytes(sectors))
	d.crashes = true
	return d
}

// NewVolatile returns a RAM disk: Flush does nothing and Crash must not be called.
func NewVolatile(sectors uint64) *Device {
	return &Device{
		volatile: make([]byte, block.Bytes(sectors)),
		geometry: block.Geometry{Sectors: sectors, LogicalBlock: block.SectorSize, PhysicalBlock: 4096, Discard: true},
	}
}

// Geometry implements block.Device.
func (d *Device) Geometry() block.Geometry {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.geometry
}

// SetReadOnly refuses modifications from now on, or allows them again.
func (d *Device) SetReadOnly(on bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.geometry.ReadOnly = on
}

// Submit implements block.Device.
func (d *Device) Submit(r *block.Request) {
	d.mu.Lock()
	err := r.Check(d.geometry)
	if err == nil {
		d.do(r)
	}
	d.mu.Unlock()
	r.Complete(err)
}

// do executes a valid request. d.mu is held.
func (d *Device) do(r *block.Request) {
	at := d.slice(d.volatile, r.Sector, r.Sectors)
	switch r.Op {
	case block.Read:
		copy(r.Data, at)
	case block.Write:
		copy(at, r.Data)
		d.remember(r)
	case block.Discard, block.WriteZeroes:
		clear(at)
		d.remember(r)
	case block.Flush:
		d.flush()
	}
}

func (d *Device) slice(layer []byte, sector uint64, sectors uint32) []byte {
	return layer[block.Bytes(sector):block.Bytes(sector+uint64(sectors))]
}

// remember logs a modification. FUA is logged too instead of being applied to
// the durable layer at once, because replaying an older overlapping entry after
// a crash must not undo it.
func (d *Device) remember(r *block.Request) {
	if !d.crashes || r.Sectors == 0 {
		return
	}
	e := entry{sector: r.Sector, sectors: r.Sectors, fua: r.Flags&block.FUA != 0}
	if r.Op == block.Write {
		e.data = append([]byte(nil), r.Data...)
	}
	d.log = append(d.log, e)
	d.logged += len(e.data)
	if d.logged > maxLogged {
		d.flush()
	}
}

// flush makes the volatile layer durable.
func (d *Device) flush() {
	for _, e := range d.log {
		copy(d.slice(d.durable, e.sector, e.sectors), d.slice(d.volatile, e.sector, e.sectors))
	}
	clear(d.log)
	d.log, d.logged = d.log[:0], 0
}

// Unflushed returns the number of writes that a crash may lose.
func (d *Device) Unflushed() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := 0
	for _, e := range d.log {
		if !e.fua {
			n++
		}
	}
	return n
}

// Crash pulls the plug: of every write since the last flush nothing, everything
// or some of its sectors survive, as the seed decides; FUA writes survive
// whole. Afterwards the device holds what a reader would find at power-up. The
// same history and seed give the same contents.
func (d *Device) Crash(seed uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.crashes {
		panic("mem: crash of a device made by NewVolatile")
	}
	rnd := splitmix(seed)
	for _, e := range d.log {
		d.survive(e, &rnd)
	}
	copy(d.volatile, d.durable)
	clear(d.log)
	d.log, d.logged = d.log[:0], 0
}

// survive applies to the durable layer what the crash leaves of e: all of it
// and none of it are as likely as a mixture.
func (d *Device) survive(e entry, rnd *splitmix) {
	fate := rnd.next() % 3
	for i := range e.sectors {
		keep := e.fua || fate == 0 || fate == 1 && rnd.next()&1 == 0
		if !keep {
			continue
		}
		to := d.slice(d.durable, e.sector+uint64(i), 1)
		if e.data == nil {
			clear(to)
		} else {
			copy(to, e.data[int(i)*block.SectorSize:])
		}
	}
}

// Contents returns a copy of what reads see.
func (d *Device) Contents() []byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	return append([]byte(nil), d.volatile...)
}

// Allocation says how the sectors from sector on are stored, for the NBD
// base:allocation context: the first n of them are all zero, or none of that
// run's pages is. n is between 1 and sectors.
func (d *Device) Allocation(sector, sectors uint64) (n uint64, zero bool) {
	const page = 4096 / block.SectorSize
	d.mu.Lock()
	defer d.mu.Unlock()
	end := min(sector+sectors, d.geometry.Sectors)
	for at := sector; at < end; {
		next := min((at/page+1)*page, end)
		z := allZero(d.volatile[block.Bytes(at):block.Bytes(next)])
		if at == sector {
			zero = z
		} else if z != zero {
			return at - sector, zero
		}
		at = next
	}
	return end - sector, zero
}

func allZero(p []byte) bool {
	for _, v := range p {
		if v != 0 {
			return false
		}
	}
	return true
}

// splitmix is the SplitMix64 generator: stable across Go releases, unlike
// math/rand's sources, so that a seed in a bug report stays useful.
type splitmix uint64

func (s *splitmix) next() uint64 {
	*s += 0x9e3779b97f4a7c15
	z := uint64(*s)
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}
