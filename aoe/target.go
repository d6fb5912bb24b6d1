package aoe

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/replblk/replblk/block"
)

// CommitMode says when a write is acknowledged. The zero value is durable.
type CommitMode uint8

const (
	// CommitGroup acknowledges writes after a flush that follows them. One
	// flush is in flight at a time and covers every write completed before it.
	CommitGroup CommitMode = iota
	// CommitFUA sends every write with block.FUA, for devices that make single
	// writes durable cheaply.
	CommitFUA
	// CommitNone acknowledges what the device has accepted. A crash then loses
	// acknowledged writes, and the initiator has no way to ask for better.
	CommitNone
)

// Permit says what initiators may change. The zero value is nothing: the lists
// belong to the administrator (O10, O11).
type Permit uint8

// Permissions. Reading is always allowed.
const (
	PermitConfig  Permit = 1 << iota // set the config string
	PermitMask                       // edit the mask list
	PermitReserve                    // set the reserve list
	PermitAll     = PermitConfig | PermitMask | PermitReserve
)

// State is what the initiators of a target share and can change. Whoever runs
// the target keeps it: on disk, and at the other end of a mirror.
type State struct {
	Config  []byte // at most MaxConfigString bytes
	Mask    []MAC  // sources that may talk to the target; empty means all
	Reserve []MAC  // sources that may use ATA commands; empty means all
	// Generation counts the changes: of the states of the two ends of a mirror the
	// one with more stands.
	Generation uint64
}

// Options describe a Target.
type Options struct {
	Shelf  uint16 // below AnyShelf
	Slot   uint8  // below AnySlot
	Device block.Device

	Identity Identity
	Firmware uint16 // of the config response
	Commit   CommitMode
	Permit   Permit
	State    State
	// Standby: start silent, until SetServing(true). The device then belongs to
	// this node only at times, and is read-only at others: EROFS and a read-only
	// geometry mean silence.
	Standby bool
	// ReadOnly refuses writes. Without Standby a read-only device does so, too.
	ReadOnly bool

	// Buffers is the advertised number of outstanding frames. A Linux initiator
	// that sees 1 first never sends anything (spec/aoe.md 4.1), so the least is
	// 2; 0 means DefaultBuffers.
	Buffers int
	// MaxInFlight and MaxPerInitiator limit requests accepted and not answered;
	// what comes beyond is dropped. 0 means the default.
	MaxInFlight     int
	MaxPerInitiator int
	// MaxAge drops a request that waited longer for an earlier one: its
	// initiator has repeated it by then. 0 means DefaultMaxAge.
	MaxAge time.Duration

	// OnState is called after a request or the other end changed the state, in
	// order, before the answer. The target is locked: it must not call it, and
	// whatever else it does keeps everybody waiting. While it fails it is called
	// again every second, and the change is neither answered nor confirmed to the
	// other end, if the target is Virtual.
	OnState func(State) error
	// Virtual: the target's addresses move between the ends of a mirror.
	Virtual bool
	// Mirrored says whether the other end of the mirror is connected. A change of
	// the state is then answered when that end has it. Nil: nobody is waited for.
	Mirrored func() bool
	// OnUnconfirmed is called when the other end has not said in time that it has
	// a change, and not again before it has.
	OnUnconfirmed func()
	// Secret returns what authenticates what the ends tell each other about the state;
	// both must have the same. It may change, and is called with the target locked.
	// Nil or empty: see share.go.
	Secret func() []byte
	// OnConflict is called when another station answers for this address, and
	// whether the target has fallen silent because of it.
	OnConflict func(from MAC, silent bool)
}

// Defaults of Options.
const (
	DefaultBuffers         = 16 // vblade's
	DefaultMaxInFlight     = 1024
	DefaultMaxPerInitiator = 256
	DefaultMaxAge          = 2 * time.Second
)

// Sender takes the responses of a Target to the network.
type Sender interface {
	// Send queues f and takes ownership. It does not block; it may drop.
	Send(f *Frame)
	// Addr is the source address of responses, and where requests must be sent
	// to if not to everyone.
	Addr() MAC
	// OwnAddr is the address of the interface itself.
	OwnAddr() MAC
	// MTU is the interface's, in bytes without the Ethernet header.
	MTU() int
}

