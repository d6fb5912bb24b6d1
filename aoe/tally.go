package aoe

import (
	"sync/atomic"
	"time"
)

// tally counts answers of a target to one initiator, for the counters to get them at once:
// receivers that work at the same time would wait for each other at every single one.
type tally struct {
	now       time.Time // of the answers
	target    *Target
	initiator *Initiator

	answers        uint64
	reads, writes  uint64
	readBytes      uint64
	writeBytes     uint64
	flushes, other uint64
	latencies      [latencyBuckets]uint64
	latency        time.Duration // sum
}

// add counts the answer of c.
func (n *tally) add(c *call) {
	if n.initiator != c.initiator || n.target != c.target {
		n.flush()
		n.target, n.initiator = c.target, c.initiator
	}
	n.answers++
	took := n.now.Sub(c.frame.Received)
	n.latencies[latencyBucket(took)]++
	n.latency += max(took, 0)
	if !c.good {
		return
	}
	switch c.kind {
	case ataRead:
		n.reads++
		n.readBytes += uint64(len(c.req.Data))
	case ataWrite:
		n.writes++
		n.writeBytes += uint64(len(c.req.Data))
	case ataFlush:
		n.flushes++
	default:
		n.other++
	}
}

// flush adds what was counted to the counters. What was answered is in flight until then.
func (n *tally) flush() {
	if n.answers == 0 {
		return
	}
	n.addTo(&n.initiator.Counters)
	n.addTo(&n.target.counters)
	*n = tally{now: n.now}
}

func (n *tally) addTo(to *Counters) {
	to.Responses.Add(n.answers)
	for _, x := range []struct {
		n  uint64
		to *atomic.Uint64
	}{
		{n.reads, &to.Reads}, {n.readBytes, &to.ReadBytes}, {n.writes, &to.Writes}, {n.writeBytes, &to.WriteBytes},
		{n.flushes, &to.Flushes}, {n.other, &to.Other},
	} {
		if x.n > 0 {
			x.to.Add(x.n)
		}
	}
	to.Latency.add(&n.latencies, n.latency)
	to.InFlight.Add(-int64(n.answers)) //nolint:gosec // far below
}
