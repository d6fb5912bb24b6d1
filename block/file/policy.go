package file

import (
	"sync/atomic"
	"time"

	"github.com/replblk/replblk/block"
)

const (
	// slow is the service time beyond which a request counts as blocking. A
	// hand-off costs 5 to 15 µs; below 30 µs it does not pay.
	slow = 30 * time.Microsecond
	// worst caps one observation, so that a hiccup is forgotten within a dozen requests.
	worst = 150 * time.Microsecond
	// inlineBytes is the longest transfer that may run inline. Copying more takes
	// so long that a hand-off is cheap beside it, while the submitter can use the
	// time to take the next request off its socket.
	inlineBytes = 128 << 10
	// inlineZero is the longest range in sectors whose zeroing may run inline.
	inlineZero = 2048
)

// policy decides where a request runs, from a moving average of the service
// time per kind of request. Reads may block while writes go to the page cache,
// so each kind has its own.
type policy struct {
	average [block.WriteZeroes + 1]atomic.Int64 // nanoseconds beyond the allowance of copying
}

// inline says whether to serve r on the submitter's goroutine: if the backing
// answers fast, or if there is nothing to overlap r with.
func (p *policy) inline(r *block.Request, alone bool) bool {
	if r.Op >= block.Discard && r.Sectors > inlineZero || len(r.Data) > inlineBytes {
		return false
	}
	return alone || p.average[r.Op].Load() <= int64(slow)
}

// observe records that r took d. Copying is not blocking: half a nanosecond per
// byte (2 GB/s) is taken off. Lost updates of concurrent observers do not matter.
func (p *policy) observe(r *block.Request, d time.Duration) {
	d -= time.Duration(len(r.Data) / 2)
	d = max(0, min(d, worst))
	a := &p.average[r.Op]
	old := a.Load()
	if now := old + (int64(d)-old)/8; now != old {
		a.Store(now)
	}
}
