package replication

import (
	"github.com/replblk/replblk/metadata"
	"github.com/replblk/replblk/replication/state"
)

// rules collects what the state rules depend on beside the state.
func (v *volume) rules() state.Rules {
	r := v.r
	rules := state.Rules{
		TwoPrimaries:    r.twoPrimaries(),
		Fencing:         v.cfg.Fencing,
		SuspendOnNoData: r.cfg.SuspendOnNoData,
		VerifyAlg:       r.verifyAlg() != 0,
		Version:         r.session().Version,
	}
	for _, o := range r.vols {
		if o != v && o.st.Peer == state.Primary {
			rules.OtherVolumePeerPrimary = true
		}
		if r.conn.paramsSent && o.st.Conn == state.WFReportParams {
			rules.HandshakeInProgress = true
		}
	}
	return rules
}

// wish asks for a state change by the rules; force states a fact.
func (v *volume) wish(want state.State) state.Result { return v.apply(want, false) }
func (v *volume) force(want state.State)             { v.apply(want, true) }

// check says what wish would answer.
func (v *volume) check(want state.State) (state.State, state.Result) {
	if result := v.forbids(want); !result.OK() {
		return v.st, result
	}
	return state.Next(v.st, want, false, v.rules(), v.neg)
}

// forbids says why a wish of either node for a verify, or a full resync, must not be asked of
// the rules, which would take both disks for UpToDate, or one, because that is what these
// connection states are about. A disk that has just been attached waits for the peer's
// opinion. One that lacks blocks, for instance after a resync in which some have failed, is not
// made good by comparing it, nor by calling the only good copy invalid. Of two that are no
// good an operator may choose one.
func (v *volume) forbids(want state.State) state.Result {
	s := v.st
	switch {
	case (s.Disk == state.Attaching || s.Disk == state.Negotiating) && (want.Conn.Verify() || startingSync(want.Conn)):
		return state.InTransientState
	case want.Conn.Verify() && s.Conn == state.Connected && !bothUpToDate(s),
		want.Conn == state.StartingSyncS && s.Disk < state.UpToDate && s.PeerDisk == state.UpToDate,
		want.Conn == state.StartingSyncT && s.PeerDisk < state.UpToDate && s.Disk == state.UpToDate:
		return state.NoUpToDateDisk
	default:
		return state.Success
	}
}

func (v *volume) apply(want state.State, hard bool) state.Result {
	if !hard {
		if result := v.forbids(want); !result.OK() {
			return result
		}
	}
	want.AftrIsp = v.follows
	if want.PeerDisk <= state.Failed && v.lacksNewSpaceOnly() {
		want.Disk = state.UpToDate
	}
	next, result := state.Next(v.st, want, hard, v.rules(), v.neg)
	if !result.OK() || next == v.st {
		return result
	}
	old := v.st
	v.st = next
	v.r.restless = true
	e := v.r.fx.add(FxState)
	e.Vol, e.Old, e.New = v.num, old, next
	v.updateFlags()
	v.after(old, next)
	return result
}

// after does what a state change implies (spec 5.5, in its order). Packets that it
// sends carry the state of this very transition.
func (v *volume) after(old, now state.State) {
	connected := now.Conn >= state.Connected
	if v.disk != nil && now.Disk != state.UpToDate {
		v.disk.kept = false
	}
	if bothUpToDate(now) && !bothUpToDate(old) { // 1
		if v.disk != nil {
			v.disk.kept = v.r.conn.protocol != ProtocolA
		}
		v.crashed, v.passed, v.faulted = false, 0, false
		v.peerUUIDs.flags &^= flagCrashed
		v.updateFlags()
	}
	if now.Role == state.Primary && old.Role != state.Primary && now.Disk < state.UpToDate && now.PeerDisk < state.UpToDate { // 2
		v.r.handler(v, HandlerPriOnInconDegr)
	}
	if connected && old.Role != state.Primary && now.Role == state.Primary && now.Disk < state.Inconsistent {
		v.heir = true // the peer begins a generation when it hears of it
	}
	if connected && old.PeerDisk == state.Diskless && now.PeerDisk > state.Diskless && now.PeerDisk != state.DUnknown { // 6
		v.resetResync()
		v.sendStock(0) // what our verdict was based on, and not what the disk is called because of it
		v.sendState()
	}
	if now.Conn == state.WFBitMapS && old.Conn != state.WFBitMapS { // 7
		v.xfer.start()
	}
	if old.Disk == state.Inconsistent && old.PeerDisk == state.Inconsistent && old.Peer == state.Secondary && now.Peer == state.Primary {
		v.considered = true
	}
	v.afterPeerDisk(old, now)                                                                    // 8, 9
	if old.Role == state.Primary && now.Role == state.Secondary && now.Conn <= state.Connected { // 10
		v.writePages()
	}
	if connected && old.Disk == state.Attaching && now.Disk == state.Negotiating { // 11
		v.sendSizes(0)
		v.sendUUIDs(0)
		v.sendState()
	}
	v.afterConn(old, now)
	v.afterDisk(old, now)
	v.heirOrNone()
	if old.Conn > state.Connected && old.Conn < state.Ahead && (now.Conn <= state.Connected || now.Conn >= state.Ahead) { // 24
		v.writePages()
	}
	v.dataIsBack()
	if old.Suspended() && !now.Suspended() {
		v.payOwed(now)
		v.releaseDone()
	}
	if old.Disk == state.UpToDate && now.Disk < state.UpToDate {
		// From now on the peer's copy is the only good one, also of what was answered
		// before, and it may be in a cache.
		v.r.tl.closeEpoch(v.r)
	}
	if replicationChanged(old, now) {
		v.r.tl.full = v.r.tl.cur.count > 0
	}
}

