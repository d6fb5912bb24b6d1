package main

import (
	"github.com/replblk/replblk/internal/pairs"
	"github.com/replblk/replblk/replication/state"
)

// impossible says whether an event cannot occur in a state, by what a driver may do: it
// attaches no second disk, and it moves metadata only while no resync runs.
func impossible(s pairs.State, e pairs.Event) bool {
	switch e.Kind() {
	case pairs.Attach:
		return s.Disk() != state.Diskless && s.Disk() != state.Failed
	case pairs.Moved:
		return s.Conn() > state.Connected
	default:
		return false
	}
}

// answer says whether an event is the answer to something that the core has asked for. Whether
// it has is not part of a state, so no test can make such an event come in any state.
func answer(e pairs.Event) bool {
	switch e.Kind() {
	case pairs.Disk, pairs.Meta, pairs.Sent, pairs.Handler, pairs.Moved:
		return true
	default:
		return false
	}
}
