package replication

import (
	"github.com/replblk/replblk/bitmap"
	"github.com/replblk/replblk/metadata"
	"github.com/replblk/replblk/replication/state"
	"github.com/replblk/replblk/replication/wire"
)

// Time is nanoseconds on a monotonic clock of the driver's choosing.
type Time int64

// Durations in Time's unit.
const (
	Millisecond Time = 1e6
	Second      Time = 1e9
)

// ReqID is the driver's slot of an application request, below Config.MaxRequests.
type ReqID uint32

// BufID is a payload buffer of the driver. Zero is "none".
type BufID uint32

// IOID names a disk or metadata operation of the core. It is opaque to the driver.
type IOID uint32

// Socket is one of the two streams of a connection (spec 3.1).
type Socket uint8

// The sockets.
const (
	DataSocket Socket = iota + 1
	MetaSocket
)

// EventKind says which fields of an Event are set.
type EventKind uint8

// Events. Every event carries Now.
const (
	EvTick     EventKind = iota + 1 // Rand
	EvRequest                       // application I/O: Vol, Req, Op, Sector, Size, FUA, NoHole
	EvDisk                          // an FxDisk ended: IO, Err; Buf if the driver allocated one for a read; Body if it has Sum
	EvMeta                          // an FxMetaNotify was reached: IO, Err
	EvConnUp                        // both sockets stand: Gen (never reused), ResolveConflicts, Body = 64 random bytes
	EvConnDown                      // Gen is gone: Cause
	EvPacket                        // Gen, Socket, Cmd, Vol, Body (the packet without bulk data), Size and Buf of the bulk data, Corrupt
	EvSent                          // the Send with Notify set was handed to the kernel: Gen, Token of the Send
	EvAttach                        // Vol, Attach: the backing device was opened and its metadata read
	EvAdmin                         // an operator's command: Admin
	EvHandler                       // a handler ended: IO, Exit
	EvUsers                         // Size clients hold the volume Vol open now
	EvDevice                        // an FxMeasure ended, or a device has another size before EvConnUp: Vol, Err, Device
	EvMoved                         // an FxMove ended: Vol, Err
	EvFollow                        // by resync-after, a resync of Vol has to wait (Size 1) or may run (Size 0)
)

// Op is what a disk effect or an application request does.
type Op uint8

// Operations.
const (
	OpRead Op = iota + 1
	OpWrite
	OpFlush
	OpDiscard // the range reads as zeroes afterwards; space may be given back
	OpZeroes  // the range reads as zeroes afterwards; NoHole keeps it allocated
)

// DiskError is the outcome of a disk or metadata operation.
type DiskError uint8

// Outcomes of a disk operation.
const (
	DiskOK DiskError = iota
	DiskIOError
	DiskNoSpace
	DiskAborted // FxAbort came first; whether it will be done, or was, nobody knows
)

// Event is one input of the core. It is a plain value; Body, Attach and Admin
// are only valid during the Step.
type Event struct {
	Now    Time
	Kind   EventKind
	Socket Socket
	Op     Op
	Err    DiskError
	FUA    bool
	NoHole bool

	// Corrupt: bulk data does not have the digest at the end of Body. The driver knows
	// the algorithm of a peer from the P_PROTOCOL that it delivers before.
	Corrupt bool
	Zero    bool // EvDisk of an FxDisk with TestZero: all bytes read are zero

	// ResolveConflicts: this node accepted the meta socket (spec 3.2).
	ResolveConflicts bool

	Cmd    wire.Command
	Vol    uint16
	Req    ReqID
	Buf    BufID
	IO     IOID
	Gen    uint32
	Size   uint32 // bytes
	Sector uint64
	Rand   uint64
	Token  uint64
	Exit   int
	Body   []byte
	Cause  state.Conn // EvConnDown: Timeout, BrokenPipe, NetworkFailure or ProtocolError
	Attach *Attach
	Admin  *Admin
	Device *Device
}

// Device is what the driver finds when it looks how large a backing device is now.
type Device struct {
	BackingSectors uint64          // capacity of the data device
	Layout         metadata.Layout // where its metadata belongs (metadata.Layout.Grown)
}

