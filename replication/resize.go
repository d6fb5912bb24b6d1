package replication

import (
	"github.com/replblk/replblk/bitmap"
	"github.com/replblk/replblk/metadata"
	"github.com/replblk/replblk/replication/state"
	"github.com/replblk/replblk/replication/wire"
)

// resizeStage is how far a change of the size has got.
type resizeStage uint8

const (
	resizeNone      resizeStage = iota
	resizeMeasuring             // the driver looks how large the device is
	resizeDraining              // what is in progress on the volume ends, new requests are held
	resizeSaving                // the metadata, as it is, becomes durable before it moves
	resizeMoving                // the driver moves it; nothing is written to it
	resizeSealing               // bitmap and size become durable
	resizeTrimming              // the volume has shrunk, the bitmap follows
)

// resizing is a change of a volume's size, or of the place of its metadata, in progress
// (spec 7.8). Owned by volume.
//
// No write may reach new space before the size is on disk: after a crash the activity log
// would name extents beyond the end, and be ignored. So requests are held, and so
// are the peer's writes from the arrival of its P_SIZES on: it may have grown already.
type resizing struct {
	stage  resizeStage
	ours   bool   // an operator of this node asked for it
	answer bool   // the peer wants to hear of the outcome
	token  uint64 // of the command
	force  bool   // the operator knows that it shrinks
	alone  bool   // the operator knows that the peer has room
	user   uint64 // size asked for, 0: as much as possible
	flags  wire.SizesFlags

	// The source of the new space is decided by the roles at the moment when the peer
	// decides, too: when its answer arrives, although this node has still to grow.
	decided, source bool
	most            uint64 // what the peer's answer says that it has, 0: nothing

	device Device
	size   uint64 // agreed
}

// resizeCommand is the operator's "resize".
func (v *volume) resizeCommand(c command) {
	s := v.st
	switch {
	case v.disk == nil || s.Disk < state.Inconsistent:
		v.r.reply(c.Token, state.IsDiskless)
	case v.resyncDue():
		v.r.reply(c.Token, state.ResizeDuringResync)
	case s.Role != state.Primary && s.Peer != state.Primary:
		v.r.reply(c.Token, state.ResizeNeedsPrimary)
	case v.sizeInDoubt() || v.asksFor(state.MaskConn|state.MaskRole) || s.Conn < state.Connected && v.r.conn.phase != phaseDown:
		// No size may change between P_SIZES and the end of the handshake, nor when the peer has
		// maybe agreed to a resync or a verify already, for it takes no size then; nor to a role,
		// which says whose new space is copied.
		v.r.later(c)
	default:
		z := resizing{ours: true, token: c.Token, force: c.Force, alone: c.AssumePeer, user: c.Sectors}
		if c.AssumeClean {
			z.flags |= wire.SizesNoResync
		}
		if c.AssumePeer {
			z.flags |= wire.SizesForced
		}
		v.startResize(z)
	}
}

// peerResizes handles P_SIZES on an established connection: the peer's disk or size has
// changed, or it wants to know ours.
func (v *volume) peerResizes(p wire.Sizes) {
	if p.Current != 0 && !v.asksFor(state.MaskRole) {
		v.asked = false
	}
	if v.sizesWait(p) {
		v.sizesLater = &p
		v.answerFirst()
		return
	}
	size := agreeSize(p.Backing, v.disk.limit(), v.disk.sb.LASizeSectors, p.User)
	if p.Current == v.size || p.Current != 0 && size == v.size {
		v.userSize = p.User
		if p.Current == v.size {
			v.answerLast()
			v.syncNewSpace(v.sourceOfGrowth())
		}
		return
	}
	v.startResize(resizing{answer: true, user: p.User, flags: p.Flags,
		decided: p.Current != 0, source: v.sourceOfGrowth(), most: p.Current})
}

// sizesWait says whether P_SIZES of the peer are looked at later:
//
//   - A change of the size is in progress already; the next begins from its result.
//   - A resync runs, or is about to. The peer takes no new size before it has ended.
//   - The peer asks what it has been asked itself (asksCross).
//   - The peer has been asked to agree to a new role. If it has, it saw this node in that role
//     already when it decided whose new space is copied.
func (v *volume) sizesWait(p wire.Sizes) bool {
	return v.rz.stage != resizeNone || v.resyncDue() || v.asksCross(p) || v.asksFor(state.MaskRole)
}

