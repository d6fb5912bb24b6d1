package aoe

import (
	"bytes"
	"testing"
	"time"

	"github.com/replblk/replblk/block/mem"
)

// FuzzTwoEnds gives one frame to a target with a virtual address in each of its modes:
// none panics, none but a whole write changes data, no frame is lost track of, and
// nothing answers but the end that serves. What an end that has stopped hands over is
// the same request again at the other one.
func FuzzTwoEnds(f *testing.F) {
	w := newWire(1500)
	seed := newTestTarget(f, mem.New(100), func(o *Options) { o.Virtual = true })
	seed.Hold()
	for _, b := range [][]byte{writeFrame(1, 3, 0x55, 1), ataFrame(2, ATA{Command: ATARead, Count: 1}, nil)} {
		f.Add(b)
		fr := w.pool.Get()
		fr.SetLen(copy(fr.Buffer(), b))
		fr.Received = time.Now()
		seed.handOver(fr, w)
		f.Add(<-w.got)
	}
	seed.tell(w, w.pool)
	seed.have(otherMAC, w, w.pool)
	for range numShares + 1 {
		f.Add(<-w.got)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 1500 {
			return
		}
		for mode := range Mode(3) {
			w := newWire(1500)
			dev := mem.New(100)
			tg := newTestTarget(t, dev, func(o *Options) { o.Virtual, o.Standby, o.Commit = true, true, CommitNone })
			switch mode {
			case Serving:
				tg.SetServing(true)
			case Holding:
				tg.SetServing(true)
				tg.Hold()
			case Silent:
			}
			w.give(tg, b)
			for mode != Serving && len(w.got) > 0 {
				if b := <-w.got; Command(b[19]) != CommandPeer {
					t.Fatalf("%v: answered % x", mode, b)
				}
			}
			changed := !bytes.Equal(dev.Contents(), make([]byte, 100*512))
			if changed && (mode != Serving || len(b) < DataOffset+512) {
				t.Fatalf("%v: % x has changed data", mode, b)
			}
			tg.SetServing(false)
			if n := w.pool.Outstanding(); n != 0 {
				t.Fatalf("%v: %d frames lost", mode, n)
			}
		}
	})
}
