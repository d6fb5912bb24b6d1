package main

import (
	"fmt"
	"strings"

	"github.com/replblk/replblk/internal/control"
)

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// joined lists the words whose flag is set, "no" if none is.
func joined(words ...string) string {
	var set []string
	for _, w := range words {
		if w != "" {
			set = append(set, w)
		}
	}
	if len(set) == 0 {
		return "no"
	}
	return strings.Join(set, ",")
}

func when(set bool, word string) string {
	if set {
		return word
	}
	return ""
}

// suspendedWord says why I/O is suspended.
func suspendedWord(user, noData, fencing bool) string {
	return joined(when(user, "user"), when(noData, "no-data"), when(fencing, "fencing"))
}

// pausedWord says why a resync is paused.
func pausedWord(user, peer, dependency bool) string {
	return joined(when(user, "user"), when(peer, "peer"), when(dependency, "dependency"))
}

// deviceStatistics are the counters of a device line; sizes are KiB.
func deviceStatistics(v *control.Volume) string {
	c := &v.Counters
	return fmt.Sprintf(" size:%d read:%d written:%d al-writes:%d bm-writes:%d upper-pending:%d lower-pending:%d al-suspended:no blocked:%s",
		v.Size/1024, c.Read/1024, c.Written/1024, c.ALWrites, c.BMWrites, v.Application, v.LocalPending, blockedWord(v))
}

func blockedWord(v *control.Volume) string {
	if v.Frozen {
		return "upper"
	}
	return "no"
}

// peerStatistics are the counters of a peer device line; sizes are KiB.
func peerStatistics(v *control.Volume) string {
	c := &v.Counters
	return fmt.Sprintf(" received:%d sent:%d out-of-sync:%d pending:%d unacked:0", c.Received/1024, c.Sent/1024, v.OutOfSync/1024, v.PeerPending)
}
