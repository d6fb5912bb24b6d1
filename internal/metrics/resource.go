package metrics

import (
	"maps"
	"slices"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/replblk/replblk/internal/control"
)

// Labels as drbd-reactor has them.
var (
	resourceLabels   = []string{"name"}
	connectionLabels = []string{"name", "conn_name", "peer_node_id"}
	deviceLabels     = []string{"name", "volume", "minor"}
	peerLabels       = []string{"name", "conn_name", "peer_node_id", "volume"}
	nbdLabels        = []string{"name", "volume", "export"}
	aoeLabels        = []string{"name", "volume", "shelf", "slot"}
	initiatorLabels  = with(aoeLabels, "initiator")
	linkLabels       = with(aoeLabels, "interface")
)

func with(base []string, more ...string) []string { return slices.Concat(base, more) }

// What drbd-reactor exports.
var (
	up        = gauge("drbdreactor_up", "Whether the exporter works.")
	resources = gauge("drbd_resource_resources", "Number of resources.")
	version   = gauge("drbd_version", "Version of the kernel module, which there is none of, and of the tools.", "kmod", "utils")
	buildInfo = gauge("drbd_build_info", "Version of this program.", "version", "revision", "goversion")

	role           = gauge("drbd_resource_role", "Role of the resource.", with(resourceLabels, "drbd_resource_role")...)
	suspended      = gauge("drbd_resource_suspended", "Whether I/O is suspended.", resourceLabels...)
	mayPromote     = gauge("drbd_resource_maypromote", "Whether the resource can become Primary.", resourceLabels...)
	promotionScore = gauge("drbd_resource_promotionscore", "How well this node is suited to be Primary.", resourceLabels...)
	forceFailures  = gauge("drbd_resource_forceiofailures", "Whether all I/O is failed on purpose.", resourceLabels...)

	connState = gauge("drbd_connection_state", "State of the connection.", with(connectionLabels, "drbd_connection_state")...)
	congested = gauge("drbd_connection_congested", "Whether data waits for the network.", connectionLabels...)
	apFlight  = gauge("drbd_connection_apinflight_bytes", "Queued for the peer and not yet taken by the kernel.", connectionLabels...)
	rsFlight  = gauge("drbd_connection_rsinflight_bytes", "Resync data on its way; not measured, always 0.", connectionLabels...)

	deviceState   = gauge("drbd_device_state", "State of the disk.", with(deviceLabels, "drbd_device_state")...)
	client        = gauge("drbd_device_client", "Whether the volume is diskless on purpose.", deviceLabels...)
	unintentional = gauge("drbd_device_unintentionaldiskless", "Whether the volume lost its disk.", deviceLabels...)
	quorum        = gauge("drbd_device_quorum", "Whether there is a quorum; 1, as none is asked for.", deviceLabels...)
	open          = gauge("drbd_device_open", "Whether clients use the volume.", deviceLabels...)
	size          = gauge("drbd_device_size_bytes", "Size of the volume.", deviceLabels...)
	readBytes     = counter("drbd_device_read_bytes_total", "Read from the backing device.", deviceLabels...)
	writtenBytes  = counter("drbd_device_written_bytes_total", "Written to the backing device.", deviceLabels...)
	alWrites      = counter("drbd_device_alwrites_total", "Blocks written to the activity log.", deviceLabels...)
	bmWrites      = counter("drbd_device_bmwrites_total", "Writes to the bitmap.", deviceLabels...)
	upperPending  = gauge("drbd_device_upperpending", "Application requests in progress.", deviceLabels...)
	lowerPending  = gauge("drbd_device_lowerpending", "Requests to the backing device in progress.", deviceLabels...)
	alSuspended   = gauge("drbd_device_alsuspended", "Whether the activity log is suspended.", deviceLabels...)

	outOfSync = gauge("drbd_peerdevice_outofsync_bytes", "Differs between the copies, as far as is known.", peerLabels...)
	// Counters by meaning. drbd-reactor's names lack the ending of one, so they are
	// untyped: rate() works, and promtool does not complain.
	sent     = define(prometheus.UntypedValue, "drbd_peerdevice_sent_bytes", "Sent to the peer, for all volumes of the resource.", peerLabels...)
	received = define(prometheus.UntypedValue, "drbd_peerdevice_received_bytes", "Received from the peer, for all volumes of the resource.", peerLabels...)
)

