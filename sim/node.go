package sim

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"slices"

	"github.com/replblk/replblk/activitylog"
	"github.com/replblk/replblk/metadata"
	"github.com/replblk/replblk/replication"
	"github.com/replblk/replblk/replication/state"
)

const primary = state.Primary

// node is the driver of one core: what package node is in a real process.
type node struct {
	w      *world
	id     int
	dev    device
	layout metadata.Layout
	// sectors is what the disk has, size what the core says that the volume has.
	sectors, size uint64
	told          uint64 // sectors of which the core knows

	logged map[activitylog.Extent]bool // cache of durableLog

	up   bool
	inc  uint32 // counts starts and ends of the process
	core *replication.Resource
	fx   replication.Effects
	want bool // the core wants to be connected
	conn *side
	gen  uint32 // of the last connection

	bufs     [][]uint64 // payload buffers; BufID is the index + 1
	freeBufs []replication.BufID
	reqs     map[replication.ReqID]*request
	nextReq  replication.ReqID
	freeReqs []replication.ReqID
	reads    bool // application reads need not ask the core
	detached bool // the core has let go of the disk

	pausedUntil replication.Time
	since       replication.Time // of the connection state
	dark        replication.Time // when it lost its power last
	forgot      replication.Time // when what it had only received was lost last, with its process or its disk
	ahead       replication.Time // of the clock: jumps so far
}

// clock is the time as the node sees it.
func (n *node) clock() replication.Time {
	return n.w.now + n.w.now/1000*replication.Time(n.w.opt.Drift[n.id]) + n.ahead
}

// request is an application's request at a node.
type request struct {
	mem  []uint64
	done func(o replication.Outcome)
}

func newNode(w *world, id int) *node {
	n := &node{w: w, id: id}
	n.sectors = w.opt.Sectors
	n.dev = device{w: w, n: n, data: newMedia[uint64](w.opt.Sectors + w.opt.Room), meta: newMedia[rawSector](metaSectors)}
	if err := n.format(w.opt.BlankPeer && id == 1); err != nil {
		w.fail("format: %v", err)
	}
	n.litter()
	return n
}

func (n *node) role() state.Role { return n.state().Role }

func (n *node) state() state.State {
	if !n.up {
		return state.Initial()
	}
	return n.core.State(0)
}

func (n *node) config() replication.Config {
	o := &n.w.opt
	digest := func(on bool) string {
		if on {
			return "crc32c"
		}
		return ""
	}
	maxVersion := 0
	if n.id == 1 {
		maxVersion = o.Version
	}
	granularity := uint32(0)
	if o.Thin {
		granularity = 128 << 10
	}
	return replication.Config{
		Name: "r0", Protocol: o.Protocol, TimeoutTenths: 5, PingIntSeconds: 1, PingTimeoutTenths: 5, KoCount: 4,
		TwoPrimaries: o.TwoPrimaries, OnCongestion: onCongestion(o), CongestionFill: o.Congestion,
		MaxEpochSize: o.MaxEpochSize, MaxBuffers: 2048, UseRLE: o.UseRLE, Seed: n.w.rng.Uint64(), MaxVersion: maxVersion,
		SuspendOnNoData: o.Suspend,
		VerifyAlg:       digest(true), IntegrityAlg: digest(o.Integrity), CsumsAlg: digest(o.Csums),
		Volumes: []replication.VolumeConfig{{
			OnIOError: o.OnIOError, DiskTimeoutTenths: o.DiskTimeout, Fencing: o.Fencing, DiskFlushes: true, MDFlushes: true,
			ALExtents: o.Extents, ALUpdates: true, ResyncRateKiB: o.Rate, DiscardGranularity: granularity,
		}},
	}
}

func onCongestion(o *Options) replication.OnCongestion {
	if o.Congestion != 0 {
		return replication.CongestionPullAhead
	}
	return replication.CongestionBlock
}

