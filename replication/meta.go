package replication

import (
	"github.com/replblk/replblk/bitmap"
	"github.com/replblk/replblk/metadata"
	"github.com/replblk/replblk/replication/state"
)

// An IOID is a class and an index within it.
const (
	classRequest  = iota + 1 // local part of an application request: ioID
	classPeer                // a request of the peer: slot
	classSuper               // superblock of a volume: volume index
	classAL                  // activity log transaction: volume index
	classPages               // bitmap pages: volume index
	classBarrier             // flush for a barrier of the peer: volume index
	classRSFlush             // flush of resynced blocks: volume index
	classRSSource            // flush before the first read of a resync: volume index
	classDetach              // last flush of a disk: volume index
	classFence               // the fence-peer handler
	classVeto                // a handler that may prevent a resync: volume index

	classShift = 24
	indexMask  = 1<<classShift - 1
)

func ioFor(class int, index uint32) IOID { return IOID(class)<<classShift | IOID(index) }

func (id IOID) class() int    { return int(id >> classShift) }
func (id IOID) index() uint32 { return uint32(id & indexMask) }

// afterMeta says what to do when the superblock, or the bitmap, is durable.
type afterMeta uint8

const (
	thaw            afterMeta = iota + 1 // one reason less to hold requests
	answer                               // an operator's command has succeeded: arg is its token
	answerJoint                          // the same of a command about all volumes
	announce                             // our new generation is durable: tell the peer
	enterSource                          // our sync UUID is durable: become SyncSource
	enterTarget                          // the peer's sync UUID is durable: become SyncTarget
	finishTarget                         // the resync's result is durable: tell the peer
	dropPrimaryMark                      // the bitmap is durable: drop the Primary mark
	finishDemote                         // the same, for an operator's command
	answerDemote                         // the mark is gone: arg is the token
	finishDetach                         // the bitmap is durable: let go of the disk
	clearFullSync                        // the whole bitmap is durable
	sealUUIDs                            // the bitmap of a finished target is durable
	finishSource                         // the bitmap of a finished source is durable
	saveBeforeMove                       // the metadata is durable as it is: move it
	sealSize                             // the bitmap of a larger volume is durable
	finishResize                         // the new size is durable
	logPeerWrite                         // the mark of a Primary is durable: log a write of the peer, arg is its slot
)

// resync says whether it is a step of a resync: its argument is volume.era.
func (do afterMeta) resync() bool {
	return do == enterSource || do == enterTarget || do == finishTarget || do == sealUUIDs || do == finishSource
}

type metaWaiter struct {
	gen uint64
	do  afterMeta
	arg uint64
}

// superChanged records a change of the superblock in memory. It is written at
// the end of the Step.
func (v *volume) superChanged() {
	if v.disk != nil {
		v.disk.sbGen++
	}
}

// afterSuper runs do when everything changed in the superblock so far is
// durable; at once if the volume has no metadata to write any more, because
// then nothing can be licensed by it and nothing must wait for it.
func (v *volume) afterSuper(do afterMeta, arg uint64) {
	d := v.disk
	if d == nil || d.metaBad || d.sbDurable >= d.sbGen {
		v.superDone(do, arg)
		return
	}
	d.waiters = append(d.waiters, metaWaiter{d.sbGen, do, arg})
}

// flags computes the superblock flags that follow from the state (spec 2.3).
func (v *volume) flags() metadata.Flags {
	s, f := v.st, v.disk.sb.Flags&(metadata.FullSync|metadata.ALDisabled)
	set := func(on bool, m metadata.Flags) {
		if on {
			f |= m
		}
	}
	if v.rs.sealing {
		s.Disk, s.PeerDisk = state.UpToDate, state.UpToDate
	}
	set(s.Disk > state.Inconsistent, metadata.Consistent)
	set(s.Role == state.Primary || v.disk.keepPrimary || s.PeerDisk < state.Inconsistent && s.Peer == state.Primary, metadata.PrimaryInd)
	set(s.Conn > state.WFReportParams, metadata.ConnectedInd)
	set(s.Disk > state.Outdated, metadata.WasUpToDate)
	set(s.PeerDisk == state.Inconsistent && !v.targetMayBeGood() || s.PeerDisk == state.Outdated, metadata.PeerOutDated)
	set(v.crashed && !v.rs.sealing, metadata.CrashedPrimary) // what a target has got replaces what it was
	set(!v.cfg.ALUpdates, metadata.ALDisabled)
	return f
}

