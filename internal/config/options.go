package config

import (
	"slices"
	"strings"
)

// GlobalOptions are the options of global{}. Most concern drbdadm only.
type GlobalOptions struct {
	UsageCount              UsageCount
	MinorCount              uint32
	DialogRefreshSeconds    uint32
	DisableIPVerification   bool
	UdevAlwaysUseVnr        bool
	CmdTimeoutShortSeconds  uint32
	CmdTimeoutMediumSeconds uint32
	CmdTimeoutLongSeconds   uint32
}

// UsageCount is global usage-count. replblk never calls home, whatever it says.
type UsageCount string

// Values of usage-count.
const (
	UsageYes UsageCount = "yes"
	UsageNo  UsageCount = "no"
	UsageAsk UsageCount = "ask"
)

// DiskOptions are the options of disk{} (11.3).
type DiskOptions struct {
	// SizeSectors limits the volume; 0 uses the whole device.
	SizeSectors             uint64
	OnIOError               OnIOError
	Fencing                 Fencing
	MaxBioBvecs             uint32
	DiskBarrier             bool // ignored, as by DRBD 8.4
	DiskFlushes             bool
	DiskDrain               bool
	MDFlushes               bool
	ResyncRateKiB           uint32 // per second
	ResyncAfter             string // RESOURCE or RESOURCE/VOLUME; "" for none
	ALExtents               uint32 // clamped to its limits, as by the kernel
	ALUpdates               bool
	DiscardZeroes           bool // discard-zeroes-if-aligned
	NoWriteSame             bool // disable-write-same
	PlanAheadTenths         uint32
	DelayTargetTenths       uint32
	FillTargetSectors       uint32
	MaxRateKiB              uint32
	MinRateKiB              uint32
	DiskTimeoutTenths       uint32 // 0 waits for ever
	ReadBalancing           ReadBalancing
	DiscardGranularityBytes uint32 // rs-discard-granularity; 0 is off

	// ResyncAfterMinor is ResyncAfter's minor on the volume's host, -1 for none.
	ResyncAfterMinor int32
}

// OnIOError is what a local I/O error leads to (10.1).
type OnIOError string

// Values of on-io-error.
const (
	PassOn           OnIOError = "pass_on"
	CallLocalIOError OnIOError = "call-local-io-error"
	Detach           OnIOError = "detach"
)

// Fencing is what a Primary does when it loses its peer (10.3).
type Fencing string

// Values of fencing.
const (
	FencingDontCare           Fencing = "dont-care"
	FencingResourceOnly       Fencing = "resource-only"
	FencingResourceAndStonith Fencing = "resource-and-stonith"
)

// ReadBalancing chooses which copy a read is served from (6.5).
type ReadBalancing string

// Values of read-balancing.
const (
	PreferLocal         ReadBalancing = "prefer-local"
	PreferRemote        ReadBalancing = "prefer-remote"
	RoundRobin          ReadBalancing = "round-robin"
	LeastPending        ReadBalancing = "least-pending"
	WhenCongestedRemote ReadBalancing = "when-congested-remote"
	Striping32K         ReadBalancing = "32K-striping"
	Striping64K         ReadBalancing = "64K-striping"
	Striping128K        ReadBalancing = "128K-striping"
	Striping256K        ReadBalancing = "256K-striping"
	Striping512K        ReadBalancing = "512K-striping"
	Striping1M          ReadBalancing = "1M-striping"
)

// NetOptions are the options of net{} (11.3).
type NetOptions struct {
	Protocol                 Protocol
	TimeoutTenths            uint32
	MaxEpochSize             uint32 // writes
	MaxBuffers               uint32 // pages of 4 KiB
	UnplugWatermark          uint32
	ConnectIntSeconds        uint32
	PingIntSeconds           uint32
	PingTimeoutTenths        uint32
	SndbufBytes              uint32 // 0 lets the system tune it
	RcvbufBytes              uint32 // 0 lets the system tune it
	KoCount                  uint32
	AllowTwoPrimaries        bool
	CramHMACAlg              string // "" for none
	SharedSecret             string
	AfterSB0Pri              AfterSB0Pri
	AfterSB1Pri              AfterSB1Pri
	AfterSB2Pri              AfterSB2Pri
	AlwaysASBP               bool
	RRConflict               RRConflict
	DataIntegrityAlg         string
	TCPCork                  bool
	OnCongestion             OnCongestion
	CongestionFillSectors    uint32 // 0 is off
	CongestionExtents        uint32
	CsumsAlg                 string
	CsumsAfterCrashOnly      bool
	VerifyAlg                string
	UseRLE                   bool
	SocketCheckTimeoutTenths uint32 // 0 uses PingTimeoutTenths
}

