// Package wire has the numbers of the NBD protocol (proto.md of the NBD project), and what every client
// needs to speak it: the handshake and the header of a request. The server (package nbd) and the clients
// of the product and of its tests share it.
package wire

// Magic numbers of the protocol (NBD proto.md, "Fixed newstyle negotiation" and
// "Transmission"). All integers on the wire are big-endian.
const (
	MagicServer          = 0x4e42444d41474943 // "NBDMAGIC"
	MagicOption          = 0x49484156454f5054 // "IHAVEOPT"
	MagicOptionReply     = 0x0003e889045565a9
	MagicRequest         = 0x25609513
	MagicSimpleReply     = 0x67446698
	MagicStructuredReply = 0x668e33ef
)

// Handshake flags of the server and of the client; the bits are the same.
const (
	HandshakeFixed    = 1 << 0
	HandshakeNoZeroes = 1 << 1
)

// Option types.
const (
	OptExportName      = 1
	OptAbort           = 2
	OptList            = 3
	OptStartTLS        = 5
	OptInfo            = 6
	OptGo              = 7
	OptStructuredReply = 8
	OptListMetaContext = 9
	OptSetMetaContext  = 10
)

// Option reply types.
const (
	RepAck         = 1
	RepServer      = 2
	RepInfo        = 3
	RepMetaContext = 4

	RepError      = 1 << 31
	RepErrUnsup   = RepError + 1
	RepErrPolicy  = RepError + 2
	RepErrInvalid = RepError + 3
	RepErrTLSReqd = RepError + 5
	RepErrUnknown = RepError + 6
	RepErrTooBig  = RepError + 9
)

// Information types of INFO and GO.
const (
	InfoExport      = 0
	InfoName        = 1
	InfoDescription = 2
	InfoBlockSize   = 3
)

// Transmission flags.
const (
	FlagHasFlags    = 1 << 0
	FlagReadOnly    = 1 << 1
	FlagFlush       = 1 << 2
	FlagFUA         = 1 << 3
	FlagRotational  = 1 << 4
	FlagTrim        = 1 << 5
	FlagWriteZeroes = 1 << 6
	FlagDF          = 1 << 7
	FlagMultiConn   = 1 << 8
	FlagCache       = 1 << 10
	FlagFastZero    = 1 << 11
)

// Command types.
const (
	CmdRead        = 0
	CmdWrite       = 1
	CmdDisc        = 2
	CmdFlush       = 3
	CmdTrim        = 4
	CmdCache       = 5
	CmdWriteZeroes = 6
	CmdBlockStatus = 7

	Commands = 8 // how many there are
)

// Command flags.
const (
	CmdFlagFUA      = 1 << 0
	CmdFlagNoHole   = 1 << 1
	CmdFlagDF       = 1 << 2
	CmdFlagReqOne   = 1 << 3
	CmdFlagFastZero = 1 << 4
)

// Errors of replies.
const (
	EPERM   = 1
	EIO     = 5
	EINVAL  = 22
	ENOSPC  = 28
	ENOTSUP = 95

	ESHUTDOWN = 108
)

// Structured replies.
const (
	ChunkDone        = 1 << 0 // flag: last chunk of the reply
	ChunkOffsetData  = 1
	ChunkBlockStatus = 5
	ChunkError       = 1<<15 + 1
)

// The only metadata context served, and the flags of its extents.
const (
	ContextAllocation   = "base:allocation"
	ContextAllocationID = 1
	ExtentHole          = 1 << 0
	ExtentZero          = 1 << 1
)

// Sizes of fixed parts in bytes.
//
//	request           0 magic u32 | 4 flags u16 | 6 type u16 | 8 cookie u64 | 16 offset u64 | 24 length u32
//	simple reply      0 magic u32 | 4 error u32 | 8 cookie u64
//	structured chunk  0 magic u32 | 4 flags u16 | 6 type u16 | 8 cookie u64 | 16 length u32
//	option            0 magic u64 | 8 type u32 | 12 length u32
//	option reply      0 magic u64 | 8 option u32 | 12 type u32 | 16 length u32
const (
	RequestSize     = 28
	SimpleReplySize = 16
	ChunkSize       = 20
	OptionSize      = 16
	OptionReplySize = 20
)
