package replication

import (
	"github.com/replblk/replblk/metadata"
	"github.com/replblk/replblk/replication/state"
	"github.com/replblk/replblk/replication/wire"
)

// protocolArrived compares the peer's configuration with ours (spec 4.3).
func (r *Resource) protocolArrived(body []byte) bool {
	var p wire.Protocol
	rd := wire.NewReader(wire.CmdProtocol, body)
	p.DecodeFrom(&rd, r.session())
	if rd.Finish() != nil {
		return false
	}
	c := &r.conn
	theirs := mirroredAll(p)
	c.peerDiscards = p.Flags&wire.ConnDiscardMyData != 0
	c.peerTentative = p.Flags&wire.ConnDryRun != 0
	if Protocol(p.Protocol) != r.cfg.Protocol || theirs != r.cfg.AfterSB || p.TwoPrimaries != r.cfg.TwoPrimaries ||
		p.IntegrityAlg != r.conn.integrity.String() || c.peerDiscards && c.discardMyData {
		r.part(NoteIncompatible)
	}
	c.gotProtocol = true
	c.session.DigestSize = c.integrity.Size()
	return true
}

func mirroredAll(p wire.Protocol) [3]Policy {
	return [3]Policy{mirrored(p.AfterSB0), mirrored(p.AfterSB1), mirrored(p.AfterSB2)}
}

// mirrored converts a policy to our point of view: the peer's local is our remote.
func mirrored(p uint32) Policy {
	switch Policy(p) {
	case SBDiscardLocal:
		return SBDiscardRemote
	case SBDiscardRemote:
		return SBDiscardLocal
	default:
		return Policy(p)
	}
}

// syncParamArrived adopts the peer's resync controller (spec 4.4).
func (v *volume) syncParamArrived(p wire.SyncParam) {
	version := v.r.session().Version
	if version < 88 {
		p.VerifyAlg = v.r.cfg.VerifyAlg // not named, and not possible
	}
	if version < 89 {
		p.CsumsAlg = v.r.cfg.CsumsAlg
	}
	if v.st.Conn <= state.WFReportParams && (p.VerifyAlg != v.r.cfg.VerifyAlg || p.CsumsAlg != v.r.cfg.CsumsAlg) {
		v.r.part(NoteIncompatible)
		return
	}
	v.r.cfg.VerifyAlg, v.r.cfg.CsumsAlg = p.VerifyAlg, p.CsumsAlg // changed by the peer's operator
	if v.disk == nil {
		return
	}
	v.cfg.ResyncRateKiB = p.ResyncRateKiB
	if version >= 95 {
		v.cfg.PlanAheadTenths, v.cfg.DelayTargetTenth = min(p.PlanAheadTenths, maxPlanAhead), p.DelayTenths
		v.cfg.FillTargetSector, v.cfg.MaxRateKiB = p.FillSectors, p.MaxRateKiB
	}
}

// uuidsArrived stores the peer's generations (spec 7.3).
func (v *volume) uuidsArrived(p wire.UUIDs) {
	v.peerUUIDs = peerUUIDs{known: true, bits: p.Bits, flags: uint64(p.Flags)}
	v.peerUUIDs.UUIDs = [4]uint64{p.Current, p.Bitmap, p.History[0], p.History[1]}
	v.tellOwed()
	s := v.st
	if v.disk != nil && s.Conn == state.Connected && v.r.session().Version >= 90 &&
		v.disk.sb.UUIDs.Current() == metadata.JustCreated && uint64(p.Flags)&flagSkipSync != 0 {
		v.skipInitialSync(p.Current)
		return
	}
	if s.Disk < state.Inconsistent && s.Conn >= state.Connected && s.PeerDisk != state.Diskless {
		v.expose(p.Current)
	}
	v.heirOrNone()
}

