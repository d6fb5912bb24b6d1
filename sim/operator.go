package sim

import (
	"github.com/replblk/replblk/replication"
	"github.com/replblk/replblk/replication/state"
)

// operator gives commands and lets things break.
type operator struct {
	w                 *world
	next              uint64
	waiting           map[uint64]command
	faults            int
	diskFaults        int
	back              [2]replication.Time // when a node that is down starts again
	lease             replication.Time    // no new change of roles before
	demoting          bool
	prefer            int    // node to promote next, -1: any
	splitBrains       int    // reports of it
	splitBrainPlanned bool   // it is what the test wants
	verified          int    // online verifies that came to their end, counted on each node
	rotten            uint64 // blocks that a verify must find
}

// command is a command that was not answered yet.
type command struct {
	node *node
	done func(state.Result)
}

func (o *operator) start() {
	o.waiting, o.prefer = map[uint64]command{}, -1
	opt := &o.w.opt
	o.every(opt.Kill, func() { o.crash(false) })
	o.every(opt.Power, func() { o.crash(true) })
	o.every(opt.Cut, o.cut)
	o.every(opt.DiskErr, o.diskError)
	o.every(opt.Switch, o.switchRoles)
	o.every(opt.Admin, o.meddle)
	o.every(opt.Grow, o.grow)
	o.manage()
}

// every does something again and again at random times until the faults end.
func (o *operator) every(mean replication.Time, do func()) {
	if mean == 0 {
		return
	}
	o.w.after(between(o.w.rng, mean/10, 2*mean), func() {
		if o.w.healing {
			return
		}
		do()
		o.every(mean, do)
	})
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
		if !o.splitBrainPlanned {
			o.w.fail("node %s: %v", nodeName(n.id), note)
		}
	case replication.NoteProtocolError:
		if (o.w.mutant == NoMutant || o.w.mutant == OldGeneration) && o.diskFaults == 0 {
			o.w.fail("node %s: %v", nodeName(n.id), note)
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
func (o *operator) crash(power bool) {
	o.faults++
	r := o.w.rng
	hit := [2]bool{r.IntN(2) == 0, false}
	hit[1] = !hit[0] || r.IntN(5) == 0
	for i, n := range o.w.nodes {
		if !hit[i] {
			continue
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

func (o *operator) cut() {
	o.faults++
	r := o.w.rng
	switch kind := r.IntN(4); kind {
	case 0:
		o.w.trace("silence", -1, 0, 0)
		o.w.net.silence(o.w.nodes[r.IntN(2)])
	case 1:
		o.w.trace("cut without notice", -1, 0, 0)
		o.w.net.cut(false)
	default:
		o.w.trace("cut", -1, 0, 0)
		o.w.net.cut(true)
	}
	o.w.net.partition(between(r, 0, pickTime(r.IntN(3))))
}

// diskError lets an operation of one disk fail, if the other one is good.
func (o *operator) diskError() {
	n := o.w.nodes[o.w.rng.IntN(2)]
	other := o.w.nodes[1-n.id]
	if !o.w.oracle.inSync || other.faulty() {
		return
	}
	o.faults++
	o.diskFaults++
	n.dev.armed[o.w.rng.IntN(int(numFaults))] = true
}

// faulty says whether the disk of n has failed or is about to.
func (n *node) faulty() bool { return n.dev.broken || n.dev.armed != [numFaults]bool{} }

func (o *operator) switchRoles() {
	p := o.w.client.node
	if p == nil || !o.w.oracle.inSync || o.demoting {
		return
	}
	o.faults++
	o.prefer = 1 - p.id
	if o.w.rng.IntN(4) == 0 {
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

// meddle gives commands that are unusual but permitted.
func (o *operator) meddle() {
	o.faults++
	r := o.w.rng
	n := o.w.nodes[r.IntN(2)]
	st := n.state()
	switch r.IntN(7) {
	case 0:
		n.admin(replication.Admin{Kind: replication.AdminDisconnect, Force: r.IntN(2) == 0}, nil)
	case 1:
		if st.Role != primary && o.w.oracle.inSync && o.w.oracle.current[1-n.id] {
			n.admin(replication.Admin{Kind: replication.AdminInvalidate}, nil)
		}
	case 2:
		if o.w.oracle.inSync && !o.w.nodes[1-n.id].faulty() {
			o.diskFaults++
			n.admin(replication.Admin{Kind: replication.AdminDetach, Force: r.IntN(4) == 0}, nil)
		}
	case 3:
		n.admin(replication.Admin{Kind: replication.AdminPauseSync}, nil)
		n.schedule(between(r, 1, 200*replication.Millisecond), func() { n.admin(replication.Admin{Kind: replication.AdminResumeSync}, nil) })
	case 4:
		o.w.check.covered()
	default:
		o.verify(n)
	}
}

// verify compares a part of the device, which must be equal whatever else is going on.
func (o *operator) verify(n *node) {
	r := o.w.rng
	a := replication.Admin{Kind: replication.AdminVerify, Start: r.Uint64N(o.w.opt.Sectors), Resume: r.IntN(4) == 0}
	a.Stop = a.Start + 1 + r.Uint64N(8192)
	if len(o.w.client.hot) > 0 && r.IntN(2) == 0 { // where the application is busy
		a.Start = o.w.client.hot[r.IntN(len(o.w.client.hot))]
		a.Stop = a.Start + 1 + r.Uint64N(1024)
	}
	n.admin(a, nil)
	if r.IntN(4) == 0 {
		n.schedule(between(r, 1, 300*replication.Millisecond), func() { n.admin(replication.Admin{Kind: replication.AdminStopVerify}, nil) })
	}
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
	case st.Role == primary && st.Disk == state.Diskless && st.Conn < state.Connected && o.w.healing && o.idle():
		o.demote(n) // it may have seen data that nobody has any more
	case st.Conn == state.StandAlone && (o.w.healing || r.IntN(8) == 0):
		n.admin(replication.Admin{Kind: replication.AdminConnect}, nil)
	case n.detached && (o.w.healing || r.IntN(8) == 0):
		n.reattach()
	}
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

// mayPromote is what fencing is for: a node without its peer must have all data.
func (o *operator) mayPromote(n *node) bool {
	other := o.w.nodes[1-n.id]
	if !n.up || n.state().Disk != state.UpToDate || !o.w.oracle.current[n.id] || other.role() == primary {
		return false
	}
	return true
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

// heal repairs everything.
func (o *operator) heal() {
	o.w.net.partitioned = false
	o.back = [2]replication.Time{}
	o.w.client.idle = true
	for _, n := range o.w.nodes {
		n.dev.armed = [numFaults]bool{}
		if n.up {
			n.admin(replication.Admin{Kind: replication.AdminResumeSync}, nil)
		}
	}
	o.w.net.try()
}
