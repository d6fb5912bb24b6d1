package replication

import (
	"encoding/binary"
	"testing"

	"github.com/replblk/replblk/replication/state"
	"github.com/replblk/replblk/replication/wire"
)

// A hostile peer: whatever arrives in whatever state, the core must neither panic nor
// touch a sector outside the volume, nor forget a buffer.
func FuzzHostilePeer(f *testing.F) {
	seed := func(phase byte, cmds ...wire.Command) {
		b := []byte{phase}
		for i, c := range cmds {
			b = binary.BigEndian.AppendUint16(b, uint16(c))
			b = append(b, byte(i), 24)
			for range 24 {
				b = append(b, byte(i*7))
			}
		}
		f.Add(b)
	}
	for phase := range byte(6) {
		seed(phase, wire.CmdData, wire.CmdBarrier, wire.CmdWriteAck, wire.CmdState)
		seed(phase, wire.CmdUUIDs, wire.CmdSizes, wire.CmdState, wire.CmdBitmap, wire.CmdSyncUUID)
		seed(phase, wire.CmdRSDataRequest, wire.CmdRSWriteAck, wire.CmdStateChgReq, wire.CmdConnStChgReq)
		seed(phase, wire.CmdPing, wire.CmdPingAck, wire.CmdTrim, wire.CmdZeroes, wire.CmdDataRequest, wire.CmdOutOfSync)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) == 0 {
			return
		}
		p := newPair()
		p.quiet = true
		victim := staged(t, p, int(data[0])%6)
		hostile(t, victim, data[1:])
	})
}

// staged brings a pair into a state worth attacking and returns the node to attack.
func staged(t *testing.T, p *pair, phase int) *testNode {
	a, b := p.nodes[0], p.nodes[1]
	p.bringUp()
	if phase == 0 { // in the middle of the handshake
		for range 3 {
			ev := b.inbox[0]
			b.inbox = b.inbox[1:]
			b.step(&ev)
		}
		p.link()
		return b
	}
	p.settle()
	if phase == 1 {
		return b
	}
	a.admin(Admin{Kind: AdminPrimary, Force: true})
	p.settle()
	switch phase {
	case 2: // b is SyncTarget
		return b
	case 3: // a is SyncSource
		return a
	case 4: // writes in flight
		a.request(OpWrite, 0, 4096, 1)
		a.request(OpFlush, 0, 0, 0)
		a.step(&a.inbox[0])
		return a
	default:
		b.admin(Admin{Kind: AdminDetach, Force: true})
		p.settle()
		return b
	}
}

// hostile delivers packets made of data to n and checks what it does.
func hostile(t *testing.T, n *testNode, data []byte) {
	for len(data) >= 4 {
		cmd := wire.Command(binary.BigEndian.Uint16(data))
		flags, size := data[2], int(data[3])
		data = data[4:]
		body := data[:min(size, len(data))]
		data = data[len(body):]
		ev := Event{Kind: EvPacket, Gen: n.gen, Cmd: cmd, Vol: uint16(flags >> 7), Socket: DataSocket + Socket(flags&1), Body: body}
		if flags&2 != 0 && cmd <= wire.CmdRSDataReply {
			n.nextBuf++
			ev.Buf, ev.Size = n.nextBuf, 512*uint32(1+flags>>2&7)
			n.bufs[ev.Buf] = make([]uint64, ev.Size>>9)
		}
		n.inbox = nil
		n.deliver(t, &ev)
		for i := 0; len(n.inbox) > 0 && i < 1000; i++ {
			next := n.inbox[0]
			n.inbox = n.inbox[1:]
			n.deliver(t, &next)
		}
	}
}

func (n *testNode) deliver(t *testing.T, ev *Event) {
	n.fx.Reset()
	record(n.r, ev)
	n.r.Step(ev, &n.fx)
	size := n.r.vols[0].size
	for i := range n.fx.List {
		e := &n.fx.List[i]
		if e.Kind == FxDisk && e.Op != OpFlush && (e.Sector > size || uint64(e.Size)>>9 > size-e.Sector) {
			t.Fatalf("%v of %d bytes at sector %d: the volume has %d sectors", e.Op, e.Size, e.Sector, size)
		}
		if e.Kind == FxSend && e.Socket == DataSocket || e.Kind == FxClose {
			continue
		}
		if e.Kind != FxSend {
			n.execute(e)
		}
	}
}

// Every state word that a peer may send, in a quiet and in a resyncing pair.
func TestEveryStateWord(t *testing.T) {
	for phase := 1; phase < 4; phase++ {
		for w := state.Word(0); w < 1<<17; w += 61 {
			p := newPairSharing(phase, t)
			body := (&wire.StateWord{State: w}).AppendTo(nil)
			p.deliver(t, &Event{Kind: EvPacket, Gen: p.gen, Cmd: wire.CmdState, Socket: DataSocket, Body: body})
			if !p.r.vols[0].st.Valid() {
				t.Fatalf("word %#x leads to %v", w, p.r.vols[0].st)
			}
		}
	}
}

// newPairSharing returns the victim of staged, re-made only when the last one lost its
// connection: building a pair costs more than the packet.
func newPairSharing(phase int, t *testing.T) *testNode {
	key := phase
	if n := shared[key]; n != nil && n.r.conn.established() && n.r.vols[0].st == sharedState[key] {
		return n
	}
	p := newPair()
	p.quiet = true
	n := staged(t, p, phase)
	shared[key], sharedState[key] = n, n.r.vols[0].st
	return n
}

var (
	shared      = map[int]*testNode{}
	sharedState = map[int]state.State{}
)
