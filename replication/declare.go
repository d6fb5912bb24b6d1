package replication

import (
	"github.com/replblk/replblk/metadata"
	"github.com/replblk/replblk/replication/state"
)

// newCurrentCommand begins a new generation by hand; with ClearBitmap a fresh pair is
// declared equal without copying (spec 7.7).
func (v *volume) newCurrentCommand(c command) {
	if v.disk == nil {
		v.r.reply(c.Token, state.IsDiskless)
		return
	}
	d := v.disk
	skip := c.ClearBitmap && v.st.Conn == state.Connected && v.r.session().Version >= 90 && d.sb.UUIDs.Current() == metadata.JustCreated
	if !skip && v.st.Conn != state.StandAlone {
		v.r.reply(c.Token, state.NeedConnection)
		return
	}
	primary := v.st.Role == state.Primary
	d.sb.UUIDs.RotateSet(metadata.SlotBitmap, 0, primary)
	d.sb.UUIDs.NewCurrent(v.r.random(), primary)
	v.superChanged()
	if c.ClearBitmap {
		v.clearAllBits()
	}
	v.expose(d.sb.UUIDs.Current())
	if skip {
		v.sendUUIDs(flagSkipSync)
		d.sb.UUIDs[metadata.SlotBitmap] = 0
		v.declared()
	}
	v.afterSuper(answer, c.Token)
}

// declared is what both ends do when their fresh disks are equal: the peer has the generations of
// this node.
func (v *volume) declared() {
	v.peerUUIDs.UUIDs = v.disk.sb.UUIDs
	next := v.st
	next.Disk, next.PeerDisk = state.UpToDate, state.UpToDate
	v.force(next)
}

// skipInitialSync declares the own fresh disk equal to the peer's, at its request
// (spec 7.7). It is told our generations, although a kernel does not do so: what it knows
// of us are those of a fresh disk, and these would become its own if it was the target of a
// resync on this connection.
func (v *volume) skipInitialSync(current uint64) {
	v.clearAllBits()
	v.disk.sb.UUIDs[metadata.SlotBitmap] = 0
	v.setCurrent(current)
	v.declared()
	v.sendUUIDs(0)
}

// beforeDeclared says whether the peer sent its state before it heard that this node's operator has
// declared two fresh disks equal: it takes both for Inconsistent still. When it hears, it does
// not say so (a kernel does not), so what it sent before must not count.
func (v *volume) beforeDeclared(p state.State) bool {
	own := v.st
	return own.Conn == state.Connected && own.Disk == state.UpToDate && own.PeerDisk == state.UpToDate &&
		p.Conn == state.Connected && p.Disk == state.Inconsistent && p.PeerDisk == state.Inconsistent
}
