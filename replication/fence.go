package replication

import "github.com/replblk/replblk/replication/state"

// fence is the procedure that makes sure a peer without connection does not write: a
// handler outdates or kills it, and only then this node goes on alone (spec 10.3).
// Owned by Resource.
type fence struct {
	running bool
	gen     uint32    // generation of the last connection when it started
	waiting []command // promotions that need its outcome
}

// Exit codes of the fence-peer handler.
const (
	fencePeerInconsistent = 3
	fencePeerOutdated     = 4
	fencePeerUnreachable  = 5
	fencePeerPrimary      = 6
	fencePeerKilled       = 7
)

// fencing returns the strictest policy of the volumes whose data are good, and whether
// there is such a volume.
func (r *Resource) fencing() (policy state.Fencing, good bool) {
	for _, v := range r.vols {
		if v.st.Disk >= state.Consistent {
			policy, good = max(policy, v.cfg.Fencing), true
		}
	}
	return policy, good
}

// fencePeer starts the procedure unless it runs already.
func (r *Resource) fencePeer() {
	if r.fence.running {
		return
	}
	r.fence.running, r.fence.gen = true, r.conn.gen
	e := r.fx.add(FxHandler)
	e.Handler, e.IO = HandlerFencePeer, ioFor(classFence, 0)
}

// fenceAfterLoss is called when the connection is gone: a Primary that does not know
// that its peer is out of the way has it fenced.
func (r *Resource) fenceAfterLoss() {
	policy, good := r.fencing()
	if !good {
		r.endFencing() // there is no data to protect
		return
	}
	if policy == state.DontCare {
		return
	}
	for _, v := range r.vols {
		if v.st.Role == state.Primary && v.st.PeerDisk >= state.DUnknown {
			r.fencePeer()
			return
		}
	}
}

// fenceForPromotion says whether a refused promotion may succeed after fencing, and
// if so keeps the command until the handler has ended.
func (r *Resource) fenceForPromotion(v *volume, c command, result state.Result) bool {
	undecided := result == state.NoUpToDateDisk && v.st.Disk == state.Consistent
	if c.fenced || r.conn.state >= state.WFReportParams || result != state.PrimaryNeedsOutdatedPeer && !undecided {
		return false
	}
	if policy, good := r.fencing(); !good || policy == state.DontCare {
		return false
	}
	c.fenced = true
	r.fence.waiting = append(r.fence.waiting, c)
	r.fencePeer()
	return true
}

// fenced applies the outcome of the handler. A connection that has come meanwhile makes
// it worthless.
func (r *Resource) fenced(exit int) {
	r.fence.running = false
	waiting := r.fence.waiting
	r.fence.waiting = nil
	if r.conn.state < state.WFReportParams && r.conn.gen == r.fence.gen {
		r.applyFence(exit)
	}
	for _, c := range waiting {
		c.peerOut = r.peerIsOut()
		r.run(c)
	}
}

func (r *Resource) applyFence(exit int) {
	for _, v := range r.vols {
		next := v.st
		switch exit {
		case fencePeerInconsistent:
			next.PeerDisk = state.Inconsistent
		case fencePeerOutdated, fencePeerKilled:
			next.PeerDisk = state.Outdated
		case fencePeerUnreachable:
			if v.st.Disk == state.UpToDate {
				next.PeerDisk = state.Outdated
			}
		case fencePeerPrimary:
			next.Disk = min(next.Disk, state.Outdated)
		default:
			r.note(v, NoteFenceFailed)
			continue
		}
		v.wish(next)
	}
	if r.peerIsOut() {
		r.endFencing()
	}
}

// endFencing lets I/O go on that waited for the peer to be fenced.
func (r *Resource) endFencing() {
	for _, v := range r.vols {
		next := v.st
		next.SuspFen = false
		v.force(next)
	}
}

// peerIsOut says whether the peer's disk is known not to count on good volume.
func (r *Resource) peerIsOut() bool {
	for _, v := range r.vols {
		if v.st.PeerDisk > state.Outdated {
			return false
		}
	}
	return true
}
