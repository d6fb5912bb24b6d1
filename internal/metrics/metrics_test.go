package metrics

import (
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	"github.com/prometheus/common/expfmt"

	"github.com/replblk/replblk/block"
	"github.com/replblk/replblk/internal/control"
)

func example() []control.Resource {
	return []control.Resource{{
		Name: "r0", Peer: "beta", PeerID: 1, Up: true, Connection: "Connected", Role: "Primary", PeerRole: "Secondary",
		Handlers: []control.HandlerRuns{{Name: "fence-peer", Exit: "timeout", Count: 2}},
		Volumes: []control.Volume{{
			Minor: 7, State: "SyncSource", Disk: "UpToDate", PeerDisk: "Inconsistent", Size: 1 << 30, OutOfSync: 1 << 20,
			Counters: control.Counters{Written: 4096, Sent: 8192, ALWrites: 3},
			Resync:   &control.Resync{Total: 4 << 20, Left: 1 << 20, Rate: 1 << 20},
		}},
		NBD: []control.NBD{{Name: "r0", Active: 2, Writes: 5}},
		AoE: []control.AoE{{Shelf: 1, Slot: 2, Dropped: map[string]uint64{"masked": 4, "stale": 0},
			Latency:    control.Latency{Bounds: []float64{0.001, 0.002}, Buckets: []uint64{3, 2, 1}, Sum: 0.5},
			Links:      []control.AoELink{{Name: "eth1", Up: true, Malformed: 6, Deaf: 2}},
			Initiators: []control.AoEInitiator{{Address: "02:00:00:00:00:01", Dropped: map[string]uint64{"stale": 1}}}}},
	}}
}

func scrape(t *testing.T) string {
	t.Helper()
	reg := prometheus.NewPedanticRegistry()
	reg.MustRegister(New(example))
	NewTimes(reg).Disk("r0", 0, 7).Observe(block.Write, time.Millisecond)
	return gather(t, reg)
}

func gather(t *testing.T, reg *prometheus.Registry) string {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	enc := expfmt.NewEncoder(&text, expfmt.NewFormat(expfmt.TypeTextPlain))
	for _, f := range families {
		if err := enc.Encode(f); err != nil {
			t.Fatal(err)
		}
	}
	return text.String()
}

// Dashboards made for drbd-reactor need these, to the letter.
func TestNames(t *testing.T) {
	text := scrape(t)
	for _, want := range []string{
		`drbdreactor_up 1`,
		`drbd_resource_resources 1`,
		`drbd_resource_role{drbd_resource_role="Primary",name="r0"} 1`,
		`drbd_resource_role{drbd_resource_role="Secondary",name="r0"} 0`,
		`drbd_connection_state{conn_name="beta",drbd_connection_state="Connected",name="r0",peer_node_id="1"} 1`,
		`drbd_device_state{drbd_device_state="UpToDate",minor="7",name="r0",volume="0"} 1`,
		`drbd_device_quorum{minor="7",name="r0",volume="0"} 1`,
		`drbd_device_unintentionaldiskless{minor="7",name="r0",volume="0"} 0`,
		`drbd_device_written_bytes_total{minor="7",name="r0",volume="0"} 4096`,
		`drbd_peerdevice_outofsync_bytes{conn_name="beta",name="r0",peer_node_id="1",volume="0"} 1.048576e+06`,
		`drbd_peerdevice_sent_bytes{conn_name="beta",name="r0",peer_node_id="1",volume="0"} 8192`,
		`drbd_peerdevice_replication_state{conn_name="beta",drbd_replication_state="SyncSource",name="r0",peer_node_id="1",volume="0"} 1`,
		`drbd_peerdevice_resync_done_ratio{conn_name="beta",name="r0",peer_node_id="1",volume="0"} 0.75`,
		`drbd_peerdevice_resync_eta_seconds{conn_name="beta",name="r0",peer_node_id="1",volume="0"} 1`,
		`drbd_device_write_duration_seconds_count{minor="7",name="r0",stage="local",volume="0"} 1`,
		`drbd_resource_handler_runs_total{exit="timeout",handler="fence-peer",name="r0"} 2`,
		`nbd_requests_total{cmd="write",export="r0",name="r0",volume="0"} 5`,
		`aoe_dropped_frames_total{name="r0",reason="masked",shelf="1",slot="2",volume="0"} 4`,
		`aoe_request_seconds_bucket{name="r0",shelf="1",slot="2",volume="0",le="0.002"} 5`,
		`aoe_request_seconds_count{name="r0",shelf="1",slot="2",volume="0"} 6`,
		`aoe_interface_up{interface="eth1",name="r0",shelf="1",slot="2",volume="0"} 1`,
		`aoe_interface_ignored_frames_total{interface="eth1",name="r0",reason="malformed",shelf="1",slot="2",volume="0"} 6`,
		`aoe_interface_deaf_total{interface="eth1",name="r0",shelf="1",slot="2",volume="0"} 2`,
		`aoe_initiator_dropped_frames_total{initiator="02:00:00:00:00:01",name="r0",reason="stale",shelf="1",slot="2",volume="0"} 1`,
	} {
		if !strings.Contains(text, want+"\n") {
			t.Errorf("no %s", want)
		}
	}
}

// What promtool check metrics says.
func TestLint(t *testing.T) {
	problems, err := promlint.New(strings.NewReader(scrape(t))).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

// A process that serves AoE targets only has their series, and says nothing of resources.
func TestTargets(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	reg.MustRegister(NewTargets(func() []Target { return []Target{{Name: "/dev/sdb", AoE: example()[0].AoE[0]}} }))
	text := gather(t, reg)
	for _, want := range []string{
		`drbdreactor_up 1`,
		`aoe_dropped_frames_total{name="/dev/sdb",reason="masked",shelf="1",slot="2",volume="0"} 4`,
	} {
		if !strings.Contains(text, want+"\n") {
			t.Errorf("no %s in\n%s", want, text)
		}
	}
	if strings.Contains(text, "drbd_resource_") {
		t.Error("speaks of resources")
	}
}
