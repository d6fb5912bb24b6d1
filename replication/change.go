package replication

import (
	"github.com/replblk/replblk/replication/state"
	"github.com/replblk/replblk/replication/wire"
)

// change is a state change of ours that the peer must agree to (spec 5.3,
// cluster-wide changes). One is in progress at a time.
type change struct {
	vol       *volume // nil: the connection
	mask, val state.Word
	cmd       command // what to go on with when the peer has answered
}

// propose makes a state change, with the peer's consent where it is needed. It
// returns the result, or pending if the answer will come later; then the command
// is resumed.
func (v *volume) propose(mask, val state.Word, cmd command) (result state.Result, pending bool) {
	want := v.st.Apply(mask, val)
	next, result := v.check(want)
	if !result.OK() || result == state.NothingToDo {
		return result, false
	}
	if !state.NeedsPeer(v.st, next) || !v.r.conn.established() {
		return v.wish(want), false
	}
	if v.r.change != nil {
		return state.InTransientState, false
	}
	v.r.change = &change{vol: v, mask: mask, val: val, cmd: cmd}
	v.r.sendChange(wire.CmdStateChgReq, v.num, mask, val)
	return 0, true
}

// asksFor says whether the peer has been asked for a change of a part of the volume's state,
// and its answer has not come yet.
func (v *volume) asksFor(part state.Word) bool {
	c := v.r.change
	return c != nil && c.vol == v && c.mask&part != 0
}

func (r *Resource) sendChange(cmd wire.Command, vol uint16, mask, val state.Word) {
	off := r.open(cmd, vol, wire.StateChangeRequestSize)
	r.fx.Buf = (&wire.StateChangeRequest{Mask: mask, Value: val}).AppendTo(r.fx.Buf)
	r.close(DataSocket, off)
}

// changeReplied resumes the command whose change the peer has judged.
func (r *Resource) changeReplied(result state.Result) bool {
	c := r.change
	if c == nil {
		return false
	}
	r.change = nil
	if !result.OK() {
		switch result {
		case state.ConcurrentChange, state.InTransientState:
			r.later(c.cmd)
		default:
			if c.vol == nil {
				r.disconnectRefused(c.cmd)
				return true
			}
			r.reply(c.cmd.Token, state.RefusedByPeer)
		}
		return true
	}
	if c.vol == nil {
		r.disconnectAgreed(c.cmd)
		return true
	}
	c.cmd.agreed = true
	if got := c.vol.wish(c.vol.st.Apply(c.mask, c.val)); !got.OK() {
		c.vol.peerObeyed(c)
		r.reply(c.cmd.Token, got)
		return true
	}
	r.run(c.cmd)
	return true
}

// peerObeyed is called when the peer has agreed to a change that this node cannot make any more,
// because it has lost its disk, or just attached one. A peer that was declared invalid is so
// now. It will say so itself, but its acknowledgements of writes come before that, and what only
// it has must not be answered: the disk that is attached here may be found to be the good one.
func (v *volume) peerObeyed(c *change) {
	if next := v.st; c.mask&state.MaskConn != 0 && next.Apply(c.mask, c.val).Conn == state.StartingSyncS {
		next.PeerDisk = min(next.PeerDisk, state.Inconsistent)
		v.force(next)
	}
}

// changeLost: the connection is gone before the answer. The command starts again and
// finds that nobody needs to be asked any more. A peer that was told that this node would be
// outdated may have agreed, and then it goes on without fencing.
func (r *Resource) changeLost() {
	c := r.change
	if c == nil {
		return
	}
	r.change = nil
	if c.vol == nil && c.cmd.outdates == outdatesSelf {
		r.outdateSelf()
	}
	r.later(c.cmd)
}

// outdateSelf makes every disk of this node Outdated that would count for more.
func (r *Resource) outdateSelf() {
	for _, v := range r.vols {
		next := v.st
		next.Disk = min(next.Disk, state.Outdated)
		v.force(next)
	}
}

// changeRequested judges a change that the peer wants for a volume.
func (v *volume) changeRequested(p wire.StateChangeRequest) bool {
	r := v.r
	if r.conn.resolve && r.change != nil {
		r.sendChangeReply(wire.CmdStateChgReply, v.num, state.ConcurrentChange)
		return true
	}
	mask, val := state.Mirror(p.Mask, p.Value)
	want := v.st.Apply(mask, val)
	if !want.Valid() {
		return false
	}
	if want.Conn == state.TearDown {
		return r.tearDown(wire.CmdStateChgReply, mask, val)
	}
	// A resync of new space is about to start, and during a verify no size is taken.
	begins := startingSync(want.Conn) || want.Conn.Verify() && !v.st.Conn.Verify()
	if begins && v.sizeInDoubt() {
		r.sendChangeReply(wire.CmdStateChgReply, v.num, state.InTransientState)
		return true
	}
	if startingSync(want.Conn) && v.disk == nil {
		r.sendChangeReply(wire.CmdStateChgReply, v.num, state.NoLocalDisk)
		return true
	}
	_, result := v.check(want)
	r.sendChangeReply(wire.CmdStateChgReply, v.num, result)
	// A detach that we agree to has not happened yet, and never will if the answer is
	// lost. It counts when the peer reports it.
	switch {
	case result.OK() && want.PeerDisk == state.Failed:
		v.peerDetaches = true
	case result.OK():
		v.wish(want)
	}
	return true
}

// connChangeRequested judges a change that the peer wants for the connection: the
// only one there is, is to disconnect.
func (r *Resource) connChangeRequested(p wire.StateChangeRequest) bool {
	if r.conn.resolve && r.change != nil {
		r.sendChangeReply(wire.CmdConnStChgReply, 0, state.ConcurrentChange)
		return true
	}
	mask, val := state.Mirror(p.Mask, p.Value)
	return r.tearDown(wire.CmdConnStChgReply, mask, val)
}

// tearDown lets the peer disconnect if every volume can do without it, and goes back to
// waiting for it.
func (r *Resource) tearDown(reply wire.Command, mask, val state.Word) bool {
	for _, v := range r.vols {
		want := v.asTold().Apply(mask, val)
		if !want.Valid() || want.Conn != state.TearDown {
			return false
		}
		_, result := v.check(want)
		if !result.OK() && (result != state.LowerThanOutdated || mask&state.MaskDisk == 0) {
			r.sendChangeReply(reply, 0, result)
			return true
		}
	}
	r.sendChangeReply(reply, 0, state.Success)
	for _, v := range r.vols {
		want := v.asTold().Apply(mask, val)
		if v.st.Disk < state.Outdated {
			want.Disk = v.st.Disk
		}
		v.force(want)
	}
	r.lose(state.TearDown, NoteNone)
	return true
}

// asTold returns the state of the volume with what the peer has said of its disk, or is about to say: a
// target that has ended is UpToDate, also while this node has still to settle that.
func (v *volume) asTold() state.State {
	s := v.st
	if v.targetMayBeGood() {
		s.PeerDisk = state.UpToDate
	}
	return s
}

func (r *Resource) sendChangeReply(cmd wire.Command, vol uint16, result state.Result) {
	off := r.open(cmd, vol, wire.StateChangeReplySize)
	r.fx.Buf = (&wire.StateChangeReply{Result: result}).AppendTo(r.fx.Buf)
	r.close(MetaSocket, off)
}