// What it lacks.
var (
	replState   = gauge("drbd_peerdevice_replication_state", "State of replication.", with(peerLabels, "drbd_replication_state")...)
	peerDisk    = gauge("drbd_peerdevice_disk_state", "State of the peer's disk.", with(peerLabels, "drbd_peer_disk_state")...)
	rsTotal     = gauge("drbd_peerdevice_resync_total_bytes", "Out of sync when the resync began.", peerLabels...)
	rsDone      = gauge("drbd_peerdevice_resync_done_ratio", "Part of the resync that is done.", peerLabels...)
	rsRate      = gauge("drbd_peerdevice_resync_rate_bytes_per_second", "Rate of the resync over the last seconds.", peerLabels...)
	rsETA       = gauge("drbd_peerdevice_resync_eta_seconds", "Time left of the resync at its present rate.", peerLabels...)
	alExtents   = gauge("drbd_device_al_active_extents", "Extents of the activity log in use.", deviceLabels...)
	ioErrors    = counter("drbd_device_io_errors_total", "Failed requests to the backing device, of those that are measured.", deviceLabels...)
	flushes     = counter("drbd_device_flushes_total", "Flushes of the backing device.", deviceLabels...)
	reconnects  = counter("drbd_connection_reconnects_total", "Connections established after the first.", connectionLabels...)
	splitBrains = counter("drbd_resource_split_brain_total", "Split brains detected.", resourceLabels...)
	handlerRuns = counter("drbd_resource_handler_runs_total", "Handlers that have ended, by exit code, or timeout.", with(resourceLabels, "handler", "exit")...)

	nbdConns    = gauge("nbd_connections", "Clients connected.", nbdLabels...)
	nbdRequests = counter("nbd_requests_total", "Requests served.", with(nbdLabels, "cmd")...)
	nbdErrors   = counter("nbd_errors_total", "Requests answered with an error.", nbdLabels...)
	nbdBytes    = counter("nbd_bytes_total", "Data served.", with(nbdLabels, "dir")...)

	aoeServing   = gauge("aoe_serving", "Whether the target answers.", aoeLabels...)
	aoeRequests  = counter("aoe_requests_total", "Commands completed.", with(aoeLabels, "cmd")...)
	aoeFrames    = counter("aoe_frames_total", "Frames received for the target, and answers sent.", with(aoeLabels, "dir")...)
	aoeErrors    = counter("aoe_errors_total", "Requests answered with an error.", aoeLabels...)
	aoeDuplicate = counter("aoe_duplicate_requests_total", "Requests that repeat one in flight.", aoeLabels...)
	aoeDropped   = counter("aoe_dropped_frames_total", "Requests left without an answer.", with(aoeLabels, "reason")...)
	aoeBytes     = counter("aoe_bytes_total", "Data served.", with(aoeLabels, "dir")...)
	aoeConflicts = counter("aoe_conflicts_total", "Answers of other stations for the target's address.", aoeLabels...)
	aoeHanded    = counter("aoe_handover_frames_total", "Requests passed to the other node in a planned switch, and taken from it.", with(aoeLabels, "dir")...)
	aoeLatency   = histogram("aoe_request_seconds", "Time from the arrival of a request to its answer.", aoeLabels...)

	aoeLinkUp       = gauge("aoe_interface_up", "Whether the target is served on the interface.", linkLabels...)
	aoeLinkLost     = counter("aoe_interface_lost_total", "Times that the interface went away.", linkLabels...)
	aoeLinkOverruns = counter("aoe_interface_overruns_total", "Frames lost because the socket's buffer was full.", linkLabels...)
	aoeLinkUnsent   = counter("aoe_interface_unsent_total", "Frames that the interface refused.", linkLabels...)
	aoeLinkIgnored  = counter("aoe_interface_ignored_frames_total", "Frames that were no request to any target here.", with(linkLabels, "reason")...)
	aoeLinkDeaf     = counter("aoe_interface_deaf_total", "Times that the interface refused to receive for a target's address.", linkLabels...)

	aoeIniRequests   = counter("aoe_initiator_requests_total", "Commands completed.", with(initiatorLabels, "cmd")...)
	aoeIniBytes      = counter("aoe_initiator_bytes_total", "Data served.", with(initiatorLabels, "dir")...)
	aoeIniErrors     = counter("aoe_initiator_errors_total", "Requests answered with an error.", initiatorLabels...)
	aoeIniDuplicates = counter("aoe_initiator_duplicate_requests_total", "Requests that repeat one in flight.", initiatorLabels...)
	aoeIniDropped    = counter("aoe_initiator_dropped_frames_total", "Requests left without an answer.", with(initiatorLabels, "reason")...)
	aoeIniLatency    = histogram("aoe_initiator_request_seconds", "Time from the arrival of a request to its answer.", initiatorLabels...)
)

