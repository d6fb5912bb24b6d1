package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/replblk/replblk/internal/control"
	"github.com/replblk/replblk/replication/state"
)

// eventBuffer is how many changes a slow listener may lag behind before it loses some.
const eventBuffer = 1024

type eventKind uint8

const (
	eventState eventKind = iota + 1
	eventCreated
	eventDestroyed
)

// event is one change of a resource.
type event struct {
	kind     eventKind
	at       time.Time
	volume   uint16
	old, new state.State
}

// hub hands the changes of a resource to whoever listens.
type hub struct {
	mu        sync.Mutex
	listeners map[*listener]struct{} // guarded by mu
}

type listener struct {
	c       chan event
	skipped int // guarded by the hub's mu
}

func newHub() *hub { return &hub{listeners: make(map[*listener]struct{})} }

// publish does not wait: a listener that is too slow is told how many it lost.
func (h *hub) publish(e event) {
	e.at = time.Now()
	h.mu.Lock()
	defer h.mu.Unlock()
	for l := range h.listeners {
		select {
		case l.c <- e:
		default:
			l.skipped++
		}
	}
}

func (h *hub) listen() *listener {
	l := &listener{c: make(chan event, eventBuffer)}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.listeners[l] = struct{}{}
	return l
}

func (h *hub) leave(l *listener) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.listeners, l)
}

// lost returns how many events a listener has lost since it was last asked.
func (h *hub) lost(l *listener) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := l.skipped
	l.skipped = 0
	return n
}

// eventTime is the form of time stamps in event lines.
const eventTime = "2006-01-02T15:04:05.000000-07:00"

// sourced is an event with whom it is about and who was listening.
type sourced struct {
	m *managed
	l *listener
	event
}

// streamEvents sends what exists, and then what changes, in the lines of drbdsetup
// events2 (DRBD 9 form), until ctx ends.
func (d *daemon) streamEvents(ctx context.Context, list []*managed, req *control.Request, send func(any) error) error {
	merged := make(chan sourced, len(list))
	if !req.Now {
		stop := gather(ctx, list, merged) // before the dump, so that nothing falls in between
		defer stop()
	}
	for _, m := range list {
		for _, line := range existing(m.snapshot(), req.Statistics) {
			if err := send(stamp(time.Now()) + "exists " + line); err != nil {
				return err // the client has gone
			}
		}
	}
	if err := send(stamp(time.Now()) + "exists -"); err != nil {
		return err
	}
	if req.Now {
		return nil
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case x := <-merged:
			lines := x.m.eventLines(x.event, req.Statistics)
			if n := x.m.events.lost(x.l); n > 0 {
				lines = append(lines, fmt.Sprintf("- skipped %d", n))
			}
			for _, line := range lines {
				if err := send(stamp(x.at) + line); err != nil {
					return err
				}
			}
		}
	}
}

// gather sends the events of several resources to one channel, until stop is called.
func gather(ctx context.Context, list []*managed, out chan<- sourced) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	for _, m := range list {
		l := m.events.listen()
		wg.Go(func() {
			defer m.events.leave(l)
			for {
				select {
				case <-ctx.Done():
					return
				case e := <-l.c:
					select {
					case <-ctx.Done():
						return
					case out <- sourced{m, l, e}:
					}
				}
			}
		})
	}
	return func() {
		cancel()
		wg.Wait()
	}
}

func stamp(t time.Time) string { return t.Format(eventTime) + " " }

// eventLines puts an event into words.
func (m *managed) eventLines(e event, statistics bool) []string {
	var lines []string
	switch e.kind {
	case eventCreated:
		for _, l := range existing(m.snapshot(), statistics) {
			lines = append(lines, "create "+l)
		}
	case eventDestroyed:
		lines = append(lines, "destroy resource name:"+m.name())
	case eventState:
		lines = m.changeLines(e)
	}
	return lines
}

func (m *managed) changeLines(e event) []string {
	var lines []string
	o, n := &e.old, &e.new
	conn := fmt.Sprintf("name:%s peer-node-id:%d conn-name:%s", m.name(), m.peerID, m.sec.peerName())
	if o.Role != n.Role || o.Suspended() != n.Suspended() {
		lines = append(lines, fmt.Sprintf("change resource name:%s role:%s suspended:%s", m.name(), n.Role, suspendedWord(n.Susp, n.SuspNod, n.SuspFen)))
	}
	oc, or := control.SplitState(o.Conn.String())
	nc, nr := control.SplitState(n.Conn.String())
	if oc != nc || o.Peer != n.Peer {
		lines = append(lines, fmt.Sprintf("change connection %s connection:%s role:%s", conn, nc, n.Peer))
	}
	if o.Disk != n.Disk {
		v := m.sec.local.Volume(e.volume)
		lines = append(lines, fmt.Sprintf("change device name:%s volume:%d minor:%d disk:%s", m.name(), e.volume, v.Minor, n.Disk))
	}
	if or != nr || o.PeerDisk != n.PeerDisk || o.ResyncPaused() != n.ResyncPaused() {
		lines = append(lines, fmt.Sprintf("change peer-device %s volume:%d replication:%s peer-disk:%s resync-suspended:%s",
			conn, e.volume, nr, n.PeerDisk, pausedWord(n.UserIsp, n.PeerIsp, n.AftrIsp)))
	}
	return lines
}

// existing lists the objects of a resource as events2 does.
func existing(r control.Resource, statistics bool) []string {
	if !r.Up {
		return nil
	}
	v0 := &r.Volumes[0]
	mayPromote, score := r.MayPromote(), r.PromotionScore()
	lines := []string{fmt.Sprintf("resource name:%s role:%s suspended:%s force-io-failures:no write-ordering:flush may_promote:%s promotion_score:%d",
		r.Name, r.Role, suspendedWord(v0.SuspendedUser, v0.SuspendedNoData, v0.SuspendedFencing), yesNo(mayPromote), score)}
	conn := fmt.Sprintf("name:%s peer-node-id:%d conn-name:%s", r.Name, r.PeerID, r.Peer)
	c, _ := control.SplitState(r.Connection)
	line := fmt.Sprintf("connection %s connection:%s role:%s tls:no", conn, c, r.PeerRole)
	if statistics {
		line += fmt.Sprintf(" congested:no ap-in-flight:%d rs-in-flight:0", r.InFlight)
	}
	lines = append(lines, line)
	for i := range r.Volumes {
		v := &r.Volumes[i]
		line := fmt.Sprintf("device name:%s volume:%d minor:%d backing_dev:%s disk:%s client:no open:%s quorum:yes",
			r.Name, v.Number, v.Minor, v.Backing, v.Disk, yesNo(r.Open(v.Number)))
		if statistics {
			line += deviceStatistics(v)
		}
		lines = append(lines, line)
	}
	if r.Remote != "" {
		lines = append(lines, fmt.Sprintf("path %s local:%s peer:%s established:%s", conn, r.Local, r.Remote, yesNo(c == "Connected")))
	}
	for i := range r.Volumes {
		v := &r.Volumes[i]
		_, repl := control.SplitState(v.State)
		line := fmt.Sprintf("peer-device %s volume:%d replication:%s peer-disk:%s peer-client:no resync-suspended:%s",
			conn, v.Number, repl, v.PeerDisk, pausedWord(v.PausedUser, v.PausedPeer, v.PausedDependency))
		if statistics {
			line += peerStatistics(v)
		}
		lines = append(lines, line)
	}
	return lines
}
