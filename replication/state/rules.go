package state

// Fencing is the configured answer to "the peer is gone: may it still write?".
type Fencing uint8

// Fencing policies, in ascending strictness.
const (
	DontCare Fencing = iota
	ResourceOnly
	ResourceAndStonith
)

var fencingNames = [...]string{DontCare: "dont-care", ResourceOnly: "resource-only", ResourceAndStonith: "resource-and-stonith"}

// String returns the word of the configuration file.
func (f Fencing) String() string { return name("Fencing", fencingNames[:], uint8(f)) }

// Rules is everything beside the state itself that the rules depend on: the
// configuration, and facts about the surroundings at the moment of the change.
type Rules struct {
	TwoPrimaries    bool    // allow-two-primaries
	Fencing         Fencing // fencing
	SuspendOnNoData bool    // on-no-data-accessible suspend-io
	VerifyAlg       bool    // a verify-alg is configured
	Version         int     // agreed protocol version

	Open                   bool // someone holds the volume's block device open
	OtherVolumePeerPrimary bool // peer is Primary on another volume of the connection

	// HandshakeInProgress: our parameters have been sent and some volume of the
	// connection is still in WFReportParams. Changes must wait, or the peer
	// would judge them by a state that it does not know yet.
	HandshakeInProgress bool
}

// verifyVersion is the first protocol version with online verify.
const verifyVersion = 88

// CheckTransition judges the way between two states by the limits that hold for
// everybody, even for hard changes (spec 5.3 A). It returns NothingToDo, a
// success, if conn does not change.
func CheckTransition(from, to State) Result {
	if to.Disk == Failed && from.Disk == Diskless {
		return IsDiskless
	}
	return checkConnTransition(from.Conn, to.Conn)
}

func checkConnTransition(from, to Conn) Result {
	switch {
	case from == to:
		return NothingToDo
	case from == StandAlone && to == Disconnecting:
		return AlreadyStandAlone
	case from == StandAlone && to != Unconnected:
		return NeedConnection
	case from < WFReportParams && to >= Connected:
		return NeedConnection
	case from.Lost() && to != Unconnected && to != Disconnecting:
		return InTransientState
	case from == Disconnecting && to != StandAlone:
		return InTransientState
	default:
		return Success
	}
}

// CheckState judges s by itself (spec 5.3 B): the first rule that is broken is
// the result.
func CheckState(s State, r Rules) Result {
	noUpToDate := s.Disk < UpToDate && s.PeerDisk < UpToDate
	switch {
	case !r.TwoPrimaries && s.Role == Primary && s.Peer == Primary: // 1
		return TwoPrimaries
	case !r.TwoPrimaries && s.Role == Primary && r.OtherVolumePeerPrimary: // 2
		return OtherVolumePeerPrimary
	case s.Role == Secondary && r.Open: // 3
		return DeviceInUse
	case s.Role == Primary && s.Conn < Connected && s.Disk < UpToDate: // 4
		return NoUpToDateDisk
	case r.Fencing >= ResourceOnly && s.Role == Primary && s.Conn < Connected && s.PeerDisk >= DUnknown: // 5
		return PrimaryNeedsOutdatedPeer
	case s.Role == Primary && s.Disk <= Inconsistent && s.PeerDisk <= Inconsistent: // 6
		return NoUpToDateDisk
	case s.Conn > Connected && s.Disk < Inconsistent: // 7
		return NoLocalDisk
	case s.Conn > Connected && s.PeerDisk < Inconsistent: // 8
		return NoRemoteDisk
	case s.Conn > Connected && noUpToDate: // 9
		return NoUpToDateDisk
	case refusesOutdated(s.Conn) && s.Disk == Outdated: // 10
		return ConnectedOutdates
	case s.Conn.Verify() && !r.VerifyAlg: // 11
		return NoVerifyAlg
	case s.Conn.Verify() && r.Version < verifyVersion: // 12
		return NotSupported
	case s.Role == Primary && noUpToDate: // 13
		return NoUpToDateDisk
	case s.Conn.startingSync() && s.PeerDisk == DUnknown: // 14
		return NeedConnection
	case s.Conn >= Connected && s.PeerDisk == DUnknown: // 15
		return ConnectedOutdates
	default:
		return Success
	}
}

// refusesOutdated says whether a node in this connection state vouches for its
// own data.
func refusesOutdated(c Conn) bool {
	return c == Connected || c == WFBitMapS || c.ResyncSource()
}

// CheckSoft judges the way between two states by the rules that only wishes must
// follow (spec 5.3 C). All rules are evaluated and the last one broken is the
// result, so InTransientState, which makes a request wait and retry, hides the
// reasons before it.
func CheckSoft(from, to State, r Rules) Result {
	result := Success
	verify, starting := to.Conn.Verify(), to.Conn.startingSync()
	if starting && from.Conn > Connected { // 1
		result = ResyncRunning
	}
	if to.Conn == Disconnecting && from.Conn == StandAlone { // 2
		result = AlreadyStandAlone
	}
	if to.Disk > Attaching && from.Disk == Diskless { // 3
		result = IsDiskless
	}
	if to.Conn == WFConnection && from.Conn < Unconnected { // 4
		result = NoNetConfig
	}
	if to.Disk == Outdated && from.Disk < Outdated && from.Disk != Attaching { // 5
		result = LowerThanOutdated
	}
	if to.Conn == Disconnecting && from.Conn == Unconnected { // 6
		result = InTransientState
	}
	if r.HandshakeInProgress && !handshakeStep(from.Conn, to.Conn) { // 7
		result = InTransientState
	}
	if promotedDuringHandshake(from, to) { // 8
		result = InTransientState
	}
	if verify && from.Conn < Connected { // 9
		result = NeedConnection
	}
	if verify && to.Conn != from.Conn && from.Conn > Connected { // 10
		result = ResyncRunning
	}
	if starting && from.Conn < Connected { // 11
		result = NeedConnection
	}
	if (to.Conn == SyncSource || to.Conn == SyncTarget) && from.Conn < WFReportParams { // 12
		result = NeedConnection
	}
	if to.Conn == Disconnecting && to.PeerDisk == Outdated && from.Conn < Connected && from.PeerDisk > Outdated { // 13
		result = OutdateNeedsConnection
	}
	return result
}

// handshakeStep says whether the change is the handshake itself making progress.
func handshakeStep(from, to Conn) bool {
	return from == WFConnection && to == WFReportParams || from == WFReportParams && to >= Connected
}

// promotedDuringHandshake: the peer has the good data and a resync from it is
// being arranged; a promotion now would race with its first step.
func promotedDuringHandshake(from, to State) bool {
	return from.Role != Primary && to.Role == Primary &&
		to.PeerDisk == UpToDate && to.Disk != UpToDate && to.Disk != Diskless &&
		(to.Conn <= WFSyncUUID || to.Conn != from.Conn)
}
