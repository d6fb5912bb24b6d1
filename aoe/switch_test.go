package aoe

import (
	"bytes"
	"context"
	"encoding/binary"
	"math/rand/v2"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/replblk/replblk/block"
	"github.com/replblk/replblk/block/mem"
)

// A simulated LAN under virtual time: two ends of a mirror between which the role moves, in
// order or by death, hosts that stand still for seconds with what they have received, frames
// that come twice, at both ends, or not at all; and initiators that repeat what is not answered.
//
// What is checked is what at-least-once makes hard: a write that was answered is what reads
// return from then on, and what the disk holds at the end. No copy of an older write comes
// after it, whichever end it lay at.
type switchSim struct {
	t    *testing.T
	rng  *rand.Rand
	mu   sync.Mutex // of rng, tags and ends' roles
	disk *mem.Device
	ends [2]*simEnd
	tags map[uint32]chan []byte
	tag  uint32
}

// simEnd is one host: a target, its part of the mirror, and what it has received.
type simEnd struct {
	*Target
	sim     *switchSim
	other   *simEnd
	addr    MAC
	pool    *FramePool
	primary bool
	inbox   chan arrival
}

type arrival struct {
	frame    []byte
	received time.Time
}

func (s *switchSim) chance(n int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rng.IntN(n) == 0
}

func (s *switchSim) upTo(d time.Duration) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return time.Duration(s.rng.Int64N(int64(d)))
}

// Submit serves a request after a while, if this end is Primary then: what the mirror has got
// from an end that is not any more is the mirror's to refuse.
func (e *simEnd) Submit(r *block.Request) {
	time.AfterFunc(e.sim.upTo(5*time.Millisecond), func() {
		e.sim.mu.Lock()
		primary := e.primary
		e.sim.mu.Unlock()
		if !primary {
			r.Complete(r.Fail(syscall.EROFS))
			return
		}
		e.sim.disk.Submit(r)
	})
}

// Geometry implements block.Device.
func (e *simEnd) Geometry() block.Geometry { return e.sim.disk.Geometry() }

// Close implements block.Device.
func (e *simEnd) Close() error { return nil }

// Send is the end's interface: what is not for an initiator is for the other end.
func (e *simEnd) Send(f *Frame) {
	b := bytes.Clone(f.Bytes())
	f.Release()
	if e.sim.chance(10) {
		return // lost
	}
	if MAC(b[:6]) != clientMAC {
		e.other.receive(b)
		return
	}
	time.AfterFunc(e.sim.upTo(time.Millisecond), func() {
		e.sim.mu.Lock()
		waiter := e.sim.tags[binary.BigEndian.Uint32(b[20:])]
		e.sim.mu.Unlock()
		if waiter != nil {
			select {
			case waiter <- b:
			default: // answered already
			}
		}
	})
}

func (e *simEnd) Addr() MAC    { return vmac }
func (e *simEnd) OwnAddr() MAC { return e.addr }
func (e *simEnd) MTU() int     { return 1500 }

// receive puts a frame into the receive queue of the host. One path keeps the order.
func (e *simEnd) receive(b []byte) {
	select {
	case e.inbox <- arrival{b, time.Now()}:
	default: // the queue is full
	}
}

// run handles what has arrived; now and then the host stands still.
func (e *simEnd) run(ctx context.Context) {
	for {
		select {
		case a := <-e.inbox:
			if e.sim.chance(200) {
				time.Sleep(e.sim.upTo(3 * time.Second))
			}
			f := e.pool.Get()
			f.SetLen(copy(f.Buffer(), a.frame))
			f.Received = a.received
			e.Handle(f, e)
		case <-ctx.Done():
			return
		}
	}
}

// become changes what the mirror takes from this end.
func (e *simEnd) become(primary bool) {
	e.sim.mu.Lock()
	e.primary = primary
	e.sim.mu.Unlock()
}

