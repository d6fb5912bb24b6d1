package replication

// Without any of the c- options and resync-rate, a resync uses what there is as long as the
// application is quiet: only max-buffers limits what is in flight. When the application does
// something it stands back: it asks for little at a time, so that a write has little before it
// in every queue, and for a part of what is possible, so that the disks and processors of both
// nodes have time for the application. The part grows while everything asked for arrives within
// the tick, and shrinks while it does not, down to c-min-rate; c-min-rate 0 does not stand
// back at all.
//
// DRBD's own defaults (50 KiB in flight, 100 MiB/s at most) take twenty seconds to reach a
// rate that is slow for today's links, and know the application by c-min-rate only. They are
// what the peer is told all the same: a kernel that is the target goes by them. So they
// cannot be told from nothing configured, and mean this.
type autoRate struct {
	on    bool  // nothing is configured, c-min-rate 0 neither
	calm  int   // ticks since there was application I/O
	peak  int64 // blocks per tick that were possible while it was quiet; 0: not known yet
	share int64 // blocks per tick while it is not
}

const (
	// busyTicks is how long the application counts as busy after it did something.
	busyTicks = 5
	// busyWindow and busyRequest bound what is in flight, and each request, in blocks of
	// 4 KiB, while it is.
	busyWindow  = 64
	busyRequest = 32
	// firstShare is 10 MiB/s, mostShare 100 MiB/s: c-max-rate of DRBD. In blocks per tick.
	firstShare = 256
	mostShare  = 2560
	// unlimited is more blocks than can be in flight or answered in a tick.
	unlimited = 1 << 20
	// peakPart is the part of the peak that a resync takes while the application is busy.
	peakPart = 4
)

// automatic says whether the rate is nobody's wish.
func (v *VolumeConfig) automatic() bool {
	return v.ResyncRateKiB == 250 && v.PlanAheadTenths == 20 && v.DelayTargetTenth == 10 && v.FillTargetSector == 100 && v.MaxRateKiB == 102400
}

func (a *autoRate) busy() bool { return a.on && a.calm < busyTicks }

// heed takes note of what the application did in the last tick.
func (a *autoRate) heed(v *VolumeConfig, app bool) {
	if v.MinRateKiB == 0 {
		*a = autoRate{}
		return
	}
	if !a.on {
		*a = autoRate{on: true, calm: busyTicks, share: firstShare}
	}
	a.calm = min(a.calm+1, busyTicks)
	if app {
		a.calm = 0
	}
}

// tick returns the budget for the next tenth of a second, in blocks, as are the arguments:
// what was answered in the last, what is still in flight. app: the application did something.
func (a *autoRate) tick(v *VolumeConfig, answered, inflight int64, app bool) int64 {
	a.heed(v, app)
	floor := max(1, int64(v.MinRateKiB)/40)
	if !a.busy() {
		a.peak = max(answered, a.peak-a.peak/16) // what was possible some time ago may not be now
		if a.peak > 0 {
			a.share = max(floor, a.peak/(2*peakPart))
		}
		return unlimited
	}
	most := int64(mostShare)
	if a.peak > 0 {
		most = a.peak / peakPart
	}
	if inflight > 0 {
		a.share -= a.share / 4
	} else {
		a.share += max(1, a.share/8)
	}
	a.share = max(floor, min(a.share, most))
	return a.share
}