// asksCross says whether the peer asks for our size while it has still to answer the same
// question. Only the source of new space answers then. If both did, each for the room that
// the other had when it asked, one would wait for a resync of less than the other copies.
func (v *volume) asksCross(p wire.Sizes) bool { return p.Current == 0 && v.asked }

// answerFirst is what the source does about it: it says what size it has, and looks later
// whether there is more room. It would have to wait for its writes to end, and those to space
// that the peer does not know yet wait there for this answer.
func (v *volume) answerFirst() {
	if p := v.sizesLater; p != nil && v.asksCross(*p) && v.sourceOfGrowth() {
		v.sendSizes(v.askedAs)
	}
}

// answerLast is what the other node does when it has its own answer, and has grown as far already, so
// that nothing but the new space is left to do: the source begins when it has been answered too.
func (v *volume) answerLast() {
	if p := v.sizesLater; p != nil && p.Current == 0 && v.grew && !v.sourceOfGrowth() {
		v.sendSizes(p.Flags)
	}
}

func (v *volume) startResize(z resizing) {
	v.rz = z
	v.rz.stage = resizeMeasuring
	v.r.fx.add(FxMeasure).Vol = v.num
}

// deviceMeasured goes on when the driver knows how large the device is.
func (r *Resource) deviceMeasured(ev *Event) {
	v := r.volume(ev.Vol)
	if v == nil || v.rz.stage > resizeMeasuring || v.rz.stage == resizeNone && (ev.Err != DiskOK || v.r.conn.phase != phaseDown || v.disk == nil) {
		return
	}
	z := &v.rz
	z.stage = resizeMeasuring
	if !z.ours && !z.answer { // only the device is news
		z.user = v.userSize
	}
	if !v.inService() || ev.Err != DiskOK {
		v.endResize(state.NoLocalDisk)
		return
	}
	z.device = *ev.Device
	limit := min(z.device.BackingSectors, z.device.Layout.DataSectors)
	peer := uint64(0)
	if v.st.Conn >= state.Connected {
		peer = v.peerSectors
	} else if z.alone {
		peer = limit
	}
	z.size = agreeSize(peer, limit, v.disk.sb.LASizeSectors, z.user)
	if z.most >= v.size && z.most != 0 { // if there is more room now, another resize will take it
		z.size = min(z.size, z.most)
	}
	if refusal := v.judgeResize(limit); !refusal.OK() {
		v.endResize(refusal)
		return
	}
	if z.size == v.size && !v.disk.layout.Moved(z.device.Layout) {
		v.adoptDevice()
		v.resized()
		return
	}
	z.stage = resizeDraining
	v.frozen++
}

// judgeResize says whether the size that was agreed on may be taken.
func (v *volume) judgeResize(limit uint64) state.Result {
	z := &v.rz
	switch {
	case limit < v.size && z.size >= limit || z.ours && z.user > limit:
		return state.DiskTooSmall
	case z.size >= v.size:
		return state.Success
	case z.ours && (!z.force || z.user == 0):
		return state.ImplicitShrink
	case !z.ours && v.refusesShrink(z.size):
		return state.ImplicitShrink
	}
	return state.Success
}

// refusesShrink ends the connection with a peer that would cut off data which is in use
// here.
func (v *volume) refusesShrink(size uint64) bool {
	s := v.st
	if size >= v.size || s.Role != state.Primary && (s.Disk < state.Outdated || s.Conn >= state.Connected && s.PeerDisk != state.Diskless) {
		return false
	}
	v.r.note(v, NoteShrink)
	v.r.part(NoteNone)
	return true
}

// resizeStep goes on when nothing is in progress on the volume any more.
func (v *volume) resizeStep() {
	z := &v.rz
	if p := v.sizesLater; p != nil && v.st.Conn == state.Connected && v.inService() && !v.sizesWait(*p) {
		v.sizesLater = nil
		v.peerResizes(*p)
	}
	if z.stage == resizeNone || z.stage == resizeMeasuring || z.stage == resizeMoving {
		return
	}
	d := v.disk
	if d == nil || d.failed {
		v.endResize(state.NoLocalDisk)
		return
	}
	switch {
	case z.stage == resizeTrimming && v.metaAtRest():
		d.bm.Resize(bitmap.BitsFor(z.size), false)
		v.writePages()
		v.resized()
	case z.stage == resizeDraining && v.st.Conn > state.Connected: // a late attach came first
		v.postponeResize()
	case z.stage != resizeDraining || !v.quiet():
	case d.layout.Moved(z.device.Layout):
		z.stage = resizeSaving
		v.afterPages(saveBeforeMove, 0)
	default:
		v.adoptSize()
	}
}

