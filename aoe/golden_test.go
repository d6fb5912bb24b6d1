package aoe

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"os"
	"strings"
	"testing"

	"github.com/replblk/replblk/block"
	"github.com/replblk/replblk/block/mem"
)

// deliberate lists where we answer otherwise than vblade 25, with the answer
// from byte 12 on and the reason.
var deliberate = map[string]struct{ want, why string }{
	"advertisement":   {"88a21800000703010000000000104019021000" + "00", "vblade sends version 0, which strict receivers drop"},
	"read of nothing": {"88a21c020007030000010008" + "000000200500000000000000", "ATA means 256 sectors by 0; vblade answers success without data"},
	"flush":           {"88a21800000703000001000f" + "000000400000000000000000", "vblade does not flush, and leaves error 0x10 and status 0"},
	"flush ext":       {"88a218000007030000010010" + "400000400000000000000000", "vblade does not know it"},
}

type exchange struct {
	name     string
	req, res []byte // nil: none
}

func loadGolden(t *testing.T) (all []exchange) {
	t.Helper()
	text, err := os.ReadFile("testdata/vblade25.txt")
	if err != nil {
		t.Fatal(err)
	}
	frame := func(s string) []byte {
		if s == "-" {
			return nil
		}
		b, err := hex.DecodeString(s)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for part := range strings.SplitSeq(strings.TrimSpace(string(text)), "\n\n") {
		lines := strings.Split(part, "\n")
		if len(lines) != 3 {
			t.Fatalf("bad entry %q", part)
		}
		all = append(all, exchange{lines[0], frame(lines[1]), frame(lines[2])})
	}
	return all
}

// TestGolden replays a session with Debian's vblade 25 and compares the answers
// byte by byte, as far as vblade's mean something: its padding is whatever was
// in its buffer, ours is zeroes.
func TestGolden(t *testing.T) {
	w, dev := newWire(1500), mem.New(100)
	if err := fillPattern(dev); err != nil {
		t.Fatal(err)
	}
	tg := newTestTarget(t, dev, nil)
	for _, x := range loadGolden(t) {
		if x.req == nil {
			tg.Advertise(w, w.pool)
		} else {
			w.give(tg, x.req)
		}
		want := x.res
		if d, ok := deliberate[x.name]; ok {
			b, err := hex.DecodeString(d.want)
			if err != nil {
				t.Fatal(err)
			}
			want = append(bytes.Clone(x.res[:12]), b...)
		}
		if want == nil {
			w.none(t)
			continue
		}
		_, got := w.one(t)
		compareGolden(t, x.name, got, want)
	}
}

func compareGolden(t *testing.T, name string, got, want []byte) {
	t.Helper()
	if want[19] == byte(CommandATA) && len(want) == MinFrame {
		want = want[:DataOffset]
	}
	if Command(want[19]) > CommandReserve {
		want = want[:HeaderLen] // vblade sends the whole frame back
	}
	if strings.HasPrefix(name, "identify") && len(want) > MinFrame {
		compareIdentify(t, name, got[DataOffset:], want[DataOffset:])
		got, want = got[:DataOffset], want[:DataOffset]
	}
	if len(got) < len(want) || !bytes.Equal(got[:len(want)], want) {
		t.Errorf("%s:\n got %x\nwant %x", name, got, want)
		return
	}
	if pad := got[len(want):]; len(got) > max(MinFrame, len(want)) || !bytes.Equal(pad, make([]byte, len(pad))) && len(want) > DataOffset {
		t.Errorf("%s: %d bytes after the answer: %x", name, len(pad), pad)
	}
}

// compareIdentify compares the words that initiators use and vblade fills in.
func compareIdentify(t *testing.T, name string, got, want []byte) {
	t.Helper()
	for _, i := range []int{47, 49, 50, 60, 61, 84, 87, 93, 100, 101, 102, 103} {
		if g, w := binary.LittleEndian.Uint16(got[2*i:]), binary.LittleEndian.Uint16(want[2*i:]); g != w {
			t.Errorf("%s: word %d is %#04x, want %#04x", name, i, g, w)
		}
	}
	// Bits that vblade sets must be set; we know more commands.
	for _, i := range []int{83, 86} {
		g, w := binary.LittleEndian.Uint16(got[2*i:]), binary.LittleEndian.Uint16(want[2*i:])
		if g&w != w {
			t.Errorf("%s: word %d is %#04x, vblade's %#04x", name, i, g, w)
		}
	}
	// The serial starts with shelf.slot, byte-swapped in each word.
	if !bytes.Equal(got[20:24], want[20:24]) {
		t.Errorf("%s: serial %q, want %q", name, got[20:40], want[20:40])
	}
	var sum byte
	for _, b := range got[:512] {
		sum += b
	}
	if sum != 0 {
		t.Errorf("%s: checksum %#x", name, sum)
	}
}

// fillPattern writes what the captured session's image held.
func fillPattern(dev *mem.Device) error {
	for s := range uint64(100) {
		b := bytes.Repeat([]byte{byte(s), byte(s >> 8), 0xa0, 0xe0}, 128)
		if err := block.WriteAt(dev, b, s); err != nil {
			return err
		}
	}
	return nil
}
