package aoe

import (
	"errors"
	"fmt"
	"runtime"
	"sync"
	"syscall"
	"time"
)

// outbox gathers the answers to the burst that a receiver is at, for it to send them
// together: a device that answers within Submit is so served without a change of goroutine.
type outbox struct {
	session *session

	mu     sync.Mutex // guards what follows
	frames []*Frame
	open   bool
}

// put takes f if the receiver is at work, and not held up by the device.
func (o *outbox) put(f *Frame) bool {
	o.mu.Lock()
	ok := o.open && len(o.frames) < corkLimit
	if ok {
		o.frames = append(o.frames, f)
	}
	o.mu.Unlock()
	return ok
}

func (o *outbox) begin() {
	o.mu.Lock()
	o.open = true
	o.mu.Unlock()
}

// end returns what has gathered; spare is where the next answers go.
func (o *outbox) end(spare []*Frame) []*Frame {
	o.mu.Lock()
	defer o.mu.Unlock()
	frames := o.frames
	o.frames, o.open = spare[:0], false
	return frames
}

// receiver takes bursts of frames from the link and serves them. A session has two: while
// one does what a burst asks for, the other can take the next.
type receiver struct {
	*session
	frames []*Frame // for the next burst, with their buffers
	used   int      // of the first of them, which have gone with the last one
	fit    int64    // the size that they have at least
	stock  []*Frame // for those after it
	bufs   [][]byte
	times  []time.Time
	burst  burst
	out    outbox

	sending []*Frame
	scratch [sendBatch][]byte
}

func newReceiver(s *session) *receiver {
	r := &receiver{session: s, used: batch, frames: make([]*Frame, batch), bufs: make([][]byte, batch), times: make([]time.Time, batch)}
	r.out.session = s
	return r
}

func (r *receiver) close() {
	for _, f := range append(r.stock, r.frames...) {
		if f != nil {
			f.Release()
		}
	}
}

// buffers makes the buffers ready for a burst.
func (r *receiver) buffers() [][]byte {
	frames := r.frames[:r.used]
	r.used = 0
	if fit := r.pool.size.Load(); fit != r.fit {
		r.fit, frames = fit, r.frames
	}
	for i, f := range frames {
		if last := len(r.stock) - 1; f == nil && last >= 0 {
			frames[i], r.stock = r.stock[last], r.stock[:last]
		}
	}
	r.pool.fill(frames)
	for i, f := range frames {
		r.frames[i] = r.pool.refit(f)
		r.bufs[i] = r.frames[i].Buffer()
	}
	return r.bufs
}

// accept hands the n frames that were received to their targets, in the order of arrival:
// the caller has the turn.
func (r *receiver) accept(n int) {
	r.used = n
	r.port.counters.Received.Add(uint64(n)) //nolint:gosec // not negative
	r.out.begin()
	for i := range n {
		f := r.frames[i]
		f.SetLen(len(r.bufs[i]))
		f.Received = r.times[i]
		r.frames[i] = nil
		// The MTU may have grown while Recv waited: room for the answer.
		f = r.pool.refit(f)
		f.out = &r.out
		r.route(f)
	}
}

// work has the devices do what was accepted, and sends the answers.
func (r *receiver) work() {
	r.burst.submit()
	r.sending = r.out.end(r.sending)
	r.transmit(r.sending, &r.scratch)
	r.stockUp(r.sending)
	clear(r.sending)
}

// stockUp takes frames back, into the pool what is more than a burst needs.
func (r *receiver) stockUp(frames []*Frame) {
	n := 0
	for ; n < len(frames) && len(r.stock) < batch && frames[n].pool == r.pool; n++ {
		frames[n].reset()
		r.stock = append(r.stock, frames[n])
	}
	r.pool.putAll(frames[n:])
}

