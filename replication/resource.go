package replication

import (
	"github.com/replblk/replblk/bitmap"
	"github.com/replblk/replblk/metadata"
	"github.com/replblk/replblk/replication/state"
	"github.com/replblk/replblk/replication/wire"
)

// Resource is the protocol state of one resource on one node. Owned by whoever
// calls Step; nothing in it is safe for concurrent use.
type Resource struct {
	cfg Config
	now Time     // of the event of this Step
	fx  *Effects // of this Step, nil between two

	vols  []*volume   // in the order of the configuration, which the index in an IOID counts
	conn  connection  // to the peer, shared by all volumes
	ios   ioTable     // requests of the application
	parts pieceTable  // of these, the ones that were cut
	tl    transferLog // of these, the writes that the peer has not confirmed
	peer  peerSide    // requests of the peer
	fence fence

	entropy []uint64 // random words of the last ticks, at most maxEntropy
	mix     uint64   // state of the mixer that makes words unique when these are used up

	change   *change   // our cluster-wide state change that the peer is judging
	joints   []joint   // commands that wait for every volume, in the order in which they came
	commands []command // operator's commands that wait for a transient state to end
	ticked   Time      // the last EvTick
	ticks    uint64    // how many there were
	restless bool      // a state changed in this Step: waiting things get another try
}

// volume is one volume of a resource.
type volume struct {
	r   *Resource
	num uint16 // its number in the configuration and on the wire
	cfg VolumeConfig

	st  state.State       // changed by apply alone
	neg state.Negotiation // of a disk that is Negotiating: what it is worth by itself

	size         uint64      // sectors of the replicated volume, 0 if not known yet
	userSize     uint64      // sectors asked for by either operator, 0: as much as possible
	disk         *disk       // nil when Diskless
	exposed      uint64      // current UUID of the data that the application has seen
	unseen       bool        // the peer took writes that the own disk lacks, and exposed may not say so yet
	heir         bool        // the peer may have begun a generation based on exposed and not have told us
	outrun       uint64      // current UUID of an own disk that failed while the peer's went on, until another one is seen
	passed       uint64      // current UUID of an own disk without which the peer went on, until both are UpToDate again
	faulted      bool        // the disk went out of service without an operator who took it away in good order, until then
	heirless     int         // ticks that I/O may still wait for that, see heir.go
	crashed      bool        // this node went down as Primary and the copies have not been equal since
	peerDetaches bool        // the peer asked to detach its disk in good order
	considered   bool        // "consider resync" (spec 7.5 step 6)
	seq          uint32      // last sequence number sent (spec 6.7)
	peerSeq      uint32      // the highest that has arrived
	sent         uint64      // sectors of writes that the peer has not confirmed
	calm         Time        // Ahead: since when sent is zero
	gate         []gated     // two primaries: writes of the peer whose turn has not come
	refusals     []refusalOf // two primaries: why epochs of the peer wait for own writes
	announced    uint64      // set bits in our last P_UUIDS
	// announcedKept: it said that this node has lost nothing since the copies were equal.
	announcedKept     bool
	announcedOutdated bool   // it said that its disk is Outdated
	announcedSize     uint64 // sectors of the volume then
	owing             bool   // a new data generation, see owed.go
	undecided         int    // ticks that the disk has been Negotiating while connected
	untold            int    // ticks that P_UUIDS and P_STATE may still wait for the peer's

	peerUUIDs   peerUUIDs
	peerSectors uint64  // d_size of the last P_SIZES, 0 unknown
	peerSize    uint64  // c_size of it: sectors of the volume, before the handshake agreed on more; 0 unknown
	pending     *Attach // a disk that is attached when no handshake is in progress

	frozen  int    // reasons to hold requests and completions until metadata is durable, here or at the peer
	users   uint32 // clients that hold the volume open
	held    []ioID // requests that wait for the state to accept I/O
	waiting []ioID // writes that wait for an overlapping one, in order of arrival
	done    []ioID // finished requests whose completion waits for frozen to end
	active  []span // writes in progress: submitted, not yet completed
	mixed   []span // of these, the ones that began while this node was the target of a resync

	readsLocal   bool       // the last FxReads
	detachTokens []uint64   // commands that wait for the volume to be Diskless
	repair       correction // what the handshake in this Step wants changed in the UUIDs
	xfer         exchange
	rs           resync // also in use while no resync runs: writes of the peer are in it
	veto         veto
	startFlushes int    // flushes before a resync that have not returned
	era          uint64 // counts resyncs that are over: what an old one waited for is not meant for the next
	verify       verify
	rz           resizing
	follows      bool            // resync-after: another volume's resync comes first
	grew         bool            // by a command of this node: the new space is synced when the peer has it too
	asked        bool            // the peer owes us a P_SIZES; until then the role stays, by which both decide
	askedAs      wire.SizesFlags // what that question said of the new space
	sizesLater   *wire.Sizes     // of the peer, to be looked at when no resync runs, and the own role is known
	fresh        freshSpace
}

