package activitylog

import "fmt"

// Ring is the shape of the log on disk: Stripes pieces of StripeSize4K blocks.
// Consecutive transactions go to different stripes, so that on a striped array
// they go to different disks.
type Ring struct {
	Stripes      uint32
	StripeSize4K uint32
}

// DefaultRing is the ring of 32 KiB in one stripe.
var DefaultRing = Ring{Stripes: 1, StripeSize4K: 8}

// maxContexts is how many contexts name every possible slot: ceil(65534/919).
const maxContexts = (MaxSlots + ContextSize - 1) / ContextSize

// Blocks returns the number of 4 KiB blocks of the ring.
func (r Ring) Blocks() uint32 { return r.Stripes * r.StripeSize4K }

// Block returns the position of a transaction in the ring: its offset in blocks
// of 4 KiB from the start of the activity log. The ring must not be empty.
func (r Ring) Block(number uint32) uint32 {
	t := number % r.Blocks()
	return t%r.Stripes*r.StripeSize4K + t/r.Stripes
}

// MaxSlots returns how many slots the ring can keep: so many that the contexts of
// all blocks but one, which may be torn, name every slot (section 2.5.4).
func (r Ring) MaxSlots() int {
	if n := r.Blocks(); n <= maxContexts {
		return min((int(n)-1)*ContextSize, MaxSlots)
	}
	return MaxSlots
}

func (r Ring) check() error {
	if n := uint64(r.Stripes) * uint64(r.StripeSize4K); n < 2 || n > 1<<22 {
		return fmt.Errorf("activity log of %d stripes of %d blocks: want 2 to 4194304 blocks in all", r.Stripes, r.StripeSize4K)
	}
	return nil
}
