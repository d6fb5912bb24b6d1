package sim

import (
	"math/rand/v2"

	"github.com/replblk/replblk/replication"
	"github.com/replblk/replblk/replication/state"
)

// operator gives commands and lets things break.
type operator struct {
	w                 *world
	next              uint64
	waiting           map[uint64]command
	diskFaults        [2]int              // of each node's disk
	troubled          bool                // a disk has failed since the copies were in sync
	intrusions        int                 // what comes over the network may be nonsense
	back              [2]replication.Time // when a node that is down starts again
	lease             replication.Time    // no new change of roles before
	demoting          bool
	prefer            int     // node to promote next, -1: any
	splitBrains       int     // reports of it
	splitBrainPlanned bool    // it is what the test wants
	verified          int     // online verifies that came to their end, counted on each node
	rotten            uint64  // blocks that a verify must find
	undone            bool    // an invalidate has not succeeded
	assumed           bool    // a node grows alone, maybe later: its peer has room whatever comes
	hurried           bool    // requests that wait for data may have failed
	barred            [2]bool // fenced: not to be promoted before the copies are in sync
}

// command is a command that was not answered yet.
type command struct {
	node *node
	done func(state.Result)
}

func (o *operator) start() {
	o.waiting, o.prefer = map[uint64]command{}, -1
	for _, f := range o.w.plan {
		o.w.at(f.At, func() {
			if !o.w.healing {
				o.wake()
				faultKinds[f.Kind](o, rand.New(rand.NewPCG(f.Seed, 4)))
			}
		})
	}
	o.manage()
}

// expect returns a token for a command.
func (o *operator) expect(n *node, done func(state.Result)) uint64 {
	o.next++
	o.waiting[o.next] = command{n, done}
	return o.next
}

func (o *operator) replied(n *node, token uint64, r state.Result) {
	c, ok := o.waiting[token]
	if !ok {
		o.w.fail("node %s: command %d is answered twice", nodeName(n.id), token)
		return
	}
	delete(o.waiting, token)
	o.w.trace("reply", n.id, token, uint64(uint32(r)))
	if c.done != nil {
		c.done(r)
	}
}

// crashed: commands of n will not be answered.
func (o *operator) crashed(n *node) {
	for t := range o.waiting {
		if o.waiting[t].node == n {
			delete(o.waiting, t) // the order does not matter
		}
	}
	o.demoting = false
}

func (o *operator) idle() bool { return len(o.waiting) == 0 && !o.demoting }

func (o *operator) noted(n *node, e *replication.Effect) {
	switch note := e.Note; note {
	case replication.NoteShrink:
		if n.state().Disk != state.Diskless { // else it saw data that nobody has any more
			o.w.fail("node %s: %v", nodeName(n.id), note)
		}
	case replication.NoteSplitBrain, replication.NoteUnrelated:
		o.splitBrains++
		// A disk that times out in the moment when the peer is lost takes the generation with it
		// that was just begun: a Primary without a disk is told that nobody has that.
		lost := note == replication.NoteUnrelated && o.w.opt.DiskTimeout != 0 && n.state().Disk == state.Diskless
		if !o.splitBrainPlanned && !lost {
			o.w.fail("node %s: %v", nodeName(n.id), note)
		}
	case replication.NoteProtocolError:
		if (o.w.mutant == NoMutant || o.w.mutant == OldGeneration) && o.diskFaults == [2]int{} && o.intrusions == 0 {
			o.w.fail("node %s: %v", nodeName(n.id), note)
		}
	case replication.NoteVerdict:
		if s := o.w.opt.session(); e.Result == 2 && historyRules(e.Token) && s.Version >= 96 {
			o.w.figures.FullSyncs++
		}
	case replication.NoteVerifyDone:
		o.verified++
		if e.Token != o.rotten {
			o.w.fail("node %s: online verify found %d blocks that differ, want %d", nodeName(n.id), e.Token, o.rotten)
		}
	default:
	}
}

// crash ends a node, or both.
func (o *operator) crash(r *rand.Rand, power bool) {
	hit := [2]bool{r.IntN(2) == 0, false}
	hit[1] = !hit[0] || r.IntN(5) == 0
	if hit[0] && hit[1] && o.troubled {
		hit[1] = false // a third fault at once: what the good copy knows may not be on its disk yet
	}
	for i, n := range o.w.nodes {
		if !hit[i] {
			continue
		}
		if n.up {
			o.w.hit(map[bool]string{false: "kill", true: "power"}[power])
		}
		if power {
			n.powerLoss()
		} else {
			n.kill()
		}
		o.back[i] = o.w.now + between(r, replication.Millisecond, pickTime(r.IntN(3)))
	}
	if r.IntN(4) == 0 {
		o.w.check.covered()
	}
}

func pickTime(i int) replication.Time {
	return [...]replication.Time{5 * replication.Millisecond, 100 * replication.Millisecond, replication.Second}[i]
}

// faulty says whether the disk of n has failed or is about to.
func (n *node) faulty() bool { return n.dev.broken || n.dev.armed != [numFaults]bool{} }

func (o *operator) switchRoles(r *rand.Rand) {
	p := o.w.client.node
	if p == nil || !o.w.oracle.inSync || o.demoting {
		return
	}
	o.w.hit("switch")
	o.prefer = 1 - p.id
	if r.IntN(4) == 0 {
		o.prefer = p.id
	}
	o.demote(p)
}

