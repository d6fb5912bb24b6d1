// Package metrics makes Prometheus metrics of the daemon's snapshots.
//
// The names and labels of drbd-reactor are kept (drbd_resource_role,
// drbd_peerdevice_outofsync_bytes and so on, odd ones included), so that
// dashboards and alerts made for it work; what it lacks, such as the rate of
// a resync, has names of the same kind. States are always exported as one series per possible
// value, of which one is 1.
//
// Metrics are computed when they are asked for. Only durations are collected along the
// way, by DiskTimes.
package metrics