// Target is one exported volume. Its methods may be called from any goroutine,
// for requests from any number of ports.
type Target struct {
	shelf      uint16
	slot       uint8
	device     block.Device
	identity   Identity
	firmware   uint16
	buffers    uint16
	commit     CommitMode
	permit     Permit
	maxQueue   int64
	maxEach    int64
	maxAge     time.Duration
	virtual    bool
	moves      bool // the device is ours only while we serve
	readOnly   bool
	claim      claim
	onState    func(State) error
	onConflict func(MAC, bool)

	mirrored      func() bool
	onUnconfirmed func()
	secret        func() []byte

	counters  Counters
	conflicts atomic.Uint64
	period    atomic.Uint64 // serving period, odd from its start until silence
	holding   atomic.Bool   // mode is Holding
	sinceAt   atomic.Int64  // since as a time.Duration after made
	made      time.Time
	calls     sync.Pool
	wake      chan struct{}
	tellNow   chan struct{} // capacity 1
	stop      chan struct{}
	stopOnce  sync.Once
	stopped   sync.WaitGroup

	mu            sync.Mutex // guards what follows
	config        []byte
	mask, reserve []MAC
	initiators    map[MAC]*Initiator
	others        *Initiator // beyond maxInitiators
	latest        *Initiator // whose request came last, of initiators
	ports         []*Port    // replaced, never changed in place
	mode          Mode
	since         time.Time   // when the target last began to serve
	held          []heldFrame // while Holding, in order of arrival
	holdEpoch     uint64      // counts the times of Holding
	successor     bool        // while Holding: the other end serves
	yielded       bool        // while Holding: the other end may serve
	asking        int         // calls of Port.Ask in progress
	heard         []MAC       // stations that answered for our address meanwhile
	generation    uint64      // of config, mask and reserve
	sharing       sharing
	queue
}

// NewTarget returns a target, serving unless o.Standby. Close ends it.
func NewTarget(o Options) (*Target, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	t := &Target{
		shelf: o.Shelf, slot: o.Slot, device: o.Device, identity: o.Identity, firmware: o.Firmware,
		buffers: uint16(min(max(orDefault(o.Buffers, DefaultBuffers), 2), 0xffff)),
		commit:  o.Commit, permit: o.Permit,
		maxQueue: int64(orDefault(o.MaxInFlight, DefaultMaxInFlight)),
		maxEach:  int64(orDefault(o.MaxPerInitiator, DefaultMaxPerInitiator)),
		maxAge:   orDefault(o.MaxAge, DefaultMaxAge),
		virtual:  o.Virtual, moves: o.Standby, readOnly: o.ReadOnly, claim: newClaim(), made: time.Now(),
		onState: o.OnState, onConflict: o.OnConflict, mirrored: o.Mirrored, onUnconfirmed: o.OnUnconfirmed, secret: o.Secret,
		wake: make(chan struct{}, 1), tellNow: make(chan struct{}, 1), stop: make(chan struct{}), generation: o.State.Generation,
		initiators: make(map[MAC]*Initiator), others: &Initiator{},
		config: bytes.Clone(o.State.Config), mask: slices.Clone(o.State.Mask), reserve: slices.Clone(o.State.Reserve),
	}
	t.calls.New = func() any { return newCall(t) }
	t.sinceAt.Store(math.MinInt64)
	if !o.Standby {
		t.period.Store(1)
		t.mode, t.since = Serving, t.made // what is older came for nobody else
	}
	t.stopped.Go(t.run)
	if t.shared() {
		t.stopped.Go(t.share)
	}
	return t, nil
}

func (o *Options) check() error {
	switch {
	case o.Shelf == AnyShelf:
		return fmt.Errorf("shelf %d is the wildcard", o.Shelf)
	case o.Slot == AnySlot:
		return fmt.Errorf("slot %d is the wildcard", o.Slot)
	case o.Device == nil:
		return errors.New("a target needs a device")
	}
	return o.State.check()
}

func (s *State) check() error {
	if len(s.Config) > MaxConfigString {
		return fmt.Errorf("config string of %d bytes, at most %d are possible", len(s.Config), MaxConfigString)
	}
	if n := max(len(s.Mask), len(s.Reserve)); n > MaxMACs {
		return fmt.Errorf("list of %d addresses, at most %d are possible", n, MaxMACs)
	}
	return nil
}

func (s *State) equal(o State) bool {
	return bytes.Equal(s.Config, o.Config) && slices.Equal(s.Mask, o.Mask) && slices.Equal(s.Reserve, o.Reserve)
}

func orDefault[T int | time.Duration](v, def T) T {
	if v <= 0 {
		return def
	}
	return v
}

// Shelf returns the major address.
func (t *Target) Shelf() uint16 { return t.shelf }

// Slot returns the minor address.
func (t *Target) Slot() uint8 { return t.slot }

// Counters returns the counters of the target.
func (t *Target) Counters() *Counters { return &t.counters }

// Conflicts returns how many answers of other stations for this address were
// seen: two targets with one address lose data.
func (t *Target) Conflicts() uint64 { return t.conflicts.Load() }

// Initiators returns the stations that talked to the target, sorted by
// address; the shared entry of those beyond the limit is first if it was used.
func (t *Target) Initiators() []*Initiator {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := make([]*Initiator, 0, len(t.initiators)+1)
	if t.others.Counters.Requests.Load() > 0 {
		all = append(all, t.others)
	}
	for _, i := range t.initiators {
		all = append(all, i)
	}
	slices.SortFunc(all, func(a, b *Initiator) int { return bytes.Compare(a.MAC[:], b.MAC[:]) })
	return all
}

// State returns a copy of the config string and the lists.
func (t *Target) State() State {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.stateLocked()
}

// SetState replaces the config string and the lists, without calling OnState.
func (t *Target) SetState(s State) error {
	if err := s.check(); err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.setStateLocked(s)
	return nil
}

