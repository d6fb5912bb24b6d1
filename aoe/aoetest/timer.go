package aoetest

import "time"

// Timer decides when a request is repeated and how many may be outstanding.
type Timer interface {
	// Heard takes the time between the sending of a request and its answer.
	Heard(d time.Duration)
	// Limit is the age at which a request has expired.
	Limit() time.Duration
	// Expired is called once for each look at which requests have expired.
	Expired()
	// Window is how many requests may be outstanding.
	Window() int
}

// Fixed repeats after a fixed time and never narrows the window: for measurements.
type Fixed struct {
	After time.Duration
	Size  int
}

// Heard implements Timer.
func (Fixed) Heard(time.Duration) {}

// Limit implements Timer.
func (f Fixed) Limit() time.Duration { return f.After }

// Expired implements Timer.
func (Fixed) Expired() {}

// Window implements Timer.
func (f Fixed) Window() int { return f.Size }

// Linux behaves as the aoe driver of Linux 6.1 (spec/aoe.md 4.3): the limit follows
// the measured times slowly and comes from seconds, and one expiry closes the window
// to a single request.
type Linux struct {
	most       int
	avg, dev   time.Duration
	window     int
	threshold  int
	sinceGrown int
}

// NewLinux returns the state of a driver that has just discovered a target which
// announces that many buffers.
func NewLinux(buffers int) *Linux {
	most := min(buffers, 64)
	return &Linux{most: most, avg: 250 * time.Millisecond, dev: 2 * time.Second, window: max(1, most/2), threshold: max(1, most/2)}
}

// Heard implements Timer.
func (l *Linux) Heard(d time.Duration) {
	diff := d - l.avg
	l.avg += diff / 256
	if diff < 0 {
		diff = -diff
	}
	l.dev += (diff - l.dev) / 8
	switch {
	case l.window >= l.most:
	case l.window < l.threshold:
		l.window++
	default:
		if l.sinceGrown++; l.sinceGrown >= l.window {
			l.window++
			l.sinceGrown = 0
		}
	}
}

// Limit implements Timer.
func (l *Linux) Limit() time.Duration { return 2*l.avg + 8*l.dev }

// Expired implements Timer.
func (l *Linux) Expired() {
	l.threshold = max(1, l.window/2)
	l.window = 1
}

// Window implements Timer.
func (l *Linux) Window() int { return l.window }
