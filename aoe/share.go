package aoe

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"slices"
	"time"
)

// A target that serves under a virtual address tells the other end of the mirror what
// its initiators have set: at each change, with every advertisement, and until the other
// end says that it has it. While the other end is connected, what an initiator has set is
// answered only then, so that it stands after a failover too.
//
// Changes are counted (State.Generation). Of two states the one with more changes stands,
// and at a tie that of the end that serves. An end that finds itself ahead of the one that
// serves tells it, but only with a common secret (Options.Secret) is it believed: without
// one nothing authenticates these frames, and they must not be able to do more than what
// any initiator may. For the same reason only what initiators may set (Options.Permit) is
// told.
//
// They are responses of CommandPeer; those of the end that serves go to the group address,
// since a silent end hears nothing else. What a silent end sends comes from its
// interface's own address: the virtual one would draw the clients' frames to it.
//
//	offset  size  field
//	    24     1  peerState or peerHave
//	    25     1  part of the state: shareConfig, shareMask, shareReserve; 0 with peerHave
//	    26     2  length of the whole in bytes, big endian
//	    28     2  offset of what follows, big endian
//	    30     2  the same number in all parts of one telling
//	    32     8  generation of the state, big endian
//	    40    16  digest, zero without a secret
//	    56        bytes of the config string, or addresses
const (
	peerState = 2
	peerHave  = 3 // the sender has this generation on stable storage
)

const (
	shareConfig = iota
	shareMask
	shareReserve
	numShares
)

const (
	shareLen  = 32
	digestOff = HeaderLen + 16
	digestLen = 16
	// shareMost is the largest part of a state in bytes.
	shareMost = MaxMACs * 6
)

// How often the state is told to an end that has not confirmed it: while an initiator
// waits, and otherwise. confirmGrace is how long an initiator waits for an end that has
// said nothing since it is connected: it may be a kernel, or have no such target.
const (
	tellHurry    = 20 * time.Millisecond
	tellInterval = time.Second
	confirmGrace = 300 * time.Millisecond
)

// shares are the permissions that the parts of a state need.
var shares = [numShares]Permit{shareConfig: PermitConfig, shareMask: PermitMask, shareReserve: PermitReserve}

// sharing is what a target knows about the other end's copy of its state.
type sharing struct {
	serial    uint16
	untold    bool      // the state has changed since it was last told
	connected bool      // at the last look
	since     time.Time // when connected was last seen to begin
	spoke     bool      // the other end has said something since then
	confirmed uint64    // generation that the other end has
	unkept    bool      // OnState has failed for the state as it is
	warned    bool      // that the other end does not answer
	parked    []parked  // answers that wait for the other end, or for OnState
	heard     [numShares]assembly
}

// parked is an answer in its frame, n bytes long.
type parked struct {
	call *call
	n    int
}

// assembly collects the frames of one part.
type assembly struct {
	serial     uint16
	generation uint64
	bytes      []byte
	total      int
}

// shared says whether there is another end to tell anything.
func (t *Target) shared() bool { return t.virtual && t.permit != 0 }

// share runs until the target is closed.
func (t *Target) share() {
	timer := time.NewTimer(tellInterval)
	defer timer.Stop()
	for {
		select {
		case <-t.stop:
			return
		case <-t.tellNow:
		case <-timer.C:
		}
		t.look()
		timer.Reset(t.shareOnce())
	}
}

// look notes whether the other end is connected.
func (t *Target) look() {
	connected := t.mirrored != nil && t.mirrored()
	t.mu.Lock()
	defer t.mu.Unlock()
	sh := &t.sharing
	if connected && !sh.connected {
		sh.since, sh.spoke, sh.confirmed = time.Now(), false, 0
	}
	sh.connected = connected
}

// shareOnce tells the state if there is a reason, answers who has waited for nothing more,
// and returns when to do so again.
func (t *Target) shareOnce() time.Duration {
	t.mu.Lock()
	sh := &t.sharing
	if sh.unkept {
		t.keepLocked()
	}
	// Also one that has said nothing yet, whom nobody waits for: its interface may come up late.
	tell := t.mode != Silent && !t.successor && (sh.untold || sh.connected && sh.confirmed != t.generation)
	sh.untold = false
	due, late := t.dueLocked()
	waiting, ports := len(sh.parked) > 0, t.ports
	warn := len(late) > 0 && !sh.warned
	sh.warned = sh.warned || warn
	t.mu.Unlock()
	if tell {
		for _, p := range ports {
			p.tell(t)
		}
	}
	if warn && t.onUnconfirmed != nil {
		t.onUnconfirmed()
	}
	for _, a := range due {
		a.call.reply(a.n)
	}
	for _, a := range late {
		a.call.drop(DropUnconfirmed)
	}
	if waiting {
		return tellHurry
	}
	return tellInterval
}

