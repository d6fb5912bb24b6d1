package replication

import (
	"slices"

	"github.com/replblk/replblk/replication/state"
)

// command is an operator's command on its way.
type command struct {
	Admin
	next    int  // next volume to work on, for commands about all of them
	agreed  bool // the peer has consented to the change of volume next
	fenced  bool // fencing the peer was tried
	peerOut bool // it succeeded
	forced  bool // a Primary was made of data that is not known to be good
	tries   int
	until   Time // promotion: how long the peer may take to tell that it is not Primary any more; 0: not asked

	asked       bool     // the peer was asked to disconnect
	peerPrimary bool     // and was Primary then
	outdates    outdates // disconnect: who is outdated by it
}

const (
	maxCommands = 64
	maxTries    = 100 // of a command that finds a transient state; one every tick
)

// command starts an operator's command.
func (r *Resource) command(a *Admin) {
	c := command{Admin: *a}
	r.runInOrder(c)
}

// runInOrder runs a command unless one before it, whose order matters, still waits: a
// resume must not overtake its pause.
func (r *Resource) runInOrder(c command) {
	if c.flags() && slices.ContainsFunc(r.commands, func(w command) bool { return w.flags() && w.Vol == c.Vol }) {
		r.later(c)
		return
	}
	r.run(c)
}

// flags says whether the command sets or clears a flag, so that order matters.
func (c *command) flags() bool { return c.Kind == AdminPauseSync || c.Kind == AdminResumeSync }

func (r *Resource) reply(token uint64, result state.Result) {
	if token == 0 {
		return
	}
	e := r.fx.add(FxReply)
	e.Token, e.Result = token, result
}

// later tries a command again when states have changed.
func (r *Resource) later(c command) {
	c.tries++
	if len(r.commands) >= maxCommands || c.tries > maxTries {
		r.reply(c.Token, state.InTransientState)
		return
	}
	r.commands = append(r.commands, c)
}

func (r *Resource) retryCommands() {
	list := r.commands
	r.commands = nil
	for _, c := range list {
		r.runInOrder(c)
	}
}

// finish answers a command, or keeps it for another try if the state was transient.
func (r *Resource) finish(c command, result state.Result) {
	if result == state.InTransientState || result == state.ConcurrentChange {
		r.later(c)
		return
	}
	r.reply(c.Token, result)
}

// run takes a command as far as it gets.
func (r *Resource) run(c command) {
	switch c.Kind {
	case AdminConnect:
		r.connect(c)
		return
	case AdminDisconnect:
		r.disconnect(c)
		return
	case AdminPrimary:
		r.promote(c)
		return
	case AdminSecondary:
		r.demote(c)
		return
	case AdminOutdate:
		r.outdate(c)
		return
	case AdminRepair:
		r.repair(c)
		return
	case AdminSuspendIO, AdminResumeIO:
		r.suspend(c)
		return
	case AdminAdjust:
		r.finish(c, r.adjust(c.Config))
		return
	default:
	}
	v := r.volume(c.Vol)
	if v == nil {
		r.reply(c.Token, state.UnknownError)
		return
	}
	switch c.Kind {
	case AdminDetach:
		v.detach(c)
	case AdminInvalidate:
		v.invalidate(c, state.StartingSyncT)
	case AdminInvalidateRemote:
		v.invalidate(c, state.StartingSyncS)
	case AdminPauseSync, AdminResumeSync:
		next := v.st
		next.UserIsp = c.Kind == AdminPauseSync
		r.finish(c, v.wish(next))
	case AdminNewCurrentUUID:
		v.newCurrentCommand(c)
	case AdminVerify:
		v.startVerify(c)
	case AdminStopVerify:
		v.stopVerify(c)
	case AdminResize:
		v.resizeCommand(c)
	default:
		r.reply(c.Token, state.NotSupported)
	}
}

func (r *Resource) connect(c command) {
	k := &r.conn
	if k.state != state.StandAlone {
		r.reply(c.Token, state.NothingToDo)
		return
	}
	if c.DiscardMyData && r.role() == state.Primary {
		r.reply(c.Token, state.TwoPrimaries)
		return
	}
	k.discardMyData, k.tentative = c.DiscardMyData, c.Tentative
	r.startConnecting()
	r.reply(c.Token, state.Success)
}

// role is the role of the node: Primary if any volume is, for they change it together.
func (r *Resource) role() state.Role {
	for _, v := range r.vols {
		if v.st.Role == state.Primary {
			return state.Primary
		}
	}
	return state.Secondary
}

