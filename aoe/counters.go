package aoe

import "sync/atomic"

// DropReason says why a request was left without an answer.
type DropReason uint8

// Reasons for silence.
const (
	DropShort       DropReason = iota // shorter than an AoE header
	DropForeign                       // for another target or another station
	DropBadSource                     // the source is a group address
	DropNotServing                    // the target does not serve, or did not when the work was done
	DropMasked                        // the source is not in the mask list
	DropWildcard                      // a write to a wildcard address
	DropQueueFull                     // the target's or the initiator's limit is reached
	DropStale                         // waited longer than MaxAge
	DropMismatch                      // config test that does not match: silence is the answer
	DropUnavailable                   // the device says not now
	DropSuperseded                    // a newer write to the same place, or a newer state, went before
	DropUnconfirmed                   // the other end of the mirror has not said that it has the change
	numDropReasons
)

var dropNames = [numDropReasons]string{
	DropShort: "short", DropForeign: "foreign", DropBadSource: "bad-source",
	DropNotServing: "not-serving", DropMasked: "masked", DropWildcard: "wildcard-write",
	DropQueueFull: "queue-full", DropStale: "stale", DropMismatch: "config-mismatch",
	DropUnavailable: "unavailable", DropSuperseded: "superseded", DropUnconfirmed: "unconfirmed",
}

// String returns the reason as a metric label.
func (r DropReason) String() string {
	if r < numDropReasons {
		return dropNames[r]
	}
	return "unknown"
}

// DropReasons returns all reasons in order, for collectors.
func DropReasons() []DropReason {
	all := make([]DropReason, numDropReasons)
	for i := range all {
		all[i] = DropReason(i)
	}
	return all
}

// Counters counts for a target, or for one initiator of a target. Fields only
// grow, except InFlight; anyone may read them at any time.
type Counters struct {
	Requests   atomic.Uint64 // frames accepted for processing, of any command
	Responses  atomic.Uint64 // frames answered, errors included
	Reads      atomic.Uint64 // read commands completed well
	ReadBytes  atomic.Uint64
	Writes     atomic.Uint64 // write commands acknowledged
	WriteBytes atomic.Uint64
	Flushes    atomic.Uint64 // flush commands completed well
	Other      atomic.Uint64 // other ATA commands, config, mask and reserve commands answered
	Malformed  atomic.Uint64 // frames cut short or with impossible counts; never executed
	Duplicates atomic.Uint64 // requests equal in range and kind to one of the same initiator in flight
	Delayed    atomic.Uint64 // requests that waited for an earlier overlapping one
	ATAErrors  atomic.Uint64 // answers with the ERR status bit
	AoEErrors  atomic.Uint64 // answers with FlagError
	HandedOver atomic.Uint64 // requests passed to the other end of the mirror
	TakenOver  atomic.Uint64 // requests that the other end has passed to this one
	Latency    Latency       // of the requests answered
	InFlight   atomic.Int64  // requests accepted and neither answered nor dropped

	drops [numDropReasons]atomic.Uint64
}

// Drops returns how many requests were left unanswered for a reason.
func (n *Counters) Drops(r DropReason) uint64 {
	if r < numDropReasons {
		return n.drops[r].Load()
	}
	return 0
}

func (n *Counters) drop(r DropReason) { n.drops[r].Add(1) }

// maxInitiators limits the table of initiators. Source addresses can be
// invented at will; those that come when the table is full share one entry.
const maxInitiators = 1024

// Initiator is one source address that talked to a target.
type Initiator struct {
	MAC      MAC // zero in the entry shared by those beyond the limit
	Counters Counters
}