func (t *Target) setStateLocked(s State) {
	t.config, t.mask, t.reserve, t.generation = bytes.Clone(s.Config), slices.Clone(s.Mask), slices.Clone(s.Reserve), s.Generation
}

func (t *Target) stateLocked() State {
	return State{Config: bytes.Clone(t.config), Mask: slices.Clone(t.mask), Reserve: slices.Clone(t.reserve), Generation: t.generation}
}

// Close silences the target and ends its goroutine. Call Drain before: a
// request that is still in flight then stays unanswered.
func (t *Target) Close() {
	t.SetServing(false)
	t.stopOnce.Do(func() { close(t.stop) })
	t.stopped.Wait()
}

// Handle serves the request in f, and takes ownership of f. The response goes
// to s, before Handle returns or later.
func (t *Target) Handle(f *Frame, s Sender) {
	var h Header
	if h.DecodeFrom(f.Bytes()) != nil {
		t.counters.Malformed.Add(1)
		t.dropFrame(f, DropShort)
		return
	}
	t.handle(f, s, &h, nil)
}

// handle is Handle after the header was read. With a burst, what goes to the device is
// gathered there.
func (t *Target) handle(f *Frame, s Sender, h *Header, b *burst) {
	if h.Flags&FlagResponse != 0 {
		if h.Command == CommandPeer {
			t.hear(f, h, s)
		} else {
			t.sawResponse(h, s)
		}
		f.Release()
		return
	}
	if r, ok := t.admissible(h, s); !ok {
		t.dropFrame(f, r)
		return
	}
	if f.Received.IsZero() {
		f.Received = time.Now()
	}
	switch {
	case int64(f.Received.Sub(t.made)) < t.sinceAt.Load():
		// It waited in the socket while the other end served (rule R5): neither to be served,
		// nor to be held and handed over, nor one that was handed over earlier.
		t.dropFrame(f, DropStale)
	case h.Command == CommandPeer && t.virtual:
		t.accept(f, s, h)
	case t.holding.Load() && t.hold(f, s, h):
	default:
		t.serve(f, s, h, b)
	}
}

// serve carries out a request that has come to its turn.
func (t *Target) serve(f *Frame, s Sender, h *Header, b *burst) {
	var c *call
	if b != nil {
		c = b.call(t)
	} else {
		c = t.calls.Get().(*call)
	}
	c.frame, c.sender, c.hdr, c.burst = f, s, *h, b
	if !t.admit(c) {
		return
	}
	switch {
	case h.Version != Version:
		c.fail(ErrVersion)
	case h.Command == CommandATA:
		t.handleATA(c)
	case h.Command == CommandConfig:
		t.handleConfig(c)
	case h.Command == CommandMask:
		t.handleMask(c)
	case h.Command == CommandReserve:
		t.handleReserve(c)
	default:
		c.fail(ErrCommand)
	}
}

// admissible judges the addresses of a request.
func (t *Target) admissible(h *Header, s Sender) (DropReason, bool) {
	switch {
	case !h.matches(t.shelf, t.slot):
		return DropForeign, false
	case h.Dst != s.Addr() && h.Dst != Broadcast && !t.fromOtherEnd(h, s):
		// A promiscuous interface shows us frames for other stations: perhaps
		// for the other end of our mirror.
		return DropForeign, false
	case h.Src.IsGroup():
		return DropBadSource, false
	}
	return 0, true
}

// fromOtherEnd says whether a request was sent to those who share our virtual
// address: it asks who serves.
func (t *Target) fromOtherEnd(h *Header, s Sender) bool {
	return t.virtual && h.Command == CommandConfig && h.Dst == s.Addr().group()
}

// admit accounts c to its initiator and accepts it, or drops it.
func (t *Target) admit(c *call) bool {
	t.mu.Lock()
	c.period = t.period.Load()
	c.initiator = t.initiatorLocked(c.hdr.Src)
	masked := len(t.mask) > 0 && !slices.Contains(t.mask, c.hdr.Src) && !t.fromOtherEnd(&c.hdr, c.sender)
	c.reserved = len(t.reserve) > 0 && !slices.Contains(t.reserve, c.hdr.Src)
	t.mu.Unlock()

	ini := &c.initiator.Counters
	full := t.counters.InFlight.Add(1) > t.maxQueue
	full = ini.InFlight.Add(1) > t.maxEach || full
	switch {
	case c.period&1 == 0:
		c.drop(DropNotServing)
	case masked:
		c.drop(DropMasked)
	case full:
		c.drop(DropQueueFull)
	default:
		t.counters.Requests.Add(1)
		ini.Requests.Add(1)
		return true
	}
	return false
}

func (t *Target) initiatorLocked(m MAC) *Initiator {
	if t.latest != nil && t.latest.MAC == m {
		return t.latest
	}
	if i, ok := t.initiators[m]; ok {
		t.latest = i
		return i
	}
	if len(t.initiators) >= maxInitiators {
		return t.others
	}
	i := &Initiator{MAC: m}
	t.initiators[m] = i
	return i
}

func (t *Target) dropFrame(f *Frame, r DropReason) {
	t.counters.drop(r)
	f.Release()
}
