package wire

import (
	"bytes"
	"encoding/hex"
	"errors"
	"strings"
	"testing"
)

func TestHeaderFormats(t *testing.T) {
	for _, c := range []struct {
		name    string
		version int
		header  Header
		hex     string
	}{
		{"first data packet", VersionInitial, Header{Command: CmdInitialData}, "83740267fff20000"},
		{"first meta packet", VersionInitial, Header{Command: CmdInitialMeta}, "83740267fff10000"},
		{"version 94", 94, Header{Command: CmdData, Length: 32792}, "8374026700008018"},
		{"short in version 95", 95, Header{Command: CmdData, Length: 32768}, "8374026700008000"},
		{"long in version 95", 95, Header{Command: CmdData, Length: 32769}, "835a000000008001"},
		{"long in version 99", 99, Header{Command: CmdRSDataReply, Length: 131096}, "835a000200020018"},
		{"version 100", 100, Header{Command: CmdTrim, Volume: 0xbeef, Length: 28}, "8620ec20beef00310000001c00000000"},
	} {
		got := c.header.AppendTo(nil, c.version)
		if hex.EncodeToString(got) != c.hex {
			t.Errorf("%s: %x, want %s", c.name, got, c.hex)
		}
		back, size, err := ParseHeader(append(got, "payload that follows"...), c.version)
		if back != c.header || size != len(got) || size != HeaderSize(c.version) || err != nil {
			t.Errorf("%s: parsed %+v of %d bytes, %v", c.name, back, size, err)
		}
	}
}

func TestParseHeaderRefuses(t *testing.T) {
	for _, c := range []struct {
		name    string
		version int
		hex     string
		want    string
	}{
		{"nothing", 101, "", "header: 0 bytes, at offset 0 want 16 of them"},
		{"half a header", 101, "8620ec2000000000", "header: 8 bytes, at offset 8 want 16 of them"},
		{"header 80 in version 100", 100, "83740267000e0004" + "0000d08200000000", "at offset 0 want magic of header 100, have 83740267"},
		{"header 95 in version 100", 100, "835a000e00000004" + "0000d08200000000", "want magic of header 100"},
		{"header 100 in version 99", 99, "8620ec20beef00310000001c00000000", "want magic of header 80 or 95, have 8620ec20beef0031"},
		{"padding", 101, "8620ec20beef00310000001c00000001", "at offset 12 want zero padding"},
		{"another protocol", 86, "474554202f204854", "want magic of header 80 or 95, have 474554202f204854"},
	} {
		buf, err := hex.DecodeString(c.hex)
		if err != nil {
			t.Fatal(err)
		}
		h, size, err := ParseHeader(buf, c.version)
		var packetError *PacketError
		if !errors.As(err, &packetError) || !packetError.Header || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %s", c.name, err, c.want)
		}
		if h != (Header{}) || size != 0 {
			t.Errorf("%s: %+v, %d beside an error", c.name, h, size)
		}
	}
}

func TestReaderFirstErrorSticks(t *testing.T) {
	r := NewReader(CmdSyncUUID, []byte{1, 2, 3, 4, 5})
	if r.Uint16() != 0x0102 || r.Uint8() != 3 {
		t.Fatal("read wrong values")
	}
	if got := r.Uint32(); got != 0 || r.Err() == nil {
		t.Fatalf("read %#x beyond the end, %v", got, r.Err())
	}
	first := r.Err().Error()
	if got := r.Uint8(); got != 0 {
		t.Errorf("read %#x after an error", got)
	}
	if r.Bytes(-1) != nil || r.Name(1) != "" {
		t.Error("read something after an error")
	}
	const want = "ReportSyncUUID: 5 bytes, at offset 3 want 4 more bytes"
	if got := r.Finish().Error(); got != want || first != want {
		t.Errorf("%s, then %s", first, got)
	}
}

func TestReaderFinish(t *testing.T) {
	r := NewReader(CmdPing, nil)
	if err := r.Finish(); err != nil {
		t.Errorf("empty payload: %v", err)
	}
	r = NewReader(CmdPing, []byte{0})
	if err := r.Finish(); err == nil || err.Error() != "Ping: 1 bytes, at offset 0 want the end" {
		t.Errorf("left over byte: %v", err)
	}
}

func TestReaderBytesCannotGrowIntoPayload(t *testing.T) {
	payload := []byte("abcd")
	r := NewReader(CmdOVReply, payload)
	_ = append(r.Bytes(2), 'X')
	if string(payload) != "abcd" {
		t.Errorf("payload became %q", payload)
	}
}

func TestReaderName(t *testing.T) {
	r := NewReader(CmdProtocol, []byte("sha1\x00junk"))
	if got := r.Name(9); got != "sha1" || r.Finish() != nil {
		t.Errorf("%q, %v", got, r.Finish())
	}
	r = NewReader(CmdProtocol, []byte("sha1"))
	if got := r.Name(4); got != "" || r.Err() == nil {
		t.Errorf("name without NUL: %q, %v", got, r.Err())
	}
}

func TestAppendNameFitsItsField(t *testing.T) {
	long := strings.Repeat("x", 100)
	got := appendName(nil, long, NameSize)
	if len(got) != NameSize || got[NameSize-1] != 0 || !bytes.Equal(got[:NameSize-1], []byte(long[:NameSize-1])) {
		t.Errorf("%q", got)
	}
}

func TestHotPathDoesNotAllocate(t *testing.T) {
	s := Session{Version: 101, Features: FeaturesAll}
	buf := make([]byte, 0, 128)
	data := Data{Sector: 8, BlockID: 9, Seq: 10, Flags: FlagSendWriteAck}
	ack := BlockAck{Sector: 8, BlockID: 9, Size: 4096, Seq: 11}
	head := Header{Command: CmdData, Volume: 3, Length: DataSize + 4096}
	allocs := testing.AllocsPerRun(100, func() {
		b := data.AppendTo(head.AppendTo(buf, 101))
		h, n, err := ParseHeader(b, 101)
		if err != nil || s.Check(h) != nil {
			t.Fatal(err)
		}
		r := NewReader(h.Command, b[n:])
		var d Data
		d.DecodeFrom(&r)
		if r.Finish() != nil || d != data {
			t.Fatal(d)
		}
		b = ack.AppendTo(buf)
		r = NewReader(CmdWriteAck, b)
		var a BlockAck
		a.DecodeFrom(&r)
		if r.Finish() != nil || a != ack {
			t.Fatal(a)
		}
	})
	if allocs != 0 {
		t.Errorf("%v allocations", allocs)
	}
}

func BenchmarkDataDecode(b *testing.B) {
	payload := (&Data{Sector: 8, BlockID: 9, Seq: 10}).AppendTo(nil)
	var sum uint64
	for b.Loop() {
		r := NewReader(CmdData, payload)
		var d Data
		d.DecodeFrom(&r)
		sum += d.Sector
	}
	_ = sum
}
