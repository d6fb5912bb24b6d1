package sim

import (
	"math/rand/v2"
	"slices"
)

// A device is stored in leaves of pages of sectors. Most of it is never written: what is
// missing is zero.
const (
	pageSectors = 8
	leafPages   = 64
	leafSectors = leafPages * pageSectors
)

// page is the contents of some sectors.
type page[T comparable] [pageSectors]T

// image is what a device holds. T is the contents of a sector: a tag for data, 512 bytes for
// metadata.
type image[T comparable] []*[leafPages]*page[T]

func newImage[T comparable](sectors uint64) image[T] {
	return make(image[T], (sectors+leafSectors-1)/leafSectors)
}

// page returns the page with a sector, nil if it is zero.
func (m image[T]) page(sector uint64) *page[T] {
	if leaf := m[sector/leafSectors]; leaf != nil {
		return leaf[sector/pageSectors%leafPages]
	}
	return nil
}

func (m image[T]) get(sector uint64) (v T) {
	if p := m.page(sector); p != nil {
		v = p[sector%pageSectors]
	}
	return v
}

func (m image[T]) set(sector uint64, v T) {
	p := m.page(sector)
	if p == nil {
		var zero T
		if v == zero {
			return
		}
		p = m.add(sector)
	}
	p[sector%pageSectors] = v
}

// add makes a page of zeroes.
func (m image[T]) add(sector uint64) *page[T] {
	leaf := m[sector/leafSectors]
	if leaf == nil {
		leaf = new([leafPages]*page[T])
		m[sector/leafSectors] = leaf
	}
	p := new(page[T])
	leaf[sector/pageSectors%leafPages] = p
	return p
}

func (m image[T]) read(sector uint64, dst []T) {
	for len(dst) > 0 {
		off := sector % pageSectors
		n := min(len(dst), int(pageSectors-off))
		if p := m.page(sector); p != nil {
			copy(dst[:n], p[off:])
		} else {
			clear(dst[:n])
		}
		sector, dst = sector+uint64(n), dst[n:]
	}
}

func (m image[T]) write(sector uint64, data []T) {
	for len(data) > 0 {
		off := sector % pageSectors
		n := min(len(data), int(pageSectors-off))
		p := m.page(sector)
		if p == nil && !zeroes(data[:n]) {
			p = m.add(sector)
		}
		if p != nil {
			copy(p[off:], data[:n])
		}
		sector, data = sector+uint64(n), data[n:]
	}
}

func zeroes[T comparable](data []T) bool {
	var zero T
	for i := range data {
		if data[i] != zero {
			return false
		}
	}
	return true
}

// differ returns the first sector before size that is not the same in a and b.
func differ[T comparable](a, b image[T], size uint64) (sector uint64, found bool) {
	for i := range min(len(a), len(b)) {
		if a[i] == b[i] {
			continue // both are missing
		}
		for s := uint64(i) * leafSectors; s < min(uint64(i+1)*leafSectors, size); s += pageSectors {
			if a.page(s) == b.page(s) {
				continue
			}
			for j := s; j < min(s+pageSectors, size); j++ {
				if a.get(j) != b.get(j) {
					return j, true
				}
			}
		}
	}
	return 0, false
}

// media is a storage device with a volatile write-back cache.
type media[T comparable] struct {
	cur, dur image[T]    // what a read returns, what is on stable storage
	pending  []cached[T] // completed and not flushed, in order of completion
	seq      uint64
	spare    [][]T // memory of writes that left the cache
}

// cached is a completed write in the cache.
type cached[T comparable] struct {
	seq    uint64
	sector uint64
	data   []T
	dead   []bool // sectors that a later FUA write replaced; nil if none
}

func newMedia[T comparable](sectors uint64) media[T] {
	return media[T]{cur: newImage[T](sectors), dur: newImage[T](sectors)}
}

// read copies what the device returns now.
func (m *media[T]) read(sector uint64, dst []T) { m.cur.read(sector, dst) }

