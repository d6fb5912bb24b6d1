package node

import (
	"testing"
	"testing/synctest"

	"github.com/replblk/replblk/node/transport"
	"github.com/replblk/replblk/replication"
	"github.com/replblk/replblk/replication/state"
)

// TestOrderOfResyncs has three pairs, each to be resynced after the one before, and cuts all
// of them off. They are resynced one at a time, from the first to the last.
func TestOrderOfResyncs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &transport.Memory{}
		order := NewOrder()
		var pairs [3][2]*host
		var log []int
		for i := range pairs {
			for k := range 2 {
				name := func(side int) string { return string(rune('a'+i)) + string(rune('0'+side)) }
				cfg := pairConfig(name(k), name(1-k))
				v := &cfg.Core.Volumes[0]
				v.PlanAheadTenths, v.ResyncRateKiB = 0, 4096
				pairs[i][k] = newHost(t, cfg, n, newDisk(t), name(k))
			}
			a := pairs[i][0]
			a.do(t, replication.Admin{Kind: replication.AdminPrimary, Force: true})
			t.Cleanup(order.Join(a.Resource, map[uint16]uint32{0: uint32(i)}))
			order.Follow(uint32(i), int32(i)-1)
			t.Cleanup(a.Watch(func(c Change) {
				if c.Kind == ChangeState && c.Old.Conn == state.SyncSource && c.New.Conn == state.Connected {
					log = append(log, i)
				}
			}))
		}
		for i := len(pairs) - 1; i >= 0; i-- { // the last is ready first
			pairs[i][0].do(t, replication.Admin{Kind: replication.AdminConnect})
			pairs[i][1].do(t, replication.Admin{Kind: replication.AdminConnect})
		}
		pairs[0][0].wait(t, "first resync", func(s state.State) bool { return s.Conn == state.SyncSource })
		synctest.Wait()
		for _, p := range pairs[1:] {
			p[0].wait(t, "a later one pauses", func(s state.State) bool { return s.Conn == state.PausedSyncS && s.AftrIsp })
			p[1].wait(t, "the peer pauses", func(s state.State) bool { return s.Conn == state.PausedSyncT && s.PeerIsp })
		}
		for _, p := range pairs {
			p[0].wait(t, "resync", inSync)
			p[1].wait(t, "resync", inSync)
		}
		if len(log) != 3 || log[0] != 0 || log[1] != 1 || log[2] != 2 {
			t.Errorf("resynced in the order %v", log)
		}
		for _, p := range pairs {
			closeAll(t, p[:]...)
		}
	})
}

// TestOrderWaits is the rule by itself.
func TestOrderWaits(t *testing.T) {
	at := func(conn state.Conn, disk state.Disk) state.State { return state.State{Conn: conn, Disk: disk} }
	idle, syncing := at(state.Connected, state.UpToDate), at(state.SyncSource, state.UpToDate)
	paused := idle
	paused.UserIsp = true
	for _, tt := range []struct {
		name   string
		first  *state.State
		second state.State
		waits  bool // the third
	}{
		{"nobody is busy", &idle, idle, false},
		{"the second is being resynced", &idle, syncing, true},
		{"the second is verified", &idle, at(state.VerifyS, state.UpToDate), true},
		{"the second is paused", &idle, paused, true},
		{"the second is ahead", &idle, at(state.Ahead, state.UpToDate), false},
		{"the first is being resynced", &syncing, idle, true},
		{"the second has no disk, and the first is busy", &syncing, at(state.Connected, state.Diskless), false},
		{"there is no first", nil, idle, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o := NewOrder()
			o.after = map[uint32]uint32{3: 2, 2: 1}
			o.members = map[uint32]*ordered{2: {state: tt.second}, 3: {state: idle}}
			if tt.first != nil {
				o.members[1] = &ordered{state: *tt.first}
			}
			if got := o.waits(3); got != tt.waits {
				t.Errorf("waits: %v, want %v", got, tt.waits)
			}
			o.after[1] = 3
			if tt.first != nil && *tt.first == idle && tt.second == idle && o.waits(3) {
				t.Error("a cycle of idle volumes waits")
			}
		})
	}
}
