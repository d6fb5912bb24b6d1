package control

import "time"

// Resource is a snapshot of one configured resource as the daemon sees it. States
// are DRBD 8.4's words. It is what status, role, /proc/drbd and the metrics
// are made of.
type Resource struct {
	Name   string `json:"name"`
	Peer   string `json:"peer"` // host name, "peer" if the configuration has none
	NodeID int    `json:"node-id"`
	PeerID int    `json:"peer-node-id"`
	Local  string `json:"local"`  // address, "ipv4:10.0.0.1:7789"
	Remote string `json:"remote"` // likewise, "" without a peer

	// Up is false for a resource that was taken down: nothing below holds then.
	Up bool `json:"up"`
	// Changing: a command is bringing the resource up or down at this moment.
	Changing   bool   `json:"changing"`
	Connection string `json:"connection"` // StandAlone to WFReportParams, Connected
	Version    int    `json:"protocol-version"`
	Protocol   string `json:"protocol"` // A, B, C
	Role       string `json:"role"`
	PeerRole   string `json:"peer-role"`
	InFlight   int    `json:"in-flight"`  // application requests
	Unsent     int    `json:"unsent"`     // bytes queued for the peer that the kernel has not taken
	Reconnects uint64 `json:"reconnects"` // connections established, less the first
	SplitBrain uint64 `json:"split-brain"`

	Fencing string  `json:"fencing"`  // the strictest policy of the volumes
	AfterSB string  `json:"after-sb"` // the policies for 0, 1 and 2 primaries
	History History `json:"history"`
	// Handlers counts the handlers that have run, by how they ended.
	Handlers []HandlerRuns `json:"handlers,omitempty"`

	Volumes []Volume `json:"volumes"`
	NBD     []NBD    `json:"nbd,omitempty"`
	AoE     []AoE    `json:"aoe,omitempty"`
}

// HandlerRuns counts runs of a handler that ended alike.
type HandlerRuns struct {
	Name  string `json:"handler"`
	Exit  string `json:"exit"` // the exit code, or "timeout"
	Count uint64 `json:"count"`
}

// History is what the daemon remembers of the connection since it was started.
type History struct {
	Started time.Time `json:"started"`
	// Parted is when the nodes were last in touch; zero: they are, or have not been since.
	Parted time.Time `json:"parted,omitzero"`
	// Refusal is why the last attempt to connect was refused, "" if none was since they
	// were connected, and Refused when.
	Refusal string    `json:"refusal,omitempty"`
	Refused time.Time `json:"refused,omitzero"`
	// SplitBrain says that it was refused because both nodes have data that the other lacks.
	SplitBrain bool `json:"split-brain"`
}

// Volume is a snapshot of one volume. Sizes are bytes.
type Volume struct {
	Number   uint16 `json:"volume"`
	Minor    uint32 `json:"minor"`
	Backing  string `json:"backing"`
	MetaDisk string `json:"meta-disk"` // "internal", or the device

	State    string `json:"state"` // the "cs" of /proc/drbd
	Disk     string `json:"disk"`
	PeerDisk string `json:"peer-disk"`
	Role     string `json:"role"`
	PeerRole string `json:"peer-role"`

	Suspended        bool `json:"suspended"`
	SuspendedUser    bool `json:"suspended-user"`
	SuspendedNoData  bool `json:"suspended-no-data"`
	SuspendedFencing bool `json:"suspended-fencing"`
	PausedDependency bool `json:"paused-dependency"`
	PausedPeer       bool `json:"paused-peer"`
	PausedUser       bool `json:"paused-user"`
	Frozen           bool `json:"frozen"`

	Size      uint64    `json:"size"`
	UUIDs     [4]uint64 `json:"uuids"`
	OutOfSync uint64    `json:"out-of-sync"`

	// SplitOwn and SplitPeer are what each node had changed at the last split brain.
	SplitOwn  uint64 `json:"split-own,omitempty"`
	SplitPeer uint64 `json:"split-peer,omitempty"`

	LocalPending int `json:"local-pending"`
	PeerPending  int `json:"peer-pending"`
	Application  int `json:"application"`
	ALActive     int `json:"al-active"`

	Counters Counters `json:"counters"`
	Resync   *Resync  `json:"resync,omitempty"`
	Verify   *Verify  `json:"verify,omitempty"`
}

// Verify is what the running online verify, or the last one, has found. Sizes are bytes.
type Verify struct {
	Total     uint64 `json:"total"`
	Left      uint64 `json:"left"`
	OutOfSync uint64 `json:"out-of-sync"`   // blocks that differ
	Failed    uint64 `json:"failed"`        // blocks that could not be read
	Completed uint64 `json:"completed"`     // runs that came to their end
	Resume    uint64 `json:"resume-sector"` // where an aborted run goes on, 0: there is none
}

// Counters count since the disk was attached, or the resource brought up.
type Counters struct {
	Sent     uint64 `json:"sent"` // bytes on both sockets, of the whole resource
	Received uint64 `json:"received"`
	Read     uint64 `json:"read"`    // bytes from the backing device
	Written  uint64 `json:"written"` // bytes to the backing device, metadata not counted
	Flushes  uint64 `json:"flushes"`
	ALWrites uint64 `json:"al-writes"`
	BMWrites uint64 `json:"bm-writes"`
	Errors   uint64 `json:"errors"` // failed requests to the backing device
}

