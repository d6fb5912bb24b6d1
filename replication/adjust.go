package replication

import (
	"github.com/replblk/replblk/replication/state"
	"github.com/replblk/replblk/replication/wire"
)

// firstAdjustable is the first protocol version in which the peer can be told of changed
// options on an established connection.
const firstAdjustable = 100

// adjust takes over what may change in a running resource, and tells the peer what it must
// know: from this point of the data stream on, writes follow the new protocol, and
// both nodes would decide a split brain by the new policies (spec 4.3, 4.4). What describes
// the disks and their metadata stays as it is: the number of slots of the activity
// log, whether it is written, the size. The shared secret counts at the next connection.
func (r *Resource) adjust(cfg *Config) state.Result {
	old := &r.cfg
	two := old.TwoPrimaries && !cfg.TwoPrimaries
	for _, v := range r.vols {
		switch {
		case two && v.st.Role == state.Primary && v.st.Peer == state.Primary:
			return state.TwoPrimaries
		case v.st.Conn.Verify() && old.VerifyAlg != cfg.VerifyAlg:
			return state.ResyncRunning
		case (v.st.Conn.Resync() || v.st.Conn == state.WFSyncUUID) && old.CsumsAlg != cfg.CsumsAlg:
			return state.ResyncRunning
		case v.st.Conn == state.WFReportParams:
			return state.InTransientState // the peer judges the handshake by what it was sent
		}
	}
	if old.Protocol == ProtocolA {
		r.forgetKept()
	}
	agreed := old.Protocol != cfg.Protocol || old.AfterSB != cfg.AfterSB || old.TwoPrimaries != cfg.TwoPrimaries || old.IntegrityAlg != cfg.IntegrityAlg
	if agreed && r.conn.established() && r.session().Version < firstAdjustable {
		return state.NotSupported
	}
	algs := old.VerifyAlg != cfg.VerifyAlg || old.CsumsAlg != cfg.CsumsAlg
	old.take(cfg)
	if agreed && r.conn.established() {
		r.tl.closeEpoch(r)
		r.conn.protocol = r.cfg.Protocol
		r.sendProtocol(wire.CmdProtocolUpdate)
		r.conn.integrity = wire.AlgorithmOf(r.cfg.IntegrityAlg)
	}
	for i := range cfg.Volumes {
		if v := r.volume(cfg.Volumes[i].Number); v != nil {
			v.adjust(&cfg.Volumes[i], algs)
		}
	}
	r.restless = true
	return state.Success
}

// take copies what adjust may change.
func (c *Config) take(from *Config) {
	keep := *c
	*c = *from
	c.Name, c.Volumes, c.MaxRequests, c.Seed = keep.Name, keep.Volumes, keep.MaxRequests, keep.Seed
}

// adjust takes over the options of a volume.
func (v *volume) adjust(cfg *VolumeConfig, algs bool) {
	keep := v.cfg
	v.cfg = *cfg
	v.cfg.SizeSectors, v.cfg.ALExtents, v.cfg.ALUpdates = keep.SizeSectors, keep.ALExtents, keep.ALUpdates
	if v.st.Conn >= state.Connected && (algs || syncParams(&keep) != syncParams(&v.cfg)) {
		v.sendSyncParam()
	}
}

// syncParams is what P_SYNC_PARAM says of a configuration, names apart.
func syncParams(c *VolumeConfig) wire.SyncParam {
	return wire.SyncParam{ResyncRateKiB: c.ResyncRateKiB, PlanAheadTenths: c.PlanAheadTenths, DelayTenths: c.DelayTargetTenth,
		FillSectors: c.FillTargetSector, MaxRateKiB: c.MaxRateKiB}
}

// protocolChanged adopts what the peer's operator has changed (spec 4.3).
func (r *Resource) protocolChanged(body []byte) bool {
	var p wire.Protocol
	rd := wire.NewReader(wire.CmdProtocolUpdate, body)
	p.DecodeFrom(&rd, r.session())
	if rd.Finish() != nil || Protocol(p.Protocol) < ProtocolA || Protocol(p.Protocol) > ProtocolC || !r.conn.gotProtocol {
		return false
	}
	alg := wire.AlgorithmOf(p.IntegrityAlg)
	if alg == 0 && p.IntegrityAlg != "" {
		r.part(NoteIncompatible)
		return true
	}
	r.conn.session.DigestSize = alg.Size() // of what it sends; what this node sends is its own affair
	if r.cfg.Protocol == ProtocolA {
		r.forgetKept()
	}
	if r.conn.protocol != Protocol(p.Protocol) {
		r.tl.closeEpoch(r)
	}
	r.cfg.Protocol, r.conn.protocol = Protocol(p.Protocol), Protocol(p.Protocol)
	r.cfg.AfterSB, r.cfg.TwoPrimaries = mirroredAll(p), p.TwoPrimaries
	r.note(nil, NoteAdjusted)
	return true
}

// forgetKept is called when the protocol ceases to be A, under which a write may have been
// acknowledged that never arrived: only the next time that the copies become equal counts.
func (r *Resource) forgetKept() {
	for _, v := range r.vols {
		if v.disk != nil {
			v.disk.kept = false
		}
	}
}