// seePeer decides whether the data of a peer that has just come may be what the
// application of this node, which has no good disk of its own, sees from here on. A
// peer that is Inconsistent has nothing to see, and what it is called does not matter.
func (v *volume) seePeer(peerDisk state.Disk) bool {
	s, u := v.st, &v.peerUUIDs
	if !u.known || s.Disk >= state.Inconsistent || s.Conn >= state.Connected && s.PeerDisk != state.Diskless ||
		peerDisk <= state.Inconsistent {
		return true
	}
	if s.Role == state.Primary && !metadata.SameUUID(v.exposed, u.Current()) && (!v.heir || !metadata.SameUUID(v.exposed, u.Bitmap())) {
		v.r.part(NoteUnrelated)
		return false
	}
	if v.disk == nil && s.Role == state.Primary || s.Conn >= state.Connected {
		v.expose(u.Current())
	}
	return true
}

// clearAllBits makes every block in sync.
func (v *volume) clearAllBits() {
	v.disk.bm.ClearAll()
	v.afterPages(clearFullSync, 0)
}

// stateArrived handles P_STATE: the step of the handshake in which a connection
// starts to be used, and afterwards the news of the peer (spec 7.5).
func (v *volume) stateArrived(p state.State) bool {
	if !p.Valid() || p.Disk == state.DUnknown || p.Conn < state.WFConnection && v.st.Conn < state.Connected {
		return false
	}
	v.tellOwed() // for a peer without a disk, which has no UUIDs
	own := v.st
	if own.Conn <= state.TearDown {
		return true
	}
	if own.Conn == state.Behind && p.Disk <= state.Failed { // connected without a disk there, ours would pass for good
		v.r.lose(state.NetworkFailure, NoteNone)
		return true
	}
	if own.Conn >= state.Connected && own.PeerDisk == state.Diskless {
		v.takeStock() // it is judged now if the peer has attached a disk, and told afterwards
	}
	peerDisk, done := v.interpret(p)
	if done || v.peerEndsVerify(p) || !v.seePeer(peerDisk) {
		return true
	}
	next := own
	next.Conn = afterReport(own.Conn, p.Conn)
	if v.wantsHandshake(p) {
		verdict, ok := v.syncHandshake(p.Role, peerDisk)
		next.Role = v.st.Role // lost, if that was the price
		switch {
		case ok && v.payLate(verdict, p.Role, peerDisk):
			return true
		case ok:
			next.Conn = verdict
		case own.Disk == state.Negotiating:
			next.Conn, next.Disk = state.Connected, state.Failed
		case p.Disk == state.Negotiating:
			next.Conn, peerDisk = state.Connected, state.Diskless
			v.sendUUIDs(0) // it judges for itself, and its attachment fails as well
			heard := own
			heard.PeerDisk = p.Disk
			v.sendStateOf(heard)
		default:
			v.refuseConnection()
			return true
		}
	}
	v.considered = false
	return v.adopt(own, next, p, peerDisk)
}

// refuseConnection ends a connection whose two copies cannot be brought together.
// After a dry run the peer comes again to try in earnest; it must have had the time to read
// what it wanted to know.
func (v *volume) refuseConnection() {
	if v.r.conn.peerTentative {
		v.r.leave(state.ProtocolError)
		return
	}
	v.r.part(NoteNone)
}

// afterReport returns the connection state that the peer's report leads to if no
// resync is due.
func afterReport(own, peer state.Conn) state.Conn {
	switch {
	case peer == state.Ahead:
		return state.Behind
	case own == state.WFReportParams:
		return state.Connected
	default:
		return own
	}
}

