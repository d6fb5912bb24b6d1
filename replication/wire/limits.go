package wire

import (
	"math"
	"strconv"
)

// Limits of requests, in bytes.
const (
	MaxRequest100 = 1 << 20   // since version 100
	MaxRequest95  = 128 << 10 // 95 to 99
	MaxRequest80  = 32 << 10  // before that
	MaxTrimBig    = 128 << 20 // with FeatureWriteSame
	MaxTrimSmall  = 4 << 20

	// MaxDigestSize is the size of the largest digest (sha512).
	MaxDigestSize = 64
)

// sectorSize is the unit of every length of data.
const sectorSize = 512

// Session is what the two sides have agreed upon that changes the layout of
// packets. The zero value with VersionInitial holds before they have.
type Session struct {
	Version    int
	Features   Features
	DigestSize int // of data-integrity-alg in the direction of the packet, 0 for none
}

// MaxRequest returns the largest read or write in bytes.
func (s Session) MaxRequest() uint32 {
	switch {
	case s.Version >= versionVolumes:
		return MaxRequest100
	case s.Version >= versionBigPackets:
		return MaxRequest95
	default:
		return MaxRequest80
	}
}

// NamesIntegrity says whether P_PROTOCOL names data-integrity-alg, without which it cannot
// be in use.
func (s Session) NamesIntegrity() bool { return s.Version >= versionIntegrity }

// HasFUA says whether writes can ask to be durable when they are acknowledged.
func (s Session) HasFUA() bool { return s.Version >= versionBigPackets }

// StopsVerify says whether an online verify may end before the end of the device: the
// node that compares reports its end (spec 9.10). Version 100 cannot.
func (s Session) StopsVerify() bool {
	return s.Version >= versionVerifyStop && s.Version != versionVolumes
}

// MaxTrim returns the largest discard or zero-out in bytes.
func (s Session) MaxTrim() uint32 {
	if s.Features.Has(FeatureWriteSame) {
		return MaxTrimBig
	}
	return MaxTrimSmall
}

// Limits returns the shortest and the longest payload that a packet may have,
// so that a length can be judged before there is room for it. It returns false
// for a command that does not exist in the session; such a packet ends the
// connection.
func Limits(cmd Command, s Session) (shortest, longest uint32, ok bool) {
	shortest, longest = sizes(cmd, s)
	return shortest, longest, cmd.Sockets() != 0 && s.has(cmd)
}

// has says whether the version and the features have cmd.
func (s Session) has(cmd Command) bool {
	switch cmd {
	case CmdSyncParam:
		return s.Version < versionSyncParam
	case CmdSyncParam89, CmdCsumRSRequest, CmdRSIsInSync:
		return s.Version >= versionSyncParam
	case CmdCompressedBitmap:
		return s.Version >= versionCompressed
	case CmdOutOfSync, CmdRSCancel:
		return s.Version >= versionAhead
	case CmdConnStChgReq, CmdConnStChgReply, CmdRetryWrite, CmdProtocolUpdate:
		return s.Version >= versionVolumes
	case CmdTrim:
		return s.Features.Has(FeatureTrim)
	case CmdRSThinReq, CmdRSDeallocated:
		return s.Features.Has(FeatureThinResync)
	case CmdZeroes:
		return s.Features.Has(FeatureWriteZeroes)
	default:
		return true
	}
}

