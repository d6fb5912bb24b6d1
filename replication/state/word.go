package state

import "strings"

// Word is a State packed as in P_STATE and P_STATE_CHG_REQ.
//
//	bits   width  field
//	 0-1       2  role      of the node that built the word
//	 2-3       2  peer      role of the other node, as the builder sees it
//	 4-8       5  conn
//	9-12       4  disk      of the node that built the word
//	13-16      4  pdsk      the other node's disk
//	  17       1  susp      I/O suspended by the administrator
//	  18       1  aftr_isp  resync paused, because it must run after another
//	  19       1  peer_isp  resync paused by the peer
//	  20       1  user_isp  resync paused by the local administrator
//	  21       1  susp_nod  I/O suspended, no data accessible
//	  22       1  susp_fen  I/O suspended, fencing pending
//	23-31      9  zero
//
// The receiver of a P_STATE evaluates role, conn, disk, aftr_isp and user_isp
// only; send the suspend bits as 0 and do not interpret them.
type Word uint32

// Masks select the fields of a Word. A state change request says with such a
// mask which fields it wants changed.
const (
	MaskRole     Word = 0x00000003
	MaskPeer     Word = 0x0000000c
	MaskConn     Word = 0x000001f0
	MaskDisk     Word = 0x00001e00
	MaskPeerDisk Word = 0x0001e000
	MaskSusp     Word = 0x00020000
	MaskAftrIsp  Word = 0x00040000
	MaskPeerIsp  Word = 0x00080000
	MaskUserIsp  Word = 0x00100000
	MaskSuspNod  Word = 0x00200000
	MaskSuspFen  Word = 0x00400000
	MaskAll      Word = 0x007fffff
)

const (
	peerShift     = 2
	connShift     = 4
	diskShift     = 9
	peerDiskShift = 13
)

// State is the state of one volume as one node sees it. It is a plain value.
type State struct {
	Role, Peer     Role
	Conn           Conn
	Disk, PeerDisk Disk

	Susp    bool // I/O suspended by the administrator
	AftrIsp bool // resync paused, because it must run after another
	PeerIsp bool // resync paused by the peer
	UserIsp bool // resync paused by the local administrator
	SuspNod bool // I/O suspended, no data accessible
	SuspFen bool // I/O suspended, fencing pending
}

// Initial returns the state of a volume that has just been configured.
func Initial() State {
	return State{Role: Secondary, Peer: Unknown, Conn: StandAlone, Disk: Diskless, PeerDisk: DUnknown}
}

// Suspended says whether application I/O is held back, for whatever reason.
func (s State) Suspended() bool { return s.Susp || s.SuspNod || s.SuspFen }

// ResyncPaused says whether any reason to pause a resync is present.
func (s State) ResyncPaused() bool { return s.AftrIsp || s.PeerIsp || s.UserIsp }

// Word packs s. Values that exceed their field are cut off.
func (s State) Word() Word {
	w := Word(s.Role&roleMask) | Word(s.Peer&roleMask)<<peerShift | Word(s.Conn&connMask)<<connShift |
		Word(s.Disk&diskMask)<<diskShift | Word(s.PeerDisk&diskMask)<<peerDiskShift
	return w | bit(s.Susp, MaskSusp) | bit(s.AftrIsp, MaskAftrIsp) | bit(s.PeerIsp, MaskPeerIsp) |
		bit(s.UserIsp, MaskUserIsp) | bit(s.SuspNod, MaskSuspNod) | bit(s.SuspFen, MaskSuspFen)
}

// State unpacks w. Every word has a State; that its fields hold states that
// exist is for the caller to check, see State.Valid.
func (w Word) State() State {
	return State{
		Role:     Role(w) & roleMask,
		Peer:     Role(w>>peerShift) & roleMask,
		Conn:     Conn(w>>connShift) & connMask,
		Disk:     Disk(w>>diskShift) & diskMask,
		PeerDisk: Disk(w>>peerDiskShift) & diskMask,
		Susp:     w&MaskSusp != 0,
		AftrIsp:  w&MaskAftrIsp != 0,
		PeerIsp:  w&MaskPeerIsp != 0,
		UserIsp:  w&MaskUserIsp != 0,
		SuspNod:  w&MaskSuspNod != 0,
		SuspFen:  w&MaskSuspFen != 0,
	}
}

// Apply returns s with the fields selected by mask replaced by those of val.
func (s State) Apply(mask, val Word) State { return (s.Word()&^mask | val&mask).State() }

// Valid says whether every field of s holds a state that exists.
func (s State) Valid() bool {
	return s.Role.Valid() && s.Peer.Valid() && s.Conn.Valid() && s.Disk.Valid() && s.PeerDisk.Valid()
}

// String returns s as DRBD's logs do: connection, roles, disks, and the reasons
// for holding something back.
func (s State) String() string {
	var text strings.Builder
	text.WriteString(s.Conn.String() + " " + s.Role.String() + "/" + s.Peer.String() + " " + s.Disk.String() + "/" + s.PeerDisk.String())
	flags := [...]struct {
		set  bool
		name string
	}{
		{s.Susp, "susp"},
		{s.AftrIsp, "aftr_isp"},
		{s.PeerIsp, "peer_isp"},
		{s.UserIsp, "user_isp"},
		{s.SuspNod, "susp_nod"},
		{s.SuspFen, "susp_fen"},
	}
	for _, f := range flags {
		if f.set {
			text.WriteString(" " + f.name)
		}
	}
	return text.String()
}

func bit(set bool, mask Word) Word {
	if set {
		return mask
	}
	return 0
}
