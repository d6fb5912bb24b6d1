package replication

import (
	"github.com/replblk/replblk/replication/state"
	"github.com/replblk/replblk/replication/wire"
)

// Flags of P_UUIDS as kept of the peer.
const (
	flagDiscard      = uint64(wire.UUIDDiscardMyData)
	flagCrashed      = uint64(wire.UUIDCrashedPrimary)
	flagInconsistent = uint64(wire.UUIDInconsistent)
	flagSkipSync     = uint64(wire.UUIDSkipInitialSync)
	flagKept         = uint64(wire.UUIDKept)
	flagOutdated     = uint64(wire.UUIDOutdated)
)

func (r *Resource) sendProtocol(cmd wire.Command) {
	p := wire.Protocol{Protocol: uint32(r.cfg.Protocol), AfterSB0: uint32(r.cfg.AfterSB[0]), AfterSB1: uint32(r.cfg.AfterSB[1]),
		AfterSB2: uint32(r.cfg.AfterSB[2]), TwoPrimaries: r.cfg.TwoPrimaries, IntegrityAlg: r.cfg.IntegrityAlg}
	if r.conn.discardMyData {
		p.Flags |= wire.ConnDiscardMyData
	}
	if r.conn.tentative {
		p.Flags |= wire.ConnDryRun
	}
	r.sendVariable(cmd, 0, p.AppendTo)
}

// sendVariable sends a packet whose length depends on the session.
func (r *Resource) sendVariable(cmd wire.Command, vol uint16, appendTo func([]byte, wire.Session) []byte) {
	var scratch [256]byte
	body := appendTo(scratch[:0], r.session())
	off := r.open(cmd, vol, uint32(len(body)))
	r.fx.Buf = append(r.fx.Buf, body...)
	r.close(DataSocket, off)
}

func (v *volume) sendSyncParam() {
	c := &v.cfg
	p := wire.SyncParam{ResyncRateKiB: c.ResyncRateKiB, VerifyAlg: v.r.cfg.VerifyAlg, CsumsAlg: v.r.cfg.CsumsAlg,
		PlanAheadTenths: c.PlanAheadTenths, DelayTenths: c.DelayTargetTenth, FillSectors: c.FillTargetSector, MaxRateKiB: c.MaxRateKiB}
	v.r.sendVariable(wire.SyncParamCommand(v.r.session().Version), v.num, p.AppendTo)
}

func (v *volume) sendSizes(flags wire.SizesFlags) { v.sendSizesAs(v.size, flags) }

// sendSizesAs is sendSizes with another present size: zero asks for an answer.
func (v *volume) sendSizesAs(current uint64, flags wire.SizesFlags) {
	s := v.r.session()
	p := wire.Sizes{User: v.userSize, Current: current, MaxBioSize: s.MaxRequest(), Flags: flags,
		Queue: wire.QueueLimits{PhysicalBlock: 4096, LogicalBlock: 512, IOMin: 4096}}
	if v.disk == nil {
		p.User = 0
	} else {
		p.Backing = v.disk.limit()
		p.Queue.Discard = v.disk.info.Discard
		p.Queue.PhysicalBlock = max(v.disk.info.PhysicalBlock, 512)
		p.Queue.LogicalBlock = max(v.disk.info.LogicalBlock, 512)
	}
	v.r.sendVariable(wire.CmdSizes, v.num, p.AppendTo)
}

// sendUUIDs sends the own generations.
func (v *volume) sendUUIDs(flags uint64) {
	v.takeStock()
	v.sendStock(flags)
}

// hasStock says whether there is a P_UUIDS to send: without a disk there are no generations.
func (v *volume) hasStock() bool { return v.disk != nil && v.r.canSend() }

// takeStock decides what the next P_UUIDS says of this copy beside its generations. The verdict
// of a handshake is based on that, at both ends.
func (v *volume) takeStock() {
	if !v.hasStock() {
		return
	}
	v.announced, v.announcedSize = v.disk.bm.Weight(), v.size
	v.announcedKept = v.survives()
	v.announcedOutdated = v.judgedDisk() == state.Outdated && v.r.session().Features.Has(wire.FeatureSurvivor)
}

