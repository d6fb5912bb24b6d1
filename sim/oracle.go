package sim

import (
	"github.com/replblk/replblk/metadata"
	"github.com/replblk/replblk/replication"
	"github.com/replblk/replblk/replication/state"
)

// oracle knows what the two nodes together must not have lost, and which of them may be
// promoted alone.
type oracle struct {
	w          *world
	current    [2]bool // has all data, as far as it was promised
	crashed    [2]bool // lost power as Primary and has not been in sync since
	kept       [2]bool // runs, on the same disk, since both were in sync, and nobody went on alone
	inSync     bool
	last       int    // the last node that became Primary, maybe without telling anybody
	serving    int    // the last Primary, -1: none yet
	servingInc uint32 // its incarnation
	source     int    // of the last resync, -1: none since the copies were in sync
}

func (o *oracle) init(w *world) {
	o.w, o.last, o.serving, o.source = w, -1, -1, -1
	o.current = [2]bool{true, !w.opt.BlankPeer}
}

// holders are the nodes that have a write which the node answers now. gen is the
// connection over which it was sent.
func (o *oracle) holders(n *node, gen uint32) uint8 {
	st := n.state()
	var nodes uint8
	if st.Disk == state.UpToDate {
		nodes = 1 << n.id
	}
	// Once both are in sync the peer has it too: a resync has copied what an older connection lost.
	linked := st.Conn >= state.Connected && n.conn != nil && (n.gen == gen || o.inSync)
	whole := o.replicating(st) || o.resynced(n)
	if !whole || !linked {
		switch {
		case nodes != 0:
		case st.Conn >= state.Connected && n.conn != nil && o.w.opt.Protocol != replication.ProtocolC:
			// Maybe it was sent before the own disk failed, and only received there.
		case st.Conn >= state.Connected && n.conn != nil:
			nodes = 2 >> n.id // a resync target is written to as well
		default:
			nodes = 1 << n.id // it said so, it must have it
		}
		return nodes
	}
	if o.w.opt.Protocol == replication.ProtocolC && !n.conn.peer.lostPower {
		nodes |= 2 >> n.id
	}
	return nodes
}

// resynced says whether the node is source of a resync which the target has ended.
func (o *oracle) resynced(n *node) bool {
	peer := o.w.nodes[1-n.id].state()
	return n.state().Conn == state.SyncSource && peer.Conn == state.Connected && peer.Disk == state.UpToDate
}

// witnesses are the nodes that have what a read from the node returned.
func (o *oracle) witnesses(n *node) uint8 {
	if st := n.state(); st.Disk != state.UpToDate && !o.replicating(st) {
		return 0 // only a part of its disk is good
	}
	return o.holders(n, n.gen)
}

func (o *oracle) replicating(st state.State) bool {
	return st.Conn >= state.Connected && st.PeerDisk == state.UpToDate
}

// changed follows the states of the nodes.
func (o *oracle) changed(n *node, old, now state.State) {
	other := 1 - n.id
	if now.Role == primary && old.Role != primary {
		o.last = n.id
	}
	if now.Disk == state.Failed && now.Role == primary && o.w.opt.Protocol != replication.ProtocolC {
		o.w.check.giveUp(other) // what it answered before the peer had it may be lost with the next packet
	}
	if now.Disk == state.Failed && o.w.nodes[other].state().Disk == state.UpToDate && now.Conn >= state.Connected {
		o.current[n.id] = false // its peer has begun a new generation, or is about to
	}
	if now.Conn == state.StartingSyncT && old.Conn != now.Conn {
		o.invalidated(n.id)
	}
	if now.Disk == state.Failed && old.Disk > state.Failed {
		n.forgot = o.w.now
		o.w.op.barred[n.id] = true // its metadata may be old: what local-io-error is for
	}
	if now.Role == primary && now.Conn < state.Connected {
		o.kept[other] = false // a new generation, which the other one has not
	}
	if now.Disk <= state.Negotiating || now.Conn < state.Connected && now.Disk != state.UpToDate {
		o.kept[n.id] = false // not if it is about to become a target: that it must not, is what is asked
	}
	if old.Conn == state.SyncTarget && now.Conn == state.Connected && now.Disk == state.UpToDate {
		o.w.check.received(n.id)
		if n.conn != nil && !n.conn.peer.lostPower {
			o.w.check.equal(true) // the source will know soon, and has still what it was answered with
		}
	}
	if now.Role == primary {
		o.current[other] = o.current[other] && o.replicating(now)
		o.current[n.id] = o.current[n.id] && now.Disk == state.UpToDate
	}
	if now.Conn.ResyncSource() && !old.Conn.ResyncSource() { // it may be paused from the start
		o.resync(n.id)
	}
	o.observe()
}

// invalidated: the operator declares the copy of node worthless, whatever becomes of the resync: only
// the other one counts from here on, and it may lose its power. If its disk has failed in that
// moment no rule takes the order back, and what only this copy had is lost by it.
func (o *oracle) invalidated(node int) {
	if o.w.nodes[1-node].state().Disk <= state.Failed {
		o.w.check.giveUp(1 - node)
		return
	}
	o.w.check.only(1 - node)
}