// postponeResize gives a change of the size up for the time of a resync.
func (v *volume) postponeResize() {
	if z := &v.rz; z.answer {
		v.sizesLater = &wire.Sizes{Backing: v.peerSectors, User: z.user, Flags: z.flags}
	}
	v.endResize(state.ResizeDuringResync)
}

// resizes says whether the size of any volume is being changed.
func (r *Resource) resizes() bool {
	for _, v := range r.vols {
		if v.rz.stage != resizeNone {
			return true
		}
	}
	return false
}

// resyncDue says whether a resync runs, or is about to: the peer takes no new size before it
// has ended, and a write to space that it does not know would be a breach of the protocol.
func (v *volume) resyncDue() bool { return v.st.Conn > state.Connected || v.aboutToBeSource() }

// sizeInDoubt says whether the size is being changed, or the peer has still to say what it
// makes of a change.
func (v *volume) sizeInDoubt() bool {
	return v.rz.stage != resizeNone || v.asked && v.st.Conn >= state.Connected
}

// quiet says whether no write is in progress on the volume.
func (v *volume) quiet() bool {
	return v.st.Conn <= state.Connected && len(v.active) == 0 && len(v.waiting) == 0 && len(v.rs.writing) == 0 && v.metaAtRest()
}

// metaAtRest says whether nothing is on its way to the bitmap or the activity log.
func (v *volume) metaAtRest() bool {
	l := &v.disk.al
	return !v.disk.pass.active && len(v.disk.pass.inflight) == 0 && !l.writing && !l.built && l.set.Queued() == 0
}

// moveMeta runs when the metadata is durable as it is.
func (v *volume) moveMeta() {
	z, d := &v.rz, v.disk
	if z.stage != resizeSaving || d == nil || d.failed {
		return
	}
	if d.sbQueued != 0 || d.sbDurable < d.sbGen || !v.quiet() {
		z.stage = resizeDraining // something has changed meanwhile
		return
	}
	z.stage = resizeMoving
	v.r.fx.add(FxMove).Vol = v.num
}

// metaMoved goes on when the driver has moved the metadata. If it could not, nobody knows
// what is where, so the disk has failed.
func (r *Resource) metaMoved(ev *Event) {
	v := r.volume(ev.Vol)
	if v == nil || v.rz.stage != resizeMoving || v.disk == nil {
		return
	}
	v.rz.stage = resizeDraining
	if ev.Err != DiskOK {
		v.r.note(v, NoteMoveFailed)
		v.failMeta()
		return
	}
	v.adoptDevice()
	if !v.disk.failed {
		v.adoptSize()
	}
}

// adoptDevice takes over what the driver has found.
func (v *volume) adoptDevice() {
	d := v.disk
	d.info.BackingSectors, d.layout = v.rz.device.BackingSectors, v.rz.device.Layout
	before := d.sb
	if d.sb.SetLayout(d.layout); d.sb != before {
		v.superChanged()
	}
}

// adoptSize makes the new size durable. When the volume grows the bits of new space are on
// disk first: until the superblock says so, they mean nothing.
func (v *volume) adoptSize() {
	z, d := &v.rz, v.disk
	v.adoptDevice()
	z.stage = resizeSealing
	if z.size > v.size {
		v.growBitmap(v.size, z.size, z.flags&wire.SizesNoResync == 0)
		v.afterPages(sealSize, 0)
		return
	}
	d.sb.LASizeSectors = z.size
	v.superChanged()
	v.afterSuper(finishResize, 0)
}

// growBitmap makes room for the bits of a volume that grows; dirty sets them, with the one
// of a block that was incomplete.
func (v *volume) growBitmap(from, to uint64, dirty bool) {
	bm := v.disk.bm
	bm.Resize(bitmap.BitsFor(to), dirty)
	if dirty {
		bm.SetRange(from/bitmap.SectorsPerBit, bitmap.BitsFor(to))
	}
	bm.MarkAllDirty()
}