// The words of the state sets.
var (
	roleWords = []string{"Unknown", "Primary", "Secondary"}
	connWords = []string{"StandAlone", "Disconnecting", "Unconnected", "Timeout", "BrokenPipe", "NetworkFailure",
		"ProtocolError", "TearDown", "Connecting", "Connected"}
	replWords = []string{"Off", "Established", "StartingSyncS", "StartingSyncT", "WFBitMapS", "WFBitMapT", "WFSyncUUID",
		"SyncSource", "SyncTarget", "VerifyS", "VerifyT", "PausedSyncS", "PausedSyncT", "Ahead", "Behind"}
	diskWords = []string{"Diskless", "Attaching", "Detaching", "Failed", "Negotiating", "Inconsistent", "Outdated",
		"DUnknown", "Consistent", "UpToDate"}
)

func (e emitter) resource(r *control.Resource) {
	name := r.Name
	e.states(role, roleWords, r.Role, name)
	var anySuspended bool
	for i := range r.Volumes {
		anySuspended = anySuspended || r.Volumes[i].Suspended
	}
	e.flag(suspended, anySuspended, name)
	e.flag(mayPromote, r.MayPromote(), name)
	e.put(promotionScore, float64(r.PromotionScore()), name)
	e.flag(forceFailures, false, name)
	e.put(splitBrains, float64(r.SplitBrain), name)
	for _, h := range r.Handlers {
		e.put(handlerRuns, float64(h.Count), name, h.Name, h.Exit)
	}

	conn := []string{name, r.Peer, strconv.Itoa(r.PeerID)}
	word, _ := control.SplitState(r.Connection)
	e.states(connState, connWords, word, conn...)
	e.flag(congested, false, conn...)
	e.put(apFlight, float64(r.Unsent), conn...)
	e.put(rsFlight, 0, conn...)
	e.put(reconnects, float64(r.Reconnects), conn...)
	for i := range r.Volumes {
		e.volume(r, &r.Volumes[i], conn)
	}
	for i := range r.NBD {
		e.nbd(name, &r.NBD[i])
	}
	for i := range r.AoE {
		e.aoe(name, &r.AoE[i])
	}
}

func (e emitter) volume(r *control.Resource, v *control.Volume, conn []string) {
	dev := []string{r.Name, number(v.Number), strconv.FormatUint(uint64(v.Minor), 10)}
	e.states(deviceState, diskWords, v.Disk, dev...)
	e.flag(client, false, dev...)
	e.flag(unintentional, r.Up && v.Disk == "Diskless", dev...)
	e.flag(quorum, true, dev...)
	e.flag(open, r.Open(v.Number), dev...)
	e.put(size, float64(v.Size), dev...)
	c := &v.Counters
	e.put(readBytes, float64(c.Read), dev...)
	e.put(writtenBytes, float64(c.Written), dev...)
	e.put(flushes, float64(c.Flushes), dev...)
	e.put(alWrites, float64(c.ALWrites), dev...)
	e.put(bmWrites, float64(c.BMWrites), dev...)
	e.put(ioErrors, float64(c.Errors), dev...)
	e.put(upperPending, float64(v.Application), dev...)
	e.put(lowerPending, float64(v.LocalPending), dev...)
	e.put(alExtents, float64(v.ALActive), dev...)
	e.flag(alSuspended, false, dev...)

	peer := with(conn, number(v.Number))
	_, repl := control.SplitState(v.State)
	e.put(outOfSync, float64(v.OutOfSync), peer...)
	e.put(sent, float64(c.Sent), peer...)
	e.put(received, float64(c.Received), peer...)
	e.states(replState, replWords, repl, peer...)
	e.states(peerDisk, diskWords, v.PeerDisk, peer...)
	e.resync(v.Resync, peer)
}