// Protocol is when a write is complete: sent (A), received (B), written (C) by the peer.
type Protocol string

// Values of protocol.
const (
	ProtocolA Protocol = "A"
	ProtocolB Protocol = "B"
	ProtocolC Protocol = "C"
)

// AfterSB0Pri resolves a split brain without a Primary (7.6). Besides the
// constants it may be "discard-node-HOST"; see [AfterSB0Pri.On].
type AfterSB0Pri string

// Values of after-sb-0pri.
const (
	SB0Disconnect            AfterSB0Pri = "disconnect"
	SB0DiscardYoungerPrimary AfterSB0Pri = "discard-younger-primary"
	SB0DiscardOlderPrimary   AfterSB0Pri = "discard-older-primary"
	SB0DiscardZeroChanges    AfterSB0Pri = "discard-zero-changes"
	SB0DiscardLeastChanges   AfterSB0Pri = "discard-least-changes"
	SB0DiscardLocal          AfterSB0Pri = "discard-local"
	SB0DiscardRemote         AfterSB0Pri = "discard-remote"
	discardNodePrefix                    = "discard-node-"
)

// On translates discard-node-HOST for the node with one of these names; other
// policies are returned as they are.
func (p AfterSB0Pri) On(names ...string) AfterSB0Pri {
	node, ok := strings.CutPrefix(string(p), discardNodePrefix)
	if !ok {
		return p
	}
	if slices.Contains(names, node) {
		return SB0DiscardLocal
	}
	return SB0DiscardRemote
}

// AfterSB1Pri resolves a split brain with one Primary (7.6).
type AfterSB1Pri string

// Values of after-sb-1pri.
const (
	SB1Disconnect         AfterSB1Pri = "disconnect"
	SB1Consensus          AfterSB1Pri = "consensus"
	SB1ViolentlyAS0P      AfterSB1Pri = "violently-as0p"
	SB1DiscardSecondary   AfterSB1Pri = "discard-secondary"
	SB1CallPriLostAfterSB AfterSB1Pri = "call-pri-lost-after-sb"
)

// AfterSB2Pri resolves a split brain with two Primaries (7.6).
type AfterSB2Pri string

// Values of after-sb-2pri.
const (
	SB2Disconnect         AfterSB2Pri = "disconnect"
	SB2ViolentlyAS0P      AfterSB2Pri = "violently-as0p"
	SB2CallPriLostAfterSB AfterSB2Pri = "call-pri-lost-after-sb"
)

// RRConflict is what happens when roles contradict the direction of a resync (7.6).
type RRConflict string

// Values of rr-conflict.
const (
	RRDisconnect  RRConflict = "disconnect"
	RRViolently   RRConflict = "violently"
	RRCallPriLost RRConflict = "call-pri-lost"
)

// OnCongestion is what a full send buffer leads to (9.9).
type OnCongestion string

// Values of on-congestion.
const (
	CongestionBlock      OnCongestion = "block"
	CongestionPullAhead  OnCongestion = "pull-ahead"
	CongestionDisconnect OnCongestion = "disconnect"
)

// ResourceOptions are the options of options{} (11.3).
type ResourceOptions struct {
	// CPUMask is a list of 32-bit hexadecimal words, "" for all processors.
	CPUMask            string
	OnNoDataAccessible OnNoData
}

// OnNoData is what I/O without any usable copy leads to (10.4).
type OnNoData string

// Values of on-no-data-accessible.
const (
	OnNoDataIOError   OnNoData = "io-error"
	OnNoDataSuspendIO OnNoData = "suspend-io"
)

// StartupOptions are the options of startup{}, for the start of the daemon and
// `wait-connect` (11.3).
type StartupOptions struct {
	WfcTimeoutSeconds         uint32 // 0 waits for ever
	DegrWfcTimeoutSeconds     uint32
	OutdatedWfcTimeoutSeconds uint32
	WaitAfterSB               bool
	StackedTimeouts           bool
	// BecomePrimaryOn are host names, or the one word "both".
	BecomePrimaryOn []string
}