// Resync is how far a running resync or verify is. Sizes are bytes.
type Resync struct {
	Verify  bool    `json:"verify"`
	Total   uint64  `json:"total"`
	Left    uint64  `json:"left"`
	Failed  uint64  `json:"failed"`
	Seconds float64 `json:"seconds"`      // since its start
	Rate    float64 `json:"rate"`         // bytes per second over the last 20 s
	Average float64 `json:"average-rate"` // bytes per second since its start
	Stalled bool    `json:"stalled"`
}

// DonePermille is how much of a resync is done.
func (r *Resync) DonePermille() int {
	if r.Total == 0 || r.Left >= r.Total {
		return 0
	}
	return int((r.Total - r.Left) * 1000 / r.Total)
}

// ETASeconds is how long the rest takes at the present rate, -1 if that cannot be
// said.
func (r *Resync) ETASeconds() float64 {
	if r.Left == 0 {
		return 0
	}
	if r.Rate <= 0 {
		return -1
	}
	return float64(r.Left) / r.Rate
}

// NBD is a snapshot of one NBD export.
type NBD struct {
	Name        string   `json:"name"`
	Listen      []string `json:"listen"`
	Volume      uint16   `json:"volume"`
	Active      uint64   `json:"active"` // clients connected
	Connections uint64   `json:"connections"`
	Reads       uint64   `json:"reads"`
	Writes      uint64   `json:"writes"`
	Flushes     uint64   `json:"flushes"`
	Trims       uint64   `json:"trims"`
	Zeroes      uint64   `json:"zeroes"`
	ReadBytes   uint64   `json:"read-bytes"`
	WriteBytes  uint64   `json:"write-bytes"`
	Errors      uint64   `json:"errors"`
}

// AoE is a snapshot of one AoE target.
type AoE struct {
	Shelf      uint16            `json:"shelf"`
	Slot       uint8             `json:"slot"`
	Interfaces []string          `json:"interfaces"`
	Volume     uint16            `json:"volume"`
	Mode       string            `json:"mode"` // serving, holding, silent
	Serving    bool              `json:"serving"`
	Conflicts  uint64            `json:"conflicts"`   // answers of other stations for this target
	HandedOver uint64            `json:"handed-over"` // requests passed to the other node in a switch
	TakenOver  uint64            `json:"taken-over"`
	Links      []AoELink         `json:"links"`
	Requests   uint64            `json:"requests"`
	Responses  uint64            `json:"responses"`
	Reads      uint64            `json:"reads"`
	Writes     uint64            `json:"writes"`
	Flushes    uint64            `json:"flushes"`
	ReadBytes  uint64            `json:"read-bytes"`
	WriteBytes uint64            `json:"write-bytes"`
	Errors     uint64            `json:"errors"`
	Duplicates uint64            `json:"duplicates"`
	Dropped    map[string]uint64 `json:"dropped"` // by reason
	Latency    Latency           `json:"latency"`
	Initiators []AoEInitiator    `json:"initiators,omitempty"`
}

// Latency is a histogram of times, from the arrival of a request to its answer.
type Latency struct {
	Bounds  []float64 `json:"bounds"`  // upper bounds in seconds, of all buckets but the last
	Buckets []uint64  `json:"buckets"` // each counts its own only
	Sum     float64   `json:"sum"`     // seconds
}

// AoEInitiator is one station that used a target.
type AoEInitiator struct {
	Address    string            `json:"address"` // zeroes: all those beyond the limit of the table
	Reads      uint64            `json:"reads"`
	Writes     uint64            `json:"writes"`
	ReadBytes  uint64            `json:"read-bytes"`
	WriteBytes uint64            `json:"write-bytes"`
	Errors     uint64            `json:"errors"`
	Duplicates uint64            `json:"duplicates"` // retransmissions that met the request in flight
	Dropped    map[string]uint64 `json:"dropped"`    // by reason, those that occurred
	Latency    Latency           `json:"latency"`
}

// AoELink is an interface of an AoE target. The counters are of all its targets.
type AoELink struct {
	Name     string `json:"name"`
	Address  string `json:"address,omitempty"` // virtual address; "" is the interface's own
	Up       bool   `json:"up"`
	Problem  string `json:"problem,omitempty"` // why there is no service on it
	MTU      int    `json:"mtu"`
	Lost     uint64 `json:"lost"` // times that the interface went away
	Received uint64 `json:"received"`
	Sent     uint64 `json:"sent"`
	Overruns uint64 `json:"overruns"` // frames that came when the socket's buffer was full
	Unsent   uint64 `json:"unsent"`   // frames that the interface refused
	// Malformed frames are not AoE requests at all, those of Foreign name no target here.
	Malformed uint64 `json:"malformed"`
	Foreign   uint64 `json:"foreign"`
	Deaf      uint64 `json:"deaf"` // times that the interface refused to receive for an address
}