// sealSize runs when the larger bitmap is durable.
func (v *volume) sealSize() {
	if v.rz.stage != resizeSealing || !v.inService() {
		return
	}
	v.disk.sb.LASizeSectors = v.rz.size
	v.superChanged()
	v.afterSuper(finishResize, 0)
}

// sizeDurable runs when the superblock has the new size.
func (v *volume) sizeDurable() {
	z := &v.rz
	if z.stage != resizeSealing || !v.inService() {
		return
	}
	if bitmap.BitsFor(z.size) < v.disk.bm.Bits() {
		z.stage = resizeTrimming
		v.r.restless = true
		return
	}
	v.resized()
}

// resized tells everybody: from here on the new size holds.
func (v *volume) resized() {
	z := v.rz
	grew := z.size > v.size
	v.userSize = z.user
	if z.size != v.size {
		e := v.r.note(v, NoteResized)
		e.Sector = z.size
	}
	changed := z.size != v.size
	v.setSize(z.size)
	v.endResize(state.Success)
	if v.st.Conn < state.Connected || !v.r.canSend() {
		return
	}
	v.grew = v.grew || grew && z.flags&wire.SizesNoResync == 0
	v.fresh.grew = v.fresh.grew || v.grew // in case that the connection breaks before the resync
	switch {
	case z.ours && v.st.PeerDisk >= state.Inconsistent: // a diskless peer would take what we have room for
		v.sendUUIDs(0)
		v.sendSizesAs(0, z.flags) // asks for an answer, and the new space is synced after it
		v.asked, v.askedAs = true, z.flags
		v.answerFirst()
	case z.ours || z.answer || changed:
		v.sendSizes(z.flags)
		if !z.decided {
			z.source = v.sourceOfGrowth()
		}
		v.syncNewSpace(z.source)
	}
}

// endResize lets everything go on.
func (v *volume) endResize(result state.Result) {
	z := v.rz
	v.rz = resizing{}
	if z.stage > resizeMeasuring {
		v.thaw()
	}
	v.r.restless = true
	v.r.reply(z.token, result)
	if !result.OK() && z.answer && v.sizesLater == nil && v.st.Conn >= state.Connected && v.disk != nil {
		v.sendSizes(z.flags)
	}
}

// sourceOfGrowth says whether this node is the one from which new space is copied: the
// Primary, or the node that resolves conflicts (spec 9.6).
func (v *volume) sourceOfGrowth() bool {
	if s := v.st; s.Role != s.Peer {
		return s.Role == state.Primary
	}
	return v.r.conn.resolve
}

// syncNewSpace starts the resync of what a volume has grown by while it was connected.
func (v *volume) syncNewSpace(source bool) {
	if !v.grew || v.st.Conn != state.Connected || !v.inService() {
		return
	}
	v.grew = false
	switch s := v.st; {
	case !bothUpToDate(s): // a resync of everything is due anyway
	case source:
		v.xfer.grown = true
		v.makeSyncUUID()
	default:
		v.xfer.grown = true
		s.Conn = state.WFSyncUUID
		v.force(s)
		v.useEarlyUUID()
	}
}

// lacksNewSpaceOnly says whether this node waits for the sync UUID of new space. Nothing was
// overwritten yet, and if the source has lost its disk this is the only good copy.
func (v *volume) lacksNewSpaceOnly() bool {
	return v.st.Conn == state.WFSyncUUID && v.st.Disk == state.Outdated && v.xfer.grown
}

// useEarlyUUID takes the sync UUID that came before it was expected.
func (v *volume) useEarlyUUID() {
	if uuid := v.xfer.early; uuid != 0 {
		v.xfer.early = 0
		v.syncUUIDArrived(uuid)
	}
}

// growing says whether the size is being changed, or will be when the peer has answered a
// question that both have asked, or at the end of a resync, which a source before version 96 finds by
// itself, and first. It may have grown already.
func (v *volume) growing() bool {
	return v.rz.stage != resizeNone || v.sizesLater != nil && (v.asksCross(*v.sizesLater) || v.st.Conn.ResyncTarget())
}

// resizeRoom says whether a write of the peer may lie beyond the end for now.
func (v *volume) resizeRoom(sector uint64, size uint32) bool {
	return v.growing() && size != 0 && size%512 == 0 && sector < metadata.MaxSectors
}