// afterConn is the part of after that looks at the connection state.
func (v *volume) afterConn(old, now state.State) {
	connected := now.Conn >= state.Connected
	if connected && old.Conn >= state.Connected && (old.AftrIsp != now.AftrIsp || old.UserIsp != now.UserIsp) { // 12
		v.sendState()
	}
	if old.Conn == state.WFReportParams && connected { // 14
		v.sendState()
		if now.Conn != state.WFBitMapS { // else the target has to hear of it first
			v.resume()
		}
		v.freshSpaceConnected()
	}
	if old.Conn == state.WFBitMapS && connected {
		v.resume()
	}
	if now.Conn == state.Ahead && old.Conn != state.Ahead { // 15
		v.sendState()
	}
	if now.Conn == state.Behind && old.Conn.ResyncSource() && v.disk != nil {
		v.endAdopted()
	}
	if old.Disk < state.UpToDate && old.Conn >= state.SyncSource && now.Conn == state.Connected && now.Disk > state.Failed { // 22
		v.sendState()
	}
	if old.Conn == state.VerifyS && now.Conn == state.Connected && v.r.session().StopsVerify() { // 23
		v.sendState()
	}
	if old.Conn.Verify() != now.Conn.Verify() {
		v.verifyChanged(old.Conn)
	}
	if old.Conn > state.Connected && old.Conn < state.SyncSource && now.Conn == state.Connected && now.Disk < state.UpToDate &&
		now.Disk >= state.Inconsistent { // it was to be made good, and nobody else would say that it was not
		v.sendState()
	}
	if startingSync(now.Conn) && !startingSync(old.Conn) { // 16
		v.startFullSync()
	}
	if old.Conn > state.Connected && now.Conn <= state.Connected {
		outlived := connected && now.Disk < state.UpToDate && v.targetEnded()
		v.leaveResync()
		if outlived {
			next := v.st
			next.PeerDisk = state.UpToDate
			v.force(next)
		}
	}
}

// afterDisk is the part of after that looks at the own disk.
func (v *volume) afterDisk(old, now state.State) {
	connected := now.Conn >= state.Connected
	if now.Disk == state.Failed && old.Disk != state.Failed { // 17
		v.heir = v.heir || connected && now.Role == state.Primary && now.PeerDisk >= state.Inconsistent
		if connected {
			v.sendState()
		}
		v.awaitHeir(old)
		if v.disk != nil {
			v.disk.seen = old.Disk == state.UpToDate
		}
		v.abandonDisk()
	}
	if now.Disk == state.Diskless && old.Disk != state.Diskless { // 18
		if connected {
			v.sendState()
		}
		v.abandonDisk()
	}
	v.peerGoesOn()
	if old.Disk == state.Inconsistent && now.Disk == state.UpToDate {
		v.mixed = append(v.mixed[:0], v.active...)
	}
	if old.Disk == state.UpToDate && now.Disk == state.Inconsistent && connected && now.Conn == state.Connected { // 19
		v.sendState()
	}
}

// peerGoesOn remembers the generation of an own disk that is out of service, while the peer
// has good data: now, or when the resync of which it is the target comes to its end. The peer
// begins another one if there is a Primary, or if the disk has failed (afterPeerDisk); outrun
// is about the first, where a mark on the disk says that it has seen every write.
func (v *volume) peerGoesOn() {
	s, own := v.st, v.ownUUIDs()
	if s.Conn < state.Connected || s.PeerDisk != state.UpToDate || s.Disk != state.Failed && s.Disk != state.Diskless {
		return
	}
	if v.passed == 0 && (v.faulted || s.Role == state.Primary || s.Peer == state.Primary) {
		v.passed = v.exposed
	}
	if s.Disk == state.Failed && s.Role == state.Primary && metadata.SameUUID(v.exposed, own.Current()) {
		v.outrun = v.exposed
	}
}

// afterPeerDisk is items 8 and 9: what losing the peer's data means for the
// generation of ours.
func (v *volume) afterPeerDisk(old, now state.State) {
	if lostPeerData(old.PeerDisk, now.PeerDisk) &&
		(now.Role == state.Primary || now.Peer == state.Primary || v.peerFailed(old, now)) &&
		v.disk != nil && v.disk.sb.UUIDs.Bitmap() == 0 && now.Disk == state.UpToDate {
		v.oweOrBegin(now)
	}
	if now.PeerDisk > state.Failed {
		v.peerDetaches = false
	}
	if now.PeerDisk < state.Inconsistent {
		if old.Peer != state.Primary && now.Peer == state.Primary && v.disk != nil &&
			v.disk.sb.UUIDs.Bitmap() == 0 && now.Disk == state.UpToDate {
			v.newHeir()
		}
		if old.Peer == state.Primary && now.Peer == state.Secondary {
			v.writePages()
		}
	}
}

