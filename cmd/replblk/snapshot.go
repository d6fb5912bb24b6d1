package main

import (
	"github.com/replblk/replblk/internal/control"
	"github.com/replblk/replblk/node"
	"github.com/replblk/replblk/replication"
	"github.com/replblk/replblk/replication/state"
)

const bitmapBlock = 4096

// snapshot tells everything about a resource.
func (m *managed) snapshot() control.Resource {
	s := control.Resource{
		Name: m.name(), Peer: m.sec.peerName(), NodeID: m.nodeID, PeerID: m.peerID,
		Local: addressWord(m.sec.local), Remote: addressWord(m.sec.peer),
		Protocol: string(m.options.Load().res.Net.Protocol), SplitBrain: m.splitBrains.Load(), Changing: m.changing(),
		History: m.history.look(), Handlers: m.history.handlerRuns(), Fencing: m.options.Load().fencing(), AfterSB: m.options.Load().afterSB(),
		Role: state.Secondary.String(), PeerRole: state.Unknown.String(), Connection: state.StandAlone.String(),
	}
	if n := m.connections.Load(); n > 0 {
		s.Reconnects = n - 1
	}
	var st node.Status
	if r := m.res.Load(); r != nil {
		st, s.Up = r.Status(), true
		s.Connection, s.Version = st.Connection.String(), st.Version
		s.Protocol = string('A' + rune(st.Protocol-replication.ProtocolA)) // the peer's operator may have changed it
		s.InFlight, s.Unsent = st.Requests, st.UnsentData+st.UnsentMeta
	}
	for i, v := range m.sec.local.Volumes {
		vs := replication.VolumeStatus{Number: v.Number, State: state.Initial()}
		if i < len(st.Volumes) {
			vs = st.Volumes[i] // in the order of the configuration
		}
		out := m.volumeSnapshot(&vs)
		out.Minor, out.Backing, out.MetaDisk = v.Minor, v.Disk, v.MetaDisk.Kind()
		if v.MetaDisk.Path != "" {
			out.MetaDisk = v.MetaDisk.Path
		}
		s.Volumes = append(s.Volumes, out)
	}
	first := &s.Volumes[0]
	s.Role, s.PeerRole = first.Role, first.PeerRole
	if len(st.Volumes) > 0 && st.Volumes[0].State.Conn >= state.Connected {
		s.Connection = state.Connected.String()
	}
	for _, e := range m.nbd {
		s.NBD = append(s.NBD, e.snapshot())
	}
	for _, e := range m.aoe {
		s.AoE = append(s.AoE, e.snapshot())
	}
	return s
}

func (m *managed) volumeSnapshot(vs *replication.VolumeStatus) control.Volume {
	st := vs.State
	c := m.disks[vs.Number]
	v := control.Volume{
		Number: vs.Number,
		State:  st.Conn.String(), Disk: st.Disk.String(), PeerDisk: st.PeerDisk.String(),
		Role: st.Role.String(), PeerRole: st.Peer.String(),
		Suspended: st.Suspended(), SuspendedUser: st.Susp, SuspendedNoData: st.SuspNod, SuspendedFencing: st.SuspFen,
		PausedDependency: st.AftrIsp, PausedPeer: st.PeerIsp, PausedUser: st.UserIsp, Frozen: vs.Frozen,
		Size: vs.Size * 512, UUIDs: vs.UUIDs, OutOfSync: vs.OutOfSync * bitmapBlock,
		LocalPending: vs.LocalPending, PeerPending: vs.PeerPending, Application: vs.Application, ALActive: vs.ALActive,
		Counters: control.Counters{
			Sent: m.net.sent.Load(), Received: m.net.received.Load(),
			Read: c.read.Load(), Written: c.written.Load(), Flushes: c.flushes.Load(),
			ALWrites: c.alWrites.Load(), BMWrites: c.bmWrites.Load(), Errors: c.errors.Load(),
		},
	}
	v.SplitOwn, v.SplitPeer = m.history.changes(vs.Number)
	y := &vs.Verify
	switch {
	case st.Conn.Verify():
		v.Resync = m.sync.look(vs.Number, y.Total*bitmapBlock, y.Left*bitmapBlock)
		if v.Resync != nil {
			v.Resync.Verify, v.Resync.Failed = true, y.Failed*bitmapBlock
		}
	case st.Conn.Resync():
		left := vs.OutOfSync - min(vs.ResyncFailed, vs.OutOfSync)
		v.Resync = m.sync.look(vs.Number, vs.ResyncTotal*bitmapBlock, left*bitmapBlock)
		if v.Resync != nil {
			v.Resync.Failed = vs.ResyncFailed * bitmapBlock
		}
	}
	if y.Total > 0 {
		v.Verify = &control.Verify{
			Total: y.Total * bitmapBlock, Left: y.Left * bitmapBlock, OutOfSync: y.Found * bitmapBlock, Failed: y.Failed * bitmapBlock,
			Completed: y.Completed, Resume: y.Resume,
		}
	}
	return v
}
