package aoe

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/replblk/replblk/block/mem"
)

// TestBadInput: a write of which one thing is wrong: every length that is too short, every
// other version, command, count, and every other place it can be addressed to. Nothing
// is written, and every frame is in a counter.
func TestBadInput(t *testing.T) {
	good := writeFrame(1, 3, 0x77, 2)
	bad := map[string][]byte{}
	for n := range good {
		bad[fmt.Sprint("length ", n)] = good[:n]
	}
	set := func(what string, at int, values func(v byte) bool) {
		for v := range 256 {
			if !values(byte(v)) {
				continue
			}
			b := bytes.Clone(good)
			b[at] = byte(v)
			bad[fmt.Sprintf("%s %#x", what, v)] = b
		}
	}
	set("version", 14, func(v byte) bool { return v>>4 != 1 })
	set("flags", 14, func(v byte) bool { return v>>4 == 1 && v&8 != 0 })
	set("command", 19, func(v byte) bool { return v != 0 })
	set("count", 26, func(v byte) bool { return v == 0 || v > 2 })
	set("ATA command", 27, func(v byte) bool { return v != ATAWrite && v != ATAWriteExt && v != 0x35 && v != 0x3d && v != 0xca })
	set("shelf", 17, func(v byte) bool { return v != 7 })
	set("slot", 18, func(v byte) bool { return v != 3 })
	set("station", 5, func(v byte) bool { return v != serverMAC[5] })
	set("source", 6, func(v byte) bool { return v&1 != 0 })
	set("sector", 30, func(v byte) bool { return v != 0 }) // far beyond the end
	bad["last sector"] = writeFrame(1, 99, 0x77, 2)
	bad["sector 2^48-1"] = writeFrame(1, 1<<48-1, 0x77, 2)
	for _, virtual := range []bool{false, true} {
		w, dev := newWire(1500), mem.New(100)
		tg := newTestTarget(t, dev, func(o *Options) { o.Virtual = virtual })
		for what, b := range bad {
			before := accounted(tg.Counters())
			w.give(tg, b)
			if err := tg.Drain(t.Context()); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(dev.Contents(), make([]byte, 100*512)) {
				t.Fatalf("%s: the device was written", what)
			}
			if n := accounted(tg.Counters()) - before; n != 1 && (len(b) < HeaderLen || Flags(b[14])&FlagResponse == 0) {
				t.Errorf("%s: counted %d times", what, n)
			}
			for len(w.got) > 0 {
				if answer := <-w.got; len(b) < HeaderLen {
					t.Errorf("%s: answer % x", what, answer)
				}
			}
		}
		if n := w.pool.Outstanding(); n != 0 {
			t.Errorf("%d frames lost", n)
		}
		w.give(tg, good)
		w.one(t)
		if dev.Contents()[3*512] != 0x77 {
			t.Error("the good frame was not carried out: this test proves nothing")
		}
	}
}
