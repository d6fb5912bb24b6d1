package sim

import (
	"github.com/replblk/replblk/replication"
	"github.com/replblk/replblk/replication/state"
)

// Figures are what runs count. What must not be (a lost write, a stale read, copies that differ
// and a false split brain) is no figure: it ends the run with an error.
type Figures struct {
	Runs int
	// Faults by kind: those that hit something which was running. An error of a disk counts when
	// an operation has failed by it, a cut when there was a connection.
	Faults map[string]int
	// FullSyncs counts the verdicts that everything is to be copied between two disks that both had
	// been in use, although no operator has asked for it: a bitmap could have avoided it. Before
	// version 96 it could not always: a lost sync UUID is not understood.
	FullSyncs int
	// Longest is the longest time, in virtual time, that a node was in one transient state.
	Longest replication.Time
}

// Total is the number of faults.
func (f *Figures) Total() int {
	n := 0
	for _, k := range f.Faults {
		n += k
	}
	return n
}

// Add adds the figures of another run.
func (f *Figures) Add(g Figures) {
	if f.Faults == nil {
		f.Faults = map[string]int{}
	}
	for kind, n := range g.Faults {
		f.Faults[kind] += n
	}
	f.Runs++
	f.FullSyncs += g.FullSyncs
	f.Longest = max(f.Longest, g.Longest)
}

// hit counts a fault.
func (w *world) hit(kind string) { w.figures.Faults[kind]++ }

// historyRules are the rules of the comparison that copy everything because the history does not
// reach far enough; the others that do are about disks that were never in use.
func historyRules(rule uint64) bool { return rule == 60 || rule == 80 }

// patience is how long a node may be in one transient state.
const patience = 30 * replication.Second

// dwell measures how long a node has been in a transient state when it leaves it.
func (w *world) dwell(n *node, old, now state.State) {
	if old.Conn == now.Conn {
		return
	}
	if transient(old.Conn) {
		took := w.now - n.since
		w.figures.Longest = max(w.figures.Longest, took)
		if took > patience {
			w.fail("node %s was %v for %d s", nodeName(n.id), old.Conn, took/replication.Second)
		}
	}
	n.since = w.now
}

// transient says whether a state is one that a node leaves by itself. Nobody ends a pause but an
// operator, and Ahead lasts as long as the congestion.
func transient(c state.Conn) bool {
	switch c {
	case state.StandAlone, state.WFConnection, state.Connected, state.PausedSyncS, state.PausedSyncT, state.Ahead, state.Behind:
		return false
	default:
		return true
	}
}