// serve makes an end take the role, and say so.
func (e *simEnd) serve(ctx context.Context) {
	e.become(true)
	e.SetServing(true)
	for range 1 + e.sim.upTo(2) {
		e.Advertise(e, e.pool)
		sleep(ctx, 10*time.Millisecond)
	}
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// manage moves the role.
func (s *switchSim) manage(ctx context.Context) {
	from, to := s.ends[0], s.ends[1]
	for ctx.Err() == nil {
		sleep(ctx, 20*time.Millisecond+s.upTo(700*time.Millisecond))
		if s.chance(3) { // it dies, or is cut off
			from.become(false)
			sleep(ctx, s.upTo(50*time.Millisecond))
			from.SetServing(false)
		} else {
			from.Hold()
			limit, cancel := context.WithTimeout(ctx, time.Second)
			err := from.Drain(limit)
			cancel()
			if err != nil {
				from.SetServing(true)
				continue
			}
			from.become(false)
			from.Yield()
		}
		to.serve(ctx)
		if s.chance(2) {
			from.SetServing(false)
		}
		from, to = to, from
	}
	to.SetServing(false)
	from.serve(context.Background())
}

// call sends a request until it is answered. Every repetition has a tag of its own, and only
// the answer to the newest counts, as with the Linux initiator.
func (s *switchSim) call(ctx context.Context, request []byte) []byte {
	for wait := 50 * time.Millisecond; ; wait = min(wait*2, time.Second) {
		answer := make(chan []byte, 1)
		s.mu.Lock()
		s.tag++
		tag := s.tag
		s.tags[tag] = answer
		s.mu.Unlock()
		b := bytes.Clone(request)
		copy(b[:6], vmac[:])
		binary.BigEndian.PutUint32(b[20:], tag)
		time.AfterFunc(s.upTo(time.Millisecond), func() { s.deliver(b) })
		select {
		case a := <-answer:
			if a[27] == StatusReady {
				return a
			}
		case <-time.After(wait):
		case <-ctx.Done():
			return nil
		}
		s.mu.Lock()
		delete(s.tags, tag)
		s.mu.Unlock()
	}
}

// deliver brings a frame to one end, or to both, once or twice, or to none.
func (s *switchSim) deliver(b []byte) {
	for _, e := range s.ends {
		for range 2 {
			if !s.chance(3) {
				e.receive(b)
			}
		}
	}
}

// client writes to its own sectors and reads them again.
func (s *switchSim) client(ctx context.Context, first uint64, want map[uint64]byte) (requests int) {
	for ctx.Err() == nil {
		lba := first + uint64(s.upTo(3))
		v := want[lba] + 1
		if s.call(ctx, writeFrame(0, lba, v, 1)) == nil {
			delete(want, lba) // it may have been executed
			return requests
		}
		want[lba] = v
		requests++
		if s.chance(3) {
			read := ataFrame(0, ATA{Flags: ATAFlagExt, Command: ATAReadExt, Count: 1, LBA: lba}, nil)
			if a := s.call(ctx, read); a != nil && a[DataOffset] != v {
				s.t.Errorf("sector %d: read %d after %d was answered", lba, a[DataOffset], v)
				return requests
			}
		}
	}
	return requests
}

func (s *switchSim) run() (requests int) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	life, end := context.WithCancel(context.Background())
	var hosts, work sync.WaitGroup
	for _, e := range s.ends {
		hosts.Go(func() { e.run(life) })
	}
	s.ends[0].serve(ctx)
	work.Go(func() { s.manage(ctx) })
	var wants [4]map[uint64]byte
	var done [4]int
	for i := range wants {
		wants[i] = map[uint64]byte{}
		work.Go(func() { done[i] = s.client(ctx, uint64(i*3), wants[i]) })
	}
	work.Wait()
	time.Sleep(5 * time.Second) // what lies in a queue comes out of it
	end()
	hosts.Wait()
	disk := s.disk.Contents()
	for i, want := range wants {
		requests += done[i]
		for lba, v := range want {
			if got := disk[lba*512]; got != v {
				s.t.Errorf("sector %d holds %d, and %d was answered", lba, got, v)
			}
		}
	}
	return requests
}

