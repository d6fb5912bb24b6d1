package replication

import (
	"github.com/replblk/replblk/metadata"
	"github.com/replblk/replblk/replication/state"
)

// Status is a consistent snapshot of a resource.
type Status struct {
	Connection state.Conn // StandAlone to WFReportParams
	Version    int        // agreed protocol version, 0 if not connected
	Protocol   Protocol   // of the connection, or of the next
	Volumes    []VolumeStatus
}

// VolumeStatus is a snapshot of one volume. Sizes are sectors unless the name says
// otherwise.
type VolumeStatus struct {
	Number       uint16
	State        state.State
	Size         uint64
	OutOfSync    uint64 // blocks of 4 KiB
	UUIDs        metadata.UUIDs
	ResyncTotal  uint64 // blocks at the start of the running resync, 0: none
	ResyncFailed uint64
	ResyncSame   uint64 // blocks that were not sent because their checksums are equal
	ResyncSince  Time
	Verify       VerifyStatus
	LocalPending int // requests on the own disk
	PeerPending  int // requests sent and not confirmed
	Application  int // application requests in progress
	ALActive     int // extents in use
	Frozen       bool
}

// VerifyStatus is about the online verify that is running, or the last one. Sizes are
// blocks of 4 KiB.
type VerifyStatus struct {
	Total     uint64 // 0: there was none, or it is not known yet where it began
	Left      uint64
	Found     uint64 // that differ
	Failed    uint64 // that could not be compared
	Since     Time
	Completed uint64 // runs that came to their end
	Resume    uint64 // sector where an aborted run goes on, 0: there is none
}

// Status returns the present state.
func (r *Resource) Status() Status {
	s := Status{Connection: r.conn.state, Protocol: r.cfg.Protocol}
	if r.conn.phase == phaseUp {
		s.Version = r.conn.session.Version
	}
	for _, v := range r.vols {
		s.Volumes = append(s.Volumes, v.status())
	}
	return s
}

func (v *volume) status() VolumeStatus {
	s := VolumeStatus{Number: v.num, State: v.st, Size: v.size, UUIDs: v.ownUUIDs(), Frozen: v.frozen > 0}
	if v.disk != nil {
		s.OutOfSync, s.LocalPending = v.disk.bm.Weight(), v.disk.inflight
		if v.disk.al.set != nil {
			s.ALActive = v.disk.al.set.Active()
		}
	}
	if v.st.Conn.Resync() {
		s.ResyncTotal, s.ResyncFailed, s.ResyncSince = v.rs.total, v.rs.failed, v.rs.started
		s.ResyncSame = v.rs.same
	}
	s.Verify = v.verify.status()
	for i := range v.r.ios.list {
		q := &v.r.ios.list[i]
		if q.vol != v {
			continue
		}
		if q.stage < stageDone {
			s.Application++
		}
		if q.netPending {
			s.PeerPending++
		}
	}
	return s
}
