package replication

// maxPlanAhead bounds c-plan-ahead, in tenths of a second.
const maxPlanAhead = 300

// rateController decides how much is asked for per tenth of a second (spec 9.7). All
// amounts are sectors unless the name says blocks.
type rateController struct {
	plan     []int64 // adjustments for the coming ticks
	answered uint64  // since the last tick
	inflight int64   // asked for and not answered, as of the last tick
	budget   int64   // blocks that may still be asked for in this tick
}

func (c *rateController) reset(ahead int) {
	*c = rateController{plan: make([]int64, min(ahead, maxPlanAhead))}
}

// spend takes n blocks off the budget.
func (c *rateController) spend(n uint64) {
	c.budget -= int64(n)
	c.inflight += int64(n) * 8
}

// tick sets the budget for the next tenth of a second.
func (c *rateController) tick(v *VolumeConfig) {
	answered := int64(c.answered)
	c.answered = 0
	c.inflight = max(0, c.inflight-answered)
	if n := int(min(v.PlanAheadTenths, maxPlanAhead)); n != len(c.plan) {
		c.plan = make([]int64, n)
	}
	if len(c.plan) == 0 {
		c.budget = int64(v.ResyncRateKiB) / 40
	} else {
		c.budget = c.dynamic(v, answered) / 8
	}
	c.budget = max(0, c.budget)
}

// room is how many more blocks may be in flight. The kernel looks at max-buffers once a
// tick, which makes of a window a limit on the rate (40 MB/s with the default of 2048);
// here what is answered within the tick makes room at once.
func (c *rateController) room(maxBuffers int) int64 {
	return int64(maxBuffers)/2 - (c.inflight-int64(c.answered))/8
}

// dynamic steers the amount in flight towards a target: a fixed fill, or what gives a
// fixed delay. The correction is spread over the time that requests take to show an
// effect.
func (c *rateController) dynamic(v *VolumeConfig, answered int64) int64 {
	n := int64(len(c.plan))
	var want int64
	switch {
	case c.inflight+answered == 0:
		want = n * (int64(v.ResyncRateKiB) * 2 / 10)
	case v.FillTargetSector != 0:
		want = int64(v.FillTargetSector)
	default:
		want = answered * int64(v.DelayTargetTenth)
	}
	correction := want - c.inflight
	for _, q := range c.plan {
		correction -= q
	}
	for i := range c.plan {
		c.plan[i] += correction / n
	}
	q := c.plan[0]
	copy(c.plan, c.plan[1:])
	c.plan[n-1] = 0
	return max(0, min(answered+q, int64(v.MaxRateKiB)*2/10))
}