// TestNoLateCopyUndoesAWrite: O01, O02, O03 over a hundred simulated LANs.
func TestNoLateCopyUndoesAWrite(t *testing.T) {
	seeds := uint64(100)
	if testing.Short() { // under the race detector
		seeds = 10
	}
	var requests, handed, superseded, stale, silent uint64
	for seed := range seeds {
		synctest.Test(t, func(t *testing.T) {
			s := &switchSim{t: t, rng: rand.New(rand.NewPCG(seed, 1)), disk: mem.New(100), tags: map[uint32]chan []byte{}}
			for i := range s.ends {
				e := &simEnd{sim: s, addr: [...]MAC{serverMAC, otherMAC}[i], pool: NewFramePool(1500), inbox: make(chan arrival, 4096)}
				e.Target = newTestTarget(t, e, func(o *Options) { o.Virtual, o.Standby, o.Commit = true, true, CommitNone })
				s.ends[i] = e
			}
			s.ends[0].other, s.ends[1].other = s.ends[1], s.ends[0]
			requests += uint64(s.run())
			for _, e := range s.ends {
				n := e.Counters()
				handed += n.TakenOver.Load()
				superseded += n.Drops(DropSuperseded)
				stale += n.Drops(DropStale)
				silent += n.Drops(DropNotServing)
			}
		})
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
	t.Logf("%d requests, frames: %d handed over, %d superseded, %d stale, %d at an end that did not serve", requests, handed, superseded, stale, silent)
	if requests < 1000 || handed == 0 || superseded == 0 || silent == 0 {
		t.Error("this shows too little")
	}
}

// What the simulation found, one by one. In each the frame is a copy of a write that may have
// been followed by a newer one at the other end.
func TestCopiesOfAnEarlierPeriod(t *testing.T) {
	write := writeFrame(1, 5, 1, 1)
	handed := func() []byte {
		old, out := newTestTarget(t, newSlow(100), func(o *Options) { o.Virtual = true }), newWire(1500)
		old.Hold()
		out.give(old, write)
		own := &otherSender{out}
		f := own.pool.Get()
		h := Header{Dst: Broadcast, Src: serverMAC, Version: 1, Flags: FlagResponse, Shelf: 7, Slot: 3, Command: CommandConfig, Tag: uint32(newClaim())}
		f.SetLen(copy(f.Buffer(), (&ConfigArg{}).AppendTo(h.AppendTo(nil))))
		old.Handle(f, own)
		_, b := own.one(t)
		return b
	}
	for name, late := range map[string]func(tg *Target, w *wire){
		"received before this end served, handled while it holds": func(tg *Target, w *wire) {
			f := w.pool.Get()
			f.SetLen(copy(f.Buffer(), write))
			f.Received = time.Now().Add(-time.Second)
			tg.Hold()
			tg.Handle(f, w)
			tg.SetServing(true)
		},
		"handed over to this end before it served": func(tg *Target, w *wire) {
			f := w.pool.Get()
			f.SetLen(copy(f.Buffer(), handed()))
			f.Received = time.Now().Add(-time.Second)
			tg.Handle(f, w)
		},
		"held when the role was given up, and here again": func(tg *Target, w *wire) {
			tg.Hold()
			w.give(tg, write)
			tg.Yield()
			tg.SetServing(true)
		},
	} {
		t.Run(name, func(t *testing.T) {
			dev, w := newSlow(100), newWire(1500)
			tg := newTestTarget(t, dev, func(o *Options) { o.Virtual, o.Standby, o.Commit = true, true, CommitNone })
			tg.SetServing(true)
			late(tg, w)
			w.none(t)
			if got := dev.Contents()[5*512]; got != 0 {
				t.Error("an old copy was executed")
			}
			w.give(tg, writeFrame(2, 9, 9, 1))
			if h, _ := w.one(t); h.Tag != 2 {
				t.Errorf("answer to %d", h.Tag)
			}
		})
	}
}
