package aoetest

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/replblk/replblk/aoe"
)

// Request is one read or write of a Load.
type Request struct {
	Write bool
	LBA   uint64
	Count uint8  // sectors
	Data  []byte // to write, to be filled by Next; or what was read
	Began time.Time
	// Copies is how often the request was sent.
	Copies int
}

// Load is an initiator that keeps a window of requests outstanding, tags them, and
// repeats what is not answered, with a new tag as Linux does.
type Load struct {
	Link   Link
	Shelf  uint16
	Slot   uint8
	Target aoe.MAC
	Timer  Timer
	// Window is the most requests outstanding, at most 256; Timer may want less.
	Window int
	// Sectors is how many a request has at most.
	Sectors int

	// Next describes the next request, whose place is one of Window; false means
	// that there is none for now.
	Next func(place int, r *Request) bool
	// Done gets a request that was answered well.
	Done func(place int, r *Request) error

	// Repeats counts requests sent again, Strays answers that nobody waited for.
	Repeats, Strays uint64
	// Frozen is the longest time without any answer while requests were
	// outstanding.
	Frozen time.Duration

	slots    []slot
	free     []int
	expired  []int // to be sent again, before anything new
	waiting  int   // sent and not expired
	counter  uint32
	out      [][]byte
	full     [][]byte
	bufs     [][]byte
	lastSeen time.Time
}

// tick is how often the driver looks for expired requests.
const tick = 100 * time.Millisecond

type slot struct {
	Request
	frame   []byte
	tag     uint32
	sent    time.Time
	busy    bool
	expired bool
}

func (l *Load) setup() {
	l.slots = make([]slot, l.Window)
	l.free = l.free[:0]
	src := l.Link.HardwareAddr()
	for i := range l.slots {
		h := aoe.Header{Dst: l.Target, Src: src, Version: aoe.Version, Shelf: l.Shelf, Slot: l.Slot}
		a := aoe.ATA{}
		l.slots[i].frame = append(a.AppendTo(h.AppendTo(nil)), make([]byte, l.Sectors*512)...)
		l.free = append(l.free, l.Window-1-i)
	}
	l.full = make([][]byte, 64)
	for i := range l.full {
		l.full[i] = make([]byte, max(2048, l.Sectors*512+256))
	}
	l.bufs = make([][]byte, len(l.full))
	l.expired, l.waiting = nil, 0
}

// Run runs the load until ctx ends or Next has no more and all is answered.
func (l *Load) Run(ctx context.Context) error {
	l.setup()
	next := time.Now().Add(tick)
	if err := l.Link.SetRecvDeadline(next); err != nil {
		return err
	}
	l.lastSeen = time.Now()
	for ctx.Err() == nil {
		l.fill()
		if len(l.free) == len(l.slots) {
			return nil
		}
		if len(l.out) > 0 {
			if _, err := l.Link.Send(l.out); err != nil {
				return err
			}
			l.out = l.out[:0]
		}
		copy(l.bufs, l.full)
		n, err := l.Link.Recv(l.bufs, nil)
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
		now := time.Now()
		for _, b := range l.bufs[:n] {
			if err := l.answer(b, now); err != nil {
				return err
			}
		}
		if now.Before(next) {
			continue
		}
		l.expire(now)
		next = now.Add(tick)
		if err := l.Link.SetRecvDeadline(next); err != nil {
			return err
		}
	}
	return nil
}

// fill sends as much as the window admits.
func (l *Load) fill() {
	window := min(l.Timer.Window(), l.Window)
	for l.waiting < window {
		if len(l.expired) > 0 {
			i := l.expired[0]
			l.expired = l.expired[1:]
			l.slots[i].expired = false
			l.Repeats++
			l.send(i)
			continue
		}
		if len(l.free) == 0 {
			return
		}
		i := l.free[len(l.free)-1]
		s := &l.slots[i]
		s.Request = Request{Data: s.frame[aoe.DataOffset:], Began: time.Now()}
		if !l.Next(i, &s.Request) {
			return
		}
		l.free = l.free[:len(l.free)-1]
		s.busy = true
		s.prepare()
		l.send(i)
	}
}

// prepare writes the request into its frame.
func (s *slot) prepare() {
	a := aoe.ATA{Flags: aoe.ATAFlagExt, Count: s.Count, Command: aoe.ATAReadExt, LBA: s.LBA}
	n := aoe.MinFrame
	if s.Write {
		a.Flags |= aoe.ATAFlagWrite
		a.Command = aoe.ATAWriteExt
		n = aoe.DataOffset + int(s.Count)*512
	}
	s.frame = s.frame[:cap(s.frame)][:max(n, aoe.MinFrame)]
	a.AppendTo(s.frame[:aoe.HeaderLen])
}

func (l *Load) send(i int) {
	s := &l.slots[i]
	l.counter++
	s.tag = l.counter<<8&0x7fffff00 | uint32(i) //nolint:gosec // at most 256 places
	binary.BigEndian.PutUint32(s.frame[20:], s.tag)
	s.sent = time.Now()
	s.Copies++
	l.waiting++
	l.out = append(l.out, s.frame)
}

// answer takes a frame that was received.
func (l *Load) answer(b []byte, now time.Time) error {
	var h aoe.Header
	decoded := h.DecodeFrom(b) == nil
	if !decoded || h.Flags&aoe.FlagResponse == 0 || h.Command != aoe.CommandATA || h.Shelf != l.Shelf || h.Slot != l.Slot {
		return nil
	}
	i := int(h.Tag & 0xff)
	if i >= len(l.slots) || !l.slots[i].busy || l.slots[i].tag != h.Tag {
		l.Strays++
		return nil
	}
	s := &l.slots[i]
	if h.Flags&aoe.FlagError != 0 || len(b) < aoe.DataOffset || b[27] != aoe.StatusReady {
		return fmt.Errorf("lba %d, write %v: answer % x", s.LBA, s.Write, b[:min(len(b), aoe.DataOffset)])
	}
	l.Frozen = max(l.Frozen, now.Sub(l.lastSeen))
	l.lastSeen = now
	l.Timer.Heard(now.Sub(s.sent))
	if !s.Write {
		if len(b) < aoe.DataOffset+int(s.Count)*512 {
			return fmt.Errorf("lba %d: answer of %d bytes", s.LBA, len(b))
		}
		s.Data = b[aoe.DataOffset : aoe.DataOffset+int(s.Count)*512]
	}
	if s.expired {
		l.unexpire(i)
	} else {
		l.waiting--
	}
	s.busy = false
	l.free = append(l.free, i)
	return l.Done(i, &s.Request)
}

// unexpire takes a place out of the queue of those to be sent again.
func (l *Load) unexpire(i int) {
	l.slots[i].expired = false
	for at, j := range l.expired {
		if j == i {
			l.expired = append(l.expired[:at], l.expired[at+1:]...)
			return
		}
	}
}

// expire looks for requests that have waited too long.
func (l *Load) expire(now time.Time) {
	limit, some := l.Timer.Limit(), false
	for i := range l.slots {
		s := &l.slots[i]
		if s.busy && !s.expired && now.Sub(s.sent) > limit {
			s.expired, some = true, true
			l.expired = append(l.expired, i)
			l.waiting--
		}
	}
	if some {
		l.Timer.Expired()
	}
}
