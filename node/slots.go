package node

import (
	"sync"

	"github.com/replblk/replblk/block"
	"github.com/replblk/replblk/replication"
)

// slots is the table of application requests that are in the core's hands. Its
// size is the limit on them, and a frontend that finds it full waits here: this is
// where backpressure begins.
type slots struct {
	mu   sync.Mutex
	some *sync.Cond // on mu: a slot became free
	reqs []*block.Request
	free []uint32                           // guarded by mu
	shut bool                               // guarded by mu: nothing more is accepted
	hung map[replication.ReqID]*hungRequest // guarded by mu; empty but after an abort
}

func newSlots(n int) *slots {
	s := &slots{reqs: make([]*block.Request, n), free: make([]uint32, n)}
	for i := range s.free {
		s.free[i] = uint32(n - 1 - i) // low numbers first
	}
	s.some = sync.NewCond(&s.mu)
	return s
}

// take gives r a slot, waiting for one; it fails when the table is shut. Before it
// waits it calls idle once, because events that nobody has run yet may be what frees
// a slot.
func (s *slots) take(r *block.Request, idle func()) (replication.ReqID, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.free) == 0 && !s.shut {
		s.mu.Unlock()
		idle()
		s.mu.Lock()
	}
	for len(s.free) == 0 && !s.shut {
		s.some.Wait()
	}
	if s.shut {
		return 0, false
	}
	i := s.free[len(s.free)-1]
	s.free = s.free[:len(s.free)-1]
	s.reqs[i] = r
	return replication.ReqID(i), true
}

// get returns the request in a slot.
func (s *slots) get(id replication.ReqID) *block.Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reqs[id]
}

// release empties a slot and returns what was in it.
func (s *slots) release(id replication.ReqID) *block.Request {
	s.mu.Lock()
	r := s.reqs[id]
	s.reqs[id] = nil
	s.free = append(s.free, uint32(id))
	s.some.Signal()
	s.mu.Unlock()
	return r
}

// inUse returns the number of requests in flight.
func (s *slots) inUse() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.reqs) - len(s.free)
}

// close refuses further requests and wakes those who wait.
func (s *slots) close() {
	s.mu.Lock()
	s.shut = true
	s.some.Broadcast()
	s.mu.Unlock()
}