// interpret is steps 2 to 4: what the peer says of its disk, seen together with what
// is going on. It returns true if the packet only reported the end of a resync.
func (v *volume) interpret(p state.State) (disk state.Disk, done bool) {
	own := v.st
	disk = p.Disk
	if disk == state.Negotiating {
		disk = state.Consistent
		if v.peerUUIDs.flags&flagInconsistent != 0 {
			disk = state.Inconsistent
		}
	}
	syncing := (own.PeerDisk == state.Inconsistent || own.PeerDisk == state.Consistent) && disk == state.UpToDate &&
		own.Conn > state.Connected && own.Disk == state.UpToDate
	switch {
	case syncing && p.Conn > state.Connected && p.Conn < state.SyncSource:
		return state.Inconsistent, false
	case syncing && own.Conn >= state.SyncSource && p.Conn == state.Connected:
		v.targetReportsEnd()
		return disk, true
	case v.targetGivesUp(p.Conn, disk):
		return disk, true
	case v.beforeDeclared(p):
		return state.UpToDate, false
	case own.PeerDisk == state.UpToDate && disk == state.Inconsistent && own.Conn == state.Connected && p.Conn > state.SyncSource:
		return state.UpToDate, false
	}
	return disk, false
}

// wantsHandshake says whether the packet is one at which both nodes compare their
// generations (step 6).
func (v *volume) wantsHandshake(p state.State) bool {
	own := v.st
	if !v.peerUUIDs.known || p.Disk < state.Negotiating || own.Disk < state.Negotiating || v.unheard(p) {
		return false
	}
	return own.Conn < state.Connected ||
		own.Conn == state.Connected && (p.Disk == state.Negotiating || own.Disk == state.Negotiating) ||
		v.considered ||
		own.Conn == state.Connected && p.Conn >= state.StartingSyncS && p.Conn <= state.WFBitMapT
}

// unheard says whether the peer sent its state before it heard of our disk. The
// generations that came with it may be older still.
func (v *volume) unheard(p state.State) bool {
	return v.st.Conn >= state.Connected && v.st.Disk == state.Negotiating && p.PeerDisk < state.Negotiating
}

// adopt is steps 7 to 11: take the new state.
func (v *volume) adopt(own, next, p state.State, peerDisk state.Disk) bool {
	next.Peer, next.PeerDisk = p.Role, peerDisk
	next.PeerIsp = p.AftrIsp || p.UserIsp
	// Without the peer's generations nothing is decided yet: this P_STATE was sent before
	// it heard of our disk, and another one follows its P_UUIDS.
	judged := v.peerUUIDs.known && !v.unheard(p) || p.Disk < state.Negotiating
	if own.Disk == state.Negotiating && next.Disk == own.Disk && judged && (next.Conn == state.Connected || next.Conn == state.WFBitMapS) {
		next.Disk = v.neg.Disk
		if p.Disk < state.Negotiating && !v.neg.Matches { // spec 7.6: nothing to compare with, and the application has seen more
			v.r.note(v, NoteStale)
			next.Disk = state.Failed
		}
	}
	hard := own.Conn >= state.Connected || next.Conn < state.Connected
	result := v.apply(next, hard)
	// Not before: what we send with the new state must be what our verdict is based on,
	// because the peer's is based on that.
	v.correct(v.repair)
	v.repair = noCorrection
	if !result.OK() {
		v.r.part(NoteIncompatible)
		return true
	}
	if own.Conn == state.WFBitMapS && p.Conn == state.WFBitMapT {
		v.resume()
	}
	if own.Conn != state.Behind && v.st.Conn == state.Behind {
		v.leftBehind()
	}
	if own.Conn > state.WFReportParams && v.st.Conn > state.Connected && p.Conn <= state.Connected && p.Disk != state.Negotiating {
		v.sendUUIDs(0)
		v.sendState()
	}
	v.r.conn.discardMyData = false
	return true
}

