package aoe

import (
	"math/bits"
	"sync/atomic"
	"time"
)

// latencyBuckets is the number of buckets of a Latency: the first holds what took less
// than 16 µs, each of the others twice as much as the one before, the last everything.
const latencyBuckets = 20

const latencyShift = 4 // the first bucket ends at 1<<latencyShift µs

// Latency counts requests by the time from the frame's arrival in the kernel to the
// sending of the answer. Anyone may read it at any time.
type Latency struct {
	buckets [latencyBuckets]atomic.Uint64
	sum     atomic.Uint64 // nanoseconds
}

// latencyBucket returns the bucket of a request that took d.
func latencyBucket(d time.Duration) int {
	i := bits.Len64(uint64(max(d, 0).Microseconds()) >> latencyShift) //nolint:gosec // not negative
	return min(i, latencyBuckets-1)
}

// add adds so many requests per bucket, which took sum together.
func (l *Latency) add(buckets *[latencyBuckets]uint64, sum time.Duration) {
	for i, n := range buckets {
		if n > 0 {
			l.buckets[i].Add(n)
		}
	}
	l.sum.Add(uint64(sum)) //nolint:gosec // not negative
}

// LatencyBounds returns the upper bounds of all buckets but the last.
func LatencyBounds() []time.Duration {
	b := make([]time.Duration, latencyBuckets-1)
	for i := range b {
		b[i] = time.Microsecond << (latencyShift + i)
	}
	return b
}

// Counts returns how many requests each bucket holds, and the sum of their times.
func (l *Latency) Counts() (buckets []uint64, sum time.Duration) {
	buckets = make([]uint64, latencyBuckets)
	for i := range buckets {
		buckets[i] = l.buckets[i].Load()
	}
	return buckets, time.Duration(l.sum.Load()) //nolint:gosec // 292 years
}
