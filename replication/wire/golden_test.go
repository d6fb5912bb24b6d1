package wire

import (
	"bytes"
	"encoding/hex"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/replblk/replblk/replication/state"
)

// goldenDir may point to untrimmed streams (SCENARIO/connN.SOCKET.DIRECTION.bin).
var (
	goldenDir = flag.String("golden", "testdata", "directory of the recorded streams")
	update    = flag.Bool("update", false, "rewrite the tables in testdata")
)

// packet is one packet of a recorded stream.
type packet struct {
	Header
	raw, payload []byte
	session      Session
}

// streamSession returns the session in which a recorded stream was spoken.
func streamSession(name string) Session {
	s := Session{Version: 101, Features: FeaturesAll}
	if strings.Contains(name, "07c") {
		s.Version = 96
	}
	if strings.Contains(name, "07a") {
		s.DigestSize = 20 // sha1
	}
	return s
}

// parseStream takes a whole recorded stream apart as a node would.
func parseStream(t *testing.T, name string) []packet {
	t.Helper()
	buf, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	session := streamSession(name)
	current := session
	if !strings.Contains(name, ".meta.") {
		current = Session{Version: VersionInitial}
	}
	var packets []packet
	for offset := 0; offset < len(buf); {
		if offset == 0 && bytes.HasPrefix(buf, []byte{0x83, 0x74, 0x02, 0x67, 0xff}) {
			current = Session{Version: VersionInitial} // the first packet of the side that connected
		}
		h, size, err := ParseHeader(buf[offset:], current.Version)
		if err != nil {
			t.Fatalf("%s: offset %d: %v", name, offset, err)
		}
		if err := current.Check(h); err != nil {
			t.Fatalf("%s: offset %d: %v", name, offset, err)
		}
		end := offset + size + int(h.Length)
		if end > len(buf) {
			t.Fatalf("%s: offset %d: %v ends at %d of %d", name, offset, h, end, len(buf))
		}
		packets = append(packets, packet{h, buf[offset:end], buf[offset+size : end], current})
		if h.Command == CmdConnectionFeatures || h.Command == CmdInitialMeta {
			current = session
		}
		offset = end
	}
	return packets
}

func streams(t *testing.T) []string {
	t.Helper()
	pattern := "*.bin"
	if *goldenDir != "testdata" {
		pattern = "*/*.bin"
	}
	names, err := filepath.Glob(filepath.Join(*goldenDir, pattern))
	if err != nil || len(names) < 42 {
		t.Fatalf("%d streams in %s (%v)", len(names), *goldenDir, err)
	}
	return names
}

// TestGoldenStreams decodes everything that the kernel and its peer said and
// encodes it again to the same bytes.
func TestGoldenStreams(t *testing.T) {
	seen := map[Command]int{}
	for _, name := range streams(t) {
		for _, p := range parseStream(t, name) {
			seen[p.Command]++
			socket := DataSocket
			if strings.Contains(name, ".meta.") {
				socket = MetaSocket
			}
			if p.Command.Sockets()&socket == 0 {
				t.Errorf("%s: %v on socket %d", name, p.Command, socket)
			}
			again := p.AppendTo(nil, p.session.Version)
			body, bulk := p.session.Split(p.Header)
			again, err := recode(again, p.Command, p.payload[:body], p.session)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			again = append(again, p.payload[body:body+bulk]...)
			if want := withoutPad(p); !bytes.Equal(again, want) {
				n := min(len(want), 96)
				t.Fatalf("%s: %v\n got  %x\n want %x", name, p.Header, again[:min(len(again), n)], want[:n])
			}
		}
	}
	for _, cmd := range []Command{
		CmdData, CmdDataReply, CmdRSDataReply, CmdBarrier, CmdBitmap, CmdUnplugRemote, CmdDataRequest, CmdRSDataRequest,
		CmdProtocol, CmdUUIDs, CmdSizes, CmdState, CmdSyncUUID, CmdAuthChallenge, CmdAuthResponse, CmdStateChgReq, CmdPing,
		CmdPingAck, CmdRecvAck, CmdWriteAck, CmdRSWriteAck, CmdBarrierAck, CmdStateChgReply, CmdOVRequest, CmdOVReply,
		CmdOVResult, CmdSyncParam89, CmdCompressedBitmap, CmdDelayProbe, CmdConnStChgReq, CmdConnStChgReply, CmdTrim,
		CmdZeroes, CmdInitialMeta, CmdInitialData, CmdConnectionFeatures,
	} {
		if seen[cmd] == 0 {
			t.Errorf("no %v in any stream", cmd)
		}
	}
}