// demote makes a Primary Secondary, after its application has stopped.
func (o *operator) demote(p *node) {
	o.w.client.use(nil)
	o.demoting = true
	inv, gen := o.w.now, p.gen
	p.admin(replication.Admin{Kind: replication.AdminSecondary}, func(r state.Result) {
		o.demoting = false
		if r.OK() && o.w.oracle.inSync {
			o.w.client.settled(p, inv, gen)
		}
	})
}

// manage looks after the cluster: starts nodes again, connects them, gives them their
// disks back, sees to it that one is Primary.
func (o *operator) manage() {
	period := between(o.w.rng, 2*replication.Millisecond, 60*replication.Millisecond)
	o.w.after(period, func() {
		for i, n := range o.w.nodes {
			o.tend(i, n)
		}
		o.elect()
		o.manage()
	})
}

func (o *operator) tend(i int, n *node) {
	r := o.w.rng
	switch st := n.state(); {
	case !n.up:
		if o.w.now >= o.back[i] {
			n.boot()
		}
	case st.Role == primary && withoutData(st) && o.w.healing && o.idle():
		if st.Suspended() {
			o.resumeIO(n)
		}
		o.demote(n) // it may have seen data that nobody has any more
	case st.Conn == state.StandAlone && (o.w.healing || r.IntN(8) == 0):
		n.admin(replication.Admin{Kind: replication.AdminConnect}, nil)
	case o.w.healing && o.undone && st.Role != primary && o.w.oracle.inSync && o.idle() && o.marked():
		o.invalidate(n)
	case o.w.healing && st.UserIsp && o.idle(): // it was refused while a change was under way
		n.admin(replication.Admin{Kind: replication.AdminResumeSync}, nil)
	case n.detached && (o.w.healing || r.IntN(8) == 0):
		n.reattach()
	}
}

// marked says whether blocks are marked although the copies are in sync.
func (o *operator) marked() bool {
	for _, n := range o.w.nodes {
		if n.core.Status().Volumes[0].OutOfSync > 0 {
			return true
		}
	}
	return false
}

// withoutData says whether a Primary in state st has nothing to serve. It is refused its disk
// if that would take rule 41 and the protocol is too old for it, and no peer to be had is
// UpToDate: only as a Secondary does it get on (spec 7.4).
func withoutData(st state.State) bool {
	if st.Conn < state.Connected {
		return st.Disk == state.Diskless || st.Conn == state.StandAlone && st.Disk == state.Consistent
	}
	return st.Disk == state.Diskless && st.PeerDisk <= state.Outdated
}

// elect makes a node Primary if none is.
func (o *operator) elect() {
	c := &o.w.client
	if c.node != nil || !o.idle() || o.w.now < o.lease {
		return
	}
	for _, n := range o.w.nodes {
		if st := n.state(); st.Role == primary {
			if st.Disk == state.UpToDate || o.w.oracle.replicating(st) {
				o.serve(n)
			} else if o.w.rng.IntN(8) == 0 {
				o.demote(n) // it has no data
			}
			return
		}
	}
	first := o.w.rng.IntN(2)
	if o.prefer >= 0 {
		first, o.prefer = o.prefer, -1
	}
	for _, i := range [...]int{first, 1 - first} {
		if n := o.w.nodes[i]; o.mayPromote(n) {
			o.promote(n)
			return
		}
	}
}

// mayPromote is what fencing is for: a node without its peer must have all data. Without
// failover, each waits for the other.
func (o *operator) mayPromote(n *node) bool {
	other := o.w.nodes[1-n.id]
	switch disk := n.state().Disk; {
	case !n.up || other.role() == primary:
		return false
	case o.w.opt.NoFailover && n.state().Conn < state.Connected:
		return false
	case o.w.opt.Fencing == state.ResourceAndStonith && disk == state.UpToDate: // trust it
		return !o.barred[n.id]
	case o.w.opt.Fencing == state.ResourceAndStonith:
		// It has been down, and fencing would help it against a peer that has more: it takes
		// a witness, as crm-fence-peer refuses such a node too.
		return disk == state.Consistent && !o.barred[n.id] && o.w.oracle.current[n.id]
	default:
		return disk == state.UpToDate && o.w.oracle.current[n.id]
	}
}

func (o *operator) promote(n *node) {
	o.lease = o.w.now + 50*replication.Millisecond
	n.admin(replication.Admin{Kind: replication.AdminPrimary}, func(r state.Result) {
		if r.OK() && n.state().Disk == state.UpToDate {
			o.serve(n)
		}
	})
}

// serve lets the application use a Primary.
func (o *operator) serve(n *node) {
	o.w.oracle.promoted(n.id)
	o.w.client.use(n)
}

// resumeIO lets what waits for data fail, too.
func (o *operator) resumeIO(n *node) {
	o.hurried = true
	n.admin(replication.Admin{Kind: replication.AdminResumeIO}, nil)
}

// heal repairs everything.
func (o *operator) heal() {
	o.w.net.partitioned = false
	o.back = [2]replication.Time{}
	o.w.client.idle = true
	for _, n := range o.w.nodes {
		n.dev.armed = [numFaults]bool{}
		n.dev.hungUntil, n.dev.latent = 0, nil // a pause ends by itself: nothing may overtake what waits for that
		if n.up {
			if o.w.opt.Fencing == state.DontCare { // else it would override a handler that has failed
				o.resumeIO(n)
			}
			n.admin(replication.Admin{Kind: replication.AdminResumeSync}, nil)
		}
	}
	o.w.net.try()
}
