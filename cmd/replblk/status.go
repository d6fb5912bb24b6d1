package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/replblk/replblk/internal/control"
)

// writeStatus prints resources as drbdsetup status does, in the form of DRBD 9. Without
// verbose it leaves out what is as it should be.
func writeStatus(w io.Writer, list []control.Resource, verbose bool) {
	shown := 0
	for i := range list {
		if list[i].Up {
			writeResource(w, &list[i], verbose)
			_, _ = fmt.Fprintln(w)
			shown++
		}
	}
	if shown == 0 {
		_, _ = fmt.Fprintln(w, "# No currently configured DRBD found.")
	}
}

func writeResource(w io.Writer, r *control.Resource, verbose bool) {
	out := func(format string, args ...any) { _, _ = fmt.Fprintf(w, format, args...) }
	v0 := &r.Volumes[0]
	suspended := suspendedWord(v0.SuspendedUser, v0.SuspendedNoData, v0.SuspendedFencing)
	switch {
	case verbose:
		out("%s node-id:%d role:%s suspended:%s force-io-failures:no\n    write-ordering:flush\n", r.Name, r.NodeID, r.Role, suspended)
	case suspended != "no":
		out("%s role:%s suspended:%s\n", r.Name, r.Role, suspended)
	default:
		out("%s role:%s\n", r.Name, r.Role)
	}
	for i := range r.Volumes {
		writeDevice(out, r, &r.Volumes[i], verbose)
	}
	if r.Remote == "" {
		return
	}
	conn, _ := control.SplitState(r.Connection)
	switch {
	case verbose:
		out("  %s node-id:%d connection:%s role:%s tls:no congested:no ap-in-flight:%d rs-in-flight:0\n", r.Peer, r.PeerID, conn, r.PeerRole, r.InFlight)
	case conn == "Connected":
		out("  %s role:%s\n", r.Peer, r.PeerRole)
	default:
		out("  %s connection:%s\n", r.Peer, conn)
		return
	}
	for i := range r.Volumes {
		writePeerDevice(out, r, &r.Volumes[i], verbose)
	}
}

type printf func(format string, args ...any)

func writeDevice(out printf, r *control.Resource, v *control.Volume, verbose bool) {
	if verbose {
		out("  volume:%d minor:%d disk:%s backing_dev:%s quorum:yes open:%s\n     %s\n",
			v.Number, v.Minor, v.Disk, v.Backing, yesNo(r.Open(v.Number)), deviceStatistics(v))
		return
	}
	out("  %sdisk:%s\n", volumeWord(r, v), v.Disk)
}

func writePeerDevice(out printf, r *control.Resource, v *control.Volume, verbose bool) {
	_, repl := control.SplitState(v.State)
	paused := pausedWord(v.PausedUser, v.PausedPeer, v.PausedDependency)
	if verbose {
		out("    volume:%d replication:%s peer-disk:%s resync-suspended:%s%s\n       %s\n", v.Number, repl, v.PeerDisk, paused, doneWord(v), peerStatistics(v))
		return
	}
	line := "    " + volumeWord(r, v)
	if repl != "Established" {
		line += "replication:" + repl + " "
	}
	line += "peer-disk:" + v.PeerDisk
	if paused != "no" {
		line += " resync-suspended:" + paused
	}
	out("%s%s\n", line, doneWord(v))
}

// volumeWord names a volume where there is more than the usual one.
func volumeWord(r *control.Resource, v *control.Volume) string {
	if len(r.Volumes) == 1 && v.Number == 0 {
		return ""
	}
	return fmt.Sprintf("volume:%d ", v.Number)
}

// doneWord says how far a resync is, and how long it will take.
func doneWord(v *control.Volume) string {
	s := v.Resync
	if s == nil {
		return ""
	}
	word := fmt.Sprintf(" done:%.2f", percentDone(s))
	if eta := s.ETASeconds(); eta >= 0 {
		word += fmt.Sprintf(" eta:%s", (time.Duration(eta * float64(time.Second))).Round(time.Second))
	}
	return word
}

