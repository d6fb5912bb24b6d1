package replication

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"github.com/replblk/replblk/bitmap"
	"github.com/replblk/replblk/metadata"
	"github.com/replblk/replblk/replication/state"
	"github.com/replblk/replblk/replication/wire"
)

// A pair is two cores with instant disks and a network that delivers in order. Disks
// are arrays of write numbers, one per sector.
type pair struct {
	nodes   [2]*testNode
	now     Time
	gen     uint32
	log     strings.Builder
	quiet   bool
	corrupt wire.Command // the next packet of this kind with data arrives changed; CmdPing: none
	apart   bool         // no new connection comes up
}

type testNode struct {
	p        *pair
	name     string
	peer     *testNode
	r        *Resource
	fx       Effects
	inbox    []Event
	data     []uint64
	super    []byte
	pages    map[uint64][]byte
	ring     map[uint64][]byte // blocks of the activity log
	layout   metadata.Layout
	bufs     map[BufID][]uint64
	nextBuf  BufID
	reqs     map[ReqID][]uint64
	wanted   map[ReqID]Event // what was asked for
	nextReq  ReqID
	token    uint64
	wants    bool
	up       bool
	gen      uint32
	failing  map[Op]bool
	bad      map[uint64]bool // sectors that cannot be read or written
	handlers []Effect
	notes    []Effect
	replies  map[uint64]state.Result
	outcome  map[ReqID]Outcome
	stuck    bool            // metadata operations are not answered
	metaErr  DiskError       // of metadata operations
	unsaid   []IOID          // answers kept back by stuck
	hung     bool            // data operations are not answered
	owed     []IOID          // answers kept back by hung
	aborted  bool            // the core does not wait for the disk
	sectors  uint64          // of the device
	found    metadata.Layout // at the last FxMeasure
	moves    int
	flushes  int // of data, in order with metadata
	moveErr  DiskError
	thin     bool                              // the disk can discard
	exit     int                               // of the handlers that run before a resync
	silent   bool                              // they do not end
	asleep   bool                              // it does not look at its events
	writing  func(sector uint64, block []byte) // is told of every write of metadata before it is carried out
	watch    func()                            // called after each step
	deaf     bool                              // it is not told what the network has taken
	unsent   []Event                           // what it is not told
}

const testSectors = 64 << 11 // 64 MiB

func testConfig() Config {
	return Config{Name: "r0", Protocol: ProtocolC, TimeoutTenths: 60, PingIntSeconds: 10, PingTimeoutTenths: 5, KoCount: 7,
		MaxEpochSize: 2048, MaxBuffers: 2048, UseRLE: true, Seed: 7,
		Volumes: []VolumeConfig{{DiskFlushes: true, MDFlushes: true, ALUpdates: true, ALExtents: 67,
			// Not what DRBD has by default, which would be no rate at all (autorate.go).
			ResyncRateKiB: 251, PlanAheadTenths: 20, DelayTargetTenth: 10, FillTargetSector: 100, MaxRateKiB: 102400, MinRateKiB: 250}}}
}

// bringUp attaches the disk of either node and has it connect. What follows is up to the test.
func (p *pair) bringUp() {
	for _, n := range p.nodes {
		n.attach()
		n.admin(Admin{Kind: AdminConnect})
	}
}

func newPair(cfg ...Config) *pair { return newSizedPair(testSectors, cfg...) }

// newSizedPair makes a pair with disks of so many sectors.
func newSizedPair(sectors uint64, cfg ...Config) *pair {
	p := &pair{corrupt: wire.CmdPing}
	for i, name := range []string{"a", "b"} {
		c := testConfig()
		if i < len(cfg) {
			c = cfg[i]
		}
		c.Seed += uint64(i) * 1000
		layout, err := metadata.NewLayout(metadata.Internal, sectors, sectors, metadata.Striping{Stripes: 1, StripeSize4K: 8})
		if err != nil {
			panic(err)
		}
		n := &testNode{p: p, name: name, r: New(c), layout: layout, sectors: sectors, data: make([]uint64, sectors), pages: map[uint64][]byte{}, ring: map[uint64][]byte{},
			bufs: map[BufID][]uint64{}, reqs: map[ReqID][]uint64{}, wanted: map[ReqID]Event{}, failing: map[Op]bool{}, bad: map[uint64]bool{}, replies: map[uint64]state.Result{}, outcome: map[ReqID]Outcome{}}
		sb := metadata.NewSuperblock(layout)
		n.super = sb.AppendTo(nil)
		p.nodes[i] = n
	}
	p.nodes[0].peer, p.nodes[1].peer = p.nodes[1], p.nodes[0]
	return p
}

