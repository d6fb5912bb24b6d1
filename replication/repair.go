package replication

import "github.com/replblk/replblk/replication/state"

// A verify leaves bits and nothing else: the generations stay equal, so a later connection
// does not copy the blocks. Repair makes it do so, in a way that every peer
// understands: it disconnects, sees to it that one node has a newer generation than the
// other, and connects again. The source is the Primary; if there is none, the node where
// the command was given.

// repair is an operator's command about all volumes.
func (r *Resource) repair(c command) {
	k := &r.conn
	switch {
	case r.change != nil || k.ending():
		c.tries-- // giving up half way would leave the nodes apart
		r.later(c)
	case c.asked && !k.established():
		r.repairApart(c)
	default:
		if res := r.repairable(); res != state.Success {
			r.finish(c, res)
			return
		}
		r.requestDisconnect(c)
	}
}

// repairable says whether there is something to repair, and nothing in the way of it.
func (r *Resource) repairable() state.Result {
	bits := uint64(0)
	for _, v := range r.vols {
		switch s := v.st; {
		case s.Conn < state.Connected || !r.conn.established():
			return state.NeedConnection
		case s.Conn > state.Connected:
			return state.ResyncRunning
		case s.Disk != state.UpToDate:
			return state.NoLocalDisk
		case s.PeerDisk != state.UpToDate:
			return state.NoRemoteDisk
		case s.Role == state.Primary && s.Peer == state.Primary:
			return state.TwoPrimaries // whose block is the right one?
		}
		bits += v.disk.bm.Weight()
	}
	if bits == 0 {
		return state.NothingToDo
	}
	return state.Success
}

// repairApart begins a new generation where no Primary has, and connects again.
func (r *Resource) repairApart(c command) {
	if !c.peerPrimary && r.role() != state.Primary {
		for _, v := range r.vols {
			if v.disk != nil && v.disk.bm.Weight() > 0 && v.disk.sb.UUIDs.Bitmap() == 0 {
				v.newCurrent()
			}
		}
	}
	if r.conn.state == state.StandAlone {
		r.startConnecting() // else the peer was faster than its answer, and this node goes on by itself
	}
	r.reply(c.Token, state.Success)
}
