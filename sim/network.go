package sim

import (
	"bytes"

	"github.com/replblk/replblk/replication"
	"github.com/replblk/replblk/replication/state"
	"github.com/replblk/replblk/replication/wire"
)

// network connects the two nodes: one connection at a time, of two sockets.
type network struct {
	w           *world
	partitioned bool // no new connections
	pending     bool // one is being made
	conns       uint64
	old         []byte // mutant OldGeneration: a packet of a dead connection
}

// side is one end of a connection.
type side struct {
	node      *node
	peer      *side
	gen       uint32
	upAt      replication.Time
	up        bool // EvConnUp was delivered
	shut      bool // this end sends nothing more
	gone      bool // EvConnDown was delivered, or the node is down
	lostPower bool // and what its peer believes it has may be lost
	out       [3]pipe
	in        [3]inbox
}

// pipe is one direction of a socket. Bytes arrive in order, or not at all and then
// nothing after them either.
type pipe struct {
	written replication.Time // when the last packet was handed to the kernel
	arrives replication.Time // when the last packet reaches the peer
	dead    bool
}

// inbox is what has arrived and was not read yet. It follows the handshake to know
// the format of the headers.
type inbox struct {
	list    []packet
	stalled bool
}

type packet struct {
	head    []byte // header and body
	payload []uint64
	eof     bool
	garbage bool
}

// try makes a connection if both nodes want one.
func (t *network) try() {
	if t.pending || !t.possible() {
		return
	}
	t.pending = true
	t.w.after(between(t.w.rng, 100*microsecond, 20*replication.Millisecond), func() {
		t.pending = false
		if t.possible() {
			t.establish()
		}
	})
}

func (t *network) possible() bool {
	if t.partitioned {
		return false
	}
	for _, n := range t.w.nodes {
		if !n.up || !n.want || n.conn != nil {
			return false
		}
	}
	return true
}

func (t *network) establish() {
	t.conns++
	t.w.trace("connect", -1, t.conns, 0)
	var s [2]*side
	for i, n := range t.w.nodes {
		n.gen++
		n.want = false
		s[i] = &side{node: n, gen: n.gen, upAt: t.w.now + between(t.w.rng, 0, 2*replication.Millisecond)}
		n.conn = s[i]
	}
	s[0].peer, s[1].peer = s[1], s[0]
	resolves := t.w.rng.IntN(2)
	for i, n := range t.w.nodes {
		body := make([]byte, 64)
		for j := range body {
			body[j] = byte(t.w.rng.Uint32())
		}
		n.schedule(s[i].upAt-t.w.now, func() {
			if s[i].gone || s[i].shut {
				return
			}
			s[i].up = true
			n.remeasure()
			n.step(&replication.Event{Kind: replication.EvConnUp, Gen: s[i].gen, ResolveConflicts: i == resolves, Body: body})
			t.mutate(s[i])
		})
	}
}

// send takes a packet of the core.
func (t *network) send(n *node, e *replication.Effect) {
	s := n.conn
	if s == nil || s.gen != e.Gen || s.shut || s.gone {
		if e.FreeBuf {
			n.freeBuf(e.Buf)
		}
		return
	}
	fx := *e
	head := append([]byte(nil), n.fx.Bytes(e)...)
	var mem []uint64
	switch e.Payload {
	case replication.PayloadRequest:
		if q := n.reqs[e.Req]; q != nil {
			mem = q.mem[fx.From>>9:][:fx.Size>>9]
		} else {
			t.w.fail("node %s: send for request %d, which is finished", nodeName(n.id), e.Req)
		}
	case replication.PayloadBuffer:
		mem = n.bufs[e.Buf-1]
	case replication.PayloadZeroes:
		mem = make([]uint64, e.Size>>9)
	default:
	}
	if e.Sum != 0 {
		head = append(head, t.w.digestOf(mem)...)
	}
	p := &s.out[e.Socket]
	p.written = max(p.written, t.w.now+between(t.w.rng, 0, 30*microsecond))
	n.schedule(p.written-t.w.now, func() { t.write(s, &fx, head, mem) })
}