// peerFailed says whether the peer's disk went out of service without having been
// detached in good order. What it had in its cache may be gone, so even between two
// Secondaries our data are the newer generation from here on: the peer's must never
// be the source when the disk comes back, whatever its flags say. Of a disk that went
// while nobody was looking nothing is known: it may have seen more than ours.
func (v *volume) peerFailed(old, now state.State) bool {
	return now.PeerDisk <= state.Failed && now.Conn >= state.Connected && !v.peerDetaches && old.PeerDisk != state.DUnknown
}

// newCurrent begins a generation of data that the peer does not have. No write may
// be answered before that is on disk: after a crash the two copies would look
// equal (U04).
func (v *volume) newCurrent() {
	d := v.disk
	primary := v.st.Role == state.Primary
	d.sb.UUIDs.NewCurrent(v.r.random(), primary)
	v.expose(d.sb.UUIDs.Current())
	v.superChanged()
	v.freeze()
}

// freeze holds requests and answers until the superblock as it is now is durable.
func (v *volume) freeze() {
	v.frozen++
	v.afterSuper(thaw, 0)
}

// expose records the generation of the data that the application sees.
func (v *volume) expose(uuid uint64) {
	v.exposed, v.unseen, v.heir = uuid, false, false
	if !metadata.SameUUID(uuid, v.outrun) {
		v.outrun = 0
	}
}

// setCurrent adopts u as the current UUID.
func (v *volume) setCurrent(u uint64) {
	v.disk.sb.UUIDs.SetCurrent(u, v.st.Role == state.Primary)
	v.expose(v.disk.sb.UUIDs.Current())
	v.superChanged()
}

// startFullSync is item 16: both nodes set all bits, then one becomes source and the
// other waits for its sync UUID (spec 9.6). The source sets them when no handler prevents it
// any more (makeSyncUUID).
func (v *volume) startFullSync() {
	if v.disk == nil {
		return
	}
	if v.st.Conn != state.StartingSyncT {
		v.makeSyncUUID()
		return
	}
	v.setAllBits()
	// Whatever becomes of this resync, a handler may prevent it: the operator has said that
	// the data here is worth nothing, so the next connection must not find two copies of
	// one generation, and call bits that both have set nobody's concern.
	next := v.st
	next.Conn, next.Disk = state.WFSyncUUID, state.Inconsistent
	v.force(next)
	v.useEarlyUUID()
}

func bothUpToDate(s state.State) bool {
	return s.Disk == state.UpToDate && s.PeerDisk == state.UpToDate
}

func startingSync(c state.Conn) bool { return c == state.StartingSyncS || c == state.StartingSyncT }

// lostPeerData says whether contact to the peer's data got lost (spec 5.5 #8).
func lostPeerData(old, now state.Disk) bool {
	had := old == state.Inconsistent || old == state.Consistent || old == state.UpToDate
	if had && (now < state.Inconsistent || now == state.DUnknown || now == state.Outdated) {
		return true
	}
	return old == state.DUnknown && (now == state.Diskless || now == state.Failed || now == state.Outdated)
}

// replicationChanged says whether writes before and after the change may be treated
// differently, so that no epoch must hold both kinds (I7).
func replicationChanged(old, now state.State) bool {
	return old.Conn != now.Conn || old.PeerDisk != now.PeerDisk
}

// ownUUIDs returns the UUID set of the own disk, zeroes without one.
func (v *volume) ownUUIDs() metadata.UUIDs {
	if v.disk == nil {
		return metadata.UUIDs{}
	}
	return v.disk.sb.UUIDs
}

// resume ends a suspension that waited for the peer: it is back (spec 10.4).
//
// A peer that lacks what was written here must have heard so, for then it is Outdated. Until it
// has, it may be disconnected and take itself for UpToDate, and with this node demoted, or
// gone, it would be promoted without what this node has answered. It says by its P_STATE that it
// has, or by its bitmap. A kernel sends what waits once more, and answers it when the peer has it.
func (v *volume) resume() {
	if v.st.SuspFen {
		next := v.st
		next.SuspFen = false
		v.force(next)
	}
}

// dataIsBack ends a suspension for lack of data when one of the copies can be reached. DRBD
// does so at any new connection, and has what waited fail if the peer has no data either. While
// a disk waits for the verdict the rules take the peer's, even if Outdated, for UpToDate.
func (v *volume) dataIsBack() {
	s := v.st
	if s.SuspNod && s.Disk != state.Attaching && s.Disk != state.Negotiating && (s.Disk == state.UpToDate || s.PeerDisk == state.UpToDate && s.Conn >= state.Connected) {
		s.SuspNod = false
		v.force(s)
	}
}
