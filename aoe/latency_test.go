package aoe

import (
	"testing"
	"time"
)

// observe counts a request as a tally does.
func (l *Latency) observe(d time.Duration) {
	i := &Initiator{}
	n := tally{now: time.Now(), initiator: i, target: &Target{}}
	c := &call{initiator: i, target: n.target, frame: &Frame{Received: n.now.Add(-d)}}
	n.add(c)
	l.add(&n.latencies, n.latency)
}

func TestLatencyBuckets(t *testing.T) {
	bounds := LatencyBounds()
	for i, b := range bounds {
		var l Latency
		l.observe(b - time.Microsecond)
		l.observe(b)
		got, sum := l.Counts()
		if got[i] != 1 || got[i+1] != 1 || sum != 2*b-time.Microsecond {
			t.Errorf("around %v: %v, sum %v", b, got, sum)
		}
	}
	var l Latency
	l.observe(time.Hour)
	l.observe(-time.Hour)
	if got, sum := l.Counts(); got[0] != 1 || got[len(got)-1] != 1 || sum != time.Hour {
		t.Errorf("extremes: %v, sum %v", got, sum)
	}
}

// TestLatencyIsCounted: by target and by initiator.
func TestLatencyIsCounted(t *testing.T) {
	w := newWire(1500)
	tg := newTestTarget(t, newSlow(100), nil)
	f := w.pool.Get()
	f.SetLen(copy(f.Buffer(), writeFrame(1, 0, 1, 1)))
	f.Received = time.Now().Add(-100 * time.Millisecond)
	tg.Handle(f, w)
	w.one(t)
	if err := tg.Drain(t.Context()); err != nil { // it is counted when it is sent
		t.Fatal(err)
	}
	for _, c := range []*Counters{tg.Counters(), &tg.Initiators()[0].Counters} {
		if got, sum := c.Latency.Counts(); sum < 100*time.Millisecond || sum > 10*time.Second || got[0] != 0 {
			t.Errorf("%v, sum %v", got, sum)
		}
	}
}
