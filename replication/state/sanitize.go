package state

// Negotiation carries what a volume put aside when its disk was attached while
// it waited for the peer's opinion (disk state Negotiating).
type Negotiation struct {
	Matches        bool // the exposed-data UUID equals the disk's own current UUID
	Disk, PeerDisk Disk // states to take without the peer, if Matches
}

// Sanitize returns want with the changes that it implies, coming from old (spec
// 5.2). The nine rules are applied once, in order; a later rule sees what an
// earlier one did. It is not quite idempotent: the last rule may resume a
// resync after the disk states were fitted to the paused one, and the next
// change corrects them. The kernel does the same, and the peers must agree.
func Sanitize(old, want State, r Rules, neg Negotiation) State {
	s := want
	forgetPeer(&s)
	if s.Conn == StandAlone && s.Disk == Diskless && s.Role == Secondary { // 2
		s.AftrIsp = false
	}
	abort(&s)
	settleWithoutPeer(&s, neg)
	if s.Conn >= Connected && s.Conn < Ahead { // 5
		s.Disk, s.PeerDisk = confirm(s.Disk, s.PeerDisk), confirm(s.PeerDisk, s.Disk)
	}
	clampDisks(&s)
	if r.Fencing == ResourceAndStonith && needsFencing(s) && !needsFencing(old) { // 7
		s.SuspFen = true
	}
	if r.SuspendOnNoData && noData(s) && !noData(old) { // 8
		s.SuspNod = true
	}
	s.Conn = pauseOrResume(s.Conn, s.ResyncPaused()) // 9
	return s
}

// forgetPeer is rule 1. What is only known while connected is forgotten, but a
// peer's disk that was known to be bad is remembered to be bad.
func forgetPeer(s *State) {
	if s.Conn >= Connected {
		return
	}
	s.PeerIsp = false
	s.Peer = Unknown
	if s.PeerDisk > DUnknown || s.PeerDisk < Inconsistent {
		s.PeerDisk = DUnknown
	}
}

// abort is rule 3: a resync or verify ends with one of its disks. The copy that was to be
// brought up to date stays what it was, outdated; the kernel calls it UpToDate if not one
// block was transferred yet.
func abort(s *State) {
	if s.Conn <= Connected || s.Disk > Failed && s.PeerDisk > Failed {
		return
	}
	if (s.Conn == WFBitMapS || s.Conn == StartingSyncS) && s.PeerDisk == Consistent {
		s.PeerDisk = Outdated
	}
	s.Conn = Connected
}

// settleWithoutPeer is rule 4: the peer went away during the negotiation about a
// fresh disk. The disk is usable if it holds the data last shown to the
// application, else it must go.
func settleWithoutPeer(s *State, neg Negotiation) {
	if s.Conn >= Connected || s.Disk != Negotiating {
		return
	}
	s.Disk, s.PeerDisk = Diskless, DUnknown
	if neg.Matches {
		s.Disk, s.PeerDisk = neg.Disk, neg.PeerDisk
	}
}

// confirm is rule 5 for one disk: a connection without a resync says that
// doubtful data are good after all. Outdated data are not, if there is nothing to compare
// them with.
func confirm(d, other Disk) Disk {
	if d == Consistent || d == Outdated && other > Failed {
		return UpToDate
	}
	return d
}

// diskRange is a pair of inclusive bounds.
type diskRange struct{ min, max Disk }

func (r diskRange) clamp(d Disk) Disk { return max(r.min, min(d, r.max)) }

// clampDisks is rule 6: each connection state has a range of disk states that
// go with it.
func clampDisks(s *State) {
	own, peer := diskRanges(s.Conn)
	s.Disk = own.clamp(s.Disk)
	s.PeerDisk = peer.clamp(s.PeerDisk)
}

func diskRanges(c Conn) (own, peer diskRange) {
	exactly := func(d Disk) diskRange { return diskRange{d, d} }
	switch c {
	case WFBitMapT, PausedSyncT, StartingSyncT, WFSyncUUID, Behind:
		return diskRange{Inconsistent, Outdated}, exactly(UpToDate)
	case WFBitMapS, PausedSyncS, StartingSyncS, Ahead:
		return exactly(UpToDate), diskRange{Inconsistent, Consistent}
	case SyncTarget:
		return exactly(Inconsistent), exactly(UpToDate)
	case SyncSource:
		return exactly(UpToDate), exactly(Inconsistent)
	case VerifyS, VerifyT:
		return exactly(UpToDate), exactly(UpToDate)
	case Connected:
		return diskRange{Diskless, UpToDate}, diskRange{Diskless, UpToDate}
	default: // not connected
		return diskRange{Diskless, UpToDate}, diskRange{Inconsistent, DUnknown}
	}
}

// needsFencing: a Primary alone whose peer might also go on with good data.
func needsFencing(s State) bool {
	return s.Role == Primary && s.Conn < Connected && s.PeerDisk > Outdated
}

// noData: a Primary without access to good data.
func noData(s State) bool {
	return s.Role == Primary && s.Disk < UpToDate && s.PeerDisk < UpToDate
}

// pauseOrResume is rule 9.
func pauseOrResume(c Conn, paused bool) Conn {
	switch {
	case paused && c == SyncSource:
		return PausedSyncS
	case paused && c == SyncTarget:
		return PausedSyncT
	case !paused && c == PausedSyncS:
		return SyncSource
	case !paused && c == PausedSyncT:
		return SyncTarget
	default:
		return c
	}
}