func (p *pair) printf(format string, args ...any) {
	if !p.quiet {
		fmt.Fprintf(&p.log, format+"\n", args...)
	}
}

func (p *pair) take() string {
	s := p.log.String()
	p.log.Reset()
	return s
}

// grow makes the device larger. What is there then differs from node to node: 1 at a, 2 at b.
func (n *testNode) grow(sectors uint64) {
	n.sectors += sectors
	n.data = append(n.data, slices.Repeat([]uint64{uint64(n.name[0]-'a') + 1}, int(sectors))...)
}

// freshAttach is a second disk that never had data. Its sectors and metadata are those
// of the first one to the harness, which does not matter to tests of states.
func (n *testNode) freshAttach() *Attach {
	return &Attach{Superblock: metadata.NewSuperblock(n.layout), Layout: n.layout, BackingSectors: testSectors}
}

func (n *testNode) post(ev Event) { n.inbox = append(n.inbox, ev) }

func (n *testNode) attach() {
	var sb metadata.Superblock
	if err := sb.Decode(n.super); err != nil {
		panic(err)
	}
	a := &Attach{Superblock: sb, Layout: n.layout, BackingSectors: n.sectors, Discard: n.thin}
	if sb.LASizeSectors > 0 {
		a.Bitmap = bitmap.New(bitmap.BitsFor(sb.LASizeSectors))
		for p := range a.Bitmap.Pages() {
			if data := n.pages[n.layout.Bitmap+uint64(p)*8]; data != nil {
				if err := a.Bitmap.LoadPage(p, data[:min(len(data), int(a.Bitmap.Words()*8)-int(p)*4096)]); err != nil {
					panic(err)
				}
			}
		}
		n.replay(&sb, a.Bitmap)
	}
	n.post(Event{Kind: EvAttach, Attach: a})
}

func (n *testNode) admin(a Admin) uint64 {
	n.token++
	a.Token = n.token
	n.post(Event{Kind: EvAdmin, Admin: &a})
	return a.Token
}

func (n *testNode) request(op Op, sector uint64, size uint32, value uint64) ReqID {
	n.nextReq++
	d := make([]uint64, size>>9)
	for i := range d {
		d[i] = value
	}
	n.reqs[n.nextReq] = d
	n.wanted[n.nextReq] = Event{Kind: EvRequest, Op: op, Req: n.nextReq, Sector: sector, Size: size}
	n.post(n.wanted[n.nextReq])
	return n.nextReq
}

// settle runs both nodes until nothing is left to do.
func (p *pair) settle() {
	for steps := 0; ; steps++ {
		if steps > 1e6 {
			panic("no rest after a million steps")
		}
		progress := false
		for _, n := range p.nodes {
			if !n.asleep && n.next() {
				progress = true
			}
		}
		if p.link() {
			progress = true
		}
		if !progress {
			return
		}
	}
}

// next takes the oldest event out of the node's inbox, if there is one.
func (n *testNode) next() bool {
	if len(n.inbox) == 0 {
		return false
	}
	ev := n.inbox[0]
	n.inbox = n.inbox[1:]
	ev.Now = n.p.now
	n.step(&ev)
	return true
}

// link connects two nodes that both want it.
func (p *pair) link() bool {
	a, b := p.nodes[0], p.nodes[1]
	if p.apart || !a.wants || !b.wants || a.up || b.up {
		return false
	}
	p.gen++
	for i, n := range p.nodes {
		n.up, n.gen = true, p.gen
		random := make([]byte, 64)
		random[0] = byte(i + 1)
		n.post(Event{Kind: EvConnUp, Gen: p.gen, ResolveConflicts: i == 0, Body: random})
	}
	return true
}

// cut breaks the connection on both sides; packets under way are lost.
func (p *pair) cut() {
	for _, n := range p.nodes {
		n.drop(true)
	}
}

