package pairs

import "github.com/replblk/replblk/replication/wire"

// Kind is the kind of an event, with the numbers of replication.EventKind.
type Kind uint8

// Kinds of events.
const (
	Tick Kind = iota + 1
	Request
	Disk
	Meta
	ConnUp
	ConnDown
	Packet
	Sent
	Attach
	Admin
	Handler
	Users
	Device
	Moved
	Follow
	lastKind = Follow
)

// maxEvents bounds the events.
const maxEvents = 128

var (
	kindNames  = [...]string{"", "tick", "request", "disk", "meta", "connection up", "connection down", "packet", "sent", "attach", "admin", "handler", "users", "device", "moved", "follow"}
	opNames    = [...]string{"", "read", "write", "flush", "discard", "zeroes"}
	adminNames = [...]string{"", "connect", "disconnect", "primary", "secondary", "detach", "invalidate", "invalidate-remote", "outdate", "pause-sync",
		"resume-sync", "new-current-uuid", "suspend-io", "resume-io", "adjust", "verify", "stop-verify", "repair", "resize"}
)

// packets returns the commands that a core handles, in the order of their numbers. The driver
// keeps those that only say which socket it is.
func packets() (list []wire.Command) {
	for c := range 1 << 16 {
		if cmd := wire.Command(c); cmd.Sockets() != 0 && cmd != wire.CmdInitialMeta && cmd != wire.CmdInitialData {
			list = append(list, cmd)
		}
	}
	return list
}

// Event is what a core was given, as far as it is recorded: a number below Events().
type Event int

// description is what an Event stands for.
type description struct {
	kind   Kind
	detail uint16 // operation, packet or command
	failed bool
	name   string
}

var (
	events []description
	index  = map[description]Event{} // without names
)

func init() {
	add := func(d description) {
		key := d
		key.name = ""
		index[key] = Event(len(events))
		events = append(events, d)
	}
	for k := Tick; k <= lastKind; k++ {
		switch name := kindNames[k]; k {
		case Request:
			for op := 1; op < len(opNames); op++ {
				add(description{k, uint16(op), false, opNames[op]})
			}
		case Packet:
			for _, cmd := range packets() {
				add(description{k, uint16(cmd), false, cmd.String()})
			}
		case Admin:
			for a := 1; a < len(adminNames); a++ {
				add(description{k, uint16(a), false, adminNames[a]})
			}
		case Disk, Meta, Device, Moved:
			add(description{k, 0, false, name})
			add(description{k, 0, true, name + " failed"})
		default:
			add(description{k, 0, false, name})
		}
	}
	if len(events) > maxEvents {
		panic("pairs: too many events")
	}
}

// Events returns how many there are: they are numbered from 0.
func Events() int { return len(events) }

// Kind returns the kind of an event.
func (e Event) Kind() Kind { return events[e].kind }

// Packet returns the command of an event of kind Packet.
func (e Event) Packet() wire.Command { return wire.Command(events[e].detail) }

// String returns what the event is called.
func (e Event) String() string { return events[e].name }

// eventOf finds an event, -1 if there is none such.
func eventOf(kind, op uint8, cmd wire.Command, admin uint8, failed bool) Event {
	d := description{kind: Kind(kind)}
	switch d.kind {
	case Request:
		d.detail = uint16(op)
	case Packet:
		d.detail = uint16(cmd)
	case Admin:
		d.detail = uint16(admin)
	case Disk, Meta, Device, Moved:
		d.failed = failed
	default:
	}
	e, ok := index[d]
	if !ok {
		return -1
	}
	return e
}
