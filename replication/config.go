package replication

import "github.com/replblk/replblk/replication/state"

// Protocol says when a write is complete: sent (A), received (B) or written (C)
// by the peer.
type Protocol uint8

// Replication protocols, with their values on the wire.
const (
	ProtocolA Protocol = iota + 1
	ProtocolB
	ProtocolC
)

// Policy is an after-split-brain policy, with its value on the wire (spec 4.3).
type Policy uint32

// Policies.
const (
	SBDisconnect Policy = iota
	SBDiscardYoungerPrimary
	SBDiscardOlderPrimary
	SBDiscardZeroChanges
	SBDiscardLeastChanges
	SBDiscardLocal
	SBDiscardRemote
	SBConsensus
	SBDiscardSecondary
	SBCallHelper
	SBViolently
)

// ErrorPolicy is on-io-error.
type ErrorPolicy uint8

// What a failed data read or write does to the disk state.
const (
	OnErrorDetach ErrorPolicy = iota
	OnErrorPassOn
	OnErrorCallHandler
)

// Limits of the core's tables.
const (
	// MaxRequests bounds Config.MaxRequests.
	MaxRequests = 1 << 16
	// MaxPeerRequests is how many requests of the peer are in progress at once.
	// The driver stops reading the data socket when PeerRoom is zero.
	MaxPeerRequests = 2048
)

// Config is what a resource needs to know. All times keep the units of
// drbd.conf, as the names say.
type Config struct {
	Name        string
	Volumes     []VolumeConfig
	MaxRequests int // slots for application requests; 0 means 1024

	Protocol          Protocol
	TimeoutTenths     int
	PingIntSeconds    int
	PingTimeoutTenths int
	KoCount           int
	MaxEpochSize      int
	MaxBuffers        int
	CramHMACAlg       string
	SharedSecret      string
	TwoPrimaries      bool
	AfterSB           [3]Policy // 0, 1 and 2 primaries
	AlwaysASBP        bool
	OnCongestion      OnCongestion
	CongestionFill    uint64 // sectors sent and not confirmed, 0: any
	CongestionExtents int    // of the activity log in use, 0: any
	RRConflict        RRConflict
	UseRLE            bool
	VerifyAlg         string
	CsumsAlg          string
	CsumsAfterCrash   bool // csums-after-crash-only
	IntegrityAlg      string
	SuspendOnNoData   bool
	MaxVersion        int    // highest protocol version to speak, 0: all
	Seed              uint64 // random; replenished by every EvTick
}

// tenths converts a number of tenths of a second.
func tenths(n int) Time { return Time(n) * 100 * Millisecond }

// koTime is how long the peer may take to answer a request, 0: for ever.
func (c *Config) koTime() Time { return tenths(c.TimeoutTenths * c.KoCount) }

// RRConflict is rr-conflict: what to do when a Primary would become SyncTarget.
type RRConflict uint8

// Values of rr-conflict.
const (
	RRDisconnect RRConflict = iota
	RRCallPriLost
	RRViolently
)

// VolumeConfig is one volume of a resource.
type VolumeConfig struct {
	Number      uint16
	SizeSectors uint64 // disk size, 0: whole device
	OnIOError   ErrorPolicy
	// DiskTimeoutTenths is disk-timeout: a disk that does not answer for longer is detached.
	// 0: it is waited for.
	DiskTimeoutTenths uint32
	Fencing           state.Fencing
	DiskFlushes       bool
	MDFlushes         bool
	ALExtents         int
	ALUpdates         bool

	ResyncRateKiB    uint32
	PlanAheadTenths  uint32
	DelayTargetTenth uint32
	FillTargetSector uint32
	MaxRateKiB       uint32
	MinRateKiB       uint32
	// DiscardGranularity is rs-discard-granularity in bytes: requests of this size may be
	// answered with "no data". 0: none is.
	DiscardGranularity uint32
}
