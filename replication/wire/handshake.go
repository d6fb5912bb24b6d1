package wire

import "encoding/binary"

// Features is a set of protocol extensions, agreed upon independently of the
// version.
type Features uint32

// Features (spec 3.4).
const (
	FeatureTrim       Features = 1 << iota // P_TRIM
	FeatureThinResync                      // P_RS_THIN_REQ, P_RS_DEALLOCATED
	// FeatureWriteSame was meant for P_WSAME, which no kernel handles any more.
	// What it still means: P_SIZES carries the queue limits, discards may have
	// 128 MiB, and rule 41 of the UUID comparison is understood.
	FeatureWriteSame
	FeatureWriteZeroes // P_ZEROES, and P_TRIM really means discard

	// FeatureSurvivor is replblk's own: P_UUIDS may say that the sender has lost nothing since
	// the copies were equal (UUIDKept), or that it is behind (UUIDOutdated). DRBD agrees on what
	// it knows only.
	FeatureSurvivor Features = 1 << 31

	// FeaturesAll is what the kernel module 8.4.11 announces.
	FeaturesAll = FeatureTrim | FeatureThinResync | FeatureWriteSame | FeatureWriteZeroes
)

// Has says whether all of f are in the set.
func (s Features) Has(f Features) bool { return s&f == f }

// ConnectionFeaturesSize is the payload size of a ConnectionFeatures.
const ConnectionFeaturesSize = 72

// ConnectionFeatures is each side's first packet after the sockets have found
// each other (P_CONNECTION_FEATURES). It always has header 80.
//
//	offset  size  field
//	     0     4  min       lowest protocol version
//	     4     4  features
//	     8     4  max       highest protocol version; 0: the same as min
//	    12    60  reserved
//
// Mind the order: the features are between the versions.
type ConnectionFeatures struct {
	Min, Max uint32
	Features Features
}

// AppendTo appends the encoded packet.
func (p *ConnectionFeatures) AppendTo(dst []byte) []byte {
	dst = binary.BigEndian.AppendUint32(dst, p.Min)
	dst = binary.BigEndian.AppendUint32(dst, uint32(p.Features))
	dst = binary.BigEndian.AppendUint32(dst, p.Max)
	return append(dst, zeroes[:ConnectionFeaturesSize-12]...)
}

// DecodeFrom reads the packet.
func (p *ConnectionFeatures) DecodeFrom(r *Reader) {
	p.Min = r.Uint32()
	p.Features = Features(r.Uint32())
	p.Max = r.Uint32()
	r.Skip(ConnectionFeaturesSize - 12)
}

// Agree returns the session that our features p and those of the peer make
// possible, and false if the versions do not overlap.
func (p *ConnectionFeatures) Agree(peer ConnectionFeatures) (Session, bool) {
	peerMax := peer.Max
	if peerMax == 0 {
		peerMax = peer.Min
	}
	if p.Max < peer.Min || p.Min > peerMax {
		return Session{}, false
	}
	return Session{Version: int(min(p.Max, peerMax)), Features: p.Features & peer.Features}, true
}

// Lengths of authentication payloads. P_AUTH_CHALLENGE is random bytes,
// P_AUTH_RESPONSE the HMAC of the challenge received, see CRAMResponse.
const (
	AuthChallengeSize = 64  // of our challenges
	AuthChallengeMax  = 128 // of those we answer
)

// ConnFlags are requests for this one connection.
type ConnFlags uint32

// Flags of P_PROTOCOL.
const (
	ConnDiscardMyData ConnFlags = 1 << iota // resync me from you, whatever the UUIDs say
	ConnDryRun                              // only find out what a handshake would do; since 92
)

// Protocol names the configuration that must be alike on both sides
// (P_PROTOCOL), or its change on an established connection
// (P_PROTOCOL_UPDATE, since 100).
//
//	offset  size  field
//	     0     4  protocol       1 A, 2 B, 3 C
//	     4     4  after-sb-0pri
//	     8     4  after-sb-1pri
//	    12     4  after-sb-2pri
//	    16     4  flags
//	    20     4  two primaries  0 or 1
//	    24  1-64  integrity alg  NUL-terminated; since 87
//
// discard-local and discard-remote (5 and 6) are from the sender's point of
// view: exchange them before comparing. IntegrityAlg governs what the sender of
// this packet sends after it; the other direction has its own.
type Protocol struct {
	Protocol           uint32
	AfterSB0, AfterSB1 uint32
	AfterSB2           uint32
	Flags              ConnFlags
	TwoPrimaries       bool
	IntegrityAlg       string
}

const protocolFixedSize = 24

// AppendTo appends the encoded packet.
func (p *Protocol) AppendTo(dst []byte, s Session) []byte {
	dst = binary.BigEndian.AppendUint32(dst, p.Protocol)
	dst = binary.BigEndian.AppendUint32(dst, p.AfterSB0)
	dst = binary.BigEndian.AppendUint32(dst, p.AfterSB1)
	dst = binary.BigEndian.AppendUint32(dst, p.AfterSB2)
	dst = binary.BigEndian.AppendUint32(dst, uint32(p.Flags))
	dst = binary.BigEndian.AppendUint32(dst, flag32(p.TwoPrimaries))
	if s.Version < versionIntegrity {
		return dst
	}
	return appendName(dst, p.IntegrityAlg, min(len(p.IntegrityAlg)+1, NameSize))
}

// DecodeFrom reads the packet.
func (p *Protocol) DecodeFrom(r *Reader, s Session) {
	p.Protocol = r.Uint32()
	p.AfterSB0 = r.Uint32()
	p.AfterSB1 = r.Uint32()
	p.AfterSB2 = r.Uint32()
	p.Flags = ConnFlags(r.Uint32())
	p.TwoPrimaries = r.Uint32() != 0
	p.IntegrityAlg = ""
	if s.Version >= versionIntegrity {
		p.IntegrityAlg = r.Name(r.Remaining())
	}
}

