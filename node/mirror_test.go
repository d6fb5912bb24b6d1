package node

import (
	"encoding/binary"

	"github.com/replblk/replblk/replication"
	"github.com/replblk/replblk/replication/state"
	"github.com/replblk/replblk/replication/wire"
)

// mirrorCore is the least core that makes a driver work: Primary at once, always
// connected, every write goes to the local disk and to the peer and is complete when
// both have it. Like the real one it is given no memory, only names.
type mirrorCore struct {
	gen     uint32
	ups     int
	downs   int
	rerun   []uint32 // generations that went down
	reqs    map[replication.ReqID]*mirrorReq
	ios     map[replication.IOID]mirrorIO
	nextIO  replication.IOID
	used    int
	room    int
	lastRnd []byte
	sent    int
}

type mirrorReq struct{ local, peer bool }

type mirrorIO struct {
	req  replication.ReqID
	app  bool
	buf  replication.BufID
	size uint32
	body [24]byte
}

func newMirrorCore() *mirrorCore {
	return &mirrorCore{reqs: map[replication.ReqID]*mirrorReq{}, ios: map[replication.IOID]mirrorIO{}, room: 64}
}

func (c *mirrorCore) State(uint16) state.State {
	s := state.Initial()
	s.Role = state.Primary
	return s
}

func (c *mirrorCore) PeerRoom() int { return c.room - c.used }

func (c *mirrorCore) Step(ev *replication.Event, fx *replication.Effects) {
	switch ev.Kind {
	case replication.EvAdmin:
		fx.List = append(fx.List, replication.Effect{Kind: replication.FxReply, Token: ev.Admin.Token, Result: state.Success})
		switch ev.Admin.Kind {
		case replication.AdminConnect:
			fx.List = append(fx.List, replication.Effect{Kind: replication.FxConnect, On: true})
		case replication.AdminDisconnect:
			fx.List = append(fx.List, replication.Effect{Kind: replication.FxConnect}, replication.Effect{Kind: replication.FxClose, Gen: c.gen})
		default:
		}
	case replication.EvConnUp:
		c.gen = ev.Gen
		c.ups++
		c.lastRnd = append(c.lastRnd[:0], ev.Body...)
	case replication.EvConnDown:
		c.downs++
		c.rerun = append(c.rerun, ev.Gen)
		c.gen = 0
		for id := range c.reqs { // a test core may range over a map
			c.acked(id, fx)
		}
		fx.List = append(fx.List, replication.Effect{Kind: replication.FxConnect, On: true})
	case replication.EvRequest:
		c.request(ev, fx)
	case replication.EvDisk:
		c.diskDone(ev, fx)
	case replication.EvPacket:
		c.packet(ev, fx)
	case replication.EvSent:
		c.sent++
	default:
	}
}

func (c *mirrorCore) disk(e replication.Effect, io mirrorIO, fx *replication.Effects) {
	c.nextIO++
	e.Kind, e.IO = replication.FxDisk, c.nextIO
	c.ios[c.nextIO] = io
	fx.List = append(fx.List, e)
}

func (c *mirrorCore) send(sock replication.Socket, cmd wire.Command, body []byte, e replication.Effect, fx *replication.Effects) {
	e.Kind, e.Socket, e.Gen, e.Off = replication.FxSend, sock, c.gen, uint32(len(fx.Buf))
	fx.Buf = wire.Header{Command: cmd, Length: uint32(len(body)) + e.Size}.AppendTo(fx.Buf, 101)
	fx.Buf = append(fx.Buf, body...)
	e.Len = uint32(len(fx.Buf)) - e.Off
	fx.List = append(fx.List, e)
}

func (c *mirrorCore) request(ev *replication.Event, fx *replication.Effects) {
	r := &mirrorReq{peer: true}
	c.reqs[ev.Req] = r
	e := replication.Effect{Op: ev.Op, Sector: ev.Sector, Size: ev.Size, Req: ev.Req, Payload: replication.PayloadRequest}
	if ev.Op == replication.OpWrite && c.gen != 0 {
		r.peer = false
		body := binary.BigEndian.AppendUint64(nil, ev.Sector)
		body = binary.BigEndian.AppendUint64(body, uint64(ev.Req))
		body = binary.BigEndian.AppendUint64(body, 0)
		c.send(replication.DataSocket, wire.CmdData, body, replication.Effect{Size: ev.Size, Payload: replication.PayloadRequest, Req: ev.Req, Notify: true}, fx)
	}
	if ev.Op != replication.OpRead && ev.Op != replication.OpWrite {
		e.Payload = replication.PayloadNone
	}
	c.disk(e, mirrorIO{req: ev.Req, app: true}, fx)
}

func (c *mirrorCore) diskDone(ev *replication.Event, fx *replication.Effects) {
	io := c.ios[ev.IO]
	delete(c.ios, ev.IO)
	if io.app {
		c.reqs[io.req].local = true
		c.finish(io.req, fx)
		return
	}
	c.used--
	if c.gen == 0 {
		fx.List = append(fx.List, replication.Effect{Kind: replication.FxFree, Buf: io.buf})
		return
	}
	// The ack carries the buffer, to see that it comes back from the writer.
	c.send(replication.MetaSocket, wire.CmdWriteAck, io.body[:], replication.Effect{Buf: io.buf, FreeBuf: true}, fx)
}

func (c *mirrorCore) packet(ev *replication.Event, fx *replication.Effects) {
	if ev.Gen != c.gen {
		if ev.Buf != 0 {
			fx.List = append(fx.List, replication.Effect{Kind: replication.FxFree, Buf: ev.Buf})
		}
		return
	}
	if ev.Cmd == wire.CmdWriteAck {
		c.acked(replication.ReqID(binary.BigEndian.Uint64(ev.Body[8:])), fx)
		return
	}
	c.used++
	io := mirrorIO{buf: ev.Buf, size: ev.Size}
	copy(io.body[:], ev.Body)
	c.disk(replication.Effect{Op: replication.OpWrite, Sector: binary.BigEndian.Uint64(ev.Body), Size: ev.Size, Buf: ev.Buf, Payload: replication.PayloadBuffer}, io, fx)
}

func (c *mirrorCore) acked(id replication.ReqID, fx *replication.Effects) {
	if r := c.reqs[id]; r != nil {
		r.peer = true
		c.finish(id, fx)
	}
}

func (c *mirrorCore) finish(id replication.ReqID, fx *replication.Effects) {
	if r := c.reqs[id]; r.local && r.peer {
		delete(c.reqs, id)
		fx.List = append(fx.List, replication.Effect{Kind: replication.FxComplete, Req: id})
	}
}
