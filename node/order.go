package node

import (
	"slices"
	"sync"

	"github.com/replblk/replblk/replication"
	"github.com/replblk/replblk/replication/state"
)

// Order is resync-after for the volumes of one process: a resync waits while the volume
// that comes before it, or one further up the chain, is being resynced, verified or paused
// (spec 9.8). Volumes are known by their minor numbers. A volume that is not there, or has no
// disk, holds nobody up.
type Order struct {
	mu      sync.Mutex
	after   map[uint32]uint32   // guarded by mu: minor to the minor that comes before
	members map[uint32]*ordered // guarded by mu
	dirty   bool                // guarded by mu: run has to look again
	running bool                // guarded by mu
}

// ordered is a volume that takes part. Fields are guarded by Order.mu.
type ordered struct {
	res   *Resource
	vol   uint16
	state state.State
	waits bool // as it was told
}

// NewOrder returns an order without volumes.
func NewOrder() *Order {
	return &Order{after: make(map[uint32]uint32), members: make(map[uint32]*ordered)}
}

// Follow says which volume comes before the volume minor; before < 0: none. Chains that lead
// back to themselves are for the caller to refuse; here they only end nowhere.
func (o *Order) Follow(minor uint32, before int32) {
	o.mu.Lock()
	if before < 0 {
		delete(o.after, minor)
	} else {
		o.after[minor] = uint32(before)
	}
	o.mu.Unlock()
	o.look()
}

// Join lets the volumes of r take part until leave is called. minors has their minor
// numbers.
func (o *Order) Join(r *Resource, minors map[uint16]uint32) (leave func()) {
	o.mu.Lock()
	for _, vol := range r.Volumes() {
		o.members[minors[vol]] = &ordered{res: r, vol: vol, state: state.Initial()}
	}
	o.mu.Unlock()
	cancel := r.Watch(func(c Change) {
		if c.Kind == ChangeState {
			o.changed(r, minors[c.Volume], c.New)
		}
	})
	for _, vol := range r.Volumes() {
		o.changed(r, minors[vol], r.State(vol))
	}
	return func() {
		cancel()
		o.mu.Lock()
		for _, minor := range minors {
			if m := o.members[minor]; m != nil && m.res == r {
				delete(o.members, minor)
			}
		}
		o.mu.Unlock()
		o.look()
	}
}

// changed takes a new state of a volume. It is called in the middle of everything.
func (o *Order) changed(r *Resource, minor uint32, s state.State) {
	o.mu.Lock()
	m := o.members[minor]
	if m == nil || m.res != r || matters(m.state) == matters(s) {
		if m != nil && m.res == r {
			m.state = s
		}
		o.mu.Unlock()
		return
	}
	m.state = s
	o.mu.Unlock()
	o.look()
}

// standing is what a state means to the volumes that come after.
type standing struct{ there, busy bool }

func matters(s state.State) standing {
	return standing{there: s.Disk != state.Diskless, busy: s.Conn >= state.SyncSource && s.Conn <= state.PausedSyncT || s.ResyncPaused()}
}

// look has somebody find out who has to wait now. Not here: this may be the runner of one of
// the resources.
func (o *Order) look() {
	o.mu.Lock()
	o.dirty = true
	start := !o.running
	o.running = true
	o.mu.Unlock()
	if start {
		go o.run()
	}
}

// run tells volumes that they have to wait, or may go, until nothing changes any more.
func (o *Order) run() {
	for {
		o.mu.Lock()
		if !o.dirty {
			o.running = false
			o.mu.Unlock()
			return
		}
		o.dirty = false
		news := o.news()
		o.mu.Unlock()
		for _, m := range news {
			ev := replication.Event{Kind: replication.EvFollow, Vol: m.vol}
			if m.waits {
				ev.Size = 1
			}
			m.res.loop.post(&ev)
		}
	}
}

// news returns copies of the volumes that have to be told, in ascending order. o.mu is held.
func (o *Order) news() (list []ordered) {
	minors := make([]uint32, 0, len(o.members))
	for minor := range o.members {
		minors = append(minors, minor)
	}
	slices.Sort(minors)
	for _, minor := range minors {
		m := o.members[minor]
		if waits := o.waits(minor); waits != m.waits {
			m.waits = waits
			list = append(list, *m)
		}
	}
	return list
}

// waits follows the chain from a volume. o.mu is held.
func (o *Order) waits(minor uint32) bool {
	for range o.members { // a chain has no more links, unless it is a cycle
		before, ok := o.after[minor]
		m := o.members[before]
		if !ok || m == nil || !matters(m.state).there {
			return false
		}
		if matters(m.state).busy {
			return true
		}
		minor = before
	}
	return false
}