// resync: node is about to overwrite the other's data.
func (o *oracle) resync(node int) {
	o.w.trace("resync source", node, 0, 0)
	if x := o.w.check.lacks(node); x != nil {
		if !o.mayLose(node) || o.survives(1-node) {
			o.w.fail("node %s becomes source of a resync and lacks write %s", nodeName(node), x)
			return
		}
		o.w.check.giveUp(node)
	} else if !o.unaware(1 - node) {
		o.w.check.only(node)
	}
	o.source = node
	o.current[1-node] = false
}

// unaware says whether the target of a resync has not heard yet that its request, to be invalidated,
// was agreed to. If the answer is lost it never begins, and its copy counts as before: it may
// be promoted. When it does begin, invalidated takes that back.
func (o *oracle) unaware(target int) bool {
	st := o.w.nodes[target].state()
	return st.Conn == state.Connected && st.Disk == state.UpToDate
}

// mayLose says whether node may be chosen although it lacks something.
func (o *oracle) mayLose(node int) bool {
	return o.crashed[node] || o.w.opt.Protocol != replication.ProtocolC
}

// survives says whether node has all that was promised and can prove it: then it is the
// source, and not a Primary that has lost its power.
func (o *oracle) survives(node int) bool {
	return o.w.opt.Protocol == replication.ProtocolC && o.w.opt.Version == 0 && o.kept[node] && o.w.check.lacks(node) == nil
}

// observe looks for the moment at which both are in sync.
func (o *oracle) observe() {
	sync := true
	for _, n := range o.w.nodes {
		st := n.state()
		sync = sync && st.Conn == state.Connected && st.Disk == state.UpToDate && st.PeerDisk == state.UpToDate &&
			n.conn != nil && !n.conn.shut
	}
	if sync == o.inSync {
		return
	}
	o.inSync = sync
	o.w.trace("in sync", -1, uint64(b2i(sync)), 0)
	if sync {
		o.w.check.equal(o.source >= 0)
		o.current, o.crashed, o.source = [2]bool{true, true}, [2]bool{}, -1
		o.w.op.barred, o.w.op.troubled = [2]bool{}, false
		o.kept = [2]bool{true, true}
	}
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

// died: the process of node ends now.
func (o *oracle) died(node int) {
	me, other := o.w.nodes[node], 1-node
	me.forgot = o.w.now
	if me.role() == primary {
		o.current[other] = o.current[other] && o.replicating(me.state())
	}
	if o.w.nodes[other].role() == primary {
		o.current[node] = false
	}
	o.inSync, o.kept[node] = false, false
}

// killed: the process of n is gone, and its disk is as it has left it. If it was the target of a
// resync and the disk says that it is good, it has everything that the source has, which has not
// noticed yet that it is alone: the end was about to be told. A source before version 96 counts
// for itself, and may have ended before: then the two are of one generation, and if n was
// Primary, it is chosen as DRBD chooses a Primary that has crashed (seed 208088).
func (o *oracle) killed(n *node) {
	source := o.w.nodes[1-n.id].state()
	if n.state().Conn == state.SyncTarget && source.Conn >= state.Connected && n.superblock(n.dev.meta.cur).Flags.Has(metadata.WasUpToDate) {
		o.w.check.received(n.id)
	}
}

// powerLost: what node had in its cache is gone.
func (o *oracle) powerLost(node int) {
	// A promotion that nobody was told of may have left no trace: then the one that served is it.
	if o.last == node || o.serving == node || !o.current[1-node] {
		o.crashed[node] = true
	}
	if sb := o.w.nodes[node].durableSuperblock(); sb.UUIDs.Bitmap() != 0 {
		if o.kept[1-node] { // it is the source again, and had flushed before it was for the first time
			o.w.check.flushed(o.w.nodes[node].dev.kept, 1<<node)
		}
		o.kept[1-node] = false // the end of a resync is not on its source's disk: nothing was answered since
	}
	if o.w.check.lost(node) && !o.crashed[node] {
		o.current[node] = false
	}
	if st := o.w.nodes[1-node].state(); st.Role == primary && st.Disk < state.Inconsistent {
		o.w.check.giveUp(node) // a second fault, maybe before the last good copy was flushed
	}
}

// lostCache: the disk of node has failed in a flush. If it was the only one, what it had
// not written is gone, and the application knows that from its errors. For the last Primary it
// is as a loss of power is: its activity log speaks for it, unless the other one has run on.
func (o *oracle) lostCache(node int) {
	o.crashed[node] = o.crashed[node] || o.last == node
	o.w.check.lost(node)
	if !o.inSync && o.current[node] && !o.current[1-node] {
		o.w.check.giveUp(node)
		return
	}
	o.current[node] = false
}

// promoted: node is Primary, and the application will use it.
func (o *oracle) promoted(node int) {
	if o.serving != node || o.w.check.lacks(node) != nil {
		if x := o.w.check.lacks(node); x != nil && !o.inSync && !o.replicating(o.w.nodes[node].state()) {
			if !o.mayLose(node) {
				o.w.fail("node %s is promoted and lacks write %s", nodeName(node), x)
				return
			}
			o.w.check.giveUp(node)
		}
	}
	inc := o.w.nodes[node].inc
	if o.serving != node || o.servingInc != inc {
		o.serving, o.servingInc = node, inc
		o.w.check.recovered()
	}
	if !o.inSync && !o.replicating(o.w.nodes[node].state()) {
		o.w.op.barred[1-node] = true
		o.current[1-node] = false
	}
}