// awaitedLocked says whether the other end should confirm the state and has not.
func (t *Target) awaitedLocked() bool {
	sh := &t.sharing
	return sh.connected && sh.confirmed != t.generation && (sh.spoke || time.Since(sh.since) < confirmGrace)
}

// dueLocked takes out the answers that need not wait, and those that have waited so long
// that their initiator has repeated the request.
func (t *Target) dueLocked() (due, late []parked) {
	sh := &t.sharing
	if t.mode == Silent || !sh.unkept && !t.awaitedLocked() {
		due, sh.parked = sh.parked, nil
		return due, nil // a silent target's calls know that they may not answer
	}
	sh.parked = slices.DeleteFunc(sh.parked, func(a parked) bool {
		old := t.late(a.call.frame.Received, time.Now())
		if old {
			late = append(late, a)
		}
		return old
	})
	return nil, late
}

// replyShared answers with the first n bytes of the call's frame, when the other end has
// what they say.
func (t *Target) replyShared(c *call, n int) {
	if !t.shared() {
		c.reply(n)
		return
	}
	t.look()
	t.mu.Lock()
	wait := t.sharing.unkept || t.awaitedLocked()
	if wait {
		t.sharing.parked = append(t.sharing.parked, parked{c, n})
	}
	t.mu.Unlock()
	t.shareSoon()
	if !wait {
		c.reply(n)
	}
}

func (t *Target) shareSoon() {
	select {
	case t.tellNow <- struct{}{}:
	default:
	}
}

// unsettled says whether the other end should have a state that it has not confirmed.
func (t *Target) unsettled() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.shared() && t.awaitedLocked()
}

// changedLocked counts a change by an initiator, has it kept and the other end told.
func (t *Target) changedLocked() {
	t.generation++
	t.sharing.untold = true
	t.keepLocked()
}

// keepLocked has the state kept.
func (t *Target) keepLocked() {
	t.sharing.unkept = t.onState != nil && t.onState(t.stateLocked()) != nil
}

// tell sends the state to the other end.
func (t *Target) tell(s Sender, pool *FramePool) {
	if !t.shared() {
		return
	}
	t.mu.Lock()
	st, src := t.stateLocked(), s.Addr()
	if t.mode == Silent || t.successor {
		src = s.OwnAddr()
	}
	t.sharing.serial++
	serial := t.sharing.serial
	t.mu.Unlock()
	parts := [numShares][]byte{shareConfig: st.Config, shareMask: packMACs(st.Mask), shareReserve: packMACs(st.Reserve)}
	room := min(s.MTU(), 1500) + EthernetLen - HeaderLen - shareLen
	for kind, p := range shares {
		if t.permit&p == 0 {
			continue
		}
		whole := parts[kind]
		for off := 0; off == 0 || off < len(whole); off += room {
			b := append(make([]byte, 0, shareLen), peerState, byte(kind))
			b = binary.BigEndian.AppendUint16(b, uint16(len(whole))) //nolint:gosec // at most shareMost
			b = binary.BigEndian.AppendUint16(b, uint16(off))        //nolint:gosec // the same
			b = binary.BigEndian.AppendUint16(b, serial)
			b = binary.BigEndian.AppendUint64(b, st.Generation)
			t.sendPeer(s, pool, s.Addr().group(), src, b, whole[off:min(off+room, len(whole))])
		}
	}
}

// sendPeer sends one frame to the other end: the fields before the digest, and data.
func (t *Target) sendPeer(s Sender, pool *FramePool, dst, src MAC, fields, data []byte) {
	f := pool.Get()
	h := Header{Dst: dst, Src: src, Version: Version, Flags: FlagResponse,
		Shelf: t.shelf, Slot: t.slot, Command: CommandPeer, Tag: uint32(t.claim)}
	h.put(f.buf)
	b := append(append(f.buf[:HeaderLen], fields...), make([]byte, digestLen)...)
	b = append(b, data...)
	copy(b[digestOff:], t.digest(b))
	f.finish(len(b))
	s.Send(f)
}

// digest returns what authenticates the frame b, whose digest field is not looked at: all
// zeroes without a secret.
func (t *Target) digest(b []byte) []byte {
	key := t.key()
	if len(key) == 0 {
		return make([]byte, digestLen)
	}
	m := hmac.New(sha256.New, key)
	m.Write(b[16:digestOff])
	m.Write(b[digestOff+digestLen:])
	return m.Sum(nil)[:digestLen]
}

// key returns the common secret, if there is one.
func (t *Target) key() []byte {
	if t.secret == nil {
		return nil
	}
	return t.secret()
}