func percentDone(s *control.Resync) float64 {
	if s.Total == 0 {
		return 100
	}
	return 100 * float64(s.Total-min(s.Left, s.Total)) / float64(s.Total)
}

// writeRoles, writeConns and writeDisks are role, cstate and dstate in their DRBD 8.4
// form: both sides.
func writeRoles(w io.Writer, r *control.Resource) {
	if !r.Up {
		_, _ = fmt.Fprintln(w, "Unconfigured")
		return
	}
	_, _ = fmt.Fprintf(w, "%s/%s\n", r.Role, r.PeerRole)
}

func writeConns(w io.Writer, r *control.Resource) {
	for i := range r.Volumes {
		_, _ = fmt.Fprintln(w, orUnconfigured(r, &r.Volumes[i], r.Volumes[i].State))
	}
}

func writeDisks(w io.Writer, r *control.Resource) {
	for i := range r.Volumes {
		v := &r.Volumes[i]
		_, _ = fmt.Fprintln(w, orUnconfigured(r, v, v.Disk+"/"+v.PeerDisk))
	}
}

// orUnconfigured is word, unless the volume has neither disk nor connection.
func orUnconfigured(r *control.Resource, v *control.Volume, word string) string {
	if !configured(r, v) {
		return "Unconfigured"
	}
	return word
}

func configured(r *control.Resource, v *control.Volume) bool {
	return r.Up && (v.State != "StandAlone" || v.Disk != "Diskless")
}

// writeShStatus prints the variables that the OCF agent evaluates (8.4's sh-status).
func writeShStatus(w io.Writer, r *control.Resource) {
	out := func(format string, args ...any) { _, _ = fmt.Fprintf(w, format, args...) }
	flag := func(b bool) string { return when(b, "1") }
	for i := range r.Volumes {
		v := &r.Volumes[i]
		out("_minor=%d\n_res_name=%s\n_volume=%d\n", v.Minor, r.Name, v.Number)
		if !configured(r, v) {
			out("_known=Unconfigured\n\n_cstate=Unconfigured\n_role=Secondary\n_peer=Unknown\n_disk=Diskless\n_pdsk=DUnknown\n\n")
		} else {
			out("_known=Configured\n\n_cstate=%s\n_role=%s\n_peer=%s\n_disk=%s\n_pdsk=%s\n\n", v.State, v.Role, v.PeerRole, v.Disk, v.PeerDisk)
		}
		percent := ""
		if v.Resync != nil {
			percent = fmt.Sprintf("%.1f", percentDone(v.Resync))
		}
		out("_flags_susp=%s\n_flags_aftr_isp=%s\n_flags_peer_isp=%s\n_flags_user_isp=%s\n_resynced_percent=%s\n\n_sh_status_process\n\n",
			flag(v.Suspended), flag(v.PausedDependency), flag(v.PausedPeer), flag(v.PausedUser), percent)
	}
}

// onlineGI is the line of get-gi for an attached volume: the flags are those that its
// state would leave on disk.
func onlineGI(r *control.Resource, v *control.Volume) string {
	bit := func(b bool) string {
		if b {
			return "1"
		}
		return "0"
	}
	conn, _ := control.SplitState(v.State)
	good := v.Disk == "UpToDate" || v.Disk == "Consistent" || v.Disk == "Outdated"
	fields := make([]string, 0, 11)
	for _, u := range v.UUIDs {
		fields = append(fields, fmt.Sprintf("%016X", u))
	}
	fields = append(fields, bit(good), bit(good && v.Disk != "Outdated"), bit(r.Role == "Primary"), bit(conn == "Connected"),
		"0", bit(v.PeerDisk == "Outdated" || v.PeerDisk == "Inconsistent"), "0")
	return strings.Join(fields, ":")
}
