package packet

import (
	"testing"
	"time"
)

func TestPatience(t *testing.T) {
	var p patience
	if !p.awake() {
		t.Error("sleeps although nothing has been seen")
	}
	p.observe(time.Hour)
	if p.awake() {
		t.Errorf("waits awake after an hour of nothing, average %v", p.average)
	}
	short := 0
	for ; !p.awake(); short++ {
		p.observe(20 * time.Microsecond)
	}
	if short < 5 || short > 50 {
		t.Errorf("waits awake again after %d frames that came at once", short)
	}
	for range 100 {
		p.observe(awakeLimit + 20*time.Microsecond)
	}
	if p.awake() {
		t.Errorf("waits awake for frames that come later than it would wait, average %v", p.average)
	}
}

// A frame is found without sleeping if it is there in time; otherwise the wait is short.
func TestLookOut(t *testing.T) {
	s := loopback(t, Options{})
	began := time.Since(s.opened)
	if s.lookOut(began) {
		t.Fatal("found a frame, none was sent")
	}
	if d := time.Since(s.opened) - began; d < absence {
		t.Errorf("gave up after %v", d)
	}
	go func() { _, _ = s.Send([][]byte{testFrame(60)}) }()
	found := false
	for end := time.Now().Add(time.Minute); !found && time.Now().Before(end); {
		found = s.lookOut(time.Since(s.opened))
	}
	if !found {
		t.Error("a frame that came was not found")
	}
	if receive(t, s, 1); s.lookOut(time.Since(s.opened)) {
		t.Error("found the frame again that was received")
	}
}
