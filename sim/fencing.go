package sim

import (
	"github.com/replblk/replblk/replication"
	"github.com/replblk/replblk/replication/state"
)

// Exit codes of a fence-peer handler.
const (
	fenceFailed       = 1
	fenceInconsistent = 3
	fenceOutdated     = 4
	fenceUnreachable  = 5
	fencePrimary      = 6
	fenceKilled       = 7
)

// The cluster manager behind the fence-peer handler. It keeps a constraint per node, as
// crm-fence-peer does: a node that was fenced is not promoted before the copies have been
// in sync again.

// handler runs the handler of a node; io is zero if nobody waits for it.
func (o *operator) handler(n *node, e *replication.Effect) {
	if e.Handler != replication.HandlerFencePeer || e.IO == 0 {
		return
	}
	r, io := o.w.rng, e.IO
	took := between(r, replication.Millisecond, pickTime(r.IntN(3)))
	if o.w.opt.Fencing == state.ResourceAndStonith && !o.w.healing && r.IntN(8) == 0 {
		took *= 20 // somebody else is asked, or it hangs until it is killed
	}
	n.schedule(took, func() {
		o.fence(n, func(exit int) {
			o.w.trace("fenced", n.id, uint64(exit), 0)
			n.step(&replication.Event{Kind: replication.EvHandler, IO: io, Exit: exit})
		})
	})
}

// fence puts the other node out of the way and reports how.
func (o *operator) fence(n *node, done func(exit int)) {
	other := o.w.nodes[1-n.id]
	switch {
	case n.state().Disk < state.Consistent: // it began long ago: what it would shut out is the only copy now
		done(fenceFailed)
	case o.barred[n.id] || o.w.rng.IntN(10) == 0 && !o.w.healing:
		done(o.broken())
	case other.up && other.state().Disk == state.Inconsistent:
		done(fenceInconsistent)
	case !other.up && o.w.rng.IntN(2) == 0:
		o.barred[other.id] = true
		done(fenceUnreachable)
	case !other.up || o.w.rng.IntN(4) == 0:
		other.powerLoss()
		o.back[other.id] = o.w.now + between(o.w.rng, replication.Millisecond, 100*replication.Millisecond)
		o.barred[other.id] = true
		done(fenceKilled)
	case other.role() == primary:
		done(fencePrimary)
	default:
		inc := n.inc
		answered := false
		answer := func(exit int) {
			if n.inc == inc && !answered {
				answered = true
				done(exit)
			}
		}
		other.admin(replication.Admin{Kind: replication.AdminOutdate}, func(result state.Result) {
			if result.OK() {
				o.barred[other.id] = true
				answer(fenceOutdated)
				return
			}
			answer(fenceFailed)
		})
		n.schedule(replication.Second, func() { answer(fenceFailed) })
	}
}

// broken is the exit code of a handler that fails: any that means nothing, or what a shell says
// of one that is not there or was killed.
func (o *operator) broken() int {
	if o.w.opt.Fencing != state.ResourceAndStonith {
		return fenceFailed
	}
	return [...]int{fenceFailed, 0, 2, 8, 20, 127, 137, 255}[o.w.rng.IntN(8)]
}
