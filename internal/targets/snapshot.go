package targets

import (
	"github.com/replblk/replblk/aoe"
	"github.com/replblk/replblk/aoe/netif"
	"github.com/replblk/replblk/internal/control"
)

// Link is an interface that a target is served on.
type Link struct {
	Interface *netif.Interface
	Port      *aoe.Port
	Addr      aoe.MAC // the target's there; zero is the interface's own
}

// Snapshot says what a target does, and on which interfaces.
func Snapshot(t *aoe.Target, links []Link) control.AoE {
	c := t.Counters()
	s := control.AoE{
		Shelf: t.Shelf(), Slot: t.Slot(), Mode: t.Mode().String(), Serving: t.Serving(), Conflicts: t.Conflicts(),
		HandedOver: c.HandedOver.Load(), TakenOver: c.TakenOver.Load(), Requests: c.Requests.Load(), Responses: c.Responses.Load(),
		Reads: c.Reads.Load(), Writes: c.Writes.Load(), Flushes: c.Flushes.Load(),
		ReadBytes: c.ReadBytes.Load(), WriteBytes: c.WriteBytes.Load(),
		Errors: c.ATAErrors.Load() + c.AoEErrors.Load(), Duplicates: c.Duplicates.Load(),
		Dropped: make(map[string]uint64),
	}
	for _, r := range aoe.DropReasons() {
		s.Dropped[r.String()] = c.Drops(r)
	}
	s.Latency = latency(&c.Latency)
	for _, ini := range t.Initiators() {
		s.Initiators = append(s.Initiators, initiator(ini))
	}
	for _, k := range links {
		l := link(k)
		s.Interfaces = append(s.Interfaces, l.Name)
		s.Links = append(s.Links, l)
	}
	return s
}

func link(k Link) control.AoELink {
	st, pc := k.Interface.Status(), k.Port.Counters()
	l := control.AoELink{
		Name: st.Name, Up: st.Up, Problem: st.Problem, MTU: st.MTU, Lost: st.Lost,
		Received: st.Counters.Received, Sent: st.Counters.Sent, Overruns: st.Counters.Overruns, Unsent: st.Counters.SendErrors,
		Malformed: pc.Malformed.Load(), Foreign: pc.Foreign.Load(), Deaf: pc.Deaf.Load(),
	}
	if k.Addr != (aoe.MAC{}) {
		l.Address = k.Addr.String()
	}
	return l
}

func initiator(ini *aoe.Initiator) control.AoEInitiator {
	c := &ini.Counters
	s := control.AoEInitiator{
		Address: ini.MAC.String(), Reads: c.Reads.Load(), Writes: c.Writes.Load(), ReadBytes: c.ReadBytes.Load(), WriteBytes: c.WriteBytes.Load(),
		Errors: c.ATAErrors.Load() + c.AoEErrors.Load(), Duplicates: c.Duplicates.Load(),
		Dropped: make(map[string]uint64), Latency: latency(&c.Latency),
	}
	for _, r := range aoe.DropReasons() {
		if n := c.Drops(r); n > 0 {
			s.Dropped[r.String()] = n
		}
	}
	return s
}

func latency(l *aoe.Latency) control.Latency {
	buckets, sum := l.Counts()
	s := control.Latency{Buckets: buckets, Sum: sum.Seconds()}
	for _, b := range aoe.LatencyBounds() {
		s.Bounds = append(s.Bounds, b.Seconds())
	}
	return s
}
