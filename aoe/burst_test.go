package aoe

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"github.com/replblk/replblk/block"
	"github.com/replblk/replblk/block/mem"
)

// batcher notes what it gets together: the first sector of each request.
type batcher struct {
	*mem.Device
	mu  sync.Mutex
	got [][]uint64
}

func (b *batcher) SubmitBatch(rs []*block.Request) {
	var starts []uint64
	for _, r := range rs {
		starts = append(starts, r.Sector)
	}
	b.mu.Lock()
	b.got = append(b.got, starts)
	b.mu.Unlock()
	for _, r := range rs {
		b.Submit(r)
	}
}

// onceLink delivers its frames together, then nothing.
type onceLink struct {
	*memLink
	frames [][]byte
}

func (l *onceLink) Recv(bufs [][]byte, times []time.Time) (int, error) {
	n := len(l.frames)
	if n == 0 {
		<-l.stop
		return 0, os.ErrDeadlineExceeded
	}
	fill(l.frames, bufs, times)
	l.frames = nil
	return n, nil
}

func fill(frames, bufs [][]byte, times []time.Time) {
	now := time.Now()
	for i, f := range frames {
		bufs[i] = bufs[i][:copy(bufs[i], f)]
		times[i] = now
	}
}

// TestBurst: what arrives together goes to the device together, in order, but for what
// overlaps something earlier; each target's to its own device.
func TestBurst(t *testing.T) {
	first, second := &batcher{Device: mem.New(100)}, &batcher{Device: mem.New(100)}
	a := newTestTarget(t, first, func(o *Options) { o.Commit = CommitNone })
	b := newTestTarget(t, second, func(o *Options) { o.Slot = 4; o.Commit = CommitNone })
	p, err := NewPort(a, b)
	if err != nil {
		t.Fatal(err)
	}
	toSecond := writeFrame(5, 40, 5, 2)
	toSecond[18] = 4
	l := &onceLink{memLink: newMemLink(), frames: [][]byte{
		writeFrame(1, 10, 1, 2), writeFrame(2, 12, 2, 2),
		writeFrame(3, 11, 3, 2), // waits for both
		ataFrame(4, ATA{Flags: ATAFlagExt, Command: ATAReadExt, Count: 2, LBA: 30}, nil),
		toSecond,
		writeFrame(6, 14, 6, 2),
	}}
	stop := serveTest(t, p, l)
	var order []uint32
	for range 6 {
		h, _ := l.next(t)
		order = append(order, h.Tag)
	}
	slices.Sort(order)
	if !slices.Equal(order, []uint32{1, 2, 3, 4, 5, 6}) {
		t.Errorf("answers to %v", order)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	// The target's turn comes again after the other's: another batch of one.
	if got, want := fmt.Sprint(first.got, second.got), "[[10 12 30]] []"; got != want {
		t.Errorf("batches %s, want %s", got, want)
	}
	data := make([]byte, 6*512)
	if err := block.ReadAt(first, data, 10); err != nil {
		t.Fatal(err)
	}
	for i, v := range []byte{1, 3, 3, 2, 6, 6} {
		if !bytes.Equal(data[i*512:(i+1)*512], bytes.Repeat([]byte{v}, 512)) {
			t.Errorf("sector %d holds %d, want %d", 10+i, data[i*512], v)
		}
	}
}

// burstLink delivers one burst after the other, the last one when ready is closed,
// if there is that.
type burstLink struct {
	*memLink
	bursts [][][]byte
	ready  chan struct{}
}

func (l *burstLink) Recv([][]byte, []time.Time) (int, error) {
	<-l.stop
	return 0, os.ErrDeadlineExceeded
}

func (l *burstLink) TryRecv(bufs [][]byte, times []time.Time) (int, error) {
	if len(l.bursts) == 0 {
		return 0, nil
	}
	if len(l.bursts) == 1 && l.ready != nil {
		<-l.ready
	}
	frames := l.bursts[0]
	l.bursts = l.bursts[1:]
	fill(frames, bufs, times)
	return len(frames), nil
}

// gate holds the first request up.
type gate struct {
	*mem.Device
	closed  atomic.Bool
	reached chan struct{}
	opened  chan struct{}
}

func (g *gate) Submit(r *block.Request) {
	if g.closed.Swap(false) {
		close(g.reached)
		<-g.opened
	}
	g.Device.Submit(r)
}

// TestHelper: while a receiver is held up by the device, another one serves what arrives after
// a full burst, but for what overlaps something earlier.
func TestHelper(t *testing.T) {
	if runtime.GOMAXPROCS(0) == 1 {
		defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(2))
	}
	dev := &gate{Device: mem.New(100), reached: make(chan struct{}), opened: make(chan struct{})}
	dev.closed.Store(true)
	p, err := NewPort(newTestTarget(t, dev, func(o *Options) { o.Commit = CommitNone }))
	if err != nil {
		t.Fatal(err)
	}
	l := &burstLink{memLink: newMemLink(), bursts: make([][][]byte, 2), ready: dev.reached}
	for i := range uint32(batch) {
		l.bursts[0] = append(l.bursts[0], writeFrame(i, uint64(2*i), 1, 2))
	}
	l.bursts[1] = [][]byte{writeFrame(100, 0, 2, 1), writeFrame(101, 50, 3, 1), writeFrame(102, 51, 4, 1)}
	stop := serveTest(t, p, l)
	for _, want := range []uint32{101, 102} {
		if h, _ := l.next(t); h.Tag != want {
			t.Errorf("answer to %d while the first burst is held up, want %d", h.Tag, want)
		}
	}
	close(dev.opened)
	for range batch + 1 {
		l.next(t)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	data := make([]byte, 512)
	if err := block.ReadAt(dev, data, 0); err != nil || data[0] != 2 {
		t.Errorf("sector 0 holds %d, %v: the write that came last is to stay", data[0], err)
	}
}

// TestSuspended: a frame that came before the machine was suspended, while the monotonic clock
// stood still, is too old.
func TestSuspended(t *testing.T) {
	dev, w := &batcher{Device: mem.New(100)}, newWire(1500)
	tg := newTestTarget(t, dev, func(o *Options) { o.Commit, o.MaxAge = CommitNone, time.Hour })
	var b burst
	for tag, asleep := range []time.Duration{0, 2 * time.Hour} {
		f := w.pool.Get()
		f.SetLen(copy(f.Buffer(), writeFrame(uint32(tag), uint64(tag), 1, 1)))
		f.Received = earlierByTheWall(t, time.Now(), asleep)
		var h Header
		if err := h.DecodeFrom(f.Bytes()); err != nil {
			t.Fatal(err)
		}
		tg.handle(f, w, &h, &b)
	}
	b.submit()
	if h, _ := w.one(t); h.Tag != 0 {
		t.Errorf("answer to %d", h.Tag)
	}
	w.none(t)
	if n := tg.Counters().Drops(DropStale); n != 1 {
		t.Errorf("%d frames were stale, want 1", n)
	}
}

// earlierByTheWall returns t as the clocks show it that much earlier if only one of them goes on.
func earlierByTheWall(t *testing.T, now time.Time, d time.Duration) time.Time {
	t.Helper()
	const nsecShift = 30 // of the seconds, above the nanoseconds, in the first word of a time.Time
	then := now
	*(*uint64)(unsafe.Pointer(&then)) -= uint64(d/time.Second) << nsecShift
	if now.Sub(then) != 0 || now.UnixNano()-then.UnixNano() != int64(d) {
		t.Fatal("a time.Time is something else with this Go: find another way to part its clocks")
	}
	return then
}
