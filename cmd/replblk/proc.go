package main

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/replblk/replblk/internal/control"
)

// procHead is what /proc/drbd starts with (spec chapter 12). Monitoring looks at the
// version to choose its parser.
const procHead = "version: 8.4.11 (api:1/proto:86-101)\nbuilt-in\n"

// writeProc prints what the kernel shows in /proc/drbd.
func writeProc(w io.Writer, list []control.Resource) {
	type entry struct {
		r *control.Resource
		v *control.Volume
	}
	var minors []entry
	for i := range list {
		for j := range list[i].Volumes {
			minors = append(minors, entry{&list[i], &list[i].Volumes[j]})
		}
	}
	slices.SortFunc(minors, func(a, b entry) int { return int(a.v.Minor) - int(b.v.Minor) })
	_, _ = io.WriteString(w, procHead)
	previous := -1
	for _, e := range minors {
		if int(e.v.Minor) != previous+1 {
			_, _ = fmt.Fprintln(w)
		}
		previous = int(e.v.Minor)
		_, _ = io.WriteString(w, procVolume(e.r, e.v))
	}
}

func procVolume(r *control.Resource, v *control.Volume) string {
	if !configured(r, v) {
		return fmt.Sprintf("%2d: cs:Unconfigured\n", v.Minor)
	}
	protocol := r.Protocol
	if v.State == "StandAlone" {
		protocol = " "
	}
	c := &v.Counters
	s := fmt.Sprintf("%2d: cs:%s ro:%s/%s ds:%s/%s %s %s\n", v.Minor, v.State, v.Role, v.PeerRole, v.Disk, v.PeerDisk, protocol, procFlags(v))
	s += fmt.Sprintf("    ns:%d nr:%d dw:%d dr:%d al:%d bm:0 lo:%d pe:%d ua:0 ap:%d ep:1 wo:f oos:%d\n",
		c.Sent/1024, c.Received/1024, c.Written/1024, c.Read/1024, c.ALWrites, v.LocalPending, v.PeerPending, v.Application, v.OutOfSync/1024)
	if v.Resync != nil && (v.State == "SyncSource" || v.State == "SyncTarget" || v.Resync.Verify) {
		s += procProgress(v)
	}
	return s
}

// procFlags are the six letters: suspended, paused by dependency, peer and user,
// congested, activity log suspended.
func procFlags(v *control.Volume) string {
	flag := func(b bool, yes, no byte) byte {
		if b {
			return yes
		}
		return no
	}
	return string([]byte{flag(v.Suspended, 's', 'r'), flag(v.PausedDependency, 'a', '-'), flag(v.PausedPeer, 'p', '-'), flag(v.PausedUser, 'u', '-'), '-', '-'})
}

// procProgress are the two lines about a resync or verify.
func procProgress(v *control.Volume) string {
	s := v.Resync
	permille := s.DonePermille()
	x := permille / 50
	bar := strings.Repeat("=", max(0, x-1)) + ">" + strings.Repeat(".", 20-x)
	word := "sync'ed"
	if s.Verify {
		word = "verified"
	}
	left, total, unit := s.Left>>10, s.Total>>10, "K"
	if total > 4<<20 {
		left, total, unit = left>>10, total>>10, "M"
	}
	eta := int64(max(0, s.ETASeconds()))
	line := fmt.Sprintf("\t[%s] %s:%3d.%d%% (%d/%d)%s\n", bar, word, permille/10, permille%10, left, total, unit)
	line += fmt.Sprintf("\tfinish: %d:%02d:%02d speed: %s (%s)", eta/3600, eta/60%60, eta%60, grouped(int64(s.Rate)/1024), grouped(int64(s.Average)/1024))
	line += " K/sec"
	if s.Stalled {
		line += " (stalled)"
	}
	return line + "\n"
}

// grouped writes a number with a comma between groups of three digits.
func grouped(n int64) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
