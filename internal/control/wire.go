package control

import (
	"encoding/json"
	"fmt"
)

// Version of the protocol. Fields may be added without a new version; a server
// refuses other versions than its own by name.
const Version = 1

// DefaultSocket is where the daemon listens if nothing is configured.
const DefaultSocket = "/run/replblk/control"

// maxLine bounds a request, and a line of an answer: the snapshot of the largest
// configuration is far below it.
const (
	maxRequest = 64 << 10
	maxAnswer  = 16 << 20
)

// Request is one command.
type Request struct {
	Version  int    `json:"version"`
	Command  string `json:"command"`
	Resource string `json:"resource,omitempty"` // "" where the command is about all of them
	// Volume is nil where the command is about all volumes of the resource.
	Volume *uint16 `json:"volume,omitempty"`

	Force         bool   `json:"force,omitempty"`
	DiscardMyData bool   `json:"discard-my-data,omitempty"`
	Tentative     bool   `json:"tentative,omitempty"`
	ClearBitmap   bool   `json:"clear-bitmap,omitempty"`
	Now           bool   `json:"now,omitempty"`        // events: only what exists
	Statistics    bool   `json:"statistics,omitempty"` // events: with counters
	StartSector   uint64 `json:"start-sector,omitempty"`
	StopSector    uint64 `json:"stop-sector,omitempty"`  // 0: the end
	Resume        bool   `json:"resume,omitempty"`       // verify: where the last one was stopped, instead of StartSector
	SizeSectors   uint64 `json:"size-sectors,omitempty"` // resize; 0: as much as there is room for
	AssumeClean   bool   `json:"assume-clean,omitempty"`
	AssumePeer    bool   `json:"assume-peer-has-space,omitempty"`
}

// answer is one line from the server.
type answer struct {
	Version int             `json:"version"`
	Value   json.RawMessage `json:"value,omitempty"`
	Done    bool            `json:"done,omitempty"`
	Exit    int             `json:"exit,omitempty"`
	Error   string          `json:"error,omitempty"`
}

// Exit codes, as drbdsetup's (spec 10.5).
const (
	ExitOK           = 0
	ExitInconsistent = 5  // the disk state was lower than Outdated already
	ExitConfig       = 10 // refused by the configuration, or no such object
	ExitRefused      = 11 // any other refused state change
	ExitNoDisk       = 16 // cannot act without a local disk
	ExitNoData       = 17 // needs access to UpToDate data
	ExitUsage        = 20 // usage, no daemon, or internal
)

// Error is a failed command with the exit code that it deserves.
type Error struct {
	Exit int
	Text string
}

// Error implements error.
func (e *Error) Error() string { return e.Text }

// Errorf makes an Error.
func Errorf(exit int, format string, args ...any) *Error {
	return &Error{Exit: exit, Text: fmt.Sprintf(format, args...)}
}
