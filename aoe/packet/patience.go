package packet

import (
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// awakeLimit is how long Recv waits for a frame before it sleeps, if at all. A client
	// that waits for each answer sends its next request some microseconds after it, and
	// to be woken takes as long, or 20 to 30 where the processor has been halted.
	awakeLimit = 60 * time.Microsecond
	// longWait is the longest that one wait counts: after it two dozen short ones must
	// pass before Recv waits awake again.
	longWait = time.Millisecond
	// looks is how often the ring is looked at between two looks at the clock: a
	// microsecond or less.
	looks = 200
)

// patience decides whether to wait for the next frame awake: if the last ones came soon, and
// nobody else has taken the processor meanwhile.
type patience struct{ average time.Duration }

func (p *patience) awake() bool { return p.average < awakeLimit }

// observe notes how long a frame was waited for.
func (p *patience) observe(d time.Duration) {
	p.average += (min(d, longWait) - p.average) / 8
}

// wait waits until there may be something to receive, or a reason to return.
func (s *Socket) wait() error {
	began := time.Now()
	if s.patience.awake() && runtime.GOMAXPROCS(0) > 1 && s.lookOut(began) {
		s.patience.observe(time.Since(began))
		return nil
	}
	err := s.await()
	s.patience.observe(time.Since(began))
	return err
}

// lookOut looks at the ring until there is a frame, and reports false if there is none soon,
// or there is no ring.
func (s *Socket) lookOut(began time.Time) bool {
	for last := began; ; {
		there, ok := s.look()
		if there || !ok {
			return there
		}
		now := time.Now()
		if now.Sub(last) > awakeLimit { // others want the processor
			s.patience.average = longWait
			return false
		}
		if now.Sub(began) > awakeLimit {
			return false
		}
		last = now
		runtime.Gosched() // so that no goroutine waits for this one to find nothing
	}
}

// look says whether there is a frame, or will be in a moment; ok is false without a ring.
func (s *Socket) look() (there, ok bool) {
	s.ringMu.Lock()
	defer s.ringMu.Unlock()
	if s.ring == nil {
		return false, false
	}
	st := status(s.ring.head())
	for range looks {
		if st.Load()&unix.TP_STATUS_USER != 0 {
			return true, true
		}
	}
	return false, true
}