// syncHandshake decides who copies to whom, and returns the connection state that
// follows. Both nodes run it on their own with mirrored inputs (spec 7.5).
func (v *volume) syncHandshake(peerRole state.Role, peerDisk state.Disk) (state.Conn, bool) {
	myDisk := v.judgedDisk()
	r := v.r
	s := r.session()
	self, peer := v.generations(peerRole, myDisk, peerDisk)
	rule41 := s.Features.Has(wire.FeatureWriteSame)
	cmp := compare(self, peer, s.Version, rule41, r.conn.resolve)
	if byDisk := overrideByDisk(noSync, myDisk, peerDisk); cmp.verdict == needs101 && byDisk != noSync {
		cmp.verdict = byDisk // rule 41 would be overridden too
	}
	e := r.note(v, NoteVerdict)
	e.Token, e.Result = uint64(cmp.rule), state.Result(cmp.verdict)
	if cmp.verdict <= unrelated {
		r.refusal(v, cmp)
		return 0, false
	}
	if !r.dryRun() {
		v.repair = cmp.correction
	}
	hg := overrideByDisk(cmp.verdict, myDisk, peerDisk)
	if hg == cmp.verdict && hg.contradicts(compare(peer, self, s.Version, rule41, !r.conn.resolve).verdict) {
		r.note(v, NoteContradiction)
		return 0, false
	}
	hg, resigns := v.splitBrain(hg, peerRole)
	switch {
	case r.conn.closing:
		return 0, false
	case hg == split:
		e := r.note(v, NoteSplitBrain)
		e.Token, e.Sector = v.announced, v.peerUUIDs.bits
		r.handler(v, HandlerSplitBrain)
		return 0, false
	case hg > 0 && myDisk <= state.Inconsistent:
		return 0, false
	case hg < 0 && !resigns && v.st.Role == state.Primary && v.st.Disk >= state.Consistent && !v.mayLosePrimary():
		return 0, false
	case r.dryRun():
		e := r.note(v, NoteDryRun)
		e.New.Conn, e.On = hg.leadsTo(), hg.full()
		return 0, false
	}
	if hg.full() {
		v.setAllBits()
	}
	if hg == noSync && v.disk.bm.Weight() > 0 && myDisk > state.Inconsistent {
		r.note(v, NoteBitsWithoutResync)
	}
	return hg.leadsTo(), true
}

// judgedDisk is the state of the own disk, of one that is being attached the one that was put
// aside.
func (v *volume) judgedDisk() state.Disk {
	if v.st.Disk == state.Negotiating {
		return v.neg.Disk
	}
	return v.st.Disk
}

// generations returns what the comparison is about, as both nodes know it. What DRBD's table
// does not look at counts only if the peer looks at it too.
func (v *volume) generations(peerRole state.Role, myDisk, peerDisk state.Disk) (self, peer generations) {
	u := &v.peerUUIDs
	self = generations{UUIDs: v.disk.sb.UUIDs, crashed: v.crashed, primary: v.st.Role == state.Primary}
	peer = generations{UUIDs: u.UUIDs, crashed: u.flags&flagCrashed != 0, primary: peerRole == state.Primary}
	if !v.r.session().Features.Has(wire.FeatureSurvivor) {
		return self, peer
	}
	self.kept, peer.kept = v.announcedKept, u.flags&flagKept != 0
	self.outdated, peer.outdated = v.announcedOutdated, u.flags&flagOutdated != 0
	self.marked, peer.marked = v.marked(myDisk, peerDisk)
	return self, peer
}

// marked returns how many blocks each node has announced as out of sync. An Inconsistent disk is
// the target whatever is marked.
func (v *volume) marked(myDisk, peerDisk state.Disk) (own, peer uint64) {
	if myDisk <= state.Inconsistent || peerDisk <= state.Inconsistent {
		return 0, 0
	}
	return v.announced, v.peerUUIDs.bits
}

// dryRun says whether either operator only wants to know what would happen.
func (r *Resource) dryRun() bool { return r.conn.tentative || r.conn.peerTentative }

// refusal says why two copies cannot be brought together: they are unrelated, or the rule
// that would decide needs a version that the peer does not speak.
func (r *Resource) refusal(v *volume, cmp comparison) {
	if cmp.verdict == unrelated {
		r.note(v, NoteUnrelated)
		return
	}
	e := r.note(v, NoteRuleTooNew)
	e.Token, e.Size = uint64(cmp.rule), uint32(-cmp.verdict-1000) // needs91 is -1091
}

// mayLosePrimary applies rr-conflict: a Primary is about to become SyncTarget.
func (v *volume) mayLosePrimary() bool {
	switch v.r.cfg.RRConflict {
	case RRViolently:
		return true
	case RRCallPriLost:
		v.r.handler(v, HandlerPriLost)
	default:
	}
	return false
}