// boot starts the process: replay the log, attach the disk, connect.
func (n *node) boot() {
	if n.up {
		return
	}
	at := n.open()
	if at == nil {
		return
	}
	n.up, n.inc = true, n.inc+1
	n.core = replication.New(n.config())
	n.fx.Reset()
	n.want, n.conn, n.reads, n.detached = false, nil, false, false
	n.bufs, n.freeBufs = nil, nil
	n.reqs, n.nextReq, n.freeReqs = map[replication.ReqID]*request{}, 0, nil
	n.w.trace("boot", n.id, 0, 0)
	n.tick()
	n.step(&replication.Event{Kind: replication.EvAttach, Attach: at})
	n.schedule(between(n.w.rng, 1, 5*replication.Millisecond), func() {
		n.admin(replication.Admin{Kind: replication.AdminConnect}, nil)
	})
}

// open makes the disk ready to be attached. It returns nil if the node has crashed on
// the way, to be tried again.
func (n *node) open() *replication.Attach {
	t := restarter{n: n, left: -1}
	if !n.w.healing && n.w.rng.IntN(4) == 0 {
		t.left = n.w.rng.IntN(12)
	}
	err := t.replay()
	if errors.Is(err, errCrashed) {
		n.w.trace("crash in replay", n.id, 0, 0)
		if n.w.rng.IntN(2) == 0 {
			if !n.up || len(n.dev.data.pending) > 0 { // a disk that was detached in good order has no data in its cache
				n.w.oracle.powerLost(n.id)
			}
			n.dev.losePower()
		}
		return nil
	}
	var at *replication.Attach
	if err == nil {
		at, err = t.attachment()
	}
	if err != nil {
		n.w.fail("node %s cannot attach: %v", nodeName(n.id), err)
		return nil
	}
	n.dev.broken = false
	return at
}

// reattach gives a node whose disk had failed the disk back.
func (n *node) reattach() {
	if !n.up || n.state().Disk != state.Diskless || !n.detached || len(n.dev.queue) > 0 || !n.dev.returned() {
		return
	}
	if at := n.open(); at != nil {
		n.detached, n.dev.given = false, false
		n.step(&replication.Event{Kind: replication.EvAttach, Attach: at})
	}
}

func (n *node) tick() {
	n.schedule(100*replication.Millisecond+between(n.w.rng, 0, 100*microsecond), func() {
		n.step(&replication.Event{Kind: replication.EvTick, Rand: n.w.rng.Uint64()})
		n.tick()
	})
}

// kill ends the process.
func (n *node) kill() {
	if !n.up {
		return
	}
	n.w.trace("kill", n.id, 0, 0)
	n.w.oracle.died(n.id)
	n.dev.stop()
	n.w.oracle.killed(n)
	n.end(true)
}

// powerLoss turns the node off.
func (n *node) powerLoss() {
	n.w.trace("power loss", n.id, 0, 0)
	if n.up {
		n.w.oracle.died(n.id)
	}
	n.dev.stop()
	n.dark = n.w.now
	n.w.oracle.powerLost(n.id)
	n.dev.losePower()
	n.end(false)
}

// end forgets all volatile state. notice: the sockets are closed, so that the peer
// hears of it.
func (n *node) end(notice bool) {
	if !n.up {
		return
	}
	n.w.net.crashed(n, notice)
	n.up, n.inc, n.pausedUntil = false, n.inc+1, 0
	n.core, n.conn, n.want, n.reqs = nil, nil, false, nil
	n.w.client.crashed(n)
	n.w.op.crashed(n)
}

// observe is told of every event that a core is about to get, unless it is nil.
var observe func(*replication.Resource, *replication.Event)

// step runs the core and carries out what it calls for.
func (n *node) step(ev *replication.Event) {
	if !n.up || n.w.err != nil {
		return
	}
	ev.Now = n.clock()
	n.w.trace(eventNames[ev.Kind], n.id, uint64(ev.Cmd)<<32|uint64(ev.IO), ev.Sector<<8|uint64(ev.Err))
	if observe != nil {
		observe(n.core, ev)
	}
	n.core.Step(ev, &n.fx)
	inc := n.inc
	for i := range n.fx.List {
		if n.inc != inc {
			return
		}
		n.effect(&n.fx.List[i])
	}
	n.fx.Reset()
}