// withoutPad returns the packet with its documented garbage zeroed.
func withoutPad(p packet) []byte {
	raw := bytes.Clone(p.raw)
	payload := raw[len(raw)-len(p.payload):]
	switch p.Command {
	case CmdDataRequest, CmdRSDataRequest, CmdRSThinReq, CmdOVRequest, CmdOVReply, CmdCsumRSRequest:
		clear(payload[20:24])
	case CmdOutOfSync, CmdRSDeallocated:
		clear(payload[12:16])
	default:
	}
	return raw
}

// plain is a packet whose layout does not depend on the session.
type plain interface {
	AppendTo(dst []byte) []byte
	DecodeFrom(r *Reader)
}

// versioned is one whose layout does.
type versioned interface {
	AppendTo(dst []byte, s Session) []byte
	DecodeFrom(r *Reader, s Session)
}

// newPacket returns the struct for a command, nil if it has none.
func newPacket(cmd Command) any {
	switch cmd {
	case CmdData, CmdDataReply, CmdRSDataReply:
		return new(Data)
	case CmdTrim, CmdZeroes:
		return new(Trim)
	case CmdBarrier:
		return new(Barrier)
	case CmdBarrierAck:
		return new(BarrierAck)
	case CmdDataRequest, CmdRSDataRequest, CmdRSThinReq, CmdOVRequest, CmdOVReply, CmdCsumRSRequest:
		return new(BlockRequest)
	case CmdOutOfSync, CmdRSDeallocated:
		return new(BlockDesc)
	case CmdRecvAck, CmdWriteAck, CmdRSWriteAck, CmdSuperseded, CmdNegAck, CmdNegDReply, CmdNegRSDReply, CmdOVResult,
		CmdRSIsInSync, CmdRSCancel, CmdRetryWrite:
		return new(BlockAck)
	case CmdProtocol, CmdProtocolUpdate:
		return new(Protocol)
	case CmdSyncParam, CmdSyncParam89:
		return new(SyncParam)
	case CmdUUIDs:
		return new(UUIDs)
	case CmdSizes:
		return new(Sizes)
	case CmdState:
		return new(StateWord)
	case CmdSyncUUID:
		return new(SyncUUID)
	case CmdStateChgReq, CmdConnStChgReq:
		return new(StateChangeRequest)
	case CmdStateChgReply, CmdConnStChgReply:
		return new(StateChangeReply)
	case CmdCompressedBitmap:
		return new(CompressedBitmap)
	case CmdConnectionFeatures:
		return new(ConnectionFeatures)
	default:
		return nil
	}
}

// recode decodes a body and appends its encoding. What follows a fixed part
// (a digest) is passed on.
func recode(dst []byte, cmd Command, body []byte, s Session) ([]byte, error) {
	r := NewReader(cmd, body)
	switch p := newPacket(cmd).(type) {
	case plain:
		p.DecodeFrom(&r)
		dst = p.AppendTo(dst)
	case versioned:
		p.DecodeFrom(&r, s)
		dst = p.AppendTo(dst, s)
	}
	return append(dst, r.Rest()...), r.Finish()
}

