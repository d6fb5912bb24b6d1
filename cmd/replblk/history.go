package main

import (
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/replblk/replblk/internal/control"
	"github.com/replblk/replblk/node"
	"github.com/replblk/replblk/replication"
	"github.com/replblk/replblk/replication/state"
)

// history remembers how a connection ended, for explain.
type history struct {
	started time.Time // immutable

	mu    sync.Mutex
	h     control.History      // guarded by mu
	split map[uint16][2]uint64 // guarded by mu; by volume: bytes changed here and at the peer

	handlers []control.HandlerRuns // guarded by mu; few
}

// refusals are the remarks after which a connection ends because the two nodes cannot work
// together.
var refusals = map[replication.Note]bool{
	replication.NoteSplitBrain: true, replication.NoteUnrelated: true, replication.NoteContradiction: true,
	replication.NoteVersionTooOld: true, replication.NoteRuleTooNew: true, replication.NoteNoDryRun: true,
	replication.NoteIncompatible: true, replication.NoteAuthFailed: true,
	replication.NoteShrink: true,
}

// changed hears of everything that happens to the resource.
func (h *history) changed(c node.Change) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case c.Kind == node.ChangeHandler:
		h.count(c)
	case c.Kind == node.ChangeState && c.New.Conn >= state.Connected:
		h.h, h.split = control.History{}, nil
	case c.Kind == node.ChangeState && c.Old.Conn >= state.Connected:
		h.h.Parted = time.Now()
	case c.Kind == node.ChangeNote && refusals[c.Note]:
		h.h.Refusal, h.h.Refused, h.h.SplitBrain = c.Note.String(), time.Now(), c.Note == replication.NoteSplitBrain
		if h.h.SplitBrain {
			if h.split == nil {
				h.split = make(map[uint16][2]uint64)
			}
			h.split[c.Volume] = [2]uint64{c.OwnBlocks * bitmapBlock, c.PeerBlocks * bitmapBlock}
		}
	}
}

// count counts the end of a handler. h.mu is held.
func (h *history) count(c node.Change) {
	exit := strconv.Itoa(c.Exit)
	if c.TimedOut {
		exit = "timeout"
	}
	for i := range h.handlers {
		if r := &h.handlers[i]; r.Name == c.Handler.String() && r.Exit == exit {
			r.Count++
			return
		}
	}
	h.handlers = append(h.handlers, control.HandlerRuns{Name: c.Handler.String(), Exit: exit, Count: 1})
}

func (h *history) handlerRuns() []control.HandlerRuns {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.handlers)
}

func (h *history) look() control.History {
	h.mu.Lock()
	defer h.mu.Unlock()
	out := h.h
	out.Started = h.started
	return out
}

func (h *history) changes(vol uint16) (own, peer uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	c := h.split[vol]
	return c[0], c[1]
}