var eventNames = [...]string{"", "tick", "request", "disk done", "meta done", "conn up", "conn down", "packet", "sent", "attach", "admin", "handler", "device", "moved"}

func (n *node) effect(e *replication.Effect) {
	switch e.Kind {
	case replication.FxSend:
		n.w.net.send(n, e)
	case replication.FxDisk:
		n.disk(e)
	case replication.FxMetaWrite:
		n.dev.put(metaOp{kind: e.Kind, sector: e.Sector, block: sectorsOf(n.fx.Bytes(e))})
	case replication.FxMetaFlush:
		n.dev.put(metaOp{kind: e.Kind, data: e.Data})
	case replication.FxMetaNotify:
		n.dev.put(metaOp{kind: e.Kind, io: e.IO})
	case replication.FxComplete:
		n.complete(e)
	case replication.FxFree:
		n.freeBuf(e.Buf)
	case replication.FxFill:
		copy(n.reqs[e.Req].mem[e.From>>9:], n.bufs[e.Buf-1])
		n.freeBuf(e.Buf)
	case replication.FxConnect:
		n.want = e.On
		n.w.net.try()
	case replication.FxClose:
		n.w.net.close(n, e.Gen)
	case replication.FxReply:
		n.w.op.replied(n, e.Token, e.Result)
	case replication.FxState:
		n.w.trace("state", n.id, uint64(e.Old.Word()), uint64(e.New.Word()))
		if n.w.keep {
			n.w.line("  %v -> %v", e.Old, e.New, nodeName(n.id))
		}
		n.w.dwell(n, e.Old, e.New)
		n.w.oracle.changed(n, e.Old, e.New)
	case replication.FxReads:
		n.reads = e.On
	case replication.FxAbort:
		n.w.trace("abort", n.id, 0, 0)
		n.dev.abort()
	case replication.FxDetached:
		n.detached = true
	case replication.FxNote:
		if n.w.keep {
			n.w.line("  note: %s (sector %d size %d)", e.Note.String(), e.Sector, e.Size, nodeName(n.id))
		}
		n.w.op.noted(n, e)
	case replication.FxSize:
		n.size = e.Sector
	case replication.FxMeasure:
		n.measure()
	case replication.FxMove:
		n.w.fail("node %s: external metadata is to be moved", nodeName(n.id))
	case replication.FxHandler:
		if e.Handler == replication.HandlerFencePeer {
			n.w.op.handler(n, e)
		} else if e.IO != 0 {
			n.handler(e.IO)
		}
	}
}

// handler runs a handler that may prevent something, and sometimes does.
func (n *node) handler(io replication.IOID) {
	exit := 0
	if !n.w.healing && !n.w.op.splitBrainPlanned && n.w.rng.IntN(20) == 0 {
		exit = 1
	}
	n.schedule(between(n.w.rng, 1, 20*replication.Millisecond), func() {
		n.step(&replication.Event{Kind: replication.EvHandler, IO: io, Exit: exit})
	})
}

// disk carries out a data operation of the core.
func (n *node) disk(e *replication.Effect) {
	if n.dev.given {
		n.w.fail("node %s: disk operation after the core has given the disk up", nodeName(n.id))
		return
	}
	io := &diskIO{fx: *e}
	switch e.Payload {
	case replication.PayloadRequest:
		q := n.reqs[e.Req]
		if q == nil {
			n.w.fail("node %s: disk operation for request %d, which is finished", nodeName(n.id), e.Req)
			return
		}
		io.mem = q.mem[e.From>>9:][:e.Size>>9]
		if e.Op == replication.OpWrite {
			n.w.check.logCovers(n, e)
		}
	case replication.PayloadBuffer:
		io.mem = n.bufs[e.Buf-1]
	default:
	}
	if io.mem != nil && uint32(len(io.mem)) != e.Size>>9 {
		n.w.fail("node %s: disk operation of %d bytes has memory for %d sectors", nodeName(n.id), e.Size, len(io.mem))
		return
	}
	if e.Op != replication.OpFlush && !n.within(e.Sector+uint64(e.Size>>9), e.Op == replication.OpWrite && e.Payload == replication.PayloadRequest) {
		n.w.fail("node %s: disk operation beyond the end of the device, or of the volume on stable storage: %d+%d", nodeName(n.id), e.Sector, e.Size)
		return
	}
	n.dev.submit(io)
}

