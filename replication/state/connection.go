package state

// Conn is the state of the connection as seen by one volume. A connection by
// itself only takes the values up to WFReportParams ("socket established").
type Conn uint8

// Connection states, with their values on the wire.
const (
	StandAlone     Conn = 0
	Disconnecting  Conn = 1
	Unconnected    Conn = 2
	Timeout        Conn = 3 // this and the next four differ only in the log
	BrokenPipe     Conn = 4
	NetworkFailure Conn = 5
	ProtocolError  Conn = 6
	TearDown       Conn = 7
	WFConnection   Conn = 8
	WFReportParams Conn = 9
	Connected      Conn = 10
	StartingSyncS  Conn = 11
	StartingSyncT  Conn = 12
	WFBitMapS      Conn = 13
	WFBitMapT      Conn = 14
	WFSyncUUID     Conn = 15
	SyncSource     Conn = 16
	SyncTarget     Conn = 17
	VerifyS        Conn = 18
	VerifyT        Conn = 19
	PausedSyncS    Conn = 20
	PausedSyncT    Conn = 21
	Ahead          Conn = 22
	Behind         Conn = 23

	connMask Conn = 31
)

var connNames = [...]string{
	StandAlone: "StandAlone", Disconnecting: "Disconnecting", Unconnected: "Unconnected", Timeout: "Timeout",
	BrokenPipe: "BrokenPipe", NetworkFailure: "NetworkFailure", ProtocolError: "ProtocolError", TearDown: "TearDown",
	WFConnection: "WFConnection", WFReportParams: "WFReportParams", Connected: "Connected",
	StartingSyncS: "StartingSyncS", StartingSyncT: "StartingSyncT", WFBitMapS: "WFBitMapS", WFBitMapT: "WFBitMapT",
	WFSyncUUID: "WFSyncUUID", SyncSource: "SyncSource", SyncTarget: "SyncTarget", VerifyS: "VerifyS", VerifyT: "VerifyT",
	PausedSyncS: "PausedSyncS", PausedSyncT: "PausedSyncT", Ahead: "Ahead", Behind: "Behind",
}

// String returns DRBD's name of the connection state.
func (c Conn) String() string { return name("Conn", connNames[:], uint8(c)) }

// Valid says whether c is a connection state and not a mask or garbage.
func (c Conn) Valid() bool { return int(c) < len(connNames) }

// Lost says whether c records why an established connection went away. The only
// ways on are Unconnected (try again) and Disconnecting (give up).
func (c Conn) Lost() bool { return c >= Timeout && c <= TearDown }

// Resync says whether a resync is running or paused. The verify states lie
// numerically between but are not resync states.
func (c Conn) Resync() bool { return c.ResyncSource() || c.ResyncTarget() }

// ResyncSource says whether this node is the source of a resync that is running or paused.
func (c Conn) ResyncSource() bool { return c == SyncSource || c == PausedSyncS }

// ResyncTarget says whether this node is the target of a resync that is running or paused.
func (c Conn) ResyncTarget() bool { return c == SyncTarget || c == PausedSyncT }

// Verify says whether an online verify is running.
func (c Conn) Verify() bool { return c == VerifyS || c == VerifyT }

func (c Conn) startingSync() bool { return c == StartingSyncS || c == StartingSyncT }
