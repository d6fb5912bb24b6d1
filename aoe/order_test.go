package aoe

import (
	"bytes"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/replblk/replblk/block"
	"github.com/replblk/replblk/block/mem"
)

// tardy completes some requests later, from elsewhere.
type tardy struct{ *mem.Device }

func (d tardy) Submit(r *block.Request) {
	switch rand.IntN(8) {
	case 0:
		go d.Device.Submit(r)
	case 1:
		go func() {
			time.Sleep(time.Duration(rand.IntN(200)) * time.Microsecond)
			d.Device.Submit(r)
		}()
	default:
		d.Device.Submit(r)
	}
}

// TestReceiversKeepOrder: two receivers, which serve bursts at the same time, and a device that
// takes its time do what one after the other would: every read returns what the writes before it
// have written, no more and no less.
func TestReceiversKeepOrder(t *testing.T) {
	if runtime.GOMAXPROCS(0) == 1 {
		defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(2))
	}
	const places, bursts = 40, 150
	dev := tardy{mem.New(places)}
	p, err := NewPort(newTestTarget(t, dev, func(o *Options) {
		o.Commit, o.MaxInFlight, o.MaxPerInitiator, o.MaxAge = CommitNone, bursts*batch, bursts*batch, time.Hour
	}))
	if err != nil {
		t.Fatal(err)
	}
	model := make([]byte, places*block.SectorSize)
	want := make(map[uint32][]byte) // data of the answers
	l := &burstLink{memLink: newMemLink()}
	for tag := range uint32(bursts * batch) {
		n := 1 + rand.IntN(2)
		lba := rand.IntN(places - n)
		part := model[lba*block.SectorSize : (lba+n)*block.SectorSize]
		var f []byte
		if rand.IntN(2) == 0 {
			f = writeFrame(tag, uint64(lba), byte(rand.IntN(256)), n) //nolint:gosec // in range
			copy(part, f[DataOffset:])
			want[tag] = nil
		} else {
			f = ataFrame(tag, ATA{Flags: ATAFlagExt, Command: ATAReadExt, Count: uint8(n), LBA: uint64(lba)}, nil) //nolint:gosec // in range
			want[tag] = bytes.Clone(part)
		}
		if tag%batch == 0 {
			l.bursts = append(l.bursts, nil)
		}
		last := len(l.bursts) - 1
		l.bursts[last] = append(l.bursts[last], f)
	}
	stop := serveTest(t, p, l)
	for range bursts * batch {
		h, b := l.next(t)
		data, ok := want[h.Tag]
		if !ok || b[27] != StatusReady {
			t.Fatalf("answer to %d: % x", h.Tag, b[:DataOffset])
		}
		if got := b[DataOffset:]; data != nil && !bytes.Equal(got[:len(data)], data) {
			t.Fatalf("read %d: sectors begin with %d, want %d", h.Tag, got[0], data[0])
		}
		delete(want, h.Tag)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(model))
	if err := block.ReadAt(dev, got, 0); err != nil || !slices.Equal(got, model) {
		t.Errorf("the device has something else than the writes in order leave, %v", err)
	}
}
