package aoe

import (
	"testing"

	"github.com/replblk/replblk/block/mem"
)

// TestCrowding: a receiver asks for help for as long as the threads of the process are left on their
// processors, does without for long when they are not, and tries again.
func TestCrowding(t *testing.T) {
	switches, perBurst := int64(5), int64(0)
	c := crowding{switches: func() int64 { return switches }}
	helped := func(bursts int) (n int) {
		for range bursts {
			switches += perBurst
			if c.full() {
				n++
			}
		}
		return n
	}
	if n := helped(10 * trialBursts); n != 10*trialBursts {
		t.Errorf("with processors for both, help is had with %d of %d bursts", n, 10*trialBursts)
	}
	perBurst = 1
	helped(2 * trialBursts) // until it is noticed
	if n := helped(10 * aloneBursts); n == 0 || n > 11*trialBursts {
		t.Errorf("without, help is had with %d of %d bursts", n, 10*aloneBursts)
	}
	perBurst = 0
	helped(aloneBursts)
	if n := helped(trialBursts); n != trialBursts {
		t.Errorf("with processors again, help is had with %d of %d bursts", n, trialBursts)
	}
}

// TestNoHelpInACrowd: who has no processor is not called, and one that is at work is told.
func TestNoHelpInACrowd(t *testing.T) {
	s := &session{help: make(chan struct{}, 1)}
	s.callHelp(true)
	if len(s.help) != 1 || s.crowded.Load() {
		t.Errorf("%d calls, crowded is %v", len(s.help), s.crowded.Load())
	}
	<-s.help
	s.callHelp(false)
	if len(s.help) != 0 || !s.crowded.Load() {
		t.Errorf("%d calls, crowded is %v", len(s.help), s.crowded.Load())
	}
}

// TestHelperLeavesACrowd: a helper takes what is there, unless there is no processor for it.
func TestHelperLeavesACrowd(t *testing.T) {
	for _, crowded := range []bool{false, true} {
		p, err := NewPort(newTestTarget(t, mem.New(100), func(o *Options) { o.Commit = CommitNone }))
		if err != nil {
			t.Fatal(err)
		}
		l := &burstLink{memLink: newMemLink(), bursts: [][][]byte{{writeFrame(1, 0, 1, 1)}, {writeFrame(2, 1, 1, 1)}}}
		s := newSession(p, l)
		s.crowded.Store(crowded)
		s.help <- struct{}{}
		close(s.help)
		s.helpOut()
		if left := len(l.bursts); crowded != (left == 2) || !crowded != (left == 0) {
			t.Errorf("crowded %v: %d of 2 bursts are left", crowded, left)
		}
	}
}
