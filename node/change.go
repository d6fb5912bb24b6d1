package node

import (
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/replblk/replblk/replication"
	"github.com/replblk/replblk/replication/state"
)

// closedByCore is the cause of EvConnDown when the core itself ended the connection.
const closedByCore = state.NetworkFailure

var errNoDisk = errors.New("volume has no disk")

// ChangeKind says what a Change is about. The zero value is invalid.
type ChangeKind uint8

// Kinds of changes.
const (
	ChangeState    ChangeKind = iota + 1 // Old, New
	ChangeSize                           // Sectors
	ChangeNote                           // Note; New.Conn of NoteDryRun
	ChangeDetached                       // the backing device has been closed
	ChangeMoved                          // the metadata has moved to the new end of its device
	ChangeHandler                        // a handler ended: Handler, Exit, TimedOut
)

// Change is news about a volume.
type Change struct {
	Kind     ChangeKind
	Volume   uint16
	Old, New state.State
	Sectors  uint64
	Note     replication.Note
	Rule     int // of NoteVerdict: the rule that decided, and its verdict
	Verdict  int
	Full     bool // of NoteDryRun: a full resync
	Handler  replication.Handler
	Exit     int
	TimedOut bool // it was killed for taking too long
	// Of NoteSplitBrain: blocks of 4 KiB changed here and at the peer since they parted.
	OwnBlocks, PeerBlocks uint64
}

// watchers are those who want to hear of changes.
type watchers struct {
	mu   sync.Mutex
	next int       // guarded by mu
	fns  []watcher // guarded by mu; replaced, never changed in place
}

type watcher struct {
	id int
	fn func(Change)
}

// Watch calls fn for every change from now on, in order, until cancel is called. fn
// runs in the middle of everything: it must not wait, nor call the resource. Ends of
// handlers and devices come from goroutines of their own.
func (r *Resource) Watch(fn func(Change)) (cancel func()) {
	w := &r.watchers
	w.mu.Lock()
	defer w.mu.Unlock()
	w.next++
	id := w.next
	w.fns = append(append([]watcher(nil), w.fns...), watcher{id, fn})
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		var rest []watcher
		for _, x := range w.fns {
			if x.id != id {
				rest = append(rest, x)
			}
		}
		w.fns = rest
	}
}

func (r *Resource) publish(c Change) {
	r.watchers.mu.Lock()
	fns := r.watchers.fns
	r.watchers.mu.Unlock()
	for _, w := range fns {
		w.fn(c)
	}
}

// stateChanged follows and logs a state change.
func (r *Resource) stateChanged(e *replication.Effect) {
	if v := r.volumes[e.Vol]; v != nil {
		v.changed(e.New)
	}
	if e.New.Conn == state.Disconnecting || e.New.Conn == state.TearDown {
		r.conn.parting.Store(true)
	}
	r.logState(e)
	r.publish(Change{Kind: ChangeState, Volume: e.Vol, Old: e.Old, New: e.New})
}

// logState writes one line with what changed, as Old→New in DRBD's words.
func (r *Resource) logState(e *replication.Effect) {
	attrs := make([]slog.Attr, 0, 12)
	attrs = append(attrs, slog.Int("volume", int(e.Vol)))
	add := func(key, old, now string) {
		if old != now {
			attrs = append(attrs, slog.String(key, old+"→"+now))
		}
	}
	flag := func(key string, old, now bool) {
		if old != now {
			attrs = append(attrs, slog.Bool(key, now))
		}
	}
	o, n := &e.Old, &e.New
	add("role", o.Role.String(), n.Role.String())
	add("peer-role", o.Peer.String(), n.Peer.String())
	add("connection", o.Conn.String(), n.Conn.String())
	add("disk", o.Disk.String(), n.Disk.String())
	add("peer-disk", o.PeerDisk.String(), n.PeerDisk.String())
	flag("suspended", o.Susp, n.Susp)
	flag("suspended-no-data", o.SuspNod, n.SuspNod)
	flag("suspended-fencing", o.SuspFen, n.SuspFen)
	flag("resync-paused-dependency", o.AftrIsp, n.AftrIsp)
	flag("resync-paused-peer", o.PeerIsp, n.PeerIsp)
	flag("resync-paused-user", o.UserIsp, n.UserIsp)
	if len(attrs) == 1 {
		return
	}
	level := slog.LevelInfo
	if n.Role == state.Primary && n.Disk < state.UpToDate && n.PeerDisk < state.UpToDate {
		level = slog.LevelError
	}
	r.log.LogAttrs(r.ctx, level, "state change", attrs...)
}

// note logs a remark of the core.
func (r *Resource) note(e *replication.Effect) {
	level := slog.LevelInfo
	switch e.Note {
	case replication.NoteSplitBrain, replication.NoteUnrelated, replication.NoteDiskError, replication.NoteDiskTimeout, replication.NoteMetaError,
		replication.NoteMoveFailed, replication.NoteCorrupt, replication.NoteFlags, replication.NoteStale:
		level = slog.LevelError
	case replication.NoteResyncStart, replication.NoteResyncDone, replication.NoteVerdict, replication.NoteDryRun,
		replication.NoteVerifyStart, replication.NoteResized:
	case replication.NoteVerifyDone:
		if e.Token > 0 {
			level = slog.LevelError
		}
	default:
		level = slog.LevelWarn
	}
	attrs := []slog.Attr{slog.Int("volume", int(e.Vol))}
	if e.Sector != 0 && e.Note != replication.NoteSplitBrain {
		attrs = append(attrs, slog.Uint64("sector", e.Sector))
	}
	if e.Size != 0 && e.Note != replication.NoteRuleTooNew {
		attrs = append(attrs, slog.Uint64("size", uint64(e.Size)))
	}
	c := Change{Kind: ChangeNote, Volume: e.Vol, Note: e.Note}
	switch e.Note {
	case replication.NoteVerdict:
		c.Rule, c.Verdict = int(e.Token), int(e.Result)
		attrs = append(attrs, slog.Int("rule", c.Rule), slog.Int("verdict", c.Verdict))
	case replication.NoteRuleTooNew:
		c.Rule = int(e.Token)
		attrs = append(attrs, slog.Int("rule", c.Rule), slog.Int("needs-protocol", int(e.Size)))
	case replication.NoteSplitBrain:
		c.OwnBlocks, c.PeerBlocks = e.Token, e.Sector
		attrs = append(attrs, slog.Uint64("blocks", c.OwnBlocks), slog.Uint64("peer-blocks", c.PeerBlocks))
	case replication.NoteDryRun:
		c.New.Conn, c.Full = e.New.Conn, e.On
		attrs = append(attrs, slog.String("would-become", e.New.Conn.String()), slog.Bool("full-resync", e.On))
	case replication.NoteDiskTimeout:
		attrs = append(attrs, slog.Duration("disk-timeout", time.Duration(e.Token)*100*time.Millisecond))
	case replication.NoteVerifyDone:
		attrs = append(attrs, slog.Uint64("out-of-sync-blocks", e.Token))
	default:
	}
	r.log.LogAttrs(r.ctx, level, e.Note.String(), attrs...) //nolint:sloglint // the texts of notes are constants of package replication
	r.publish(c)
}
