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

	app   uint64   // of application I/O since the last tick
	ticks int64    // since the run began
	total int64    // answered since then
	marks [2]mark  // every three seconds
	auto  autoRate // in use while nothing is configured
}

// mark is how far a run had got at a certain tick.
type mark struct{ tick, total int64 }

func (c *rateController) reset(ahead int) {
	*c = rateController{plan: make([]int64, min(ahead, maxPlanAhead)), auto: c.auto}
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
	app := c.app
	c.app = 0
	c.ticks++
	c.total += answered
	switch {
	case v.automatic():
		c.budget = c.auto.tick(v, answered/8, c.inflight/8, app > 0)
		return
	case len(c.plan) == 0:
		c.budget = int64(v.ResyncRateKiB) / 40
	case c.throttled(v, app):
		c.budget = 0
	default:
		c.budget = c.dynamic(v, answered) / 8
	}
	c.auto = autoRate{}
	c.budget = max(0, c.budget)
}

// throttled is c-min-rate: while there is application I/O, a resync that is faster than that
// stands back for a tick (spec 9.7).
func (c *rateController) throttled(v *VolumeConfig, app uint64) bool {
	since := c.marks[0]
	if c.ticks-c.marks[1].tick >= 30 {
		c.marks[0], c.marks[1] = c.marks[1], mark{c.ticks, c.total}
	}
	kib := (c.total - since.total) / 2 * 10 / max(1, c.ticks-since.tick)
	return v.MinRateKiB != 0 && app > 64 && kib > int64(v.MinRateKiB)
}

// rest is a tick without a resync.
func (c *rateController) rest(v *VolumeConfig) {
	app := c.app
	c.app = 0
	if v.automatic() {
		c.auto.heed(v, app > 0)
	}
}

// seen takes note of application I/O on the volume, of this node or the peer's.
func (c *rateController) seen(sectors uint64) {
	c.app += sectors
	if c.auto.on && !c.auto.busy() {
		c.auto.calm = 0
		c.budget = min(c.budget, c.auto.share)
	}
}

// room is how many more blocks may be in flight. The kernel looks at max-buffers once a
// tick, which makes of a window a limit on the rate (40 MB/s with the default of 2048);
// here what is answered within the tick makes room at once.
func (c *rateController) room(maxBuffers int) int64 {
	window := int64(maxBuffers) / 2
	if c.auto.busy() {
		window = min(window, busyWindow)
	}
	return window - (c.inflight-int64(c.answered))/8
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