// overrideByDisk: an Inconsistent disk is the target whatever the generations say.
func overrideByDisk(hg verdict, mine, peer state.Disk) verdict {
	if (mine == state.Inconsistent) == (peer == state.Inconsistent) || mine < state.Inconsistent || peer < state.Inconsistent {
		return hg
	}
	out := target
	if mine > state.Inconsistent {
		out = source
	}
	if hg == split || hg.full() {
		out *= 2
	}
	return out
}

// splitBrain resolves a split brain by the configured policies or by an operator's
// decision, if there is any. resigns: this node ceases to be Primary because of it, or
// would if this was not a dry run.
func (v *volume) splitBrain(hg verdict, peerRole state.Role) (_ verdict, resigns bool) {
	if hg != splitAuto && hg != split {
		return hg, false
	}
	r := v.r
	r.handler(v, HandlerInitialSplitBrain)
	if hg == splitAuto || r.cfg.AlwaysASBP {
		c := contest{selfPrimaryThen: metadata.WasPrimary(v.disk.sb.UUIDs.Bitmap()), peerPrimaryThen: metadata.WasPrimary(v.peerUUIDs.Bitmap()),
			selfChanges: v.announced, peerChanges: v.peerUUIDs.bits, selfPrimary: v.st.Role == state.Primary,
			peerPrimary: peerRole == state.Primary, resolve: r.conn.resolve}
		decided := c.recover(r.cfg.AfterSB)
		if decided == target && v.announced == 0 && v.disk.bm.Weight() > 0 {
			// The application has written since our changes were counted, and was answered.
			// The next connection counts again (S06).
			r.lose(state.NetworkFailure, NoteNone)
			return hg, false
		}
		if decided == target && c.selfPrimary && c.policy(r.cfg.AfterSB) == SBCallHelper {
			if resigns = r.stepDown(); !resigns {
				r.handler(v, HandlerPriLostAfterSB)
				decided = split
			}
		}
		if decided != split && hg == split {
			decided *= 2
		}
		hg = decided
	}
	if hg != split {
		return hg, resigns
	}
	peerDiscards := v.peerUUIDs.flags&flagDiscard != 0
	switch mine := r.conn.discardMyData; {
	case mine && !peerDiscards:
		return target, false
	case peerDiscards && !mine:
		return source, false
	default:
		return split, false
	}
}

// survives says whether this node can tell the peer that it has every write that was
// acknowledged while the copies were equal. Under protocol A it may never have had them.
func (v *volume) survives() bool {
	d := v.disk
	return d != nil && d.kept && !d.failed && v.st.Disk == state.UpToDate && v.r.cfg.Protocol != ProtocolA &&
		v.r.session().Features.Has(wire.FeatureSurvivor)
}

// stepDown makes a Primary that has lost a split brain Secondary before its changes go,
// unless somebody uses it: a client must not find other data under it (spec 7.6).
func (r *Resource) stepDown() bool {
	idle := r.ios.inUse() == 0 && len(r.tl.closed) == 0
	for _, v := range r.vols {
		idle = idle && v.frozen == 0 && v.users == 0
	}
	if !idle || r.dryRun() {
		return idle
	}
	for _, v := range r.vols {
		v.demoting(0)
	}
	return true
}

// correct repairs what a lost packet of an earlier resync left behind.
func (v *volume) correct(c correction) {
	if v.disk == nil {
		return
	}
	own, peer := &v.disk.sb.UUIDs, &v.peerUUIDs.UUIDs
	switch c {
	case ownClearBitmap:
		own.ClearBitmap()
		v.superChanged()
	case peerClearBitmap:
		peer.ClearBitmap()
	case ownUndoSyncUUID:
		own[1], own[2] = own[2], own[3]
		v.superChanged()
	case peerUndoSyncUUID:
		peer[1], peer[2] = peer[2], peer[3]
	default:
	}
}
