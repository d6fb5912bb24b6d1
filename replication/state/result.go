package state

import "strconv"

// Result is the outcome of a state change, as in P_STATE_CHG_REPLY: positive is
// success, anything else is a refusal. Spec section 5.4.
type Result int32

// Results, with their values on the wire.
const (
	NoNegotiation      Result = 4 // the change stopped being cluster-wide while it was negotiated
	ClusterWideSuccess Result = 3
	NothingToDo        Result = 2
	Success            Result = 1
	UnknownError       Result = 0 // also: no answer yet

	TwoPrimaries             Result = -1
	NoUpToDateDisk           Result = -2
	NoLocalDisk              Result = -4
	NoRemoteDisk             Result = -5
	ConnectedOutdates        Result = -6
	PrimaryNeedsOutdatedPeer Result = -7
	ResyncRunning            Result = -8
	AlreadyStandAlone        Result = -9
	RefusedByPeer            Result = -10
	IsDiskless               Result = -11
	DeviceInUse              Result = -12
	NoNetConfig              Result = -13
	NoVerifyAlg              Result = -14
	NeedConnection           Result = -15
	LowerThanOutdated        Result = -16
	NotSupported             Result = -17
	InTransientState         Result = -18
	ConcurrentChange         Result = -19
	OtherVolumePeerPrimary   Result = -20
	OutdateNeedsConnection   Result = -21
)

// Refusals of the configuration layer. They never go on the wire; the codes are those that
// DRBD's tools print, negated.
const (
	DiskTooSmall       Result = -111
	ResizeDuringResync Result = -130
	ResizeNeedsPrimary Result = -131
	ImplicitShrink     Result = -170
)

var configText = map[Result]string{
	DiskTooSmall:       "Low.dev. smaller than requested DRBD-dev. size.",
	ResizeDuringResync: "Resize not allowed during resync.",
	ResizeNeedsPrimary: "Need one Primary node to resize.",
	ImplicitShrink:     "Implicit device shrinking not allowed. (Shrink with --size and --force.)",
}

var successText = [...]string{
	UnknownError:       "Unknown error",
	Success:            "Success",
	NothingToDo:        "Nothing to do",
	ClusterWideSuccess: "Cluster-wide success",
	NoNegotiation:      "No cluster-wide negotiation needed any more",
}

// refusalText is indexed by the negated code.
var refusalText = [...]string{
	-TwoPrimaries:             "Multiple primaries not allowed by config",
	-NoUpToDateDisk:           "Need access to UpToDate data",
	-NoLocalDisk:              "Can not resync without local disk",
	-NoRemoteDisk:             "Can not resync without remote disk",
	-ConnectedOutdates:        "Refusing to be Outdated while Connected",
	-PrimaryNeedsOutdatedPeer: "Refusing to be Primary while peer is not outdated",
	-ResyncRunning:            "Can not start OV/resync since it is already active",
	-AlreadyStandAlone:        "Can not disconnect a StandAlone device",
	-RefusedByPeer:            "State change was refused by peer node",
	-IsDiskless:               "Device is diskless, the requested operation requires a disk",
	-DeviceInUse:              "Device is held open by someone",
	-NoNetConfig:              "Have no net/connection configuration",
	-NoVerifyAlg:              "Need a verify algorithm to start online verify",
	-NeedConnection:           "Need a connection to start verify or resync",
	-LowerThanOutdated:        "Disk state is lower than outdated",
	-NotSupported:             "Peer does not support protocol",
	-InTransientState:         "In transient state, retry after next state change",
	-ConcurrentChange:         "Concurrent state changes detected and aborted",
	-OtherVolumePeerPrimary:   "Other vol primary on peer not allowed by config",
	-OutdateNeedsConnection:   "Need a connection for a graceful disconnect/outdate peer",
}

// Configuration says whether r is a refusal of the configuration layer.
func (r Result) Configuration() bool { return configText[r] != "" }

// OK says whether r is a success.
func (r Result) OK() bool { return r > UnknownError }

// String returns DRBD's text.
func (r Result) String() string {
	switch {
	case r >= 0 && int(r) < len(successText):
		return successText[r]
	case r < 0 && r > -Result(len(refusalText)) && refusalText[-r] != "":
		return refusalText[-r]
	case configText[r] != "":
		return configText[r]
	default: // a peer may send anything
		return "Unknown result " + strconv.Itoa(int(r))
	}
}

// Err returns nil for a success and a Refusal for anything else.
func (r Result) Err() error {
	if r.OK() {
		return nil
	}
	return Refusal(r)
}

// Refusal is the error for a state change that is not allowed. Its text is
// DRBD's, because operators know it and search for it; it is an answer to the
// operator, not a fault.
type Refusal Result

// Error implements error.
func (r Refusal) Error() string { return Result(r).String() }

// Result returns the code that the peer and the tools are told.
func (r Refusal) Result() Result { return Result(r) }
