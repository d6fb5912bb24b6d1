package sim

import "math/rand/v2"

// blockSectors is how many sectors are stored together.
const blockSectors = 8

// media is a storage device with a volatile write-back cache. T is the contents of
// a sector: a tag for data, 512 bytes for metadata.
type media[T comparable] struct {
	cur, dur []*[blockSectors]T // what a read returns, what is on stable storage; nil is zero
	pending  []cached[T]        // completed and not flushed, in order of completion
	seq      uint64
}

// cached is a completed write in the cache.
type cached[T comparable] struct {
	seq    uint64
	sector uint64
	data   []T
	dead   []bool // sectors that a later FUA write replaced; nil if none
}

func newMedia[T comparable](sectors uint64) media[T] {
	n := (sectors + blockSectors - 1) / blockSectors
	return media[T]{cur: make([]*[blockSectors]T, n), dur: make([]*[blockSectors]T, n)}
}

func get[T comparable](img []*[blockSectors]T, sector uint64) (v T) {
	if b := img[sector/blockSectors]; b != nil {
		v = b[sector%blockSectors]
	}
	return v
}

func set[T comparable](img []*[blockSectors]T, sector uint64, v T) {
	b := img[sector/blockSectors]
	if b == nil {
		var zero T
		if v == zero {
			return
		}
		b = new([blockSectors]T)
		img[sector/blockSectors] = b
	}
	b[sector%blockSectors] = v
}

// read copies what the device returns now.
func (m *media[T]) read(sector uint64, dst []T) {
	for i := range dst {
		dst[i] = get(m.cur, sector+uint64(i))
	}
}

// write completes a write. data is copied.
func (m *media[T]) write(sector uint64, data []T, fua bool) {
	for i, v := range data {
		set(m.cur, sector+uint64(i), v)
	}
	if fua {
		m.writeThrough(sector, data)
		return
	}
	m.seq++
	m.pending = append(m.pending, cached[T]{seq: m.seq, sector: sector, data: append([]T(nil), data...)})
	if len(m.pending) > maxCached {
		m.destage(m.pending[maxCached/2].seq)
	}
}

// maxCached bounds the cache; beyond it the device writes the older half back.
const maxCached = 2048

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
	for i, v := range data {
		set(m.dur, sector+uint64(i), v)
	}
}

// mark names everything that has completed so far.
func (m *media[T]) mark() uint64 { return m.seq }

// destage makes durable what was completed when mark was taken.
func (m *media[T]) destage(mark uint64) {
	n := 0
	for n < len(m.pending) && m.pending[n].seq <= mark {
		m.store(&m.pending[n], func() bool { return true })
		n++
	}
	m.pending = append(m.pending[:0], m.pending[n:]...)
}

// store moves the sectors of a cached write that keep says survive to stable
// storage.
func (m *media[T]) store(p *cached[T], keep func() bool) {
	for i, v := range p.data {
		if (p.dead == nil || !p.dead[i]) && keep() {
			set(m.dur, p.sector+uint64(i), v)
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
		c := &m.pending[i]
		m.store(c, func() bool { return r.Float64() < p })
	}
	for i := range m.pending {
		c := &m.pending[i]
		for j := range c.data {
			m.revert(c.sector + uint64(j))
		}
	}
	m.pending = m.pending[:0]
}

func (m *media[T]) revert(sector uint64) { set(m.cur, sector, get(m.dur, sector)) }

// preset stores a sector without any cache, before the run.
func (m *media[T]) preset(sector uint64, v T) {
	set(m.cur, sector, v)
	set(m.dur, sector, v)
}