// promote makes all volumes Primary, one after the other (spec 5.6).
func (r *Resource) promote(c command) {
	if c.next == 0 && !c.agreed && c.tries == 0 && r.conn.established() && r.conn.gotProtocol {
		r.ping() // a dead peer should be noticed now rather than later
	}
	if r.conn.ending() {
		r.later(c) // writes of the old connection are still on their way to the disk
		return
	}
	for ; c.next < len(r.vols); c.next++ {
		v := r.vols[c.next]
		if v.st.Role != state.Primary && !c.agreed {
			if !v.tryPromote(&c) {
				return
			}
		}
		c.agreed = false
		v.promoted(c.forced)
	}
	r.answerDurable(c.Token)
}

// tryPromote asks for the role. It returns false if the command waits or has failed.
func (v *volume) tryPromote(c *command) bool {
	if v.sizeInDoubt() && v.r.conn.established() {
		v.r.later(*c) // both nodes look at the roles to see whose new space is copied
		return false
	}
	mask, val := state.MaskRole, state.State{Role: state.Primary}.Word()
	_, result := v.check(v.st.Apply(mask, val))
	if result == state.NoUpToDateDisk && c.Force && v.st.Disk >= state.Inconsistent && v.st.Disk <= state.Consistent {
		mask, val = mask|state.MaskDisk, val|state.State{Disk: state.UpToDate}.Word()
		c.forced = true
	}
	if result == state.NoUpToDateDisk && c.peerOut && v.st.Disk == state.Consistent {
		mask, val = mask|state.MaskDisk, val|state.State{Disk: state.UpToDate}.Word()
	}
	if result == state.PrimaryNeedsOutdatedPeer && c.fenced && c.Force {
		mask, val = mask|state.MaskPeerDisk, val|state.State{PeerDisk: state.Outdated}.Word()
	}
	result, pending := v.propose(mask, val, *c)
	if pending {
		return false
	}
	if !result.OK() && v.r.fenceForPromotion(v, *c, result) {
		return false
	}
	if (result == state.TwoPrimaries || result == state.OtherVolumePeerPrimary) && v.r.mayResign(c) {
		return false
	}
	if !result.OK() {
		v.r.finish(*c, result)
		return false
	}
	return true
}

// mayResign has a promotion wait for the news that the peer is Secondary, which is on its way
// if somebody demoted it there just before (spec 5.6, step 2). It returns false when the
// peer has had the time to tell.
func (r *Resource) mayResign(c *command) bool {
	if c.until == 0 {
		c.until = r.now + tenths(r.cfg.PingTimeoutTenths+1)
	}
	if r.now >= c.until || len(r.commands) >= maxCommands {
		return false
	}
	r.commands = append(r.commands, *c)
	return true
}

// promoted records a promotion: a new generation if the peer does not take part in
// it, and the mark that this node is Primary. No write is taken before it is on
// disk (P04).
func (v *volume) promoted(forced bool) {
	d := v.disk
	if d == nil {
		// The peer has agreed, and may have heard since, in what was sent before that, that this
		// node is Secondary. It must know whose writes it is the only one to have.
		if v.st.Conn >= state.Connected {
			v.sendState()
		}
		return
	}
	v.r.conn.discardMyData = false
	if v.st.Conn < state.Connected || v.st.PeerDisk != state.UpToDate {
		// From here on this copy counts more than that of a Primary that has died. What that one
		// wrote last may be in the cache here.
		v.metaFlush(true)
	}
	alone := v.st.Conn < state.Connected || v.st.PeerDisk <= state.Failed
	if forced || d.sb.UUIDs.Bitmap() == 0 && alone {
		d.sb.UUIDs.NewCurrent(v.r.random(), true)
	}
	v.setCurrent(d.sb.UUIDs.Current())
	v.freeze()
	if v.st.Conn >= state.Connected {
		if forced {
			v.sendUUIDs(0)
		}
		v.sendState()
	}
}

// demote makes all volumes Secondary. Before the mark of a Primary leaves the disk,
// everything that it protects must be settled: no request in progress, no
// epoch unconfirmed, the data flushed and the bitmap written (B12).
func (r *Resource) demote(c command) {
	if r.role() != state.Primary {
		r.reply(c.Token, state.NothingToDo)
		return
	}
	r.tl.closeEpoch(r)
	for _, v := range r.vols {
		if v.frozen > 0 || v.sizeInDoubt() {
			r.later(c)
			return
		}
	}
	if r.ios.inUse() > 0 || len(r.tl.closed) > 0 {
		c.tries--
		r.later(c)
		return
	}
	for _, v := range r.vols {
		next := v.st
		next.Role = state.Secondary
		if _, result := v.check(next); !result.OK() {
			r.finish(c, result)
			return
		}
	}
	r.begin(c.Token)
	for _, v := range r.vols {
		v.demoting(c.Token)
	}
}

