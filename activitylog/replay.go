package activitylog

import (
	"errors"
	"fmt"
	"slices"
)

// Reasons why a ring cannot be replayed. They matter only after a crash as
// Primary: otherwise nothing was under way and the ring can be initialised.
var (
	// ErrNoLog: no block of the ring is valid. drbdmeta apply-al exits with 1.
	ErrNoLog = errors.New("activity log has no valid block")
	// ErrDamaged: there is no update, and more blocks are damaged than one torn
	// write explains. drbdmeta apply-al exits with 1 here too.
	ErrDamaged = errors.New("activity log has no update and several damaged blocks")
)

// Result is what a ring says.
type Result struct {
	// Extents are those that may differ, sorted: the slot table as the newest
	// transaction left it. This is what drbdmeta apply-al uses.
	Extents []Extent
	// Union are all extents that any valid block names, sorted. It contains
	// Extents, and is what to use when there is a Gap.
	Union []Extent
	// Reinit says that the ring is to be initialised after the extents were used.
	Reinit bool
	// Gap says that a transaction between the oldest and the newest is missing. It
	// was acknowledged once, since later ones followed: the disk has lost it.
	Gap bool
	// Incomplete says that some slot may hold an extent that no valid block names.
	// Then only the whole device is a safe answer.
	Incomplete bool

	Valid     int    // blocks with the right magic and checksum
	Updates   int    // of these, how many are transactions
	Oldest    uint32 // transaction numbers, if there are Updates
	Newest    uint32
	BadSlots  int // entries ignored because their slot number is impossible
	ringIndex [2]uint32
}

// Replay reads the blocks of a ring, area, in the order in which they lie on
// disk (section 2.5.6, steps 1 to 4). With an error the result is still valid: on
// a node that was not Primary the error is of no consequence.
func Replay(r Ring, area []byte) (Result, error) {
	if err := r.check(); err != nil {
		return Result{}, err
	}
	n := r.Blocks()
	if uint64(len(area)) != uint64(n)*BlockSize {
		return Result{}, fmt.Errorf("activity log area has %d bytes, a ring of %d blocks has %d", len(area), n, uint64(n)*BlockSize)
	}
	p := replayer{ring: r, area: area, n: n}
	err := p.scan()
	if err != nil || p.res.Updates == 0 {
		return p.res, err
	}
	p.apply()
	p.judge()
	return p.res, nil
}

type replayer struct {
	ring  Ring
	area  []byte
	n     uint32
	res   Result
	tr    Transaction
	table []Extent // by slot, as far as slots were named
	named []bool   // slot was in a context or an update since the last gap
	all   []Extent
	first bool // block 0 of the ring is valid
	fresh int  // blocks still initialized
}

// decode reads the block of ring index b and says whether it is valid.
func (p *replayer) decode(b uint32) bool {
	off := uint64(p.ring.Block(b)) * BlockSize
	return p.tr.Decode(p.area[off:off+BlockSize]) == nil
}

// scan finds the oldest and the newest transaction. Numbers are compared by their
// signed difference, so that they may wrap.
func (p *replayer) scan() error {
	for b := range p.n {
		if !p.decode(b) {
			continue
		}
		p.res.Valid++
		p.first = p.first || b == 0
		if p.tr.Initialized {
			p.fresh++
			continue
		}
		p.note(b)
	}
	switch {
	case p.res.Valid == 0:
		p.res.Reinit = true
		return ErrNoLog
	case p.res.Updates > 0:
		p.res.Reinit = true
		return nil
	case p.res.Valid == int(p.n), p.res.Valid == int(p.n)-1 && !p.first:
		// Nothing was ever written, or the very first transaction was torn.
		return nil
	}
	p.res.Reinit = true
	return ErrDamaged
}

func (p *replayer) note(b uint32) {
	res, number := &p.res, p.tr.Number
	if res.Updates == 0 || int32(number-res.Oldest) < 0 {
		res.Oldest, res.ringIndex[0] = number, b
	}
	if res.Updates == 0 || int32(number-res.Newest) > 0 {
		res.Newest, res.ringIndex[1] = number, b
	}
	res.Updates++
}

// apply rebuilds the slot table from the oldest transaction to the newest.
func (p *replayer) apply() {
	var expect uint32
	for b, i := p.res.ringIndex[0], uint32(0); i < p.n; b, i = (b+1)%p.n, i+1 {
		if p.decode(b) && !p.tr.Initialized {
			if i > 0 && p.tr.Number != expect {
				// What the lost transaction changed is known only for slots that a
				// later block names.
				p.res.Gap = true
				clear(p.named)
			}
			expect = p.tr.Number + 1
			p.applyOne()
		}
		if b == p.res.ringIndex[1] {
			break
		}
	}
	p.res.Extents = sorted(p.table)
}

// applyOne applies the context, then the updates. A free entry inside the table
// does overwrite: the slot was free at that time.
func (p *replayer) applyOne() {
	for i, e := range p.tr.Context {
		s := int(p.tr.ContextStart) + i
		if e == Free && s >= int(p.tr.Slots) {
			continue
		}
		p.put(s, e)
	}
	for i, e := range p.tr.UpdateExtent {
		s := int(p.tr.UpdateSlot[i])
		if i >= int(p.tr.NumUpdates) && s == unusedSlot {
			continue
		}
		p.put(s, e)
	}
}

func (p *replayer) put(s int, e Extent) {
	if s >= MaxSlots {
		p.res.BadSlots++
		return
	}
	for s >= len(p.table) { // at most MaxSlots
		p.table = append(p.table, Free)
		p.named = append(p.named, false)
	}
	p.table[s] = e
	p.named[s] = true
}

// judge fills in Union, Gap and Incomplete, which drbdmeta has not.
func (p *replayer) judge() {
	slots := 0
	for b := range p.n {
		if !p.decode(b) || p.tr.Initialized {
			continue
		}
		slots = max(slots, int(p.tr.Slots))
		p.all = appendUsed(appendUsed(p.all, p.tr.Context[:]), p.tr.UpdateExtent[:])
		// A block outside the span from oldest to newest belongs to no sequence.
		if d := p.tr.Number - p.res.Oldest; d > p.res.Newest-p.res.Oldest || d >= p.n {
			p.res.Gap = true
		}
	}
	p.res.Union = sorted(p.all)
	if p.res.Newest-p.res.Oldest+1 != uint32(p.res.Updates) {
		p.res.Gap = true
	}
	// A ring that is not yet full began with an empty table, which no block names.
	p.res.Incomplete = (p.res.Gap || p.fresh == 0) && !p.covers(slots)
}

// appendUsed appends the entries of a block that name an extent.
func appendUsed(dst, list []Extent) []Extent {
	for _, e := range list {
		if e != Free {
			dst = append(dst, e)
		}
	}
	return dst
}

// covers says whether every slot was named by some block since the last gap.
func (p *replayer) covers(slots int) bool {
	slots = min(slots, MaxSlots)
	return slots <= len(p.named) && !slices.Contains(p.named[:slots], false)
}

// sorted returns the extents in s, each once, in order.
func sorted(s []Extent) []Extent {
	s = slices.Clone(s)
	slices.Sort(s)
	s = slices.Compact(s)
	if n := len(s); n > 0 && s[n-1] == Free {
		s = s[:n-1]
	}
	return s
}