// diskDone reports the end of a disk operation.
func (n *node) diskDone(io *diskIO, err replication.DiskError) {
	ev := &replication.Event{Kind: replication.EvDisk, IO: io.fx.IO, Err: err}
	if io.fx.Op == replication.OpRead && io.fx.Payload == replication.PayloadNone && err == replication.DiskOK {
		if io.fx.Sum != 0 {
			ev.Body = n.w.digestOf(io.mem)
		}
		ev.Zero = io.fx.TestZero && !slices.ContainsFunc(io.mem, func(v uint64) bool { return v != 0 })
		if !io.fx.SumOnly {
			ev.Buf = n.newBuf(io.mem)
		}
	}
	n.step(ev)
}

// digestOf is the digest of tags, by crc32c.
func (w *world) digestOf(mem []uint64) []byte {
	b := &w.digest
	sum := uint32(0)
	for len(mem) > 0 {
		n := min(len(mem), len(b)/8)
		for i, v := range mem[:n] {
			binary.BigEndian.PutUint64(b[8*i:], v)
		}
		sum, mem = crc32.Update(sum, castagnoli, b[:8*n]), mem[n:]
	}
	return binary.LittleEndian.AppendUint32(nil, sum)
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func (n *node) newBuf(mem []uint64) replication.BufID {
	if k := len(n.freeBufs); k > 0 {
		b := n.freeBufs[k-1]
		n.freeBufs = n.freeBufs[:k-1]
		n.bufs[b-1] = mem
		return b
	}
	n.bufs = append(n.bufs, mem)
	return replication.BufID(len(n.bufs))
}

// freeBuf takes a buffer back. Its memory is poisoned: who still uses it will show.
func (n *node) freeBuf(b replication.BufID) {
	if b == 0 {
		return
	}
	if int(b) > len(n.bufs) || n.bufs[b-1] == nil {
		n.w.fail("node %s: buffer %d is freed twice", nodeName(n.id), b)
		return
	}
	poison(n.bufs[b-1])
	n.bufs[b-1] = nil
	n.freeBufs = append(n.freeBufs, b)
}

// poisoned is no write's tag.
const poisoned = ^uint64(0)

func poison(mem []uint64) {
	for i := range mem {
		mem[i] = poisoned
	}
}

// ask submits an application request.
func (n *node) ask(ev replication.Event, mem []uint64, done func(replication.Outcome)) {
	id := n.nextReq
	if k := len(n.freeReqs); k > 0 {
		id = n.freeReqs[k-1]
		n.freeReqs = n.freeReqs[:k-1]
	} else {
		n.nextReq++
	}
	n.reqs[id] = &request{mem, done}
	ev.Kind, ev.Req = replication.EvRequest, id
	n.step(&ev)
}

// complete answers an application request.
func (n *node) complete(e *replication.Effect) {
	q := n.reqs[e.Req]
	if q == nil {
		n.w.fail("node %s: request %d is answered twice", nodeName(n.id), e.Req)
		return
	}
	if e.Buf != 0 {
		copy(q.mem, n.bufs[e.Buf-1])
		n.freeBuf(e.Buf)
	}
	delete(n.reqs, e.Req)
	n.freeReqs = append(n.freeReqs, e.Req)
	n.w.trace("complete", n.id, uint64(e.Req), uint64(e.Outcome))
	q.done(e.Outcome)
	poison(q.mem) // the memory is the application's again
}

// admin gives the core a command; done, if any, gets the answer.
func (n *node) admin(a replication.Admin, done func(state.Result)) {
	if !n.up {
		return
	}
	a.Token = n.w.op.expect(n, done)
	n.step(&replication.Event{Kind: replication.EvAdmin, Admin: &a})
}
