package wire

import (
	"bytes"
	"errors"
	"testing"
)

// fuzzSessions are the sessions that decoders are tried in.
var fuzzSessions = []Session{
	{Version: VersionInitial}, {Version: 86}, {Version: 88}, {Version: 89}, {Version: 96}, {Version: 101},
	{Version: 101, Features: FeaturesAll},
}

// checkRecode demands that a decoder either refuses with a *PacketError or
// yields a value whose encoding decodes to the same bytes again and passes the
// limits.
func checkRecode(t *testing.T, cmd Command, payload []byte, s Session) {
	t.Helper()
	once, err := recode(nil, cmd, payload, s)
	var packetError *PacketError
	if err != nil {
		if !errors.As(err, &packetError) || packetError.Command != cmd || packetError.Offset > len(payload) {
			t.Fatalf("%v: %v", cmd, err)
		}
		return
	}
	again, err := recode(nil, cmd, once, s)
	if err != nil || !bytes.Equal(again, once) {
		t.Fatalf("%v in %+v: %x becomes %x, %v", cmd, s, once, again, err)
	}
	// A name may have carried bytes behind its NUL; nothing else may shrink.
	if len(once) > len(payload) {
		t.Fatalf("%v: %d bytes grew to %d", cmd, len(payload), len(once))
	}
}

func fuzzPacket(f *testing.F, cmds ...Command) {
	for _, v := range vectors {
		for _, cmd := range cmds {
			if v.cmd != cmd {
				continue
			}
			switch p := v.packet.(type) {
			case plain:
				f.Add(p.AppendTo(nil))
			case versioned:
				for _, s := range fuzzSessions {
					f.Add(p.AppendTo(nil, s))
				}
			}
		}
	}
	f.Add([]byte{})
	f.Add(bytes.Repeat([]byte{0xff}, 148))
	f.Add(make([]byte, 72))
	f.Fuzz(func(t *testing.T, payload []byte) {
		for _, cmd := range cmds {
			for _, s := range fuzzSessions {
				checkRecode(t, cmd, payload, s)
			}
		}
	})
}

func FuzzDataDecode(f *testing.F)         { fuzzPacket(f, CmdData) }
func FuzzTrimDecode(f *testing.F)         { fuzzPacket(f, CmdTrim) }
func FuzzBlockAckDecode(f *testing.F)     { fuzzPacket(f, CmdWriteAck, CmdOVResult) }
func FuzzBlockRequestDecode(f *testing.F) { fuzzPacket(f, CmdRSDataRequest) }
func FuzzBlockDescDecode(f *testing.F)    { fuzzPacket(f, CmdOutOfSync) }
func FuzzBarrierDecode(f *testing.F)      { fuzzPacket(f, CmdBarrier, CmdBarrierAck) }
func FuzzProtocolDecode(f *testing.F)     { fuzzPacket(f, CmdProtocol) }
func FuzzSyncParamDecode(f *testing.F)    { fuzzPacket(f, CmdSyncParam89) }
func FuzzUUIDsDecode(f *testing.F)        { fuzzPacket(f, CmdUUIDs) }
func FuzzSizesDecode(f *testing.F)        { fuzzPacket(f, CmdSizes) }
func FuzzStateDecode(f *testing.F) {
	fuzzPacket(f, CmdState, CmdSyncUUID, CmdStateChgReq, CmdStateChgReply)
}
func FuzzCompressedBitmapDecode(f *testing.F)   { fuzzPacket(f, CmdCompressedBitmap) }
func FuzzConnectionFeaturesDecode(f *testing.F) { fuzzPacket(f, CmdConnectionFeatures) }

// FuzzHeaderDecode parses a header in every version and, where it passes the
// limits of the session, demands that the payload is bounded and splits evenly.
func FuzzHeaderDecode(f *testing.F) {
	f.Add([]byte{0x83, 0x74, 0x02, 0x67, 0xff, 0xf2, 0, 0})
	f.Add([]byte{0x83, 0x5a, 0, 0, 0, 2, 0, 24})
	f.Add(Header{Command: CmdData, Volume: 1, Length: 4120}.AppendTo(nil, 101))
	f.Add(Header{Command: CmdBitmap, Length: 4080}.AppendTo(nil, 101))
	f.Fuzz(func(t *testing.T, buf []byte) {
		for _, s := range fuzzSessions {
			h, size, err := ParseHeader(buf, s.Version)
			if err != nil {
				if _, _, again := ParseHeader(buf, s.Version); again.Error() != err.Error() || size != 0 {
					t.Fatal(err, again)
				}
				continue
			}
			if size != HeaderSize(s.Version) || size > len(buf) {
				t.Fatalf("%d bytes of %d", size, len(buf))
			}
			if back, _, err := ParseHeader(h.AppendTo(nil, s.Version), s.Version); fits(h, s.Version) && (back != h || err != nil) {
				t.Fatalf("%+v becomes %+v, %v", h, back, err)
			}
			if s.Check(h) != nil {
				continue
			}
			if body, bulk := s.Split(h); body+bulk != h.Length || bulk%sectorSize != 0 || bulk > MaxRequest100 || body > bitmapPacketSize {
				t.Fatalf("%+v splits into %d and %d", h, body, bulk)
			}
		}
	})
}

// fits says whether a sender of this version would send h at all: before
// version 95 there is no header for more than 16 bits of length.
func fits(h Header, version int) bool { return version >= versionBigPackets || h.Length <= 0xffff }
