package aoe

import "encoding/binary"

// A target that serves under a virtual address tells the other end of the mirror what
// its initiators have set: before each answer to a change, and with every
// advertisement. Only what initiators may set anyway (Options.Permit) is told and
// believed, so that these frames, which nothing authenticates, can do no more than
// theirs.
//
// They are responses of CommandPeer to the group address, since a silent end hears
// nothing else. A part of a list has
//
//	offset  size  field
//	    24     1  peerState
//	    25     1  part of the state: shareConfig, shareMask, shareReserve
//	    26     2  length of the whole in bytes, big endian
//	    28     2  offset of what follows, big endian
//	    30     2  the same number in all parts of one telling
//	    32        bytes of the config string, or addresses
const peerState = 2

const (
	shareConfig = iota
	shareMask
	shareReserve
	numShares
)

const (
	shareLen = 8
	// shareMost is the largest part of a state in bytes.
	shareMost = MaxMACs * 6
)

// shares are the permissions that the parts of a state need.
var shares = [numShares]Permit{shareConfig: PermitConfig, shareMask: PermitMask, shareReserve: PermitReserve}

// assembly collects the frames of one part.
type assembly struct {
	serial uint16
	bytes  []byte
	total  int
}

// tell sends the state to the other end.
func (t *Target) tell(s Sender, pool *FramePool) {
	if !t.virtual || t.permit == 0 {
		return
	}
	t.mu.Lock()
	st := t.stateLocked()
	t.serial++
	serial := t.serial
	t.mu.Unlock()
	parts := [numShares][]byte{shareConfig: st.Config, shareMask: packMACs(st.Mask), shareReserve: packMACs(st.Reserve)}
	for kind, p := range shares {
		if t.permit&p != 0 {
			t.tellPart(s, pool, byte(kind), serial, parts[kind])
		}
	}
}

func (t *Target) tellPart(s Sender, pool *FramePool, kind byte, serial uint16, whole []byte) {
	room := min(s.MTU(), 1500) + EthernetLen - HeaderLen - shareLen
	for off := 0; ; {
		n := min(room, len(whole)-off)
		f := pool.Get()
		h := Header{Dst: s.Addr().group(), Src: s.Addr(), Version: Version, Flags: FlagResponse,
			Shelf: t.shelf, Slot: t.slot, Command: CommandPeer, Tag: uint32(t.claim)}
		h.put(f.buf)
		b := append(f.buf[:HeaderLen], peerState, kind)
		b = binary.BigEndian.AppendUint16(b, uint16(len(whole))) //nolint:gosec // at most shareMost
		b = binary.BigEndian.AppendUint16(b, uint16(off))        //nolint:gosec // the same
		b = binary.BigEndian.AppendUint16(b, serial)
		f.finish(len(append(b, whole[off:off+n]...)))
		s.Send(f)
		if off += n; off >= len(whole) {
			return
		}
	}
}

// tellChange tells the state if it has changed since it was last told.
func (t *Target) tellChange(s Sender, pool *FramePool) {
	t.mu.Lock()
	untold := t.untold
	t.untold = false
	t.mu.Unlock()
	if untold {
		t.tell(s, pool)
	}
}

// hear takes a frame of tell from the end that serves.
func (t *Target) hear(b []byte, h *Header, s Sender) {
	if !t.virtual || h.Src != s.Addr() || claim(h.Tag).by(t.claim) || len(b) < HeaderLen+shareLen || b[24] != peerState {
		return
	}
	kind, total, off := int(b[25]), int(binary.BigEndian.Uint16(b[26:])), int(binary.BigEndian.Uint16(b[28:]))
	if kind >= numShares || t.permit&shares[kind] == 0 || total > shareMost || off > total {
		return
	}
	serial := binary.BigEndian.Uint16(b[30:])
	data := b[HeaderLen+shareLen:]
	data = data[:min(len(data), total-off)] // the rest is padding
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.mode == Serving {
		return
	}
	a := &t.heardState[kind]
	if off == 0 {
		*a = assembly{serial: serial, total: total, bytes: a.bytes[:0]}
	}
	if serial != a.serial || total != a.total || off != len(a.bytes) {
		return // a frame was lost; all of it comes again
	}
	a.bytes = append(a.bytes, data...)
	if len(a.bytes) == total {
		t.adoptLocked(kind, a.bytes)
	}
}

// adoptLocked makes a part of the serving end's state ours.
func (t *Target) adoptLocked(kind int, b []byte) {
	st := t.stateLocked()
	switch kind {
	case shareConfig:
		st.Config = b
	case shareMask:
		st.Mask = unpackMACs(b)
	case shareReserve:
		st.Reserve = unpackMACs(b)
	}
	if st.check() != nil || st.equal(t.stateLocked()) {
		return
	}
	t.setStateLocked(st)
	if t.onState != nil {
		t.onState(t.stateLocked())
	}
}

func packMACs(list []MAC) []byte {
	b := make([]byte, 0, len(list)*6)
	for _, m := range list {
		b = append(b, m[:]...)
	}
	return b
}

func unpackMACs(b []byte) []MAC {
	var list []MAC
	for ; len(b) >= 6; b = b[6:] {
		list = append(list, MAC(b))
	}
	return list
}
