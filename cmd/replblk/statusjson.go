package main

import (
	"encoding/json"
	"io"
	"net"
	"strconv"
	"strings"

	"github.com/replblk/replblk/internal/control"
)

// The JSON of drbdsetup status of DRBD 9, which monitoring reads; DRBD 8.4 has none.

type jsonResource struct {
	Name             string           `json:"name"`
	NodeID           int              `json:"node-id"`
	Role             string           `json:"role"`
	Suspended        bool             `json:"suspended"`
	SuspendedUser    bool             `json:"suspended-user"`
	SuspendedNoData  bool             `json:"suspended-no-data"`
	SuspendedFencing bool             `json:"suspended-fencing"`
	SuspendedQuorum  bool             `json:"suspended-quorum"`
	ForceFailures    bool             `json:"force-io-failures"`
	WriteOrdering    string           `json:"write-ordering"`
	Devices          []jsonDevice     `json:"devices"`
	Connections      []jsonConnection `json:"connections"`
}

type jsonDevice struct {
	Volume       uint16 `json:"volume"`
	Minor        uint32 `json:"minor"`
	DiskState    string `json:"disk-state"`
	BackingDev   string `json:"backing_dev"`
	Client       bool   `json:"client"`
	Open         bool   `json:"open"`
	Quorum       bool   `json:"quorum"`
	Size         uint64 `json:"size"`
	Read         uint64 `json:"read"`
	Written      uint64 `json:"written"`
	ALWrites     uint64 `json:"al-writes"`
	BMWrites     uint64 `json:"bm-writes"`
	UpperPending int    `json:"upper-pending"`
	LowerPending int    `json:"lower-pending"`
}

type jsonConnection struct {
	PeerNodeID  int        `json:"peer-node-id"`
	Name        string     `json:"name"`
	State       string     `json:"connection-state"`
	Congested   bool       `json:"congested"`
	PeerRole    string     `json:"peer-role"`
	TLS         bool       `json:"tls"`
	APInFlight  int        `json:"ap-in-flight"`
	RSInFlight  int        `json:"rs-in-flight"`
	Paths       []jsonPath `json:"paths"`
	PeerDevices []jsonPeer `json:"peer_devices"`
}

type jsonPath struct {
	This        jsonHost `json:"this_host"`
	Remote      jsonHost `json:"remote_host"`
	Established bool     `json:"established"`
}

type jsonHost struct {
	Address string `json:"address"`
	Port    int    `json:"port"`
	Family  string `json:"family"`
}

type jsonPeer struct {
	Volume           uint16  `json:"volume"`
	ReplicationState string  `json:"replication-state"`
	DiskState        string  `json:"peer-disk-state"`
	Client           bool    `json:"peer-client"`
	ResyncSuspended  string  `json:"resync-suspended"`
	Received         uint64  `json:"received"`
	Sent             uint64  `json:"sent"`
	OutOfSync        uint64  `json:"out-of-sync"`
	Pending          int     `json:"pending"`
	Unacked          int     `json:"unacked"`
	HasSync          bool    `json:"has-sync-details"`
	HasVerify        bool    `json:"has-online-verify-details"`
	PercentInSync    float64 `json:"percent-in-sync"`
	*jsonSync
}

// jsonSync is present while a resync runs. Sizes are sectors.
type jsonSync struct {
	Total   uint64  `json:"rs-total"`
	StartMS int64   `json:"rs-dt-start-ms"`
	Failed  uint64  `json:"rs-failed"`
	Rate    float64 `json:"db0/dt0 [MiB/s]"`
	Average float64 `json:"db/dt [MiB/s]"`
	ETA     float64 `json:"estimated-seconds-to-finish"`
	Percent float64 `json:"percent-resync-done"`
}

// writeJSON prints resources as a JSON array.
func writeJSON(w io.Writer, list []control.Resource) error {
	out := []jsonResource{}
	for i := range list {
		if list[i].Up {
			out = append(out, jsonOf(&list[i]))
		}
	}
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(out)
}

func jsonOf(r *control.Resource) jsonResource {
	v0 := &r.Volumes[0]
	j := jsonResource{
		Name: r.Name, NodeID: r.NodeID, Role: r.Role, Suspended: v0.Suspended, SuspendedUser: v0.SuspendedUser,
		SuspendedNoData: v0.SuspendedNoData, SuspendedFencing: v0.SuspendedFencing, WriteOrdering: "flush",
		Connections: []jsonConnection{},
	}
	conn, _ := control.SplitState(r.Connection)
	c := jsonConnection{
		PeerNodeID: r.PeerID, Name: r.Peer, State: conn, PeerRole: r.PeerRole, APInFlight: r.InFlight,
		Paths: []jsonPath{{This: hostOf(r.Local), Remote: hostOf(r.Remote), Established: conn == "Connected"}},
	}
	for i := range r.Volumes {
		v := &r.Volumes[i]
		j.Devices = append(j.Devices, jsonDevice{
			Volume: v.Number, Minor: v.Minor, DiskState: v.Disk, BackingDev: v.Backing, Open: r.Open(v.Number), Quorum: true,
			Size: v.Size / 1024, Read: v.Counters.Read / 1024, Written: v.Counters.Written / 1024,
			ALWrites: v.Counters.ALWrites, BMWrites: v.Counters.BMWrites, UpperPending: v.Application, LowerPending: v.LocalPending,
		})
		c.PeerDevices = append(c.PeerDevices, peerOf(v))
	}
	if r.Remote != "" {
		j.Connections = append(j.Connections, c)
	}
	return j
}

func peerOf(v *control.Volume) jsonPeer {
	_, repl := control.SplitState(v.State)
	p := jsonPeer{
		Volume: v.Number, ReplicationState: repl, DiskState: v.PeerDisk,
		ResyncSuspended: pausedWord(v.PausedUser, v.PausedPeer, v.PausedDependency),
		Received:        v.Counters.Received / 1024, Sent: v.Counters.Sent / 1024, OutOfSync: v.OutOfSync / 1024,
		Pending: v.PeerPending, PercentInSync: 100,
	}
	if v.Size > 0 {
		p.PercentInSync = 100 - 100*float64(v.OutOfSync)/float64(v.Size)
	}
	if s := v.Resync; s != nil {
		p.HasSync, p.HasVerify = !s.Verify, s.Verify
		p.jsonSync = &jsonSync{
			Total: s.Total / 512, StartMS: int64(s.Seconds * 1000), Failed: s.Failed / 512,
			Rate: s.Rate / (1 << 20), Average: s.Average / (1 << 20), ETA: s.ETASeconds(), Percent: percentDone(s),
		}
	}
	return p
}

// hostOf splits "ipv4:10.0.0.1:7789".
func hostOf(word string) jsonHost {
	family, addr, _ := strings.Cut(word, ":")
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return jsonHost{Family: family, Address: addr}
	}
	n, _ := strconv.Atoi(port) // was printed by us
	return jsonHost{Address: host, Port: n, Family: family}
}
