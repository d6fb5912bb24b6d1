package replication

import (
	"slices"

	"github.com/replblk/replblk/replication/state"
	"github.com/replblk/replblk/replication/wire"
)

// meddle changes what is on its way to the victim.
func (x *attack) meddle() {
	in := x.victim.inbox
	var packets []int
	for i := range in {
		if in[i].Kind == EvPacket {
			packets = append(packets, i)
		}
	}
	if len(packets) == 0 {
		return
	}
	i, j := packets[x.byte()%len(packets)], packets[x.byte()%len(packets)]
	switch how := x.byte(); how % 5 {
	case 0: // once more
		in = append(in, x.copyOf(in[i]))
	case 1: // not at all
		delete(x.victim.bufs, in[i].Buf)
		in = slices.Delete(in, i, i+1)
	case 2:
		in[i], in[j] = in[j], in[i]
	case 3:
		if n := len(in[i].Body); n > 0 {
			in[i].Body = slices.Clone(in[i].Body)
			in[i].Body[x.byte()%n] ^= byte(1 << (how / 5 % 8))
		}
	default: // of another kind; it decides for the driver whether there is data
		bulk := []wire.Command{wire.CmdData, wire.CmdDataReply, wire.CmdRSDataReply}
		if in[i].Buf != 0 {
			in[i].Cmd = bulk[how/5%3]
		} else if cmd := wire.Command(x.byte() % 0x40); !slices.Contains(bulk, cmd) {
			in[i].Cmd = cmd
		}
	}
	x.victim.inbox = in
}

func (x *attack) copyOf(ev Event) Event {
	if ev.Buf != 0 {
		data := x.victim.bufs[ev.Buf]
		x.victim.nextBuf++
		ev.Buf = x.victim.nextBuf
		x.victim.bufs[ev.Buf] = slices.Clone(data)
	}
	return ev
}

// invent makes a packet up.
func (x *attack) invent() {
	cmd := wire.Command(x.byte() % 0x40)
	if cmd == 0x3f { // there is none
		cmd = wire.CmdConnectionFeatures
	}
	x.packet(cmd)
}

// packet makes a packet of a kind up and lets it come before the others.
func (x *attack) packet(cmd wire.Command) {
	n := x.victim
	sockets := cmd.Sockets()
	ev := Event{Kind: EvPacket, Gen: n.gen, Cmd: cmd, Socket: DataSocket, Body: x.body(cmd)}
	if sockets&wire.MetaSocket != 0 && (sockets&wire.DataSocket == 0 || x.byte()&1 != 0) {
		ev.Socket = MetaSocket
	}
	if cmd == wire.CmdData || cmd == wire.CmdDataReply || cmd == wire.CmdRSDataReply {
		n.nextBuf++
		ev.Buf, ev.Size = n.nextBuf, uint32(1+x.byte()%32)*512
		n.bufs[ev.Buf] = make([]uint64, ev.Size>>9)
	}
	n.inbox = append([]Event{ev}, n.inbox...)
}