// Attach is what the driver learned from a backing device.
type Attach struct {
	Superblock metadata.Superblock
	Layout     metadata.Layout
	// Bitmap as read from disk, one bit per 4 KiB of the agreed size
	// (Superblock.LASize); nil if the volume never had a size.
	// The core owns it from now on.
	Bitmap         *bitmap.Bitmap
	BackingSectors uint64 // capacity of the data device
	Discard        bool
	PhysicalBlock  uint32
	LogicalBlock   uint32
}

// AdminKind is an operator's command.
type AdminKind uint8

// Commands.
const (
	AdminConnect          AdminKind = iota + 1 // DiscardMyData, Tentative
	AdminDisconnect                            // Force
	AdminPrimary                               // Force
	AdminSecondary                             //
	AdminDetach                                // Vol, Force
	AdminInvalidate                            // Vol
	AdminInvalidateRemote                      // Vol
	AdminOutdate                               // all volumes
	AdminPauseSync                             // Vol
	AdminResumeSync                            // Vol
	AdminNewCurrentUUID                        // Vol, ClearBitmap
	AdminSuspendIO                             //
	AdminResumeIO                              //
	AdminAdjust                                // Config
	AdminVerify                                // Vol, Start, Stop, Resume
	AdminStopVerify                            // Vol
	AdminRepair                                // all volumes: resync what a verify has found
	AdminResize                                // Vol, Sectors, AssumeClean, AssumePeer, Force
)

// Admin is an operator's command. FxReply with the same Token answers it, maybe
// much later.
type Admin struct {
	Kind          AdminKind
	Token         uint64
	Vol           uint16
	Force         bool
	DiscardMyData bool
	Tentative     bool
	ClearBitmap   bool
	Start         uint64 // sectors
	Config        *Config
	Stop          uint64 // sectors, 0: the end
	Resume        bool   // Start is where the last aborted run has stopped
	Sectors       uint64 // resize: the size wanted, 0: as much as both devices have room for
	AssumeClean   bool   // resize: new space counts as equal
	AssumePeer    bool   // resize: without a connection, believe that the peer has room
}

// EffectKind says which fields of an Effect are set.
type EffectKind uint8

// Effects.
const (
	// FxSend: Gen, Socket, bytes Off..Off+Len of the arena (header and body),
	// then the payload: of request Req (Payload == PayloadRequest) or of Buf
	// (PayloadBuffer), Size bytes. FreeBuf: the buffer is the driver's again when
	// written or dropped. Notify: answer with EvSent and the same Token. A Send for another
	// generation than the present one is dropped. Sum: the digest of the payload goes
	// between the bytes and the payload; the header counts it already.
	FxSend EffectKind = iota + 1
	// FxDisk: Vol, IO, Op, Sector, Size, FUA, NoHole; memory of Req or Buf as in
	// FxSend. OpRead with PayloadNone: the driver allocates and reports Buf.
	// Sum: it computes this digest of what it has read and reports it as Body; with
	// SumOnly the data is not wanted and Buf is not reported.
	FxDisk
	// FxMetaWrite: Vol, Sector (absolute on the metadata device), 4096 bytes of
	// the arena at Off.
	FxMetaWrite
	// FxMetaFlush: Vol. Makes earlier MetaWrites durable. With Data set, data
	// writes that completed before it too.
	FxMetaFlush
	// FxMetaNotify: Vol, IO. Answered by EvMeta.
	FxMetaNotify
	// FxComplete: Req is finished with Outcome. If Buf is set, it holds what the
	// peer's copy has: copy it to the request's memory, then it is the driver's.
	FxComplete
	// FxFill: Buf holds Size bytes of what the peer's copy has: copy them to offset From of
	// the memory of Req, then it is the driver's.
	FxFill
	// FxFree: Buf is the driver's again.
	FxFree
	// FxConnect: the driver should establish the connection now (On), or stop
	// trying (not On).
	FxConnect
	// FxClose: shut both sockets of Gen down, after an attempt to write what was
	// sent on them before; EvConnDown follows.
	FxClose
	// FxReply answers the operator: Token, Result.
	FxReply
	// FxState: the state of Vol went from Old to New. For the log and metrics.
	FxState
	// FxReads: application reads of Vol may go to the local disk without asking
	// the core (On), or may not any more. A driver whose last EvTick is older than
	// Config.Lease must ask: the core will doubt what it has allowed.
	FxReads
	// FxAbort: the disk of Vol is not waited for. Every FxDisk and FxMetaNotify of it that has
	// no answer yet is answered now, with DiskAborted, and no more come before FxDetached. What
	// the device does with them later reaches neither the core nor memory that has another
	// owner since; until then it may not be attached again.
	FxAbort
	// FxDetached: the core will not use the disk of Vol any more.
	FxDetached
	// FxHandler: run handler Handler for Vol; if IO is not zero, EvHandler must follow.
	FxHandler
	// FxSize: the size of Vol is now Sector sectors.
	FxSize
	// FxMeasure: look how large the devices of Vol are now. Answered by EvDevice.
	FxMeasure
	// FxMove: move the metadata of Vol to where the last EvDevice said that it belongs, so
	// that a crash at any time leaves metadata that can be found. Answered by EvMoved.
	// No metadata is written meanwhile.
	FxMove
	// FxNote: something an operator should read: Note, Vol, Sector/Size where it says so.
	// NoteSplitBrain has the blocks changed here in Token and at the peer in Sector;
	// NoteVerdict has the number of the rule of spec 7.4 in Token and its verdict in
	// Result; NoteDryRun what the connection would become in New.Conn, and On for a
	// full resync.
	FxNote
)