// sendStock sends P_UUIDS as takeStock has decided.
func (v *volume) sendStock(flags uint64) {
	if !v.hasStock() {
		return
	}
	if v.r.conn.discardMyData {
		flags |= flagDiscard
	}
	if v.crashed {
		flags |= flagCrashed
	}
	if v.announcedKept {
		flags |= flagKept
	}
	if v.announcedOutdated {
		flags |= flagOutdated
	}
	if v.neg.Disk == state.Inconsistent && v.st.Disk == state.Negotiating {
		flags |= flagInconsistent
	}
	u := v.disk.sb.UUIDs
	p := wire.UUIDs{Current: u.Current(), Bitmap: u.Bitmap(), History: [2]uint64{u.History1(), u.History2()},
		Bits: v.announced, Flags: wire.UUIDFlags(flags)}
	off := v.r.open(wire.CmdUUIDs, v.num, wire.UUIDsSize)
	v.r.fx.Buf = p.AppendTo(v.r.fx.Buf)
	v.r.close(DataSocket, off)
}

// sendState tells the peer the present state. The suspend bits are nobody else's
// business.
func (v *volume) sendState() { v.sendStateOf(v.st) }

// sendStateOf tells the peer a state.
func (v *volume) sendStateOf(s state.State) {
	if !v.r.canSend() {
		return
	}
	s.Susp, s.SuspNod, s.SuspFen = false, false, false
	off := v.r.open(wire.CmdState, v.num, wire.StateWordSize)
	v.r.fx.Buf = (&wire.StateWord{State: s.Word()}).AppendTo(v.r.fx.Buf)
	v.r.close(DataSocket, off)
}

// canSend says whether parameters may be sent.
func (r *Resource) canSend() bool { return r.conn.phase == phaseUp && !r.conn.closing }

// sendBlockDesc sends a packet that names a range and nothing else.
func (v *volume) sendBlockDesc(cmd wire.Command, sector uint64, size uint32) {
	off := v.r.open(cmd, v.num, wire.BlockDescSize)
	v.r.fx.Buf = (&wire.BlockDesc{Sector: sector, Size: size}).AppendTo(v.r.fx.Buf)
	v.r.close(DataSocket, off)
}

// sendBlockRequest sends one of the packets that ask for the contents of a range, or answer
// with their digest. What is asked for has the digest of what is here, if there is one.
func (v *volume) sendBlockRequest(cmd wire.Command, p wire.BlockRequest, digest []byte) {
	off := v.r.open(cmd, v.num, wire.BlockRequestSize+uint32(len(digest)))
	v.r.fx.Buf = p.AppendTo(v.r.fx.Buf)
	v.r.fx.Buf = append(v.r.fx.Buf, digest...)
	v.r.close(DataSocket, off)
}

// sendData sends a packet with size bytes of device data, whose place the caller sets.
func (r *Resource) sendData(cmd wire.Command, vol uint16, d *wire.Data, size uint32) *Effect {
	sum := r.conn.integrity
	off := r.open(cmd, vol, wire.DataSize+uint32(sum.Size())+size)
	r.fx.Buf = d.AppendTo(r.fx.Buf)
	e := r.close(DataSocket, off)
	e.Size, e.Sum = size, sum
	return e
}

// sendAck sends one of the 24-byte answers.
func (v *volume) sendAck(cmd wire.Command, sector, blockID uint64, size uint32) {
	if !v.r.conn.established() || v.st.Conn < state.Connected {
		return
	}
	v.seq++
	off := v.r.open(cmd, v.num, wire.BlockAckSize)
	v.r.fx.Buf = (&wire.BlockAck{Sector: sector, BlockID: blockID, Size: size, Seq: v.seq}).AppendTo(v.r.fx.Buf)
	v.r.close(MetaSocket, off)
}

// limit returns how many sectors of data the disk has room for.
func (d *disk) limit() uint64 { return min(d.layout.DataSectors, d.info.BackingSectors) }
