package wire

import "strconv"

// Command says what a packet is.
type Command uint16

// Commands, with DRBD's names and values (spec chapter 4).
const (
	CmdData             Command = 0x00 // P_DATA
	CmdDataReply        Command = 0x01 // P_DATA_REPLY
	CmdRSDataReply      Command = 0x02 // P_RS_DATA_REPLY
	CmdBarrier          Command = 0x03 // P_BARRIER
	CmdBitmap           Command = 0x04 // P_BITMAP
	CmdBecomeSyncTarget Command = 0x05 // P_BECOME_SYNC_TARGET, never sent
	CmdBecomeSyncSource Command = 0x06 // P_BECOME_SYNC_SOURCE, never sent
	CmdUnplugRemote     Command = 0x07 // P_UNPLUG_REMOTE
	CmdDataRequest      Command = 0x08 // P_DATA_REQUEST
	CmdRSDataRequest    Command = 0x09 // P_RS_DATA_REQUEST
	CmdSyncParam        Command = 0x0a // P_SYNC_PARAM, before version 89
	CmdProtocol         Command = 0x0b // P_PROTOCOL
	CmdUUIDs            Command = 0x0c // P_UUIDS
	CmdSizes            Command = 0x0d // P_SIZES
	CmdState            Command = 0x0e // P_STATE
	CmdSyncUUID         Command = 0x0f // P_SYNC_UUID
	CmdAuthChallenge    Command = 0x10 // P_AUTH_CHALLENGE
	CmdAuthResponse     Command = 0x11 // P_AUTH_RESPONSE
	CmdStateChgReq      Command = 0x12 // P_STATE_CHG_REQ
	CmdPing             Command = 0x13 // P_PING
	CmdPingAck          Command = 0x14 // P_PING_ACK
	CmdRecvAck          Command = 0x15 // P_RECV_ACK
	CmdWriteAck         Command = 0x16 // P_WRITE_ACK
	CmdRSWriteAck       Command = 0x17 // P_RS_WRITE_ACK
	CmdSuperseded       Command = 0x18 // P_SUPERSEDED
	CmdNegAck           Command = 0x19 // P_NEG_ACK
	CmdNegDReply        Command = 0x1a // P_NEG_DREPLY
	CmdNegRSDReply      Command = 0x1b // P_NEG_RS_DREPLY
	CmdBarrierAck       Command = 0x1c // P_BARRIER_ACK
	CmdStateChgReply    Command = 0x1d // P_STATE_CHG_REPLY
	CmdOVRequest        Command = 0x1e // P_OV_REQUEST
	CmdOVReply          Command = 0x1f // P_OV_REPLY
	CmdOVResult         Command = 0x20 // P_OV_RESULT
	CmdCsumRSRequest    Command = 0x21 // P_CSUM_RS_REQUEST
	CmdRSIsInSync       Command = 0x22 // P_RS_IS_IN_SYNC
	CmdSyncParam89      Command = 0x23 // P_SYNC_PARAM89
	CmdCompressedBitmap Command = 0x24 // P_COMPRESSED_BITMAP
	CmdDelayProbe       Command = 0x27 // P_DELAY_PROBE, ignored
	CmdOutOfSync        Command = 0x28 // P_OUT_OF_SYNC
	CmdRSCancel         Command = 0x29 // P_RS_CANCEL
	CmdConnStChgReq     Command = 0x2a // P_CONN_ST_CHG_REQ
	CmdConnStChgReply   Command = 0x2b // P_CONN_ST_CHG_REPLY
	CmdRetryWrite       Command = 0x2c // P_RETRY_WRITE
	CmdProtocolUpdate   Command = 0x2d // P_PROTOCOL_UPDATE
	CmdTrim             Command = 0x31 // P_TRIM
	CmdRSThinReq        Command = 0x32 // P_RS_THIN_REQ
	CmdRSDeallocated    Command = 0x33 // P_RS_DEALLOCATED
	CmdWSame            Command = 0x34 // P_WSAME: Linux 6.1 has no handler, never send it
	CmdZeroes           Command = 0x36 // P_ZEROES

	CmdInitialMeta        Command = 0xfff1 // P_INITIAL_META: first packet of a meta socket
	CmdInitialData        Command = 0xfff2 // P_INITIAL_DATA: first packet of a data socket
	CmdConnectionFeatures Command = 0xfffe // P_CONNECTION_FEATURES
)

// Sockets is a set of sockets.
type Sockets uint8

// The two TCP connections between peers (spec 3.1).
const (
	DataSocket Sockets = 1 << iota // writes, requests, configuration, state; strictly in order
	MetaSocket                     // acknowledgements, pings, replies to state change requests
)

// scope says whether the volume number in a packet's header means anything.
type scope bool

const (
	perVolume     scope = true
	perConnection scope = false
)

// commandInfo is what holds for a command whatever the version.
type commandInfo struct {
	name    string // as in the kernel's log
	sockets Sockets
	scope   scope
}