// disk is what a volume knows of its attached backing device. Owned by volume.
type disk struct {
	sb     metadata.Superblock // as it is to be on disk: whoever changes it calls superChanged
	layout metadata.Layout
	bm     *bitmap.Bitmap
	al     actLog
	info   Attach // as the driver has found it; the core owns its own copies of what changes

	inflight int       // data I/O that the driver has not answered
	flushes  pendingIO // of these, the flushes that belong to no request
	meta     pendingIO // FxMetaNotify without an answer
	kept     bool      // in service since both copies were UpToDate: nothing acknowledged then is missing
	failed   bool      // no new I/O; becomes Diskless when the last one has returned
	seen     bool      // it was UpToDate until then: its generation is the one that the application has seen
	metaBad  bool      // the metadata device failed: do not try to write to it
	leaving  bool      // failed, and the last bitmap pages are being written
	written  bool      // they are
	aborted  bool      // it does not answer: FxAbort was emitted
	abortAt  uint64    // tick at which it is, if it has not returned by then; 0: never

	// keepPrimary: the volume is Secondary already, but the mark of a Primary must
	// stay on disk until data and bitmap are durable.
	keepPrimary bool
	dropPrimary bool // now it may go

	// sbDurable <= sbQueued <= sbGen, where sbQueued is not zero.
	sbGen     uint64       // generation of sb in memory
	sbQueued  uint64       // generation in flight, 0: none
	sbDurable uint64       // the last that is on disk
	adopted   uint64       // of the last one with UUIDs that a resync has brought
	waiters   []metaWaiter // for sbDurable to reach a generation, in ascending order

	pass pagePass
}

// peerUUIDs is the peer's last P_UUIDS.
type peerUUIDs struct {
	known bool
	metadata.UUIDs
	bits  uint64
	flags uint64
}

// New returns a resource in DRBD's initial state: Secondary, StandAlone,
// Diskless.
func New(cfg Config) *Resource {
	if cfg.MaxRequests == 0 {
		cfg.MaxRequests = 1024
	}
	r := &Resource{cfg: cfg, mix: cfg.Seed | 1}
	r.conn.maxRequest, r.conn.trims = MaxWrite, true
	for _, vc := range cfg.Volumes {
		r.vols = append(r.vols, &volume{r: r, num: vc.Number, cfg: vc, st: state.Initial(), userSize: vc.SizeSectors})
	}
	return r
}

// maxEntropy bounds the random words kept for events that need them.
const maxEntropy = 8

// Step applies one event and appends what it calls for to fx. It runs in
// bounded time: work proportional to the size of a device advances a fixed
// amount per event.
func (r *Resource) Step(ev *Event, fx *Effects) {
	r.fx, r.now = fx, ev.Now
	r.checkLease(ev)
	r.dispatch(ev)
	r.settle()
	r.fx = nil
}