// updateFlags follows a state change. While the disk is Negotiating or on its
// way out, the flags on disk stay as they were: they describe the data, and
// nothing is known about it that was not known before.
func (v *volume) updateFlags() {
	d := v.disk
	if d == nil || v.st.Disk < state.Inconsistent {
		return
	}
	f := v.flags()
	if d.sb.Flags.Has(metadata.PrimaryInd) && !f.Has(metadata.PrimaryInd) && !d.dropPrimary {
		// The activity log protects what is in the disk's cache, and bits that are
		// not on disk, as long as the mark is there: settle both first (B12).
		f |= metadata.PrimaryInd
		if !d.keepPrimary {
			d.keepPrimary = true
			v.settlePrimaryMark()
		}
	}
	if f != d.sb.Flags {
		d.sb.Flags = f
		d.sbGen++
	}
}

// settlePrimaryMark takes the mark of a Primary off the disk when data and bitmap are
// durable.
func (v *volume) settlePrimaryMark() {
	v.metaFlush(true)
	v.afterPages(dropPrimaryMark, 0)
}

// writeSuper puts the superblock on its way. One write is in flight at a time;
// changes made meanwhile go into the next.
func (v *volume) writeSuper() {
	d := v.disk
	if d.metaBad || d.sbQueued != 0 || d.sbDurable >= d.sbGen {
		return
	}
	d.sbQueued = d.sbGen
	sb := d.sb
	sb.Unclean = true // until the log has been replayed after a detach or a crash
	sb.Flags &^= metadata.ALClean
	off := len(v.r.fx.Buf)
	v.r.fx.Buf = sb.AppendTo(v.r.fx.Buf)
	v.metaWrite(d.layout.Superblock, off)
	v.metaFlush(false)
	v.metaNotify(classSuper)
}

// metaWrite emits one write of the arena from off to its end.
func (v *volume) metaWrite(sector uint64, off int) {
	e := v.r.fx.add(FxMetaWrite)
	e.Vol, e.Sector = v.num, sector
	e.Off, e.Len = uint32(off), uint32(len(v.r.fx.Buf)-off)
}

func (v *volume) metaFlush(data bool) {
	e := v.r.fx.add(FxMetaFlush)
	e.Vol, e.Data = v.num, data
}

func (v *volume) metaNotify(class int) {
	e := v.r.fx.add(FxMetaNotify)
	e.Vol, e.IO = v.num, ioFor(class, v.index())
	v.disk.meta.begin(v.r.ticks)
}

func (v *volume) index() uint32 {
	for i, o := range v.r.vols {
		if o == v {
			return uint32(i)
		}
	}
	return 0
}

// metaDone handles the end of a metadata operation.
func (r *Resource) metaDone(ev *Event) {
	if int(ev.IO.index()) >= len(r.vols) {
		return
	}
	v := r.vols[ev.IO.index()]
	if v.disk == nil {
		return
	}
	ok := ev.Err == DiskOK
	v.disk.meta.end(r.ticks)
	switch ev.IO.class() {
	case classSuper:
		v.disk.sbDurable, v.disk.sbQueued = v.disk.sbQueued, 0
	case classAL:
		v.alWritten(ok)
	case classPages:
		v.pagesWritten(ok)
	}
	switch {
	case ev.Err == DiskAborted: // everybody knows
	case !ok:
		v.failMeta()
	default:
		v.runWaiters()
	}
}

// runWaiters runs what has become durable. Running one may add others.
func (v *volume) runWaiters() {
	for d := v.disk; d != nil && len(d.waiters) > 0 && (d.metaBad || d.waiters[0].gen <= d.sbDurable); d = v.disk {
		w := d.waiters[0]
		d.waiters = d.waiters[1:]
		v.superDone(w.do, w.arg)
	}
}

func (v *volume) superDone(do afterMeta, arg uint64) {
	if do.resync() && arg != v.era {
		return // the connection was lost while it waited, and there may be a new one
	}
	switch do {
	case thaw:
		v.thaw()
	case answer:
		v.r.reply(arg, state.Success)
	case answerJoint:
		v.r.settled(arg, state.Success)
	case announce:
		if v.st.Conn >= state.Connected {
			v.sendUUIDs(0)
		}
	case enterSource:
		v.becomeSource()
	case enterTarget:
		v.becomeTarget()
	case finishTarget:
		v.targetFinished()
	case answerDemote:
		v.r.settled(arg, v.demoteResult())
	case saveBeforeMove:
		v.moveMeta()
	case finishResize:
		v.sizeDurable()
	case logPeerWrite:
		v.r.logPeerWrite(uint32(arg))
	case sealSize, dropPrimaryMark, finishDemote, finishDetach, clearFullSync, sealUUIDs, finishSource:
		// these wait for bitmap pages, see pagesDone
	}
}

// failMeta handles an error of the metadata device: always a failed disk,
// whatever on-io-error says, because nothing can be promised any more.
func (v *volume) failMeta() {
	v.r.note(v, NoteMetaError)
	v.dropMeta()
}