// commands is indexed by the commands below 0x37. A command without sockets has
// no handler.
var commands = [...]commandInfo{
	CmdData:             {"Data", DataSocket, perVolume},
	CmdDataReply:        {"DataReply", DataSocket, perVolume},
	CmdRSDataReply:      {"RSDataReply", DataSocket, perVolume},
	CmdBarrier:          {"Barrier", DataSocket, perConnection},
	CmdBitmap:           {"ReportBitMap", DataSocket, perVolume},
	CmdBecomeSyncTarget: {name: "BecomeSyncTarget"},
	CmdBecomeSyncSource: {name: "BecomeSyncSource"},
	CmdUnplugRemote:     {"UnplugRemote", DataSocket, perVolume},
	CmdDataRequest:      {"DataRequest", DataSocket, perVolume},
	CmdRSDataRequest:    {"RSDataRequest", DataSocket, perVolume},
	CmdSyncParam:        {"SyncParam", DataSocket, perVolume},
	CmdProtocol:         {"ReportProtocol", DataSocket, perConnection},
	CmdUUIDs:            {"ReportUUIDs", DataSocket, perVolume},
	CmdSizes:            {"ReportSizes", DataSocket, perVolume},
	CmdState:            {"ReportState", DataSocket, perVolume},
	CmdSyncUUID:         {"ReportSyncUUID", DataSocket, perVolume},
	CmdAuthChallenge:    {"AuthChallenge", DataSocket, perConnection},
	CmdAuthResponse:     {"AuthResponse", DataSocket, perConnection},
	CmdStateChgReq:      {"StateChgRequest", DataSocket, perVolume},
	CmdPing:             {"Ping", MetaSocket, perConnection},
	CmdPingAck:          {"PingAck", MetaSocket, perConnection},
	CmdRecvAck:          {"RecvAck", MetaSocket, perVolume},
	CmdWriteAck:         {"WriteAck", MetaSocket, perVolume},
	CmdRSWriteAck:       {"RSWriteAck", MetaSocket, perVolume},
	CmdSuperseded:       {"Superseded", MetaSocket, perVolume},
	CmdNegAck:           {"NegAck", MetaSocket, perVolume},
	CmdNegDReply:        {"NegDReply", MetaSocket, perVolume},
	CmdNegRSDReply:      {"NegRSDReply", MetaSocket, perVolume},
	CmdBarrierAck:       {"BarrierAck", MetaSocket, perConnection},
	CmdStateChgReply:    {"StateChgReply", MetaSocket, perVolume},
	CmdOVRequest:        {"OVRequest", DataSocket, perVolume},
	CmdOVReply:          {"OVReply", DataSocket, perVolume},
	CmdOVResult:         {"OVResult", MetaSocket, perVolume},
	CmdCsumRSRequest:    {"CsumRSRequest", DataSocket, perVolume},
	CmdRSIsInSync:       {"CsumRSIsInSync", MetaSocket, perVolume},
	CmdSyncParam89:      {"SyncParam89", DataSocket, perVolume},
	CmdCompressedBitmap: {"CBitmap", DataSocket, perVolume},
	CmdDelayProbe:       {"DelayProbe", DataSocket | MetaSocket, perConnection},
	CmdOutOfSync:        {"OutOfSync", DataSocket, perVolume},
	CmdRSCancel:         {"RSCancel", MetaSocket, perVolume},
	CmdConnStChgReq:     {"conn_st_chg_req", DataSocket, perConnection},
	CmdConnStChgReply:   {"conn_st_chg_reply", MetaSocket, perConnection},
	CmdRetryWrite:       {"retry_write", MetaSocket, perVolume},
	CmdProtocolUpdate:   {"protocol_update", DataSocket, perConnection},
	CmdTrim:             {"Trim", DataSocket, perVolume},
	CmdRSThinReq:        {"rs_thin_req", DataSocket, perVolume},
	CmdRSDeallocated:    {"rs_deallocated", DataSocket, perVolume},
	CmdWSame:            {name: "WriteSame"},
	CmdZeroes:           {"Zeroes", DataSocket, perVolume},
}

func (c Command) info() commandInfo {
	switch c {
	case CmdInitialMeta:
		return commandInfo{"InitialMeta", MetaSocket, perConnection}
	case CmdInitialData:
		return commandInfo{"InitialData", DataSocket, perConnection}
	case CmdConnectionFeatures:
		return commandInfo{"ConnectionFeatures", DataSocket, perConnection}
	default:
		if int(c) < len(commands) {
			return commands[c]
		}
		return commandInfo{}
	}
}

// String returns the name in the kernel's log messages.
func (c Command) String() string {
	if name := c.info().name; name != "" {
		return name
	}
	return "Command(0x" + strconv.FormatUint(uint64(c), 16) + ")"
}

// Sockets returns the sockets on which c is received; none for a command that
// nobody handles. An unknown command ends the connection.
func (c Command) Sockets() Sockets { return c.info().sockets }

// PerVolume says whether the volume number in the header means anything. The
// others concern the connection and carry volume 0.
func (c Command) PerVolume() bool { return c.info().scope == perVolume }
