package sim

import (
	"math/rand/v2"

	"github.com/replblk/replblk/replication"
	"github.com/replblk/replblk/replication/state"
	"github.com/replblk/replblk/replication/wire"
)

// cut breaks the connection: with notice or without, in both directions or in one.
func (o *operator) cut(r *rand.Rand) {
	if o.w.connected() {
		o.w.hit("cut")
	}
	switch r.IntN(4) {
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

// stall keeps everything that is on its way in one direction, or in both, for a while.
func (o *operator) stall(r *rand.Rand) {
	if o.w.connected() {
		o.w.hit("stall")
	}
	until := o.w.now + between(r, 0, pickTime(r.IntN(3)))
	which := 1 + r.IntN(3)
	o.w.trace("stall", -1, uint64(which), uint64(until))
	for i, n := range o.w.nodes {
		if s := n.conn; s != nil && which&(1<<i) != 0 {
			for j := range s.out {
				s.out[j].arrives = max(s.out[j].arrives, until)
			}
		}
	}
}

// garbage destroys the framing of a stream: a packet with a wrong magic arrives.
func (o *operator) garbage(r *rand.Rand) {
	s := o.w.nodes[r.IntN(2)].conn
	if s == nil || !s.up || s.shut {
		return
	}
	o.w.hit("garbage")
	o.intrusions++
	sock := replication.Socket(1 + r.IntN(2))
	head := make([]byte, 16)
	for i := range head {
		head[i] = byte(r.Uint32())
	}
	o.w.trace("garbage", s.node.id, uint64(sock), 0)
	o.w.net.transmit(s, sock, packet{head: head, garbage: true})
}

// intrude offers a core a connection that it does not expect: it must be closed, and must
// not disturb the one that stands.
func (o *operator) intrude(r *rand.Rand) {
	n := o.w.nodes[r.IntN(2)]
	if !n.up || n.conn == nil || !n.conn.up {
		return
	}
	o.w.hit("intrude")
	o.w.trace("intruder", n.id, 0, 0)
	stranger := n.gen + 1<<16 // never a generation of a connection between the two
	body := make([]byte, 64)
	n.step(&replication.Event{Kind: replication.EvConnUp, Gen: stranger, Body: body})
	n.step(&replication.Event{Kind: replication.EvPacket, Gen: stranger, Socket: replication.DataSocket, Cmd: wire.CmdBarrier, Body: make([]byte, 8)})
	n.step(&replication.Event{Kind: replication.EvConnDown, Gen: stranger, Cause: state.NetworkFailure})
}

// diskError lets an operation of one disk fail, if the other one is good.
func (o *operator) diskError(r *rand.Rand) {
	n := o.w.nodes[r.IntN(2)]
	other := o.w.nodes[1-n.id]
	kind := area(r.IntN(int(numFaults)))
	if !o.w.oracle.inSync || other.faulty() {
		return
	}
	o.diskFaults[n.id]++
	n.dev.noSpace = r.IntN(4) == 0
	n.dev.armed[kind] = true
}

// hang lets a disk do nothing for a while; what is submitted meanwhile waits too.
func (o *operator) hang(r *rand.Rand) {
	n := o.w.nodes[r.IntN(2)]
	if n.up {
		o.w.hit("hang")
	}
	n.dev.hungUntil = o.w.now + between(r, 0, pickTime(r.IntN(3)))
	if o.w.opt.DiskTimeout != 0 { // the core may count it as failed
		if !o.w.oracle.inSync || !o.w.net.good() || o.w.nodes[1-n.id].faulty() {
			n.dev.hungUntil = min(n.dev.hungUntil, o.w.now+50*replication.Millisecond)
		} else {
			limit := replication.Time(o.w.opt.DiskTimeout) * 100 * replication.Millisecond
			n.dev.hungUntil = o.w.now + between(r, limit/2, limit*4)
			o.diskFaults[n.id]++
		}
	}
	o.w.trace("hang", n.id, uint64(n.dev.hungUntil), 0)
}

// wake ends what could become a failure of a disk before something else fails, which may
// leave that disk as the only good one.
func (o *operator) wake() {
	for _, n := range o.w.nodes {
		if o.w.opt.DiskTimeout != 0 && !n.dev.given {
			n.dev.hungUntil = 0
		}
	}
}

// latent makes some sectors unreadable until they are written, on one disk only.
func (o *operator) latent(r *rand.Rand) {
	n := o.w.nodes[r.IntN(2)]
	if !o.w.oracle.inSync || len(o.w.nodes[1-n.id].dev.latent) > 0 || o.w.nodes[1-n.id].faulty() {
		return
	}
	o.diskFaults[n.id]++
	if n.dev.latent == nil {
		n.dev.latent = map[uint64]bool{}
	}
	s := o.w.client.hot[r.IntN(len(o.w.client.hot))]
	for i := range 1 + r.Uint64N(4) {
		n.dev.latent[min(s+i, o.w.opt.Sectors-1)] = true
	}
	o.w.trace("latent", n.id, s, 0)
}

// pause stops a process as SIGSTOP does.
func (o *operator) pause(r *rand.Rand) {
	n := o.w.nodes[r.IntN(2)]
	if !n.up {
		return
	}
	o.w.hit("pause")
	n.pausedUntil = max(n.pausedUntil, o.w.now+between(r, 0, 2*pickTime(r.IntN(3))))
	o.w.trace("pause", n.id, uint64(n.pausedUntil), 0)
}

// clockJump moves the clock of a node ahead, as a suspended host sees it.
func (o *operator) clockJump(r *rand.Rand) {
	n := o.w.nodes[r.IntN(2)]
	if n.up {
		o.w.hit("clock")
	}
	n.ahead += between(r, 0, 10*pickTime(r.IntN(3)))
	o.w.trace("clock", n.id, uint64(n.ahead), 0)
}

// meddle gives commands that are unusual but permitted.
func (o *operator) meddle(r *rand.Rand) {
	n := o.w.nodes[r.IntN(2)]
	if n.up {
		o.w.hit("admin")
	}
	st := n.state()
	switch r.IntN(9) {
	case 0:
		n.admin(replication.Admin{Kind: replication.AdminDisconnect, Force: r.IntN(2) == 0}, nil)
	case 1:
		if st.Role != primary && o.w.oracle.inSync && o.w.oracle.current[1-n.id] {
			o.invalidate(n)
		}
	case 2:
		if o.w.oracle.inSync && !o.w.nodes[1-n.id].faulty() {
			o.diskFaults[n.id]++
			n.admin(replication.Admin{Kind: replication.AdminDetach, Force: r.IntN(4) == 0}, nil)
		}
	case 3:
		n.admin(replication.Admin{Kind: replication.AdminPauseSync}, nil)
		n.schedule(between(r, 1, 200*replication.Millisecond), func() { n.admin(replication.Admin{Kind: replication.AdminResumeSync}, nil) })
	case 4:
		if o.w.opt.Fencing == state.DontCare { // it would override a handler that has failed
			n.admin(replication.Admin{Kind: replication.AdminSuspendIO}, nil)
			n.schedule(between(r, 1, 100*replication.Millisecond), func() { o.resumeIO(n) })
		}
	case 5:
		if o.w.oracle.inSync && st.Role == primary && o.w.oracle.current[n.id] && o.w.opt.Room == 0 {
			n.admin(replication.Admin{Kind: replication.AdminInvalidateRemote}, nil)
		}
	case 6:
		o.w.check.covered()
	default:
		o.verify(r, n)
	}
}

// invalidate has everything copied to n. If its answer is lost the other node has agreed, and marked
// everything: the operator says it again, of whichever node is Secondary then.
func (o *operator) invalidate(n *node) {
	o.undone = true
	n.admin(replication.Admin{Kind: replication.AdminInvalidate}, func(r state.Result) {
		if r.OK() {
			o.undone = false
		}
	})
}

// verify compares a part of the device, which must be equal whatever else is going on.
func (o *operator) verify(r *rand.Rand, n *node) {
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