// hear takes a frame that the other end has sent with sendPeer.
func (t *Target) hear(f *Frame, h *Header, s Sender) {
	b := f.Bytes()
	if !t.shared() || claim(h.Tag).by(t.claim) || len(b) < HeaderLen+shareLen || b[24] != peerState && b[24] != peerHave {
		return
	}
	p := part{kind: int(b[25]), total: int(binary.BigEndian.Uint16(b[26:])), off: int(binary.BigEndian.Uint16(b[28:])),
		serial: binary.BigEndian.Uint16(b[30:]), generation: binary.BigEndian.Uint64(b[32:]), served: h.Src == s.Addr()}
	if p.kind >= numShares || p.total > shareMost || p.off > p.total {
		return
	}
	b = b[:min(len(b), HeaderLen+shareLen+p.total-p.off)] // the rest is padding
	if !hmac.Equal(b[digestOff:digestOff+digestLen], t.digest(b)) {
		t.counters.drop(DropForeign)
		return
	}
	p.data = b[HeaderLen+shareLen:]
	if b[24] == peerHave {
		t.hearHave(p.generation)
		return
	}
	switch t.hearPart(p) {
	case partLast:
		t.have(h.Src, s, f.pool)
	case partOld:
		t.tell(s, f.pool)
	case partMore:
	}
}

// part is a frame of tell.
type part struct {
	kind, total, off int
	serial           uint16
	generation       uint64
	served           bool // the sender serves
	data             []byte
}

// What a part calls for.
const (
	partMore = iota
	partLast // we have what the other end has
	partOld  // we have more
)

// hearHave notes what the other end has, and answers who has waited for that.
func (t *Target) hearHave(generation uint64) {
	t.mu.Lock()
	sh := &t.sharing
	sh.spoke, sh.confirmed = true, generation
	if generation == t.generation {
		sh.warned = false
	}
	due, _ := t.dueLocked()
	t.mu.Unlock()
	for _, a := range due {
		a.call.reply(a.n)
	}
}

// have tells the end that serves what this one has on stable storage.
func (t *Target) have(to MAC, s Sender, pool *FramePool) {
	t.mu.Lock()
	generation, ok := t.generation, !t.sharing.unkept && t.mode != Serving
	t.mu.Unlock()
	if ok {
		b := append(make([]byte, 0, shareLen), peerHave, 0, 0, 0, 0, 0, 0, 0)
		t.sendPeer(s, pool, to, s.OwnAddr(), binary.BigEndian.AppendUint64(b, generation), nil)
	}
}

// hearPart takes a part of the other end's state, and takes the state over when it is
// complete.
func (t *Target) hearPart(p part) int {
	t.mu.Lock()
	due, result := t.hearPartLocked(p)
	t.mu.Unlock()
	for _, a := range due {
		a.call.drop(DropSuperseded)
	}
	return result
}

func (t *Target) hearPartLocked(p part) (superseded []parked, result int) {
	sh := &t.sharing
	serving, authentic := t.mode != Silent && !t.successor, len(t.key()) > 0
	switch {
	case t.permit&shares[p.kind] == 0 || p.served == serving:
		return nil, partMore
	case serving && (!authentic || !sh.connected || p.generation <= t.generation):
		return nil, partMore
	case !serving && authentic && p.generation < t.generation:
		if p.off > 0 || p.kind != t.firstShare() {
			return nil, partMore
		}
		return nil, partOld
	}
	a := &sh.heard[p.kind]
	if p.off == 0 {
		*a = assembly{serial: p.serial, generation: p.generation, total: p.total, bytes: a.bytes[:0]}
	}
	if p.serial != a.serial || p.generation != a.generation || p.total != a.total || p.off != len(a.bytes) {
		return nil, partMore // a frame was lost; all of it comes again
	}
	a.bytes = append(a.bytes, p.data...)
	for kind, need := range shares {
		if o := &sh.heard[kind]; t.permit&need != 0 && (o.serial != p.serial || o.generation != p.generation || len(o.bytes) != o.total) {
			return nil, partMore
		}
	}
	superseded, sh.parked = sh.parked, nil
	t.adoptLocked(p.generation)
	sh.untold = serving
	return superseded, partLast
}

// firstShare returns the first part that is told.
func (t *Target) firstShare() int {
	return slices.IndexFunc(shares[:], func(p Permit) bool { return t.permit&p != 0 })
}

// adoptLocked makes the state that was heard ours.
func (t *Target) adoptLocked(generation uint64) {
	st := t.stateLocked()
	for kind, need := range shares {
		b := t.sharing.heard[kind].bytes
		switch {
		case t.permit&need == 0:
		case kind == shareConfig:
			st.Config = b
		case kind == shareMask:
			st.Mask = unpackMACs(b)
		case kind == shareReserve:
			st.Reserve = unpackMACs(b)
		}
	}
	if st.check() != nil || st.equal(t.stateLocked()) && generation == t.generation {
		return
	}
	st.Generation = generation
	t.setStateLocked(st)
	t.keepLocked()
}

func packMACs(list []MAC) []byte {
	b := make([]byte, 0, len(list)*6)
	for _, m := range list {
		b = append(b, m[:]...)
	}
	return b
}

func unpackMACs(b []byte) []MAC {
	var list []MAC
	for ; len(b) >= 6; b = b[6:] {
		list = append(list, MAC(b))
	}
	return list
}