// body is a body of a packet that makes some sense.
func (x *attack) body(cmd wire.Command) []byte {
	sector, size, id := x.place()
	seq := uint32(x.byte())
	switch cmd {
	case wire.CmdData, wire.CmdDataReply, wire.CmdRSDataReply:
		return (&wire.Data{Sector: sector, BlockID: id, Seq: seq, Flags: wire.DataFlags(x.byte())}).AppendTo(nil)
	case wire.CmdTrim, wire.CmdZeroes:
		return (&wire.Trim{Data: wire.Data{Sector: sector, BlockID: id, Seq: seq, Flags: wire.DataFlags(x.byte())}, Size: size}).AppendTo(nil)
	case wire.CmdBarrier:
		return (&wire.Barrier{Handle: seq}).AppendTo(nil)
	case wire.CmdBarrierAck:
		return (&wire.BarrierAck{Handle: x.victim.r.tl.cur.number - seq%3, Count: uint32(x.byte())}).AppendTo(nil)
	case wire.CmdState:
		return (&wire.StateWord{State: x.word()}).AppendTo(nil)
	case wire.CmdStateChgReq, wire.CmdConnStChgReq:
		mask := []state.Word{state.MaskRole, state.MaskConn, state.MaskDisk, state.MaskConn | state.MaskDisk, state.MaskPeer, state.MaskPeerDisk, ^state.Word(0)}
		return (&wire.StateChangeRequest{Mask: mask[x.byte()%len(mask)], Value: x.word()}).AppendTo(nil)
	case wire.CmdStateChgReply, wire.CmdConnStChgReply:
		return (&wire.StateChangeReply{Result: state.Result(int8(x.byte()))}).AppendTo(nil)
	case wire.CmdUUIDs:
		return x.uuids()
	case wire.CmdSizes:
		s := x.victim.r.vols[0]
		p := wire.Sizes{Backing: s.size + uint64(x.byte())*8, User: uint64(x.byte()) << 10, Current: s.size - uint64(x.byte())*8, MaxBioSize: 4096}
		return p.AppendTo(nil, x.victim.r.session())
	case wire.CmdDataRequest, wire.CmdRSDataRequest, wire.CmdRSThinReq, wire.CmdOVRequest, wire.CmdOVReply, wire.CmdCsumRSRequest:
		b := (&wire.BlockRequest{Sector: sector, BlockID: id, Size: size}).AppendTo(nil)
		if cmd == wire.CmdOVReply || cmd == wire.CmdCsumRSRequest {
			b = append(b, make([]byte, []int{0, 20, 64}[x.byte()%3])...)
		}
		return b
	case wire.CmdOutOfSync, wire.CmdRSDeallocated:
		return (&wire.BlockDesc{Sector: sector, Size: size}).AppendTo(nil)
	case wire.CmdSyncUUID:
		return (&wire.SyncUUID{UUID: uint64(seq)}).AppendTo(nil)
	case wire.CmdPing, wire.CmdPingAck, wire.CmdUnplugRemote:
		return nil
	default:
	}
	if cmd.Sockets()&wire.MetaSocket != 0 {
		return (&wire.BlockAck{Sector: sector, BlockID: id, Size: size, Seq: seq}).AppendTo(nil)
	}
	b := make([]byte, x.byte())
	for i := range b {
		b[i] = byte(x.byte())
	}
	return b
}

// place names a block: one that is under way, or any.
func (x *attack) place() (sector uint64, size uint32, id uint64) {
	r := x.victim.r
	v := r.vols[0]
	pick := x.byte()
	switch lists := [][]span{v.rs.reqs, v.rs.unacked, v.verify.reqs, v.verify.answered}; pick % 8 {
	case 0, 1, 2, 3:
		if l := lists[pick%8]; len(l) > 0 {
			s := l[pick/8%len(l)]
			return s.start, uint32(s.end-s.start) << 9, wire.ResyncID
		}
	case 4, 5, 6:
		if n := len(r.ios.list); n > 0 {
			i := ioID(pick / 8 % n)
			q := &r.ios.list[i]
			return q.sector, q.size, r.ios.blockID(i)
		}
	}
	at := x.byte()
	sector = uint64(at) * 8
	if at > 250 {
		sector = v.size - uint64(at-251)*8
	}
	return sector, uint32(x.byte()) * 512, []uint64{0, wire.ResyncID, uint64(at)<<32 | 1}[at%3]
}

// word is a state word: a mirror of the victim's state with a part of it changed.
func (x *attack) word() state.Word {
	s := x.victim.r.State(0)
	s.Role, s.Peer, s.Disk, s.PeerDisk = s.Peer, s.Role, s.PeerDisk, s.Disk
	w := s.Word()
	for range x.byte() % 3 {
		at := 4 * (x.byte() % 5)
		w = w&^(15<<at) | state.Word(x.byte()%16)<<at
	}
	return w
}

// uuids are generations that are nearly those of the victim.
func (x *attack) uuids() []byte {
	u := x.victim.r.vols[0].ownUUIDs()
	for range x.byte() % 3 {
		i, k := x.byte()%4, x.byte()
		u[i] = []uint64{0, uint64(k) << 1, u[k%4], u[k%4] ^ 1}[k%4]
	}
	return (&wire.UUIDs{Current: u[0], Bitmap: u[1], History: [2]uint64{u[2], u[3]}, Bits: uint64(x.byte()), Flags: wire.UUIDFlags(x.byte() & 0x1f)}).AppendTo(nil)
}
