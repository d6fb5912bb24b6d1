package aoe

import (
	"bytes"
	"encoding/binary"
	"math"
	"math/rand/v2"
	"slices"
	"time"
)

// CommandPeer is spoken between the two ends of a virtual address, never to an
// initiator. It is one of the codes that are left to vendors. Its requests hand a
// frame that arrived at the end that has stopped to the one that serves; for its
// responses see peerState.
//
//	offset  size  field
//	    24     1  peerForward
//	    25     1  command of the request
//	    26     6  address of the initiator
//	    32     4  age of the request in microseconds, big endian
//	    36        the request from its byte 24 on
//
// The frame grows by twelve bytes. Sectors per frame are computed as if the
// Ethernet header counted towards the MTU, so that there is room.
const CommandPeer Command = 0xf0

const (
	peerForward = 1
	peerLen     = 12
)

// handOver sends a request to the end that serves now, and takes ownership of f.
func (t *Target) handOver(f *Frame, s Sender) {
	age := time.Since(f.Received)
	n := f.n + peerLen
	if age > t.maxAge || n > s.MTU()+EthernetLen || n > len(f.buf) {
		t.dropFrame(f, DropNotServing)
		return
	}
	b := f.buf
	copy(b[HeaderLen+peerLen:n], b[HeaderLen:f.n])
	b[24], b[25] = peerForward, b[19]
	copy(b[26:32], b[6:12])
	binary.BigEndian.PutUint32(b[32:], uint32(min(age.Microseconds(), math.MaxUint32)))
	b[19] = byte(CommandPeer)
	addr, own := s.Addr(), s.OwnAddr()
	copy(b[0:6], addr[:])
	copy(b[6:12], own[:])
	f.finish(n)
	t.counters.HandedOver.Add(1)
	s.Send(f)
}

// accept serves a request that the other end has handed over.
//
// When exactly it arrived there cannot be told on this end's clock. It counts as
// older than whatever has arrived here since this end serves: a copy that the
// initiator has sent here meanwhile, and a write that followed it, go before.
func (t *Target) accept(f *Frame, s Sender, h *Header) {
	b := f.Bytes()
	if len(b) < HeaderLen+peerLen || b[24] != peerForward || Command(b[25]) == CommandPeer {
		t.counters.Malformed.Add(1)
		t.dropFrame(f, DropShort)
		return
	}
	age := time.Duration(binary.BigEndian.Uint32(b[32:])) * time.Microsecond
	h.Src, h.Command = MAC(b[26:32]), Command(b[25])
	copy(b[6:12], h.Src[:])
	b[19] = byte(h.Command)
	n := copy(b[HeaderLen:], b[HeaderLen+peerLen:])
	f.n = HeaderLen + n
	t.mu.Lock()
	since, serving := t.since, t.mode == Serving
	t.mu.Unlock()
	if !serving || age > t.maxAge || h.Src.IsGroup() {
		t.dropFrame(f, DropNotServing)
		return
	}
	t.counters.TakenOver.Add(1)
	f.Received = since.Add(-1)
	t.serve(f, s, h, nil)
}

// claim is what a station says with the tag of an unsolicited config response for
// a virtual address: who it is, and for how long it has been serving. To an
// initiator the tag means nothing as long as its highest bit is zero.
//
//	bits 30-15  random, chosen when the target was made
//	bits 14-0   time served in units of two seconds, at most all ones
type claim uint32

const (
	claimUnit = 2 * time.Second
	claimMask = 1<<15 - 1
	// claimMargin is how much longer than we another station must have served
	// for us to be the newer one beyond doubt.
	claimMargin = time.Minute
)

func newClaim() claim { return claim(rand.Uint32N(1<<16)) << 15 } //nolint:gosec // to tell stations apart

// served returns the claim with the time since the target began to serve.
func (c claim) served(d time.Duration) claim {
	return c&^claimMask | claim(min(max(d, 0)/claimUnit, claimMask))
}

func (c claim) by(o claim) bool         { return c>>15 == o>>15 }
func (c claim) duration() time.Duration { return time.Duration(c&claimMask) * claimUnit }

// sawResponse hears a config response for the target's address: an answer to Ask,
// the other end taking over, or a station that should not be there.
func (t *Target) sawResponse(h *Header, s Sender) {
	theirs := claim(h.Tag)
	if h.Command != CommandConfig || h.Flags&FlagError != 0 || h.Shelf != t.shelf || h.Slot != t.slot ||
		h.Src == s.OwnAddr() || t.virtual && theirs.by(t.claim) {
		t.counters.drop(DropForeign) // also what a loop in the network brings back
		return
	}
	t.mu.Lock()
	if t.asking > 0 {
		t.heard = append(t.heard, h.Src)
		t.mu.Unlock()
		return
	}
	ours := t.virtual && h.Src == s.Addr()
	if ours && t.mode != Serving {
		var held []heldFrame
		if t.mode == Holding {
			t.successor, held, t.held = true, t.held, nil
		}
		t.mu.Unlock()
		for _, f := range held {
			t.handOver(f.frame, f.sender)
		}
		return
	}
	serving := t.mode == Serving
	newer := time.Since(t.since)+claimMargin < theirs.duration()
	t.mu.Unlock()
	if !serving && t.virtual {
		return // the other end, or somebody whom only a server must fear
	}
	t.conflict(h.Src, ours, newer)
}

// conflict reports another station with our address. If it is the other end of the
// mirror, the one that has served longer falls silent, and both do unless it is
// clear which that is: two that serve are worse than none.
func (t *Target) conflict(from MAC, otherEnd, newer bool) {
	t.conflicts.Add(1)
	switch {
	case otherEnd && newer:
		t.modeChanged() // advertise, for the other end to hear it
	case otherEnd:
		t.SetServing(false)
	}
	if t.onConflict != nil {
		t.onConflict(from, otherEnd && !newer)
	}
}

// beginAsking makes the target note who answers for its address.
func (t *Target) beginAsking() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.asking == 0 {
		t.heard = nil
	}
	t.asking++
}

// endAsking returns who answered, each once.
func (t *Target) endAsking() []MAC {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.asking--
	list := slices.Clone(t.heard)
	slices.SortFunc(list, func(a, b MAC) int { return bytes.Compare(a[:], b[:]) })
	return slices.Compact(list)
}

// query makes frame f ask, from the interface's own address, who serves the target:
// from the virtual one it would draw the client's frames here.
func (t *Target) query(f *Frame, s Sender, dst MAC) {
	h := Header{Dst: dst, Src: s.OwnAddr(), Version: Version, Shelf: t.shelf, Slot: t.slot, Command: CommandConfig}
	h.put(f.buf)
	a := ConfigArg{Version: Version, Command: ConfigRead}
	f.finish(len(a.AppendTo(f.buf[:HeaderLen])))
}
