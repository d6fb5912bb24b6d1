package aoe

import (
	"time"

	"github.com/replblk/replblk/block"
)

// burst gathers what a receiver's frames ask of the devices, so that a device gets
// adjacent requests together. One goroutine uses it.
type burst struct {
	calls []*call
	reqs  []*block.Request
}

func (b *burst) add(c *call) { b.calls = append(b.calls, c) }

// submit submits what was gathered, in order.
func (b *burst) submit() {
	now := time.Now()
	for i := 0; i < len(b.calls); {
		t := b.calls[i].target
		for ; i < len(b.calls) && b.calls[i].target == t; i++ {
			c := b.calls[i]
			b.calls[i] = nil
			c.burst = nil
			if t.timely(c, now) {
				b.reqs = append(b.reqs, &c.req)
			}
		}
		block.SubmitAll(t.device, b.reqs)
		clear(b.reqs)
		b.reqs = b.reqs[:0]
	}
	b.calls = b.calls[:0]
}