// write completes a write. data is copied.
func (m *media[T]) write(sector uint64, data []T, fua bool) {
	m.cur.write(sector, data)
	if fua {
		m.writeThrough(sector, data)
		return
	}
	m.seq++
	m.pending = append(m.pending, cached[T]{seq: m.seq, sector: sector, data: append(m.memory(), data...)})
	if len(m.pending) > maxCached {
		m.destage(m.pending[maxCached/2].seq)
	}
}

// maxCached bounds the cache; beyond it the device writes the older half back.
const maxCached = 2048

// memory returns an empty slice, with room if there is some.
func (m *media[T]) memory() []T {
	k := len(m.spare)
	if k == 0 {
		return nil
	}
	s := m.spare[k-1]
	m.spare = m.spare[:k-1]
	return s[:0]
}

// forget drops the first n writes of the cache.
func (m *media[T]) forget(n int) {
	for i := range n {
		m.spare = append(m.spare, m.pending[i].data)
	}
	if n == len(m.pending) {
		m.pending = m.pending[:0]
		return
	}
	m.pending = m.pending[n:]
}

// writeThrough stores a FUA write, and takes what it replaces out of the cache.
func (m *media[T]) writeThrough(sector uint64, data []T) {
	end := sector + uint64(len(data))
	for i := range m.pending {
		p := &m.pending[i]
		for s := max(sector, p.sector); s < min(end, p.sector+uint64(len(p.data))); s++ {
			if p.dead == nil {
				p.dead = make([]bool, len(p.data))
			}
			p.dead[s-p.sector] = true
		}
	}
	m.dur.write(sector, data)
}

// mark names everything that has completed so far.
func (m *media[T]) mark() uint64 { return m.seq }

// destage makes durable what was completed when mark was taken.
func (m *media[T]) destage(mark uint64) {
	n := 0
	for n < len(m.pending) && m.pending[n].seq <= mark {
		if p := &m.pending[n]; p.dead == nil {
			m.dur.write(p.sector, p.data)
		} else {
			m.store(p, func() bool { return true })
		}
		n++
	}
	m.forget(n)
}

// store moves the sectors of a cached write that keep says survive to stable
// storage.
func (m *media[T]) store(p *cached[T], keep func() bool) {
	for i, v := range p.data {
		if (p.dead == nil || !p.dead[i]) && keep() {
			m.dur.set(p.sector+uint64(i), v)
		}
	}
}

// loseCache keeps each cached sector with probability p, in another order than
// they were written if shuffle is set, and loses the rest.
func (m *media[T]) loseCache(r *rand.Rand, p float64, shuffle bool) {
	if shuffle {
		r.Shuffle(len(m.pending), func(i, j int) { m.pending[i], m.pending[j] = m.pending[j], m.pending[i] })
	}
	for i := range m.pending {
		m.store(&m.pending[i], func() bool { return r.Float64() < p })
	}
	for i := range m.pending {
		c := &m.pending[i]
		for j := range c.data {
			m.revert(c.sector + uint64(j))
		}
	}
	m.forget(len(m.pending))
}

func (m *media[T]) revert(sector uint64) { m.cur.set(sector, m.dur.get(sector)) }

// preset stores a sector without any cache, before the run.
func (m *media[T]) preset(sector uint64, v T) {
	m.cur.set(sector, v)
	m.dur.set(sector, v)
}

// rawSector is a sector of metadata.
type rawSector [512]byte

func sectorsOf(block []byte) []rawSector {
	out := make([]rawSector, len(block)/len(rawSector{}))
	for i := range out {
		copy(out[i][:], block[i*len(rawSector{}):])
	}
	return out
}

// bytesOf appends sectors of metadata to dst.
func bytesOf(m image[rawSector], dst []byte, first, n uint64) []byte {
	var zero rawSector
	dst = slices.Grow(dst, int(n)*len(zero))
	for s := first; s < first+n; s++ {
		b := &zero
		if p := m.page(s); p != nil {
			b = &p[s%pageSectors]
		}
		dst = append(dst, b[:]...)
	}
	return dst
}
