package aoe

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

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
	now := time.Now()
	for i, f := range l.frames {
		bufs[i] = bufs[i][:copy(bufs[i], f)]
		times[i] = now
	}
	l.frames = nil
	return n, nil
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
