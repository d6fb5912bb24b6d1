package transport

import (
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/replblk/replblk/replication/wire"
)

// maxPending bounds the accepted connections that have not said what they are.
const maxPending = 16

// firstPacket is what a connecting node says a socket is for.
type firstPacket wire.Command

const (
	firstData = firstPacket(wire.CmdInitialData)
	firstMeta = firstPacket(wire.CmdInitialMeta)
)

// encode returns the packet: a header without body, in the oldest format because
// no version has been agreed upon.
func (k firstPacket) encode() []byte {
	return wire.Header{Command: wire.Command(k)}.AppendTo(nil, wire.VersionInitial)
}

// arrival is an accepted connection and what it says it is.
type arrival struct {
	sock Socket
	kind firstPacket
}

// door accepts connections and reads their first packets. Whoever reaches the
// port can knock, so a connection that says nothing, or nonsense, costs a slot
// for a limited time, and when the slots run out the oldest goes: a true peer
// speaks at once.
type door struct {
	l        Listener
	patience time.Duration
	arrivals chan arrival // closed when the listener failed, see err
	err      error        // why arrivals was closed
	stop     chan struct{}
	wg       sync.WaitGroup

	mu       sync.Mutex
	pending  []Socket // guarded by mu; oldest first
	shutting bool     // guarded by mu
}

func openDoor(l Listener, patience time.Duration) *door {
	d := &door{l: l, patience: patience, arrivals: make(chan arrival), stop: make(chan struct{})}
	d.wg.Add(1)
	go d.accept()
	return d
}

func (d *door) accept() {
	defer d.wg.Done()
	for {
		s, err := d.l.Accept()
		if err != nil {
			select {
			case <-d.stop:
			default:
				d.err = fmt.Errorf("accept on %s: %w", d.l.Addr(), err)
				close(d.arrivals)
			}
			return
		}
		if !d.admit(s) {
			_ = s.Close()
			continue
		}
		d.wg.Add(1)
		go d.ask(s)
	}
}

func (d *door) admit(s Socket) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.shutting {
		return false
	}
	if len(d.pending) == maxPending {
		_ = d.pending[0].Close()
		d.pending = append(d.pending[:0], d.pending[1:]...)
	}
	d.pending = append(d.pending, s)
	return true
}

// release takes s off the pending list and says whether it was still on it.
func (d *door) release(s Socket) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	for i, p := range d.pending {
		if p == s {
			d.pending = append(d.pending[:i], d.pending[i+1:]...)
			return true
		}
	}
	return false
}

// ask reads the first packet of s and delivers it, or closes it.
func (d *door) ask(s Socket) {
	defer d.wg.Done()
	kind, err := readFirst(s, d.patience)
	if !d.release(s) || err != nil {
		_ = s.Close()
		return
	}
	select {
	case d.arrivals <- arrival{s, kind}:
	case <-d.stop:
		_ = s.Close()
	}
}

func readFirst(s Socket, patience time.Duration) (firstPacket, error) {
	if err := s.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return 0, err
	}
	// Exactly eight bytes: what follows belongs to whoever reads the socket next.
	var b [8]byte
	if _, err := io.ReadFull(s, b[:]); err != nil {
		return 0, err
	}
	h, _, err := wire.ParseHeader(b[:], wire.VersionInitial)
	if err != nil {
		return 0, err
	}
	k := firstPacket(h.Command)
	if (k != firstData && k != firstMeta) || h.Length != 0 {
		return 0, &wire.PacketError{Command: h.Command, Size: int(h.Length), Want: "InitialData or InitialMeta"}
	}
	return k, s.SetReadDeadline(time.Time{})
}

// shut closes the listener and everybody who waits, and returns when no goroutine
// of the door is left.
func (d *door) shut() {
	close(d.stop)
	_ = d.l.Close()
	d.mu.Lock()
	d.shutting = true
	for _, s := range d.pending {
		_ = s.Close()
	}
	d.mu.Unlock()
	d.wg.Wait()
}
