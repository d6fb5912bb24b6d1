package nbd

// Magic numbers of the protocol (NBD proto.md, "Fixed newstyle negotiation" and
// "Transmission"). All integers on the wire are big-endian.
const (
	magicServer      = 0x4e42444d41474943 // "NBDMAGIC"
	magicOption      = 0x49484156454f5054 // "IHAVEOPT"
	magicOptionReply = 0x0003e889045565a9
	magicRequest     = 0x25609513
	magicSimple      = 0x67446698
	magicStructured  = 0x668e33ef
)

// Handshake flags of the server and of the client; the bits are the same.
const (
	handshakeFixed    = 1 << 0
	handshakeNoZeroes = 1 << 1
)

// Option types.
const (
	optExportName      = 1
	optAbort           = 2
	optList            = 3
	optStartTLS        = 5
	optInfo            = 6
	optGo              = 7
	optStructuredReply = 8
	optListMetaContext = 9
	optSetMetaContext  = 10
)

// Option reply types.
const (
	repAck         = 1
	repServer      = 2
	repInfo        = 3
	repMetaContext = 4

	repError      = 1 << 31
	repErrUnsup   = repError + 1
	repErrPolicy  = repError + 2
	repErrInvalid = repError + 3
	repErrTLSReqd = repError + 5
	repErrUnknown = repError + 6
	repErrTooBig  = repError + 9
)

// Information types of INFO and GO.
const (
	infoExport      = 0
	infoName        = 1
	infoDescription = 2
	infoBlockSize   = 3
)

// Transmission flags.
const (
	flagHasFlags    = 1 << 0
	flagReadOnly    = 1 << 1
	flagFlush       = 1 << 2
	flagFUA         = 1 << 3
	flagRotational  = 1 << 4
	flagTrim        = 1 << 5
	flagWriteZeroes = 1 << 6
	flagDF          = 1 << 7
	flagMultiConn   = 1 << 8
	flagCache       = 1 << 10
	flagFastZero    = 1 << 11
)

// Command types.
const (
	cmdRead        = 0
	cmdWrite       = 1
	cmdDisc        = 2
	cmdFlush       = 3
	cmdTrim        = 4
	cmdCache       = 5
	cmdWriteZeroes = 6
	cmdBlockStatus = 7
	commands       = 8
)

// Command flags.
const (
	cmdFlagFUA      = 1 << 0
	cmdFlagNoHole   = 1 << 1
	cmdFlagDF       = 1 << 2
	cmdFlagReqOne   = 1 << 3
	cmdFlagFastZero = 1 << 4
)

// Errors of replies.
const (
	errPerm    = 1
	errIO      = 5
	errInvalid = 22
	errNoSpace = 28
	errNotSup  = 95
)

// Structured replies.
const (
	chunkDone        = 1 << 0 // flag: last chunk of the reply
	chunkOffsetData  = 1
	chunkBlockStatus = 5
	chunkError       = 1<<15 + 1
)

// The only metadata context served, and the flags of its extents.
const (
	contextAllocation   = "base:allocation"
	contextAllocationID = 1
	extentHole          = 1 << 0
	extentZero          = 1 << 1
)

// Sizes of fixed parts in bytes.
//
//	request           0 magic u32 | 4 flags u16 | 6 type u16 | 8 cookie u64 | 16 offset u64 | 24 length u32
//	simple reply      0 magic u32 | 4 error u32 | 8 cookie u64
//	structured chunk  0 magic u32 | 4 flags u16 | 6 type u16 | 8 cookie u64 | 16 length u32
//	option            0 magic u64 | 8 type u32 | 12 length u32
//	option reply      0 magic u64 | 8 option u32 | 12 type u32 | 16 length u32
const (
	requestSize     = 28
	simpleSize      = 16
	chunkSize       = 20
	optionSize      = 16
	optionReplySize = 20
)

// Limits.
const (
	maxOption        = 64 << 10 // data of one option
	maxOptionSkip    = 1 << 20  // longer options end the connection instead of being refused
	maxName          = 4096     // of an export, as the protocol says
	maxPayload       = 64 << 20 // of one READ or WRITE; nbd's own test writes 49,865,728 bytes
	maxPayloadSkip   = 128 << 20
	maxAdvertised    = 32 << 20 // maximum block size that clients are told
	maxInflight      = 256
	maxInflightBytes = 64 << 20
	handshakeBuffer  = 4 << 10 // read at once during negotiation
	readBuffer       = 256 << 10
	socketBuffer     = 4 << 20
)