// write hands a packet to the kernel: from here on its memory is not needed.
func (t *network) write(s *side, e *replication.Effect, head []byte, mem []uint64) {
	n := s.node
	if s.gone {
		if e.FreeBuf {
			n.freeBuf(e.Buf)
		}
		return
	}
	pk := packet{head: head}
	if mem != nil {
		pk.payload = append([]uint64(nil), mem...)
		if t.w.opt.Integrity && !t.w.healing && t.w.rng.IntN(300) == 0 {
			t.w.trace("corrupt", n.id, 0, 0)
			pk.payload[t.w.rng.IntN(len(mem))] ^= 1 << t.w.rng.IntN(64)
		}
	}
	if e.FreeBuf {
		n.freeBuf(e.Buf)
	}
	if e.Notify {
		n.schedule(1, func() {
			if !s.gone {
				n.step(&replication.Event{Kind: replication.EvSent, Gen: s.gen, Token: e.Token})
			}
		})
	}
	if t.w.mutant == OldGeneration && e.Socket == replication.MetaSocket && len(head) == 16+wire.BlockAckSize && t.w.rng.IntN(4) == 0 {
		t.old = head
	}
	if t.w.mutant == LostPacket && e.Socket == replication.DataSocket && mem != nil && t.w.rng.IntN(300) == 0 {
		return
	}
	t.transmit(s, e.Socket, pk)
}

// transmit lets a packet travel to the other side.
func (t *network) transmit(s *side, sock replication.Socket, pk packet) {
	p := &s.out[sock]
	if p.dead {
		return
	}
	d := t.w.opt.NetLatency/2 + replication.Time(t.w.rng.Int64N(int64(t.w.opt.NetLatency)))
	if sock == replication.MetaSocket {
		d += replication.Time(t.w.rng.Int64N(int64(t.w.opt.MetaSkew) + 1))
	}
	p.arrives = max(p.arrives, t.w.now+d, s.peer.upAt+1)
	t.w.at(p.arrives, func() {
		if p.dead || s.peer.gone {
			return
		}
		in := &s.peer.in[sock]
		in.list = append(in.list, pk)
		if s.peer.node.pausedUntil > t.w.now {
			s.peer.node.schedule(0, func() { t.read(s.peer, sock) })
			return
		}
		t.read(s.peer, sock)
	})
}

// read delivers what has arrived.
func (t *network) read(s *side, sock replication.Socket) {
	in := &s.in[sock]
	for len(in.list) > 0 && !in.stalled && !s.gone && s.node.conn == s && t.w.err == nil {
		pk := in.list[0]
		if pk.eof {
			in.list = nil
			cause := state.BrokenPipe
			if sock == replication.MetaSocket {
				cause = state.NetworkFailure
			}
			t.broken(s, cause)
			return
		}
		if sock == replication.DataSocket && s.node.core.PeerRoom() == 0 {
			in.stalled = true
			s.node.schedule(replication.Millisecond, func() {
				in.stalled = false
				t.read(s, sock)
			})
			return
		}
		in.list = in.list[1:]
		t.deliver(s, sock, pk)
	}
}

// deliver parses a packet from its bytes, as the driver does, and gives it to the core.
func (t *network) deliver(s *side, sock replication.Socket, pk packet) {
	session := t.w.opt.session()
	version := session.Version
	if len(pk.head) == 8+wire.ConnectionFeaturesSize && wire.Command(uint16(pk.head[4])<<8|uint16(pk.head[5])) == wire.CmdConnectionFeatures {
		version = wire.VersionInitial
	}
	h, size, err := wire.ParseHeader(pk.head, version)
	if pk.garbage {
		t.intruded(s, h, err)
		return
	}
	if err == nil && h.Command != wire.CmdConnectionFeatures {
		err = session.Check(h)
	}
	body, bulk := session.Split(h)
	if err == nil && (size+int(body) != len(pk.head) || int(bulk) != len(pk.payload)*512) {
		t.w.fail("node %s sent %v of %d+%d bytes with a header that says %d+%d", nodeName(s.peer.node.id), h.Command,
			len(pk.head)-size, len(pk.payload)*512, body, bulk)
		return
	}
	if err != nil {
		t.w.fail("node %s sent a bad packet: %v", nodeName(s.peer.node.id), err)
		return
	}
	ev := replication.Event{Kind: replication.EvPacket, Gen: s.gen, Socket: sock, Cmd: h.Command, Vol: h.Volume, Size: bulk, Body: pk.head[size:]}
	if bulk > 0 {
		ev.Buf = s.node.newBuf(pk.payload)
		ev.Corrupt = session.DigestSize > 0 && t.w.mutant != DigestIgnored &&
			!bytes.Equal(t.w.digestOf(pk.payload), ev.Body[wire.DataSize:])
	}
	if t.w.keep {
		t.w.line("  < %v socket %d, %d+%d bytes: %x", h.Command, sock, body, bulk, ev.Body, nodeName(s.node.id))
	}
	s.node.step(&ev)
}

