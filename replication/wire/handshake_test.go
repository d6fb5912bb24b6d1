package wire

import (
	"bytes"
	"encoding/hex"
	"strings"
	"testing"
)

func TestFeaturesAgree(t *testing.T) {
	ours := ConnectionFeatures{Min: 86, Max: 101, Features: FeaturesAll}
	for _, c := range []struct {
		name string
		peer ConnectionFeatures
		want Session
		ok   bool
	}{
		{"alike", ours, Session{Version: 101, Features: FeaturesAll}, true},
		{"older peer", ConnectionFeatures{Min: 86, Max: 96}, Session{Version: 96}, true},
		{"newer peer", ConnectionFeatures{Min: 100, Max: 121, Features: 0xff01}, Session{Version: 101, Features: FeatureTrim}, true},
		{"no maximum", ConnectionFeatures{Min: 90}, Session{Version: 90}, true},
		{"only our oldest", ConnectionFeatures{Min: 80, Max: 86}, Session{Version: 86}, true},
		{"only our newest", ConnectionFeatures{Min: 101, Max: 121}, Session{Version: 101}, true},
		{"too new", ConnectionFeatures{Min: 110, Max: 121}, Session{}, false},
		{"too old", ConnectionFeatures{Min: 80, Max: 85}, Session{}, false},
		{"nothing", ConnectionFeatures{}, Session{}, false},
		{"a maximum that is no int32", ConnectionFeatures{Min: 86, Max: 1<<32 - 1}, Session{Version: 101}, true},
	} {
		if got, ok := ours.Agree(c.peer); got != c.want || ok != c.ok {
			t.Errorf("%s: %+v %v", c.name, got, ok)
		}
	}
}

func TestProtocolVersions(t *testing.T) {
	p := Protocol{Protocol: 1, AfterSB0: 3, AfterSB1: 5, AfterSB2: 6, Flags: ConnDryRun, TwoPrimaries: true, IntegrityAlg: "crc32c"}
	const fixed = "000000010000000300000005000000060000000200000001"
	for version, want := range map[int]string{86: fixed, 87: fixed + hex.EncodeToString([]byte("crc32c\x00"))} {
		got := p.AppendTo(nil, Session{Version: version})
		if hex.EncodeToString(got) != want {
			t.Errorf("version %d: %x, want %s", version, got, want)
		}
	}
	var back Protocol
	r := NewReader(CmdProtocol, p.AppendTo(nil, Session{Version: 101}))
	back.DecodeFrom(&r, Session{Version: 101})
	if back != p || r.Finish() != nil {
		t.Errorf("%+v, %v", back, r.Finish())
	}
}

func TestSyncParamVersions(t *testing.T) {
	p := SyncParam{ResyncRateKiB: 250, VerifyAlg: "sha1", CsumsAlg: "md5", PlanAheadTenths: 20, DelayTenths: 10, FillSectors: 100, MaxRateKiB: 102400}
	for _, c := range []struct {
		version, size int
		want          SyncParam
	}{
		{86, 4, SyncParam{ResyncRateKiB: 250}},
		{88, 9, SyncParam{ResyncRateKiB: 250, VerifyAlg: "sha1"}},
		{89, 132, SyncParam{ResyncRateKiB: 250, VerifyAlg: "sha1", CsumsAlg: "md5"}},
		{94, 132, SyncParam{ResyncRateKiB: 250, VerifyAlg: "sha1", CsumsAlg: "md5"}},
		{95, 148, p},
		{101, 148, p},
	} {
		s := Session{Version: c.version}
		b := p.AppendTo(nil, s)
		if err := s.Check(Header{Command: SyncParamCommand(c.version), Length: uint32(len(b))}); len(b) != c.size || err != nil {
			t.Errorf("version %d: %d bytes, want %d; %v", c.version, len(b), c.size, err)
		}
		got := SyncParam{CsumsAlg: "stale", MaxRateKiB: 1}
		r := NewReader(SyncParamCommand(c.version), b)
		got.DecodeFrom(&r, s)
		if got != c.want || r.Finish() != nil {
			t.Errorf("version %d: %+v, %v", c.version, got, r.Finish())
		}
	}
}

func TestSizesVariants(t *testing.T) {
	p := Sizes{Backing: 1, User: 2, Current: 3, MaxBioSize: 4, QueueOrder: 5, Flags: SizesForced, Queue: QueueLimits{6, 7, 8, 9, 10, true, false, true}}
	for features, size := range map[Features]int{0: SizesSize, FeatureTrim: SizesSize, FeatureWriteSame: SizesLimitSize, FeaturesAll: SizesLimitSize} {
		s := Session{Version: 101, Features: features}
		b := p.AppendTo(nil, s)
		want := p
		if size == SizesSize {
			want.Queue = QueueLimits{}
		}
		got := Sizes{Queue: QueueLimits{IOMin: 1}}
		r := NewReader(CmdSizes, b)
		got.DecodeFrom(&r, s)
		if len(b) != size || got != want || r.Finish() != nil {
			t.Errorf("features %#x: %d bytes, %+v, %v", uint32(features), len(b), got, r.Finish())
		}
	}
}

