package aoe

import "syscall"

const (
	// trialBursts is how many full bursts a receiver takes with its helper at call before it is judged
	// whether there are processors for both.
	trialBursts = 256
	// aloneBursts is how many it then takes alone, if there are not: the trials are a hundredth.
	aloneBursts = 100 * trialBursts
	// crowdedSwitches is how many times threads of the process may have been put off their processors
	// during a trial. With a processor for each it is once or twice; where both receivers and an
	// initiator shared two, it was 600 times, and both together were slower than one.
	crowdedSwitches = trialBursts / 8
)

// crowding finds out whether a receiver is better off without its helper.
type crowding struct {
	switches func() int64 // involuntary ones of this process so far
	left     int          // full bursts until the next judgement
	helped   bool         // the last of them were taken with help
	before   int64        // switches when they began
}

func newCrowding() crowding { return crowding{switches: involuntarySwitches} }

// full counts a full burst, and says whether help is to be had with it.
func (c *crowding) full() bool {
	if c.left--; c.left > 0 {
		return c.helped
	}
	now := c.switches()
	crowded := c.helped && now-c.before > crowdedSwitches
	c.helped, c.before, c.left = !crowded, now, trialBursts
	if crowded {
		c.left = aloneBursts
	}
	return c.helped
}

// involuntarySwitches counts how often a thread of this process had to leave its processor to another.
func involuntarySwitches() int64 {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u) // without it nothing is crowded
	return u.Nivcsw
}