// drop ends the connection of a node. lost: what the peer had sent does not arrive any more.
func (n *testNode) drop(lost bool) {
	if !n.up {
		return
	}
	n.up = false
	kept := n.inbox[:0]
	for _, ev := range n.inbox {
		if ev.Kind != EvPacket || !lost {
			kept = append(kept, ev)
		} else {
			delete(n.bufs, ev.Buf)
		}
	}
	n.inbox = kept
	n.post(Event{Kind: EvConnDown, Gen: n.gen, Cause: state.NetworkFailure})
}

func (p *pair) tick(times int) {
	for range times {
		p.now += 100 * Millisecond
		for _, n := range p.nodes {
			n.post(Event{Kind: EvTick, Rand: uint64(p.now) * 0x9e3779b97f4a7c15})
		}
		p.settle()
	}
}

func (n *testNode) step(ev *Event) {
	n.fx.Reset()
	record(n.r, ev)
	n.r.Step(ev, &n.fx)
	for i := range n.fx.List {
		n.execute(&n.fx.List[i])
	}
	if n.watch != nil {
		n.watch()
	}
}

func (n *testNode) memory(e *Effect) []uint64 {
	switch e.Payload {
	case PayloadRequest:
		d := n.reqs[e.Req][e.From>>9:]
		return d[:min(len(d), int(e.Size>>9))]
	case PayloadZeroes:
		return make([]uint64, e.Size>>9)
	case PayloadBuffer:
		return n.bufs[e.Buf]
	default:
	}
	return nil
}

func (n *testNode) execute(e *Effect) {
	switch e.Kind {
	case FxSend:
		n.send(e)
	case FxDisk:
		n.disk(e)
	case FxMetaWrite:
		block := append([]byte(nil), n.fx.Bytes(e)...)
		if n.writing != nil {
			n.writing(e.Sector, block)
		}
		switch {
		case e.Sector == n.layout.Superblock:
			n.super = block
		case e.Sector >= n.layout.ActivityLog && e.Sector < n.layout.Superblock:
			n.p.printf("%s: log", n.name)
			n.ring[e.Sector] = block
		default:
			n.pages[e.Sector] = block
		}
	case FxMetaFlush:
		if e.Data {
			n.flushes++
		}
	case FxAbort:
		n.abort()
	case FxDetached:
		n.aborted = false
	case FxMetaNotify:
		if n.stuck {
			n.unsaid = append(n.unsaid, e.IO)
		} else {
			n.post(Event{Kind: EvMeta, IO: e.IO, Err: n.metaErr})
		}
	case FxComplete:
		n.outcome[e.Req] = e.Outcome
		if e.Buf != 0 {
			copy(n.reqs[e.Req], n.bufs[e.Buf])
			delete(n.bufs, e.Buf)
		}
		n.p.printf("%s: complete %d outcome=%d", n.name, e.Req, e.Outcome)
	case FxFill:
		copy(n.reqs[e.Req][e.From>>9:], n.bufs[e.Buf][:e.Size>>9])
		delete(n.bufs, e.Buf)
	case FxFree:
		delete(n.bufs, e.Buf)
	case FxConnect:
		n.wants = e.On
	case FxClose:
		if n.up && e.Gen == n.gen {
			n.drop(true)
			n.peer.drop(false) // it reads what was sent before the end
		}
	case FxReply:
		n.replies[e.Token] = e.Result
		n.p.printf("%s: reply %v", n.name, e.Result)
	case FxState:
		n.p.printf("%s: state %v", n.name, e.New)
	case FxMeasure:
		layout, err := n.layout.Grown(n.sectors)
		if err != nil {
			panic(err)
		}
		n.found = layout
		n.post(Event{Kind: EvDevice, Device: &Device{BackingSectors: n.sectors, Layout: layout}})
	case FxMove:
		n.move()
	case FxHandler:
		n.handlers = append(n.handlers, *e)
		if e.IO.class() == classVeto && !n.silent {
			n.post(Event{Kind: EvHandler, IO: e.IO, Exit: n.exit})
		}
	case FxNote:
		n.notes = append(n.notes, *e)
		n.p.printf("%s: note %v", n.name, e.Note)
	default:
	}
}