// intruded is what the driver does with a stream that makes no sense: it ends it.
func (t *network) intruded(s *side, h wire.Header, err error) {
	if err == nil {
		t.w.fail("node %s takes random bytes for %v", nodeName(s.node.id), h.Command)
		return
	}
	t.broken(s, state.ProtocolError)
}

// close shuts a connection at the wish of the core.
func (t *network) close(n *node, gen uint32) {
	s := n.conn
	if s == nil || s.gen != gen || s.shut {
		return
	}
	t.broken(s, state.NetworkFailure)
}

// broken ends one side of a connection: what was sent is still written, then the core
// hears that the connection is gone.
func (t *network) broken(s *side, cause state.Conn) {
	if s.shut || s.gone {
		return
	}
	s.shut = true
	last := max(s.out[replication.DataSocket].written, s.out[replication.MetaSocket].written, t.w.now, s.upAt)
	n := s.node
	n.schedule(last-t.w.now+between(t.w.rng, 1, replication.Millisecond), func() {
		t.finish(s)
		n.conn = nil
		if s.up {
			n.step(&replication.Event{Kind: replication.EvConnDown, Gen: s.gen, Cause: cause})
		} else if !n.want {
			n.want = true // the core never knew of this one
		}
		t.try()
	})
}

// finish ends a side; the other one reads the end of both streams.
func (t *network) finish(s *side) {
	s.gone, s.shut = true, true
	for _, sock := range [...]replication.Socket{replication.DataSocket, replication.MetaSocket} {
		t.transmit(s, sock, packet{eof: true})
	}
}

// crashed ends the connection of a node whose process has ended.
func (t *network) crashed(n *node, notice bool) {
	s := n.conn
	if s == nil {
		return
	}
	if notice {
		t.finish(s)
		return
	}
	s.gone, s.shut, s.lostPower = true, true, true
	for i := range s.out {
		s.out[i].dead = true
	}
}

// cut breaks the connection: everything in flight is lost.
func (t *network) cut(notice bool) {
	for _, n := range t.w.nodes {
		s := n.conn
		if s == nil {
			continue
		}
		for i := range s.out {
			s.out[i].dead = true
		}
		if notice {
			n.schedule(between(t.w.rng, 0, 20*replication.Millisecond), func() { t.broken(s, state.NetworkFailure) })
		}
	}
}

// silence lets nothing through any more in the direction away from n.
func (t *network) silence(n *node) {
	if s := n.conn; s != nil {
		for i := range s.out {
			s.out[i].dead = true
		}
	}
}

// connected says whether there is a connection, in whatever state.
func (w *world) connected() bool { return w.nodes[0].conn != nil || w.nodes[1].conn != nil }

// good says whether there is a connection that nothing has happened to.
func (t *network) good() bool {
	for _, n := range t.w.nodes {
		s := n.conn
		if s == nil || s.shut || s.out[replication.DataSocket].dead || s.out[replication.MetaSocket].dead {
			return false
		}
	}
	return true
}

// partition keeps the nodes from connecting for a while.
func (t *network) partition(d replication.Time) {
	t.partitioned = true
	t.w.after(d, func() {
		t.partitioned = false
		t.try()
	})
}

// mutate delivers a packet of an old connection on a new one.
func (t *network) mutate(s *side) {
	if t.w.mutant != OldGeneration || t.old == nil {
		return
	}
	head := t.old
	t.old = nil
	s.node.schedule(between(t.w.rng, replication.Millisecond, 40*replication.Millisecond), func() {
		if s.node.conn == s && !s.gone {
			t.deliver(s, replication.MetaSocket, packet{head: head})
		}
	})
}