// vectors are those of spec 13.9, and header 100 with version 101.
var vectors = []struct {
	name   string
	cmd    Command
	packet any
	hex    string
}{
	{"protocol C", CmdProtocol, &Protocol{Protocol: 3}, "8620ec20 0000 000b 00000019 00000000 00000003 00000000 00000000 00000000 00000000 00000000 00"},
	{
		"default sync parameters", CmdSyncParam89, &SyncParam{ResyncRateKiB: 250, PlanAheadTenths: 20, DelayTenths: 10, FillSectors: 100, MaxRateKiB: 102400},
		"8620ec20 0000 0023 00000094 00000000 000000fa" + strings.Repeat("00", 128) + "00000014 0000000a 00000064 00019000",
	},
	{
		"sizes", CmdSizes, &Sizes{Backing: 2097016, MaxBioSize: 1 << 20, Queue: QueueLimits{PhysicalBlock: 4096, LogicalBlock: 512, IOMin: 4096}},
		"8620ec20 0000 000d 00000038 00000000 00000000001fff78 0000000000000000 0000000000000000 00100000 0000 0000" +
			"00001000 00000200 00000000 00001000 00000000 00 00 00 00",
	},
	{
		"state", CmdState,
		&StateWord{state.State{Role: state.Secondary, Conn: state.WFConnection, Disk: state.UpToDate, PeerDisk: state.DUnknown}.Word()},
		"8620ec20 0000 000e 00000004 00000000 0000d082",
	},
	{
		"write", CmdData, &Data{Sector: 8, BlockID: 0x0123456789abcdef, Seq: 1, Flags: FlagSync | FlagSendWriteAck},
		"8620ec20 0000 0000 00001018 00000000 0000000000000008 0123456789abcdef 00000001 00000102",
	},
	{
		"write ack", CmdWriteAck, &BlockAck{Sector: 8, BlockID: 0x0123456789abcdef, Size: 4096, Seq: 1},
		"8620ec20 0000 0016 00000018 00000000 0000000000000008 0123456789abcdef 00001000 00000001",
	},
	{"barrier", CmdBarrier, &Barrier{Handle: 7}, "8620ec20 0000 0003 00000008 00000000 00000007 00000000"},
	{"barrier ack", CmdBarrierAck, &BarrierAck{Handle: 7, Count: 1}, "8620ec20 0000 001c 00000008 00000000 00000007 00000001"},
	{
		"resync request", CmdRSDataRequest, &BlockRequest{BlockID: ResyncID, Size: 128 << 10},
		"8620ec20 0000 0009 00000018 00000000 0000000000000000 ffffffffffffffff 00020000 00000000",
	},
	{"ping", CmdPing, nil, "8620ec20 0000 0013 00000000 00000000"},
	{"ping ack", CmdPingAck, nil, "8620ec20 0000 0014 00000000 00000000"},
	{"promotion", CmdStateChgReq, &StateChangeRequest{Mask: state.MaskRole, Value: 1}, "8620ec20 0000 0012 00000008 00000000 00000003 00000001"},
	{"agreed", CmdStateChgReply, &StateChangeReply{state.Success}, "8620ec20 0000 001d 00000004 00000000 00000001"},
	{"refused", CmdStateChgReply, &StateChangeReply{state.TwoPrimaries}, "8620ec20 0000 001d 00000004 00000000 ffffffff"},
	{"disconnect", CmdConnStChgReq, &StateChangeRequest{Mask: 0x1f0, Value: 0x10}, "8620ec20 0000 002a 00000008 00000000 000001f0 00000010"},
	{"verify result", CmdOVResult, &BlockAck{Sector: 16, BlockID: VerifyOutOfSync, Size: 4096, Seq: 2}, "8620ec20 0000 0020 00000018 00000000 0000000000000010 0000000000001268 00001000 00000002"},
	{"compressed bitmap", CmdCompressedBitmap, &CompressedBitmap{FirstSet: true, PadBits: 3, Code: []byte{0x7f, 0xc5, 0x1e, 0}}, "8620ec20 0000 0024 00000005 00000000 b2 7fc51e00"},
}

func TestVectors(t *testing.T) {
	s := Session{Version: 101, Features: FeaturesAll}
	for _, v := range vectors {
		want, err := hex.DecodeString(strings.ReplaceAll(v.hex, " ", ""))
		if err != nil {
			t.Fatal(err)
		}
		var body []byte
		switch p := v.packet.(type) {
		case plain:
			body = p.AppendTo(nil)
		case versioned:
			body = p.AppendTo(nil, s)
		}
		length := uint32(len(body))
		if v.cmd == CmdData {
			length += 4096
		}
		got := append(AppendHeader(nil, FormatFor(101, length), 0, v.cmd, length), body...)
		if !bytes.Equal(got, want) {
			t.Errorf("%s:\n got  %x\n want %x", v.name, got, want)
		}
	}
	features := ConnectionFeatures{Min: 86, Max: 101, Features: FeaturesAll}
	got := features.AppendTo(AppendHeader(nil, Header80, 0, CmdConnectionFeatures, ConnectionFeaturesSize))
	want, _ := hex.DecodeString("83740267fffe0048000000560000000f00000065" + strings.Repeat("00", 60))
	if !bytes.Equal(got, want) {
		t.Errorf("features:\n got  %x\n want %x", got, want)
	}
}

// TestGoldenStatesAreSane: what the kernel reports of itself is a fixed point of
// our rules for implied changes, and a state that our rules allow.
func TestGoldenStatesAreSane(t *testing.T) {
	states := 0
	for _, name := range streams(t) {
		if !strings.HasSuffix(name, ".data.rx.bin") {
			continue
		}
		for _, p := range parseStream(t, name) {
			if p.Command != CmdState {
				continue
			}
			var packet StateWord
			r := NewReader(p.Command, p.payload)
			packet.DecodeFrom(&r)
			s := packet.State.State()
			rules := state.Rules{Version: p.session.Version, VerifyAlg: true}
			if got := state.Sanitize(s, s, rules, state.Negotiation{}); got != s {
				t.Errorf("%s: %v becomes %v", name, s, got)
			}
			if got := state.CheckState(s, rules); !got.OK() {
				t.Errorf("%s: %v is refused: %v", name, s, got)
			}
			states++
		}
	}
	if states < 20 {
		t.Errorf("only %d states", states)
	}
}
