package nbd

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