// Payload says where the bulk data of an effect is.
type Payload uint8

// Payload sources.
const (
	PayloadNone Payload = iota
	PayloadRequest
	PayloadZeroes // zeroes, of FxSend only
	PayloadBuffer
)

// Outcome is how an application request ended.
type Outcome uint8

// Outcomes of an application request.
const (
	OK       Outcome = iota
	IOError          // neither copy could serve it
	NoSpace          // the only copy is out of space
	ReadOnly         // this node is not Primary
)

// Effect is one thing that the driver must do.
type Effect struct {
	Kind    EffectKind
	Socket  Socket
	Op      Op
	Payload Payload
	Outcome Outcome
	Handler Handler
	Note    Note
	FreeBuf bool
	Notify  bool
	FUA     bool
	NoHole  bool
	Data    bool
	On      bool
	Resync  bool // FxDisk: background I/O, application I/O goes first
	SumOnly bool
	// TestZero: FxDisk, OpRead: report in Event.Zero whether all bytes are zero.
	TestZero bool
	Sum      wire.Algorithm

	Vol    uint16
	Gen    uint32
	Req    ReqID
	Buf    BufID
	IO     IOID
	Size   uint32
	From   uint32 // offset of the payload in the memory of Req, in bytes
	Off    uint32
	Len    uint32
	Result state.Result
	Sector uint64
	Token  uint64
	Old    state.State
	New    state.State
}

// Effects collects what one or several Steps call for. The driver owns it and
// resets it when all effects are carried out (or their bytes copied).
type Effects struct {
	List []Effect
	Buf  []byte
}

// Reset forgets all effects and keeps the memory.
func (fx *Effects) Reset() {
	fx.List = fx.List[:0]
	fx.Buf = fx.Buf[:0]
}

// Bytes returns the arena bytes of e: header and body of a Send, the block of a
// MetaWrite.
func (fx *Effects) Bytes(e *Effect) []byte { return fx.Buf[e.Off : e.Off+e.Len] }

// add appends an effect and returns it for the caller to fill in; the pointer is
// valid until the next add.
func (fx *Effects) add(k EffectKind) *Effect {
	fx.List = append(fx.List, Effect{Kind: k})
	return &fx.List[len(fx.List)-1]
}

// Handler names one of DRBD's handlers (spec 10.5).
type Handler uint8

// Handlers.
const (
	HandlerNone Handler = iota
	HandlerPriOnInconDegr
	HandlerPriLostAfterSB
	HandlerPriLost
	HandlerFencePeer
	HandlerUnfencePeer
	HandlerLocalIOError
	HandlerInitialSplitBrain
	HandlerSplitBrain
	HandlerBeforeResyncTarget
	HandlerAfterResyncTarget
	HandlerBeforeResyncSource
	HandlerOutOfSync
)

var handlerNames = [...]string{"", "pri-on-incon-degr", "pri-lost-after-sb", "pri-lost", "fence-peer", "unfence-peer",
	"local-io-error", "initial-split-brain", "split-brain", "before-resync-target", "after-resync-target",
	"before-resync-source", "out-of-sync"}

