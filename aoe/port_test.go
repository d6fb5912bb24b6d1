package aoe

import (
	"bytes"
	"context"
	"errors"
	"os"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/replblk/replblk/block/mem"
)

// memLink is a Link in memory.
type memLink struct {
	rx      chan []byte
	tx      chan []byte
	errs    chan error // to return from Recv
	stop    chan struct{}
	mtu     atomic.Int64
	down    atomic.Bool
	gone    atomic.Bool
	changed atomic.Bool
	addr    MAC

	listening atomic.Pointer[Reception]
}

func newMemLink() *memLink {
	l := &memLink{rx: make(chan []byte, 100), tx: make(chan []byte, 1000), errs: make(chan error, 1), stop: make(chan struct{}), addr: serverMAC}
	l.mtu.Store(1500)
	return l
}

func (l *memLink) Recv(bufs [][]byte, times []time.Time) (int, error) {
	select {
	case b := <-l.rx:
		times[0] = time.Now()
		bufs[0] = bufs[0][:copy(bufs[0], b)]
		return 1, nil
	case err := <-l.errs:
		return 0, err
	case <-l.stop:
		return 0, os.ErrDeadlineExceeded
	}
}

func (l *memLink) TryRecv([][]byte, []time.Time) (int, error) { return 0, nil }

func (l *memLink) Send(frames [][]byte) (int, error) {
	if l.down.Load() {
		return 0, syscall.ENETDOWN
	}
	for _, f := range frames {
		l.tx <- bytes.Clone(f)
	}
	return len(frames), nil
}

func (l *memLink) Refresh() (bool, error) {
	if l.gone.Load() {
		return false, syscall.ENODEV
	}
	return l.changed.Swap(false), nil
}
func (l *memLink) StopRecv() error       { close(l.stop); return nil }
func (l *memLink) Up() bool              { return !l.down.Load() }
func (l *memLink) MTU() int              { return int(l.mtu.Load()) }
func (l *memLink) HardwareAddr() [6]byte { return l.addr }
func (l *memLink) Listen(r Reception) error {
	l.listening.Store(&r)
	return nil
}

// next returns the next frame sent that is not an advertisement.
func (l *memLink) next(t *testing.T) (Header, []byte) {
	t.Helper()
	for {
		select {
		case b := <-l.tx:
			var h Header
			if err := h.DecodeFrom(b); err != nil {
				t.Fatal(err)
			}
			if h.Dst != Broadcast {
				return h, b
			}
		case <-time.After(patience):
			t.Fatal("nothing sent")
		}
	}
}

func serveTest(t *testing.T, p *Port, l Link) (stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- p.Serve(ctx, l, ServeOptions{DrainTimeout: time.Second}) }()
	return func() error {
		cancel()
		select {
		case err := <-done:
			return err
		case <-time.After(patience):
			t.Fatal("Serve does not end")
			return nil
		}
	}
}

func twoTargets(t *testing.T) *Port {
	t.Helper()
	a := newTestTarget(t, mem.New(100), nil)
	b := newTestTarget(t, mem.New(100), func(o *Options) { o.Slot = 4 })
	p, err := NewPort(a, b)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Add(a, MAC{}); err == nil {
		t.Error("added twice")
	}
	return p
}

func TestPortRoutes(t *testing.T) { synctest.Test(t, portRoutes) }

func portRoutes(t *testing.T) {
	p, l := twoTargets(t), newMemLink()
	stop := serveTest(t, p, l)
	h := Header{Dst: Broadcast, Src: clientMAC, Version: 1, Shelf: AnyShelf, Slot: AnySlot, Command: CommandConfig}
	l.rx <- (&ConfigArg{}).AppendTo(h.AppendTo(nil))
	seen := map[uint8]bool{}
	for range 2 {
		h, _ := l.next(t)
		seen[h.Slot] = true
	}
	if !seen[3] || !seen[4] {
		t.Errorf("answers from slots %v", seen)
	}
	l.rx <- ataFrame(9, ATA{Command: ATARead, Count: 1}, nil)
	if h, _ := l.next(t); h.Slot != 3 || h.Tag != 9 {
		t.Errorf("answer %+v", h)
	}
	l.rx <- []byte("short")
	foreign := ataFrame(9, ATA{Command: ATARead, Count: 1}, nil)
	foreign[18] = 77
	l.rx <- foreign
	synctest.Wait()
	if c := p.Counters(); c.Foreign.Load() != 1 || c.Malformed.Load() != 1 {
		t.Errorf("foreign %d, malformed %d", c.Foreign.Load(), c.Malformed.Load())
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

// TestPortDrains: what was received before the end is answered.
func TestPortDrains(t *testing.T) { synctest.Test(t, portDrains) }

func portDrains(t *testing.T) {
	dev, l := newSlow(100), newMemLink()
	dev.hold = true
	p, err := NewPort(newTestTarget(t, dev, nil))
	if err != nil {
		t.Fatal(err)
	}
	stop := serveTest(t, p, l)
	l.rx <- writeFrame(5, 1, 1, 1)
	dev.wait(t, 1)
	go func() {
		time.Sleep(20 * time.Millisecond)
		dev.mu.Lock()
		dev.hold = false
		dev.mu.Unlock()
		dev.release(0)
	}()
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if h, _ := l.next(t); h.Tag != 5 {
		t.Errorf("answer %+v", h)
	}
}

// TestPortSurvivesLinkDown: and advertises again when it is up.
func TestPortSurvivesLinkDown(t *testing.T) { synctest.Test(t, portSurvivesLinkDown) }

func portSurvivesLinkDown(t *testing.T) {
	p, l := twoTargets(t), newMemLink()
	stop := serveTest(t, p, l)
	l.down.Store(true)
	l.changed.Store(true)
	l.errs <- syscall.ENETDOWN
	time.Sleep(20 * time.Millisecond)
	for len(l.tx) > 0 {
		<-l.tx
	}
	l.down.Store(false)
	l.changed.Store(true)
	select {
	case b := <-l.tx:
		if MAC(b[:6]) != Broadcast {
			t.Errorf("sent % x", b)
		}
	case <-time.After(patience):
		t.Error("no advertisement after the link came up")
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	if n := p.Counters().LinkDown.Load(); n != 1 {
		t.Errorf("%d times down", n)
	}
}

func TestPortEndsWithItsInterface(t *testing.T) {
	p, l := twoTargets(t), newMemLink()
	l.gone.Store(true)
	if err := p.Serve(t.Context(), l, ServeOptions{}); !errors.Is(err, syscall.ENODEV) {
		t.Errorf("error %v, want ENODEV", err)
	}
}

func TestConflictIsReported(t *testing.T) {
	var from atomic.Value
	tg := newTestTarget(t, mem.New(100), func(o *Options) { o.OnConflict = func(m MAC, _ bool) { from.Store(m) } })
	w := newWire(1500)
	h := Header{Dst: Broadcast, Src: otherMAC, Version: 1, Flags: FlagResponse, Shelf: 7, Slot: 3, Command: CommandConfig}
	w.give(tg, (&ConfigArg{}).AppendTo(h.AppendTo(nil)))
	if tg.Conflicts() != 1 || from.Load() != otherMAC {
		t.Errorf("%d conflicts, from %v", tg.Conflicts(), from.Load())
	}
	w.none(t)
}
