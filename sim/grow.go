package sim

import (
	"math/rand/v2"

	"github.com/replblk/replblk/replication"
	"github.com/replblk/replblk/replication/state"
)

// freshTag and above are what disks hold where the volume has not been yet: another value on
// each disk, so that space which was not copied shows.
const freshTag = uint64(1) << 62

// litter fills the room into which the disk will grow.
func (n *node) litter() {
	for s := range n.w.opt.Room {
		n.dev.data.preset(n.w.opt.Sectors+s, freshTag+uint64(n.id))
	}
}

// remeasure tells the core of a disk that has grown.
func (n *node) remeasure() {
	if n.told != n.sectors {
		n.deviceEvent()
	}
}

// measure tells the core how large the disk is.
func (n *node) measure() { n.schedule(n.dev.latency(), n.deviceEvent) }

func (n *node) deviceEvent() {
	n.told = n.sectors
	ev := &replication.Event{Kind: replication.EvDevice}
	layout, err := n.layout.Grown(n.sectors)
	if err != nil {
		ev.Err = replication.DiskIOError
	} else {
		ev.Device = &replication.Device{BackingSectors: n.sectors, Layout: layout}
	}
	n.step(ev)
}

// within says whether an operation that ends at end lies on the disk. A write of the own
// application must also lie within the size on stable storage: after a crash the activity log
// names nothing beyond.
func (n *node) within(end uint64, own bool) bool {
	if end <= n.w.opt.Sectors {
		return true
	}
	return end <= n.sectors && (!own || end <= n.durableSuperblock().LASizeSectors)
}

// grow makes one disk larger, or both, and maybe lets an operator resize. A volume grows
// without its peer only if that has room.
func (o *operator) grow(r *rand.Rand) {
	if o.w.opt.Room == 0 {
		return
	}
	o.w.hit("grow")
	most := o.w.opt.Sectors + o.w.opt.Room
	to := o.w.opt.Sectors + 1 + r.Uint64N(o.w.opt.Room)
	if r.IntN(3) == 0 {
		to = most
	}
	first := r.IntN(2)
	for i, n := range o.w.nodes {
		if i == first || r.IntN(2) == 0 || o.assumed {
			n.sectors = max(n.sectors, to)
		}
	}
	n := o.w.nodes[r.IntN(2)]
	a := replication.Admin{Kind: replication.AdminResize}
	if st := n.state(); r.IntN(3) == 0 && st.Role == primary && st.Conn < state.Connected {
		a.AssumePeer, o.assumed = true, true
		peer := o.w.nodes[1-n.id]
		peer.sectors = max(peer.sectors, n.sectors)
	}
	if r.IntN(4) > 0 {
		n.admin(a, nil)
	}
}