// OfConnection says whether the handler is about the connection and not about one volume
// (spec 10.5).
func (h Handler) OfConnection() bool { return h == HandlerFencePeer || h == HandlerUnfencePeer }

// String returns the name used in drbd.conf.
func (h Handler) String() string { return handlerNames[h] }

// Note is a remark for the operator's log. Its text is String.
type Note uint8

// Notes.
const (
	NoteNone Note = iota
	NoteSplitBrain
	NoteUnrelated
	NoteVersionTooOld
	NoteNoDryRun
	NoteRuleTooNew // Token: the number of the rule of spec 7.4, Size: the version that it needs
	NoteIncompatible
	NoteAuthFailed
	NoteProtocolError
	NotePeerSilent
	NotePeerStuck
	NoteDiskError
	NoteDiskTimeout // Token: the limit in tenths of a second
	NoteMetaError
	NoteResyncStart
	NoteResyncDone
	NoteResyncFailed
	NoteBitsWithoutResync
	NoteShrink
	NotePeerDiskTooSmall
	NoteVerdict
	NoteFenceFailed
	NoteDryRun
	NoteContradiction
	NoteAdjusted
	NoteVerifyStart   // Sector: the first
	NoteVerifyDone    // Token: how many blocks of 4 KiB differ
	NoteVerifyStopped // Sector: all before it are compared
	NoteResized
	NoteMoveFailed
	NoteFreshSpace
	NoteOwed
	NoteCorrupt // Sector, Size
	NoteVetoed  // Token: exit code
	NoteUndecided
	NoteCongested
	NoteFlags
	NoteStale
)

var noteTexts = [...]string{
	NoteSplitBrain:        "split brain detected, connection refused, both data sets are kept",
	NoteUnrelated:         "the data of the two nodes is unrelated, connection refused",
	NoteVersionTooOld:     "peer speaks no common protocol version",
	NoteNoDryRun:          "peer is too old for a tentative connection (protocol 92), connection refused",
	NoteRuleTooNew:        "who has the newer data is decided by a rule that the agreed protocol version lacks, connection refused",
	NoteIncompatible:      "peer is configured differently",
	NoteAuthFailed:        "peer authentication failed",
	NoteProtocolError:     "peer broke the protocol",
	NotePeerSilent:        "peer does not answer pings",
	NotePeerStuck:         "peer does not acknowledge writes in time",
	NoteDiskError:         "local disk failed",
	NoteDiskTimeout:       "local disk does not answer within disk-timeout: detached, what waits for it is served by the peer",
	NoteMetaError:         "metadata I/O failed",
	NoteResyncStart:       "resync started",
	NoteResyncDone:        "resync finished",
	NoteResyncFailed:      "resync finished with failed blocks",
	NoteBitsWithoutResync: "generations are equal but bits are set: resync from the side that has them",
	NoteShrink:            "peer would shrink the volume, connection refused",
	NotePeerDiskTooSmall:  "peer disk is too small",
	NoteVerdict:           "generation UUIDs compared",
	NoteFenceFailed:       "the fence-peer handler did not fence the peer, I/O may stay suspended",
	NoteDryRun:            "tentative connection, nothing was changed",
	NoteContradiction:     "the generations of the two nodes contradict each other, connection refused",
	NoteAdjusted:          "the peer's operator has changed options of the connection, they hold here too",
	NoteVerifyStart:       "online verify started",
	NoteVerifyDone:        "online verify finished",
	NoteVerifyStopped:     "online verify stopped before its end",
	NoteResized:           "size of the volume changed",
	NoteMoveFailed:        "metadata could not be moved to the new end of the device",
	NoteFreshSpace:        "both disks have grown while the nodes were apart: connecting again to copy the new space",
	NoteOwed:              "peer lacks writes of this node and the generations are equal: connecting again to copy them",
	NoteCorrupt:           "data from the peer does not match its digest, connection dropped",
	NoteVetoed:            "the handler that runs before a resync does not want it, connection refused",
	NoteUndecided:         "peer does not say what it thinks of the disk that was attached, connection dropped",
	NoteCongested:         "the link is congested",
	NoteFlags:             "superblock is damaged: WAS_UP_TO_DATE without CONSISTENT, disk refused",
	NoteStale:             "the disk lacks what the application of this Primary has seen, and there is no peer to get it from: not attached",
}

// String returns the remark, lower case, without values.
func (n Note) String() string { return noteTexts[n] }