// move moves the metadata.
func (n *testNode) move() {
	n.moves++
	if n.moveErr == DiskOK {
		pages := map[uint64][]byte{}
		for s, b := range n.pages {
			pages[s-n.layout.Bitmap+n.found.Bitmap] = b
		}
		n.pages, n.layout = pages, n.found
	}
	n.post(Event{Kind: EvMoved, Err: n.moveErr})
}

func (n *testNode) send(e *Effect) {
	if !n.up || e.Gen != n.gen {
		if e.FreeBuf {
			delete(n.bufs, e.Buf)
		}
		return
	}
	raw := append([]byte(nil), n.fx.Bytes(e)...)
	if e.Sum != 0 {
		raw = append(raw, digestOf(e.Sum, n.memory(e))...)
	}
	version := wire.VersionInitial
	if raw[0] == 0x86 {
		version = volumesVersion
	}
	h, size, err := wire.ParseHeader(raw, version)
	if err != nil {
		panic(err)
	}
	n.p.printf("%s>%s: %v %d", n.name, n.peer.name, h.Command, h.Length)
	ev := Event{Kind: EvPacket, Gen: n.gen, Socket: e.Socket, Cmd: h.Command, Vol: h.Volume, Body: raw[size:]}
	if e.Payload != PayloadNone {
		n.peer.nextBuf++
		ev.Buf, ev.Size = n.peer.nextBuf, e.Size
		data := append([]uint64(nil), n.memory(e)...)
		if n.p.corrupt == h.Command {
			data[len(data)-1]++
			n.p.corrupt = wire.CmdPing // once
		}
		n.peer.bufs[ev.Buf] = data
		ev.Corrupt = e.Sum != 0 && !bytes.Equal(digestOf(e.Sum, data), ev.Body[wire.DataSize:])
	}
	if uint32(len(ev.Body))+ev.Size != h.Length {
		panic(fmt.Sprintf("%v: header says %d, body %d, bulk %d", h.Command, h.Length, len(ev.Body), ev.Size))
	}
	if e.FreeBuf {
		delete(n.bufs, e.Buf)
	}
	n.peer.post(ev)
	if e.Notify {
		if ev := (Event{Kind: EvSent, Gen: n.gen, Token: e.Token}); n.deaf {
			n.unsent = append(n.unsent, ev)
		} else {
			n.post(ev)
		}
	}
}

// hearsAgain tells a node that was deaf what it has missed.
func (n *testNode) hearsAgain() {
	n.deaf = false
	n.inbox, n.unsent = append(n.inbox, n.unsent...), nil
}

// abort answers what the disk has not answered.
func (n *testNode) abort() {
	n.aborted = true
	for _, io := range n.owed {
		n.post(Event{Kind: EvDisk, IO: io, Err: DiskAborted})
	}
	for _, io := range n.unsaid {
		n.post(Event{Kind: EvMeta, IO: io, Err: DiskAborted})
	}
	n.owed, n.unsaid = nil, nil
}

func (n *testNode) disk(e *Effect) {
	ev := Event{Kind: EvDisk, IO: e.IO}
	switch {
	case n.aborted:
		panic("disk operation after FxAbort")
	case n.hung:
		n.owed = append(n.owed, e.IO)
		return
	}
	if n.failing[e.Op] {
		ev.Err = DiskIOError
		n.post(ev)
		return
	}
	end := e.Sector + uint64(e.Size)>>9
	for s, bad := range n.bad {
		if bad && e.Sector <= s && s < end {
			ev.Err = DiskIOError
			n.post(ev)
			return
		}
	}
	switch e.Op {
	case OpRead:
		if e.Payload == PayloadNone {
			if e.Sum != 0 {
				ev.Body = digestOf(e.Sum, n.data[e.Sector:end])
			}
			ev.Zero = e.TestZero && !slices.ContainsFunc(n.data[e.Sector:end], func(v uint64) bool { return v != 0 })
			if e.SumOnly {
				break
			}
			n.nextBuf++
			ev.Buf = n.nextBuf
			n.bufs[ev.Buf] = append([]uint64(nil), n.data[e.Sector:end]...)
		} else {
			copy(n.memory(e), n.data[e.Sector:end])
		}
	case OpWrite:
		copy(n.data[e.Sector:end], n.memory(e))
	case OpDiscard, OpZeroes:
		clear(n.data[e.Sector:end])
	default:
	}
	n.post(ev)
}