func TestUUIDsLayout(t *testing.T) {
	p := UUIDs{Current: 1, Bitmap: 2, History: [2]uint64{3, 4}, Bits: 5, Flags: UUIDSkipInitialSync}
	var want []byte
	for _, v := range []byte{1, 2, 3, 4, 5, 8} {
		want = append(want, 0, 0, 0, 0, 0, 0, 0, v)
	}
	if got := p.AppendTo(nil); !bytes.Equal(got, want) {
		t.Errorf("%x", got)
	}
}

func TestCompressedBitmapEncodingByte(t *testing.T) {
	for _, c := range []struct {
		hex  string
		want string // error, "" for none
		p    CompressedBitmap
	}{
		{"6297f10101", "", CompressedBitmap{PadBits: 6, Code: []byte{0x97, 0xf1, 1, 1}}},
		{"327fcfde01", "", CompressedBitmap{PadBits: 3, Code: []byte{0x7f, 0xcf, 0xde, 1}}},
		{"b27fcfde03", "", CompressedBitmap{FirstSet: true, PadBits: 3, Code: []byte{0x7f, 0xcf, 0xde, 3}}},
		{"02ff", "", CompressedBitmap{Code: []byte{0xff}}},
		{"", "CBitmap: 0 bytes, at offset 0 want a code", CompressedBitmap{}},
		{"02", "CBitmap: 1 bytes, at offset 0 want a code", CompressedBitmap{}},
		{"03ff", "CBitmap: 2 bytes, at offset 1 want encoding 2, not 3, before", CompressedBitmap{}},
	} {
		payload, err := hex.DecodeString(c.hex)
		if err != nil {
			t.Fatal(err)
		}
		r := NewReader(CmdCompressedBitmap, payload)
		var got CompressedBitmap
		got.DecodeFrom(&r)
		if err := r.Finish(); (err == nil) != (c.want == "") || err != nil && err.Error() != c.want {
			t.Errorf("%s: %v, want %q", c.hex, err, c.want)
		}
		if got.FirstSet != c.p.FirstSet || got.PadBits != c.p.PadBits || !bytes.Equal(got.Code, c.p.Code) {
			t.Errorf("%s: %+v", c.hex, got)
		}
		if c.want == "" && !bytes.Equal(got.AppendTo(nil), payload) {
			t.Errorf("%s: encodes to %x", c.hex, got.AppendTo(nil))
		}
	}
}

func TestBitmapChunk(t *testing.T) {
	for _, c := range []struct {
		version int
		words   uint64
		want    int
	}{
		{101, 1 << 40, 4080}, {101, 510, 4080}, {101, 509, 4072}, {101, 16, 128}, {101, 0, 0},
		{99, 1 << 63, 4088}, {90, 511, 4088}, {86, 1, 8},
	} {
		if got := BitmapChunk(c.version, c.words); got != c.want {
			t.Errorf("version %d, %d words: %d, want %d", c.version, c.words, got, c.want)
		}
	}
	if got := MaxBitmapCode(101); got != 4079 {
		t.Errorf("code of %d bytes", got)
	}
}

func TestCommandNames(t *testing.T) {
	for cmd, want := range map[Command]string{
		CmdData: "Data", CmdProtocol: "ReportProtocol", CmdState: "ReportState", CmdRSIsInSync: "CsumRSIsInSync",
		CmdConnStChgReply: "conn_st_chg_reply", CmdZeroes: "Zeroes", CmdConnectionFeatures: "ConnectionFeatures",
		0x25: "Command(0x25)", 0x37: "Command(0x37)", 0x100: "Command(0x100)", 0xffff: "Command(0xffff)",
	} {
		if got := cmd.String(); got != want {
			t.Errorf("%#x: %s, want %s", uint16(cmd), got, want)
		}
	}
	names := map[string]bool{}
	for cmd := range Command(len(commands)) {
		if name := cmd.String(); names[name] {
			t.Errorf("%s twice", name)
		} else {
			names[name] = true
		}
		if cmd.PerVolume() && cmd.Sockets() == 0 || strings.HasPrefix(cmd.String(), "Command(") && cmd.Sockets() != 0 {
			t.Errorf("%v: socket %d, per volume %v", cmd, cmd.Sockets(), cmd.PerVolume())
		}
	}
}