// sizes returns the shortest and longest payload of cmd.
func sizes(cmd Command, s Session) (shortest, longest uint32) {
	fixed := func(n uint32) (uint32, uint32) { return n, n }
	switch cmd {
	case CmdData, CmdDataReply, CmdRSDataReply:
		head := DataSize + uint32(s.DigestSize)
		return head, head + s.MaxRequest()
	case CmdTrim, CmdZeroes:
		return fixed(TrimSize)
	case CmdDataRequest, CmdRSDataRequest, CmdRSThinReq, CmdOVRequest:
		return fixed(BlockRequestSize)
	case CmdOVReply, CmdCsumRSRequest:
		return BlockRequestSize + 1, BlockRequestSize + MaxDigestSize
	case CmdRecvAck, CmdWriteAck, CmdRSWriteAck, CmdSuperseded, CmdNegAck, CmdNegDReply, CmdNegRSDReply,
		CmdOVResult, CmdRSIsInSync, CmdRSCancel, CmdRetryWrite:
		return fixed(BlockAckSize)
	case CmdOutOfSync, CmdRSDeallocated:
		return fixed(BlockDescSize)
	case CmdBarrier, CmdBarrierAck, CmdDelayProbe:
		return fixed(BarrierSize)
	case CmdBitmap:
		return 0, uint32(BitmapPayload(s.Version))
	case CmdCompressedBitmap:
		return compressedMin, uint32(BitmapPayload(s.Version))
	case CmdState, CmdStateChgReply, CmdConnStChgReply:
		return fixed(StateWordSize)
	case CmdSyncUUID, CmdStateChgReq, CmdConnStChgReq:
		return fixed(StateChangeRequestSize)
	default:
		return handshakeSizes(cmd, s)
	}
}

// handshakeSizes is the part of sizes for what is exchanged at first. Packets
// without a payload end here too.
func handshakeSizes(cmd Command, s Session) (shortest, longest uint32) {
	switch cmd {
	case CmdConnectionFeatures:
		return ConnectionFeaturesSize, ConnectionFeaturesSize
	case CmdAuthChallenge:
		return AuthChallengeSize, AuthChallengeMax
	case CmdAuthResponse:
		return 1, MaxDigestSize
	case CmdProtocol, CmdProtocolUpdate:
		if s.Version < versionIntegrity {
			return protocolFixedSize, protocolFixedSize
		}
		return protocolFixedSize + 1, protocolFixedSize + NameSize
	case CmdSyncParam, CmdSyncParam89:
		return syncParamSizes(s.Version)
	case CmdUUIDs:
		return UUIDsSize, UUIDsSize
	case CmdSizes:
		if s.Features.Has(FeatureWriteSame) {
			return SizesLimitSize, SizesLimitSize
		}
		return SizesSize, SizesSize
	default:
		return 0, 0
	}
}

func syncParamSizes(version int) (shortest, longest uint32) {
	switch {
	case version < versionVerify:
		return syncParamSize87, syncParamSize87
	case version < versionSyncParam:
		return syncParamSize87 + 1, syncParamSize87 + NameSize
	case version < versionBigPackets:
		return syncParamSize89, syncParamSize89
	default:
		return syncParamSize95, syncParamSize95
	}
}

// Check judges a header before its payload is read: the command exists in the
// session, its length is within Limits, and data and bitmaps come in whole
// sectors and words. It returns nil or a *PacketError.
func (s Session) Check(h Header) error {
	shortest, longest, ok := Limits(h.Command, s)
	length := int(min(h.Length, math.MaxInt32))
	fail := func(want string) error {
		return &PacketError{Command: h.Command, Size: length, Want: want}
	}
	switch {
	case !ok:
		return fail("no such packet in version " + strconv.Itoa(s.Version))
	case h.Length < shortest || h.Length > longest:
		return fail(strconv.Itoa(int(shortest)) + " to " + strconv.Itoa(int(longest)) + " bytes")
	case h.Command.CarriesData() && (h.Length-shortest)%sectorSize != 0:
		return fail("whole sectors of data after " + strconv.Itoa(int(shortest)) + " bytes")
	case h.Command == CmdBitmap && h.Length%BitmapWord != 0:
		return fail("whole words of the bitmap")
	default:
		return nil
	}
}

// Split divides the payload of a packet that has passed Check: bulk bytes of
// device data at the end, which need a buffer of their own, and the body with
// everything before them, digest included.
func (s Session) Split(h Header) (body, bulk uint32) {
	if !h.Command.CarriesData() {
		return h.Length, 0
	}
	body = DataSize + uint32(s.DigestSize)
	return body, h.Length - body
}

// CarriesData says whether device data are at the end of the payload, after DataSize bytes and a digest.
func (c Command) CarriesData() bool {
	return c == CmdData || c == CmdDataReply || c == CmdRSDataReply
}
