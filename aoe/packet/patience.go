package packet

import (
	"runtime"
	"time"
	"unsafe"

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
	// absence is how long after a look somebody else may have had the processor. If it was
	// the client, it can send nothing while Recv looks.
	absence = 4 * time.Microsecond
	// looks is how often the ring is looked at between two looks at the clock: about a
	// microsecond.
	looks = 1000
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
	began := time.Since(s.opened)
	if s.parallel && s.patience.awake() {
		if s.lookOut(began) {
			return nil
		}
		s.patience.observe(longWait)
	}
	err := s.await()
	s.patience.observe(time.Since(s.opened) - began)
	return err
}

// lookOut looks at the ring from began on, a time after opened, until there is a frame. It
// reports false if there is none soon, or there is no ring.
func (s *Socket) lookOut(began time.Duration) bool {
	runtime.Gosched() // what this receiver has made ready goes first
	before := displaced()
	for gap, last := false, began; ; {
		there, ok := s.look()
		now := time.Since(s.opened)
		gap = gap || now-last > absence
		last = now
		switch waited := now - began; {
		case there && gap && displaced() != before:
			s.patience.observe(longWait)
			return true
		case there:
			s.patience.observe(waited)
			return true
		case !ok || waited > awakeLimit:
			return false
		}
	}
}

// displaced returns how often somebody else has taken the processor from this thread.
func displaced() int64 {
	var r unix.Rusage
	_, _, _ = unix.RawSyscall(unix.SYS_GETRUSAGE, unix.RUSAGE_THREAD, uintptr(unsafe.Pointer(&r)), 0) // it knows it
	return r.Nivcsw
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