// demoting is the first half for one volume: the state changes at once, the mark on
// disk stays until the data and the bitmap are durable. The caller has seen that nothing
// speaks against it, so it is a fact, also in the middle of a handshake.
func (v *volume) demoting(token uint64) {
	next := v.st
	next.Role = state.Secondary
	if v.disk == nil || v.disk.metaBad {
		v.force(next)
		v.sendDemotion()
		v.r.settled(token, state.Success)
		return
	}
	v.disk.keepPrimary = true
	v.force(next)
	v.sendDemotion()
	v.metaFlush(true)
	v.afterPages(finishDemote, token)
}

func (v *volume) sendDemotion() {
	if v.st.Conn >= state.Connected {
		v.sendState()
	}
}

// demoted is the second half.
func (v *volume) demoted(token uint64) {
	v.dropPrimaryMark()
	v.afterSuper(answerDemote, token)
}

// dropPrimaryMark takes the mark of a Primary off the superblock, now that data and
// bitmap are durable.
func (v *volume) dropPrimaryMark() {
	d := v.disk
	if d == nil || d.failed || v.keepsBooks() {
		return
	}
	d.keepPrimary = false
	if v.st.Role == state.Primary {
		return
	}
	d.dropPrimary = true
	v.setCurrent(d.sb.UUIDs.Current())
	v.updateFlags()
	d.dropPrimary = false
}

// demoteResult says whether what this node wrote as Primary is safe on its disk.
func (v *volume) demoteResult() state.Result {
	if d := v.disk; d != nil && (d.failed || d.metaBad) {
		return state.NoUpToDateDisk
	}
	return state.Success
}

func (r *Resource) outdate(c command) {
	for _, v := range r.vols {
		if v.st.Conn >= state.Connected { // the rules would silently turn it into UpToDate again
			r.reply(c.Token, state.ConnectedOutdates)
			return
		}
		next := v.st
		next.Disk = state.Outdated
		if result := v.wish(next); !result.OK() {
			r.finish(c, result)
			return
		}
	}
	r.answerDurable(c.Token)
}

func (r *Resource) suspend(c command) {
	for _, v := range r.vols {
		next := v.st
		next.Susp = c.Kind == AdminSuspendIO
		if c.Kind == AdminResumeIO {
			next.SuspFen, next.SuspNod = false, false
		}
		v.force(next)
	}
	r.reply(c.Token, state.Success)
}

// detach takes the disk of a volume out of service with the peer's consent.
func (v *volume) detach(c command) {
	if v.disk == nil || v.st.Disk == state.Diskless {
		v.r.reply(c.Token, state.IsDiskless)
		return
	}
	if c.Force {
		v.forceDetach(c.Token)
		return
	}
	if v.disk.failed {
		v.detachTokens = append(v.detachTokens, c.Token)
		return
	}
	if v.st.Conn == state.Ahead { // what the peer lacks would be nowhere
		v.r.reply(c.Token, state.NoUpToDateDisk)
		return
	}
	result, pending := v.propose(state.MaskDisk, state.State{Disk: state.Failed}.Word(), c)
	switch {
	case pending:
	case !result.OK():
		v.r.finish(c, result)
	default:
		v.detachTokens = append(v.detachTokens, c.Token)
	}
}

// detachedReply answers the commands that wait for a volume to be Diskless.
func (r *Resource) detachedReply(v *volume) {
	for _, t := range v.detachTokens {
		r.reply(t, state.Success)
	}
	v.detachTokens = nil
}

// invalidate declares one of the copies worthless: StartingSyncT the own one,
// StartingSyncS the peer's.
func (v *volume) invalidate(c command, conn state.Conn) {
	if c.agreed {
		v.r.reply(c.Token, state.Success)
		return
	}
	if v.sizeInDoubt() {
		v.r.later(c)
		return
	}
	if v.st.Conn < state.Connected && v.disk != nil {
		v.invalidateAlone(c, conn)
		return
	}
	result, pending := v.propose(state.MaskConn, state.State{Conn: conn}.Word(), c)
	if !pending {
		v.r.finish(c, result)
	}
}

// invalidateAlone is invalidate without a connection: remembered by bits for the next
// one.
func (v *volume) invalidateAlone(c command, conn state.Conn) {
	next := v.st
	switch {
	case conn == state.StartingSyncT && v.st.Role == state.Secondary && v.st.Conn == state.StandAlone:
		next.Disk = state.Inconsistent
	case conn == state.StartingSyncS && v.st.Role == state.Primary && v.st.Conn == state.StandAlone:
		next.PeerDisk = state.Inconsistent
	default:
		v.r.reply(c.Token, state.NeedConnection)
		return
	}
	v.force(next)
	v.setAllBits()
	v.afterSuper(answer, c.Token)
}
