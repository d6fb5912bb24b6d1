package activitylog

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"
)

// sample is a transaction with something in every field.
func sample() *Transaction {
	t := &Transaction{}
	t.reset()
	t.Number, t.Slots, t.ContextStart, t.NumUpdates = 0x01020304, 1237, 919, 2
	t.UpdateSlot[0], t.UpdateExtent[0] = 920, 7
	t.UpdateSlot[1], t.UpdateExtent[1] = 3, 0x10000
	t.Context[0], t.Context[317] = 5, 6
	return t
}

// TestGoldenInitialized has the checksum that drbdmeta writes.
func TestGoldenInitialized(t *testing.T) {
	b := AppendInitialized(nil)
	want := make([]byte, BlockSize)
	copy(want, []byte{0x69, 0xcb, 0x65, 0xa2, 0, 0, 0, 0, 0x70, 0x9c, 0xc6, 0x51, 0xff, 0xff})
	if !bytes.Equal(b, want) {
		t.Errorf("initialized block starts with % x", b[:36])
	}
	var tr Transaction
	if err := tr.Decode(b); err != nil || !tr.Initialized {
		t.Errorf("decoding it: %v, initialized %v", err, tr.Initialized)
	}
}

func TestGoldenUpdate(t *testing.T) {
	b := sample().AppendTo([]byte{0xee})[1:]
	golden := []struct {
		off  int
		want []byte
	}{
		{0, []byte{0x69, 0xcb, 0x65, 0xa2, 1, 2, 3, 4}},
		{12, []byte{0, 0, 0, 2, 0x04, 0xd5, 0x03, 0x97}},
		{20, make([]byte, 16)},
		{36, []byte{0x03, 0x98, 0, 3, 0xff, 0xff}},
		{162, []byte{0xff, 0xff}},
		{164, []byte{0, 0, 0, 7, 0, 1, 0, 0, 0xff, 0xff, 0xff, 0xff}},
		{416, []byte{0xff, 0xff, 0xff, 0xff}},
		{420, []byte{0, 0, 0, 5, 0xff, 0xff, 0xff, 0xff}},
		{420 + 4*317, []byte{0, 0, 0, 6}},
		{4092, []byte{0xff, 0xff, 0xff, 0xff}},
	}
	if len(b) != BlockSize {
		t.Fatalf("%d bytes", len(b))
	}
	for _, g := range golden {
		if got := b[g.off : g.off+len(g.want)]; !bytes.Equal(got, g.want) {
			t.Errorf("offset %d: % x, want % x", g.off, got, g.want)
		}
	}
	var tr Transaction
	if err := tr.Decode(b); err != nil || tr != *sample() {
		t.Errorf("decode: %v", err)
	}
}

func TestDecodeRejects(t *testing.T) {
	good := sample().AppendTo(nil)
	var tr Transaction
	if err := tr.Decode(good[:BlockSize-1]); err == nil {
		t.Error("short block accepted")
	}
	typ := bytes.Clone(good)
	typ[13] = 1
	binary.BigEndian.PutUint32(typ[8:], checksum(typ))
	if err := tr.Decode(typ); !errors.Is(err, ErrType) {
		t.Errorf("type 1: %v", err)
	}
	if err := tr.Decode(make([]byte, BlockSize)); !errors.Is(err, ErrMagic) {
		t.Errorf("zeroes: %v", err)
	}
}

// TestBitFlips: each of the 32768 bits is covered by magic or checksum.
func TestBitFlips(t *testing.T) {
	b := sample().AppendTo(nil)
	var tr Transaction
	for i := range len(b) * 8 {
		b[i/8] ^= 1 << (i % 8)
		if err := tr.Decode(b); err == nil {
			t.Fatalf("bit %d flipped and accepted", i)
		}
		b[i/8] ^= 1 << (i % 8)
	}
}

// TestTorn: of the 256 mixtures of the old and new sectors of a block only the
// two pure ones are accepted, or such as are equal to one of them.
func TestTorn(t *testing.T) {
	old, now := sample(), sample()
	now.Number += 8
	now.UpdateExtent[0], now.Context[800] = 77, 78
	a, b := old.AppendTo(nil), now.AppendTo(nil)
	for _, prior := range [][]byte{a, make([]byte, BlockSize), AppendInitialized(nil)} {
		for mask := range 256 {
			mix := bytes.Clone(prior)
			for s := range 8 {
				if mask&(1<<s) != 0 {
					copy(mix[s*512:(s+1)*512], b[s*512:])
				}
			}
			var tr Transaction
			if err := tr.Decode(mix); err == nil && !bytes.Equal(mix, prior) && !bytes.Equal(mix, b) {
				t.Errorf("sectors %08b of the new block: accepted", mask)
			}
		}
	}
}

func TestRingPosition(t *testing.T) {
	cases := []struct {
		r      Ring
		number uint32
		want   uint32
	}{
		{DefaultRing, 0, 0}, {DefaultRing, 13, 5}, {DefaultRing, 0xffffffff, 7},
		{Ring{3, 4}, 0, 0}, {Ring{3, 4}, 1, 4}, {Ring{3, 4}, 2, 8}, {Ring{3, 4}, 3, 1}, {Ring{3, 4}, 11, 11}, {Ring{3, 4}, 12, 0},
	}
	for _, c := range cases {
		if got := c.r.Block(c.number); got != c.want {
			t.Errorf("ring %v, transaction %d: block %d, want %d", c.r, c.number, got, c.want)
		}
	}
	if got := DefaultRing.MaxSlots(); got != 6433 {
		t.Errorf("default ring keeps %d slots, want 6433", got)
	}
	if got := (Ring{1, 73}).MaxSlots(); got != MaxSlots {
		t.Errorf("ring of 73 keeps %d slots", got)
	}
	if got := (Ring{1, 72}).MaxSlots(); got != 71*919 {
		t.Errorf("ring of 72 keeps %d slots", got)
	}
}

func FuzzTransactionDecode(f *testing.F) {
	f.Add(sample().AppendTo(nil))
	f.Add(AppendInitialized(nil))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		b = bytes.Clone(b)
		if len(b) == BlockSize { // let the fuzzer through the checksum
			binary.BigEndian.PutUint32(b, Magic)
			binary.BigEndian.PutUint32(b[8:], checksum(b))
		}
		var tr, again Transaction
		if tr.Decode(b) != nil || tr.Initialized {
			return
		}
		if err := again.Decode(tr.AppendTo(nil)); err != nil || again != tr {
			t.Errorf("round trip: %v", err)
		}
	})
}