func (e emitter) resync(s *control.Resync, peer []string) {
	if s == nil {
		e.put(rsTotal, 0, peer...)
		e.put(rsDone, 1, peer...)
		e.put(rsRate, 0, peer...)
		return
	}
	e.put(rsTotal, float64(s.Total), peer...)
	e.put(rsDone, float64(s.DonePermille())/1000, peer...)
	e.put(rsRate, s.Rate, peer...)
	if eta := s.ETASeconds(); eta >= 0 {
		e.put(rsETA, eta, peer...)
	}
}

func (e emitter) nbd(name string, n *control.NBD) {
	l := []string{name, number(n.Volume), n.Name}
	e.put(nbdConns, float64(n.Active), l...)
	e.put(nbdErrors, float64(n.Errors), l...)
	e.put(nbdRequests, float64(n.Reads), with(l, "read")...)
	e.put(nbdRequests, float64(n.Writes), with(l, "write")...)
	e.put(nbdRequests, float64(n.Flushes), with(l, "flush")...)
	e.put(nbdRequests, float64(n.Trims), with(l, "trim")...)
	e.put(nbdRequests, float64(n.Zeroes), with(l, "write_zeroes")...)
	e.put(nbdBytes, float64(n.ReadBytes), with(l, "read")...)
	e.put(nbdBytes, float64(n.WriteBytes), with(l, "write")...)
}

func (e emitter) aoe(name string, a *control.AoE) {
	l := []string{name, number(a.Volume), number(a.Shelf), strconv.Itoa(int(a.Slot))}
	e.flag(aoeServing, a.Serving, l...)
	e.put(aoeRequests, float64(a.Reads), with(l, "read")...)
	e.put(aoeRequests, float64(a.Writes), with(l, "write")...)
	e.put(aoeRequests, float64(a.Flushes), with(l, "flush")...)
	e.put(aoeFrames, float64(a.Requests), with(l, "in")...)
	e.put(aoeFrames, float64(a.Responses), with(l, "out")...)
	e.put(aoeErrors, float64(a.Errors), l...)
	e.put(aoeDuplicate, float64(a.Duplicates), l...)
	e.put(aoeBytes, float64(a.ReadBytes), with(l, "read")...)
	e.put(aoeBytes, float64(a.WriteBytes), with(l, "write")...)
	e.put(aoeConflicts, float64(a.Conflicts), l...)
	e.put(aoeHanded, float64(a.HandedOver), with(l, "out")...)
	e.put(aoeHanded, float64(a.TakenOver), with(l, "in")...)
	e.times(aoeLatency, &a.Latency, l...)
	for i := range a.Links {
		k := &a.Links[i]
		kl := with(l, k.Name)
		e.flag(aoeLinkUp, k.Up, kl...)
		e.put(aoeLinkLost, float64(k.Lost), kl...)
		e.put(aoeLinkOverruns, float64(k.Overruns), kl...)
		e.put(aoeLinkUnsent, float64(k.Unsent), kl...)
		e.put(aoeLinkIgnored, float64(k.Malformed), with(kl, "malformed")...)
		e.put(aoeLinkIgnored, float64(k.Foreign), with(kl, "foreign")...)
		e.put(aoeLinkDeaf, float64(k.Deaf), kl...)
	}
	for i := range a.Initiators {
		e.initiator(&a.Initiators[i], l)
	}
	for _, r := range slices.Sorted(maps.Keys(a.Dropped)) {
		e.put(aoeDropped, float64(a.Dropped[r]), with(l, r)...)
	}
}

func (e emitter) initiator(i *control.AoEInitiator, target []string) {
	l := with(target, i.Address)
	e.put(aoeIniRequests, float64(i.Reads), with(l, "read")...)
	e.put(aoeIniRequests, float64(i.Writes), with(l, "write")...)
	e.put(aoeIniBytes, float64(i.ReadBytes), with(l, "read")...)
	e.put(aoeIniBytes, float64(i.WriteBytes), with(l, "write")...)
	e.put(aoeIniErrors, float64(i.Errors), l...)
	e.put(aoeIniDuplicates, float64(i.Duplicates), l...)
	for _, r := range slices.Sorted(maps.Keys(i.Dropped)) {
		e.put(aoeIniDropped, float64(i.Dropped[r]), with(l, r)...)
	}
	e.times(aoeIniLatency, &i.Latency, l...)
}