// receive receives until the link ends. With more than one processor it has a helper: what
// is to be accepted goes one by one, in order, but the device's part and the sending,
// which is most of the work, do not.
func (s *session) receive() error {
	if runtime.GOMAXPROCS(0) > 1 {
		var helper sync.WaitGroup
		defer helper.Wait()
		defer close(s.help)
		helper.Go(s.helpOut)
	}
	r := newReceiver(s)
	defer r.close()
	c := newCrowding()
	for {
		n, err := s.await(r)
		switch {
		case errors.Is(err, syscall.ENETDOWN):
			s.wentDown()
		case err != nil:
			return fmt.Errorf("receive: %w", err)
		default:
			if n == batch {
				s.callHelp(c.full())
			}
			r.work()
		}
	}
}

// await waits for frames, and accepts them.
func (s *session) await(r *receiver) (int, error) {
	bufs := r.buffers()
	s.turn.Lock()
	defer s.turn.Unlock()
	n, err := s.link.TryRecv(bufs, r.times)
	if n == 0 && err == nil {
		s.waiting.Store(true)
		n, err = s.link.Recv(bufs, r.times)
		s.waiting.Store(false)
	}
	if err == nil {
		r.accept(n)
	}
	return n, err
}

// wentDown notes that the interface went down. watch sees it come up again, or go.
func (s *session) wentDown() {
	s.port.counters.LinkDown.Add(1)
	_ = s.refresh()
}

// callHelp says that there are probably more frames than one receiver can take, and whether another
// one would help.
func (s *session) callHelp(useful bool) {
	if s.crowded.Load() == useful {
		s.crowded.Store(!useful)
	}
	if !useful || s.helping.Load() {
		return
	}
	select {
	case s.help <- struct{}{}:
	default:
	}
}

// helpOut takes frames when it is called, for as long as there are any.
func (s *session) helpOut() {
	r := newReceiver(s)
	defer r.close()
	for range s.help {
		s.helping.Store(true)
		for !s.crowded.Load() && s.takeMore(r) {
			r.work()
		}
		s.helping.Store(false)
	}
}

// takeMore accepts the frames that are there, if any.
func (s *session) takeMore(r *receiver) bool {
	bufs := r.buffers()
	if !s.takeTurn() {
		return false
	}
	defer s.turn.Unlock()
	n, err := s.link.TryRecv(bufs, r.times)
	if errors.Is(err, syscall.ENETDOWN) {
		s.wentDown()
	}
	if n == 0 || err != nil {
		return false // receive meets the error too, if it stays
	}
	r.accept(n)
	return true
}

// turnPatience is how often takeTurn tries: some microseconds, in which the other receiver
// accepts a burst. To be woken takes longer.
const turnPatience = 2000

// takeTurn takes the turn from a receiver that accepts frames, and leaves it to one that
// waits for them.
func (s *session) takeTurn() bool {
	for range turnPatience {
		if s.turn.TryLock() {
			return true
		}
		if s.waiting.Load() {
			return false
		}
	}
	return false
}

// route hands a frame to its target, or copies to all that a wildcard names.
func (r *receiver) route(f *Frame) {
	var h Header
	if h.DecodeFrom(f.Bytes()) != nil {
		r.port.counters.Malformed.Add(1)
		f.Release()
		return
	}
	if h.Command == CommandConfig && h.Flags&FlagResponse == 0 {
		// The sector count of the answer follows the MTU (spec/aoe.md 1.6).
		_ = r.refresh()
	}
	tab := r.table.Load()
	if !h.wildcard() {
		if p := tab.exact[tableKey(h.Shelf, h.Slot)]; p != nil {
			p.target.handle(f, p, &h, &r.burst)
			return
		}
		r.port.counters.Foreign.Add(1)
		f.Release()
		return
	}
	for _, p := range tab.all {
		if h.matches(p.target.shelf, p.target.slot) {
			c := r.pool.Get()
			c.SetLen(copy(c.Buffer(), f.Bytes()))
			c.Received, c.out = f.Received, f.out
			hdr := h // the target may change it
			p.target.handle(c, p, &hdr, &r.burst)
		}
	}
	f.Release()
}