func (r *Resource) dispatch(ev *Event) {
	switch ev.Kind {
	case EvTick:
		r.tick(ev)
	case EvRequest:
		r.request(ev)
	case EvDisk:
		r.diskDone(ev)
	case EvMeta:
		r.metaDone(ev)
	case EvConnUp:
		r.connUp(ev)
	case EvConnDown:
		r.connDown(ev)
	case EvPacket:
		r.packet(ev)
	case EvSent:
		r.sent(ev)
	case EvAttach:
		if v := r.volume(ev.Vol); v != nil {
			v.offer(ev.Attach)
		}
	case EvAdmin:
		r.command(ev.Admin)
	case EvUsers:
		if v := r.volume(ev.Vol); v != nil {
			v.users = ev.Size
		}
	case EvDevice:
		r.deviceMeasured(ev)
	case EvMoved:
		r.metaMoved(ev)
	case EvFollow:
		if v := r.volume(ev.Vol); v != nil {
			v.follows = ev.Size != 0
			v.force(v.st)
		}
	case EvHandler:
		switch ev.IO.class() {
		case classFence:
			r.fenced(ev.Exit)
		case classVeto:
			r.vols[ev.IO.index()].resyncVetted(ev.Exit)
		}
	}
}

// settle brings things that wait for each other to rest at the end of a Step:
// state changes wake requests and commands, which may change states again.
// Every round consumes something that waited, so it ends.
func (r *Resource) settle() {
	for _, v := range r.vols {
		r.restless = r.restless || v.rz.stage > resizeMeasuring
	}
	for {
		r.drained() // the last request of an old connection may have ended without the disk
		if !r.restless {
			break
		}
		r.restless = false
		r.retryCommands()
		for _, v := range r.vols {
			v.attachPending()
			v.resizeStep()
			v.retryHeld()
		}
		r.resyncKick()
	}
	for _, v := range r.vols {
		v.settleDisk()
		v.publishReads()
	}
}

// volume returns the volume with number n, or nil.
func (r *Resource) volume(n uint16) *volume {
	for _, v := range r.vols {
		if v.num == n {
			return v
		}
	}
	return nil
}

// State returns the state of volume vol, the initial state if there is none.
func (r *Resource) State(vol uint16) state.State {
	if v := r.volume(vol); v != nil {
		return v.st
	}
	return state.Initial()
}

func (r *Resource) tick(ev *Event) {
	if len(r.entropy) < maxEntropy {
		r.entropy = append(r.entropy, ev.Rand)
	}
	r.ticks++
	r.connTick()
	r.tl.tick(r)
	for _, v := range r.vols {
		v.tick()
	}
	r.restless = true
}

func (v *volume) tick() {
	v.diskTick()
	v.resyncTick()
	v.pageTick()
	v.contestTick()
	v.aheadTick()
	v.freshSpaceTick()
	v.negotiationTick()
	v.heirTick()
}

// random returns a word nobody can guess as long as ticks deliver entropy. A
// burst of events that drains it falls back to mixing, which is still unique.
func (r *Resource) random() uint64 {
	r.mix += 0x9e3779b97f4a7c15
	z := r.mix
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	z ^= z >> 31
	if n := len(r.entropy); n > 0 {
		z ^= r.entropy[n-1]
		r.entropy = r.entropy[:n-1]
	}
	return z
}

func (r *Resource) note(v *volume, n Note) *Effect {
	e := r.fx.add(FxNote)
	e.Note = n
	if v != nil {
		e.Vol = v.num
	}
	return e
}

// handler asks the driver to run h, without waiting for it.
func (r *Resource) handler(v *volume, h Handler) {
	e := r.fx.add(FxHandler)
	e.Handler = h
	if v != nil {
		e.Vol = v.num
	}
}

// session returns what was agreed on with the peer.
func (r *Resource) session() wire.Session { return r.conn.session }
