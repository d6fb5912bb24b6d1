package state

// Next takes a volume from its state towards want. A hard change states a fact
// (the link is lost, the disk has failed) and passes CheckTransition only;
// anything else is a wish and must also pass CheckState and CheckSoft (spec 5.3).
//
// The returned state is the sanitized one on Success and the old one otherwise.
// NothingToDo, also a success, says that the sanitized state is the old one.
//
// Where CheckState refuses the new state with the code with which it would
// refuse the old one as well, the system was in that trouble before; then only
// the way there is judged.
func Next(from, want State, hard bool, r Rules, neg Negotiation) (State, Result) {
	s := Sanitize(from, want, r, neg)
	if s == from {
		return from, NothingToDo
	}
	if result := CheckTransition(from, s); !result.OK() {
		return from, result
	}
	if hard {
		return s, Success
	}
	if result := CheckState(s, r); !result.OK() && result != CheckState(from, r) {
		return from, result
	}
	if result := CheckSoft(from, s, r); !result.OK() {
		return from, result
	}
	return s, Success
}

// NeedsPeer says whether a change must be agreed on by the peer before it is
// made (spec 5.3, cluster-wide changes). A disk that becomes Failed means a
// graceful detach; a disk that really failed is a fact and asks nobody.
func NeedsPeer(from, to State) bool {
	if from.Conn < Connected {
		return false
	}
	switch {
	case to.Conn == Disconnecting:
		return true
	case from.Conn == Connected && (to.Conn == VerifyS || to.Conn == WFReportParams):
		return true
	case to.Conn < Connected:
		return false
	case from.Role != Primary && to.Role == Primary:
		return true
	case from.Conn != to.Conn && to.Conn.startingSync():
		return true
	default:
		return from.Disk != Failed && to.Disk == Failed
	}
}

// Mirror converts the mask and value of a state change request to the
// receiver's point of view.
func Mirror(mask, val Word) (Word, Word) { return mirror(mask), mirror(val) }

// mirror converts one word. It treats masks and values alike, which is why the
// all-ones conn field maps to itself.
func mirror(w Word) Word {
	s := w.State()
	s.Role, s.Peer = s.Peer, s.Role
	s.Disk, s.PeerDisk = s.PeerDisk, s.Disk
	s.PeerIsp = s.AftrIsp || s.UserIsp
	s.Conn = mirrorConn(s.Conn)
	return s.Word()
}

// mirrorConn returns the counterpart of a requested connection state. States
// that are never requested have none and become 0.
func mirrorConn(c Conn) Conn {
	switch c {
	case WFReportParams, Connected, connMask:
		return c
	case StartingSyncS:
		return StartingSyncT
	case StartingSyncT:
		return StartingSyncS
	case Disconnecting:
		return TearDown
	case VerifyS:
		return VerifyT
	default:
		return 0
	}
}