// SyncParam tells how to resync and verify (P_SYNC_PARAM89; P_SYNC_PARAM before
// version 89). It grew with the versions:
//
//	offset  size  field             since
//	     0     4  resync-rate       KiB/s
//	     4    64  verify-alg        88, NUL-padded since 89, before that NUL-terminated
//	    68    64  csums-alg         89
//	   132     4  c-plan-ahead      95, 0.1 s
//	   136     4  c-delay-target    95, 0.1 s
//	   140     4  c-fill-target     95, sectors
//	   144     4  c-max-rate        95, KiB/s
//
// The receiver adopts the numbers. The algorithms must match its own during the
// handshake; later a different name switches it over.
type SyncParam struct {
	ResyncRateKiB   uint32
	VerifyAlg       string
	CsumsAlg        string
	PlanAheadTenths uint32
	DelayTenths     uint32
	FillSectors     uint32
	MaxRateKiB      uint32
}

// Sizes of a SyncParam in the versions where it is fixed.
const (
	syncParamSize87 = 4
	syncParamSize89 = syncParamSize87 + 2*NameSize
	syncParamSize95 = syncParamSize89 + 16
)

// SyncParamCommand returns the command under which a SyncParam travels.
func SyncParamCommand(version int) Command {
	if version < versionSyncParam {
		return CmdSyncParam
	}
	return CmdSyncParam89
}

// AppendTo appends the encoded packet.
func (p *SyncParam) AppendTo(dst []byte, s Session) []byte {
	dst = binary.BigEndian.AppendUint32(dst, p.ResyncRateKiB)
	switch {
	case s.Version < versionVerify:
		return dst
	case s.Version < versionSyncParam:
		return appendName(dst, p.VerifyAlg, min(len(p.VerifyAlg)+1, NameSize))
	}
	dst = appendName(dst, p.VerifyAlg, NameSize)
	dst = appendName(dst, p.CsumsAlg, NameSize)
	if s.Version < versionBigPackets {
		return dst
	}
	dst = binary.BigEndian.AppendUint32(dst, p.PlanAheadTenths)
	dst = binary.BigEndian.AppendUint32(dst, p.DelayTenths)
	dst = binary.BigEndian.AppendUint32(dst, p.FillSectors)
	return binary.BigEndian.AppendUint32(dst, p.MaxRateKiB)
}

// DecodeFrom reads the packet. Fields that the version does not have become
// zero.
func (p *SyncParam) DecodeFrom(r *Reader, s Session) {
	*p = SyncParam{ResyncRateKiB: r.Uint32()}
	switch {
	case s.Version < versionVerify:
		return
	case s.Version < versionSyncParam:
		p.VerifyAlg = r.Name(r.Remaining())
		return
	}
	p.VerifyAlg = r.Name(NameSize)
	p.CsumsAlg = r.Name(NameSize)
	if s.Version < versionBigPackets {
		return
	}
	p.PlanAheadTenths = r.Uint32()
	p.DelayTenths = r.Uint32()
	p.FillSectors = r.Uint32()
	p.MaxRateKiB = r.Uint32()
}

// UUIDFlags accompany the UUIDs.
type UUIDFlags uint64

// Flags of P_UUIDS.
const (
	UUIDDiscardMyData   UUIDFlags = 1 << iota // sender was told to discard its data
	UUIDCrashedPrimary                        // sender was Primary when it crashed
	UUIDInconsistent                          // sender's disk, being negotiated, is Inconsistent
	UUIDSkipInitialSync                       // a fresh pair is declared to be equal

	// UUIDKept is sent with FeatureSurvivor only: the sender has run, on the same disk, since
	// the copies were equal, so it has every write that was acknowledged then.
	UUIDKept UUIDFlags = 1 << 63
	// UUIDOutdated is sent with FeatureSurvivor only: the sender's disk is Outdated.
	UUIDOutdated UUIDFlags = 1 << 62
)

// UUIDsSize is the payload size of a UUIDs.
const UUIDsSize = 48

// UUIDs tells the generations of the sender's data (P_UUIDS). A sender without
// a disk has none to tell. It must precede the P_STATE of the same handshake.
//
//	offset  size  field
//	     0     8  current
//	     8     8  bitmap    the generation at which the bitmap started
//	    16    16  history   younger, older
//	    32     8  bits      set in the sender's bitmap
//	    40     8  flags
type UUIDs struct {
	Current uint64
	Bitmap  uint64
	History [2]uint64
	Bits    uint64
	Flags   UUIDFlags
}

// AppendTo appends the encoded packet.
func (p *UUIDs) AppendTo(dst []byte) []byte {
	dst = binary.BigEndian.AppendUint64(dst, p.Current)
	dst = binary.BigEndian.AppendUint64(dst, p.Bitmap)
	dst = binary.BigEndian.AppendUint64(dst, p.History[0])
	dst = binary.BigEndian.AppendUint64(dst, p.History[1])
	dst = binary.BigEndian.AppendUint64(dst, p.Bits)
	return binary.BigEndian.AppendUint64(dst, uint64(p.Flags))
}

// DecodeFrom reads the packet.
func (p *UUIDs) DecodeFrom(r *Reader) {
	p.Current = r.Uint64()
	p.Bitmap = r.Uint64()
	p.History[0] = r.Uint64()
	p.History[1] = r.Uint64()
	p.Bits = r.Uint64()
	p.Flags = UUIDFlags(r.Uint64())
}
