package main

import (
	"strings"
	"testing"
	"time"

	"github.com/replblk/replblk/internal/control"
)

// TestExplain has every situation explained: what must be said, and what must not.
func TestExplain(t *testing.T) {
	now := time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC)
	// base is a healthy pair with this node Primary.
	base := func(change func(*control.Resource, *control.Volume)) *control.Resource {
		r := &control.Resource{
			Name: "r0", Peer: "beta", Remote: "ipv4:10.0.0.2:7789", Up: true, Connection: "Connected", Protocol: "C", Role: "Primary",
			PeerRole: "Secondary", Fencing: "dont-care", AfterSB: "disconnect, disconnect, disconnect",
			Volumes: []control.Volume{{State: "Connected", Disk: "UpToDate", PeerDisk: "UpToDate"}},
		}
		r.History.Started = now.Add(-time.Hour)
		change(r, &r.Volumes[0])
		return r
	}
	parted := func(r *control.Resource, v *control.Volume) {
		r.Connection, r.PeerRole, v.State, v.PeerDisk = "WFConnection", "Unknown", "WFConnection", "DUnknown"
		r.History.Parted = now.Add(-90 * time.Second)
		v.UUIDs, v.OutOfSync = [4]uint64{8, 6, 0, 0}, 3*bitmapBlock
	}
	for _, tc := range []struct {
		name string
		r    *control.Resource
		want []string
		not  string
	}{
		{"healthy", base(func(*control.Resource, *control.Volume) {}), []string{"every write goes to both", "If beta goes now, clients notice nothing"}, "SPLIT"},
		{"fencing", base(func(r *control.Resource, _ *control.Volume) { r.Fencing = "resource-and-stonith" }), []string{"clients wait until the fence-peer handler"}, "notice nothing"},
		{"stands by", base(func(r *control.Resource, _ *control.Volume) { r.Role, r.PeerRole = "Secondary", "Primary" }), []string{"`replblk primary r0` takes over with everything"}, "may be missing"},
		{"protocol A", base(func(r *control.Resource, _ *control.Volume) {
			r.Role, r.PeerRole, r.Protocol = "Secondary", "Primary", "A"
		}), []string{"may be missing here (protocol A)"}, "with everything"},
		{"target", base(func(r *control.Resource, v *control.Volume) {
			r.Role, r.PeerRole, v.State, v.Disk = "Secondary", "Primary", "SyncTarget", "Inconsistent"
			v.Resync = &control.Resync{Total: 100 << 20, Left: 25 << 20}
		}), []string{"copied from beta to here: 6400 blocks of 4 KiB (25 MiB) of 25600 blocks", "cannot take over"}, "takes over with"},
		{"paused", base(func(_ *control.Resource, v *control.Volume) {
			v.State, v.PausedUser, v.Resync = "PausedSyncS", true, &control.Resync{Total: 4096, Left: 4096}
		}), []string{"from here to beta: 1 block of 4 KiB", "paused (user)"}, ""},
		{"alone", base(parted), []string{"since ", "(1m30s ago)", "the changes are copied there: 3 blocks of 4 KiB. If it was, that is a split brain"}, "notice nothing"},
		{"told to stop", base(func(r *control.Resource, v *control.Volume) {
			parted(r, v)
			r.Connection, v.State = "StandAlone", "StandAlone"
		}), []string{"nobody has told it to, or somebody told it to stop", "`replblk connect r0`"}, "SPLIT"},
		{"refused", base(func(r *control.Resource, v *control.Volume) {
			parted(r, v)
			r.Connection, r.History.Refusal, r.History.Refused = "StandAlone", "peer authentication failed", now
		}), []string{"because: peer authentication failed"}, "somebody told it to stop"},
		{"split brain", base(func(r *control.Resource, v *control.Volume) {
			parted(r, v)
			r.Connection, r.History.SplitBrain, r.History.Refused, v.SplitOwn, v.SplitPeer = "StandAlone", true, now, 3*bitmapBlock, 5*bitmapBlock
		}), []string{"SPLIT BRAIN", "Here 3 blocks of 4 KiB have changed since", "on beta 5 blocks of 4 KiB had", "--discard-my-data", "then lost: 5 blocks"}, "copied there"},
		{"no disk", base(func(_ *control.Resource, v *control.Volume) { v.Disk = "Diskless" }), []string{"everything is read from and written to beta", "no complete copy left"}, "both nodes have the same"},
		{"frozen", base(func(r *control.Resource, v *control.Volume) {
			parted(r, v)
			r.Fencing, v.SuspendedFencing, v.Suspended = "resource-and-stonith", true, true
		}), []string{"Clients wait until it is certain that beta does not write"}, ""},
		{"outdated", base(func(r *control.Resource, v *control.Volume) { parted(r, v); r.Role, v.Disk = "Secondary", "Outdated" }), []string{"known to be older than beta's", "the current data is copied from there"}, "split brain"},
		{"down", base(func(r *control.Resource, _ *control.Volume) { r.Up = false }), []string{"`replblk up r0` starts it"}, "connected"},
	} {
		text := strings.Join(explain(tc.r, now), "\n")
		for _, want := range tc.want {
			if !strings.Contains(text, want) {
				t.Errorf("%s: no %q in\n%s", tc.name, want, text)
			}
		}
		if tc.not != "" && strings.Contains(text, tc.not) {
			t.Errorf("%s: %q in\n%s", tc.name, tc.not, text)
		}
	}
}