// dropMeta does without the metadata from now on. What waited for it goes on.
func (v *volume) dropMeta() {
	v.disk.metaBad = true
	v.failDisk()
	v.disk.pass = pagePass{waiters: v.disk.pass.waiters}
	v.pagesDone()
	v.runWaiters()
}

// pagePass is one walk over the dirty pages of the bitmap.
type pagePass struct {
	active   bool
	again    bool // something asked for a pass after this one had started
	next     uint32
	inflight []uint32
	waiters  []metaWaiter // run at the end of the pass; those of the next pass have gen 1
}

const pagesPerBatch = 64

// writePages starts to write all dirty bitmap pages.
func (v *volume) writePages() {
	d := v.disk
	if d == nil || d.metaBad || d.bm == nil {
		return
	}
	if d.pass.active {
		d.pass.again = true
		return
	}
	d.pass.active, d.pass.next = true, 0
}

// afterPages runs do when every page that is dirty now is durable.
func (v *volume) afterPages(do afterMeta, arg uint64) {
	d := v.disk
	if d == nil || d.metaBad || d.bm == nil {
		v.pageWaiterDone(do, arg)
		return
	}
	v.writePages()
	w := metaWaiter{do: do, arg: arg}
	if d.pass.again {
		w.gen = 1
	}
	d.pass.waiters = append(d.pass.waiters, w)
}

// pageStep writes the next batch of the pass, or ends it.
func (v *volume) pageStep() {
	d := v.disk
	if !d.pass.active || d.metaBad || len(d.pass.inflight) > 0 {
		return
	}
	for len(d.pass.inflight) < pagesPerBatch {
		p, ok := d.bm.NextDirty(d.pass.next)
		if !ok {
			break
		}
		v.writePage(p)
		d.pass.inflight = append(d.pass.inflight, p)
		d.pass.next = p + 1
	}
	if len(d.pass.inflight) == 0 {
		v.pagesDone()
		return
	}
	v.metaFlush(false)
	v.metaNotify(classPages)
}

// writePage emits the write of page p, which must be dirty and not being written.
func (v *volume) writePage(p uint32) {
	off := len(v.r.fx.Buf)
	buf, ok := v.disk.bm.Snapshot(v.r.fx.Buf, p)
	if !ok {
		return
	}
	v.r.fx.Buf = buf
	v.metaWrite(v.disk.layout.Bitmap+uint64(p)*(bitmap.PageSize/512), off)
}

func (v *volume) pagesWritten(ok bool) {
	d := v.disk
	for _, p := range d.pass.inflight {
		if ok {
			d.bm.MarkWritten(p)
		} else {
			d.bm.MarkDirty(p)
		}
	}
	d.pass.inflight = d.pass.inflight[:0]
}

// pagesDone ends the pass.
func (v *volume) pagesDone() {
	d := v.disk
	list := d.pass.waiters
	d.pass.waiters = nil
	again := d.pass.again
	d.pass.active, d.pass.again = false, false
	if again {
		v.writePages()
	}
	for _, w := range list {
		if w.gen == 1 && v.disk != nil && v.disk.pass.active {
			w.gen = 0
			v.disk.pass.waiters = append(v.disk.pass.waiters, w)
			continue
		}
		v.pageWaiterDone(w.do, w.arg)
	}
}

func (v *volume) pageWaiterDone(do afterMeta, arg uint64) {
	if do.resync() && arg != v.era {
		return
	}
	switch do {
	case dropPrimaryMark:
		v.dropPrimaryMark()
	case finishDemote:
		v.demoted(arg)
	case finishDetach:
		v.detached()
	case sealUUIDs:
		v.sealUUIDs()
	case finishSource:
		v.sourceFinished()
	case saveBeforeMove:
		v.afterSuper(saveBeforeMove, 0)
	case sealSize:
		v.sealSize()
	case clearFullSync:
		if v.disk != nil {
			v.disk.sb.Flags &^= metadata.FullSync
			v.superChanged()
		}
	default:
	}
}

// pageTick writes bitmap pages now and then while a resync clears bits, so that
// a crash does not repeat it all.
func (v *volume) pageTick() {
	const every = 2 * Second
	if v.st.Conn.Resync() && v.r.now-v.rs.lastPages > every {
		v.rs.lastPages = v.r.now
		v.writePages()
	}
}

// setAllBits makes every block out of sync, for a full sync. FULL_SYNC stands for
// the bitmap until all of it is written.
func (v *volume) setAllBits() {
	d := v.disk
	d.bm.SetAll()
	d.bm.MarkAllDirty()
	d.sb.Flags |= metadata.FullSync
	v.superChanged()
	v.afterPages(clearFullSync, 0)
}
