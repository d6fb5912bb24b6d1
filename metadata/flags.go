package metadata

import (
	"strconv"
	"strings"
)

// Flags are the bits at offset 56 of the superblock (section 2.3).
type Flags uint32

// The flags, with DRBD's names.
const (
	Consistent     Flags = 1 << iota // the local data is better than Inconsistent
	PrimaryInd                       // this node was Primary, or a diskless peer was
	ConnectedInd                     // the connection was beyond WFReportParams
	FullSync                         // the bitmap on disk is not to be trusted: read it as all ones
	WasUpToDate                      // the local data was better than Outdated
	PeerOutDated                     // the peer's data was Inconsistent or Outdated
	CrashedPrimary                   // this node crashed as Primary and has not met its peer since
	ALClean                          // the activity log has been replayed
	ALDisabled                       // writes were not recorded in the activity log
)

var flagNames = [...]string{
	"CONSISTENT", "PRIMARY_IND", "CONNECTED_IND", "FULL_SYNC", "WAS_UP_TO_DATE",
	"PEER_OUT_DATED", "CRASHED_PRIMARY", "AL_CLEAN", "AL_DISABLED",
}

// String lists the flags by DRBD's names, unknown bits in hexadecimal.
func (f Flags) String() string {
	if f == 0 {
		return "none"
	}
	var parts []string
	for i, name := range flagNames {
		if f&(1<<i) != 0 {
			parts = append(parts, name)
			f &^= 1 << i
		}
	}
	if f != 0 {
		parts = append(parts, "0x"+strconv.FormatUint(uint64(f), 16))
	}
	return strings.Join(parts, "|")
}

// Has says whether every flag of m is set.
func (f Flags) Has(m Flags) bool { return f&m == m }
