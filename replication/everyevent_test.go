package replication

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/replblk/replblk/replication/state"
	"github.com/replblk/replblk/replication/wire"
)

// stateKey is what counts as a state for TestEveryEventInEveryState.
type stateKey struct {
	conn state.Conn
	disk state.Disk
	role state.Role
}

// outside are the events that nobody asks for, and that may come in any state in which there
// is what they are about.
func outside() (list []func(x *attack)) {
	post := func(ev Event) {
		list = append(list, func(x *attack) { x.victim.inbox = append([]Event{ev}, x.victim.inbox...) })
	}
	// Not events, but what makes answers late, or bad.
	list = append(list,
		func(x *attack) { x.victim.stuck = true },
		func(x *attack) { x.victim.metaErr = DiskIOError },
		func(x *attack) {
			for op := OpRead; op <= OpZeroes; op++ {
				x.victim.failing[op] = true
			}
		})
	post(Event{Kind: EvTick, Rand: 7})
	post(Event{Kind: EvUsers, Size: 1})
	for op := OpRead; op <= OpZeroes; op++ {
		list = append(list, func(x *attack) {
			size := uint32(4096)
			if op == OpFlush {
				size = 0
			}
			x.victim.request(op, 4000, size, 999) // nobody else is there
			x.first()
		})
	}
	for kind := AdminConnect; kind <= AdminResize; kind++ {
		list = append(list, func(x *attack) {
			a := Admin{Kind: kind}
			if kind == AdminAdjust {
				cfg := x.victim.r.cfg
				a.Config = &cfg
			}
			x.victim.admin(a)
			x.first()
		})
	}
	for cmd := wire.CmdData; cmd <= wire.CmdZeroes+1; cmd++ {
		if cmd != wire.CmdZeroes+1 && cmd.Sockets() == 0 {
			continue
		}
		list = append(list, func(x *attack) {
			if cmd == wire.CmdZeroes+1 {
				cmd = wire.CmdConnectionFeatures
			}
			x.packet(cmd)
		})
	}
	for _, err := range []DiskError{DiskOK, DiskIOError} { // the driver looks at a device when it likes
		list = append(list, func(x *attack) {
			n := x.victim
			layout, _ := n.layout.Grown(n.sectors) // no error: the harness has made it so
			n.found = layout
			n.inbox = append([]Event{{Kind: EvDevice, Err: err, Device: &Device{BackingSectors: n.sectors, Layout: layout}}}, n.inbox...)
		})
	}
	for waits := range uint32(2) { // resync-after, by the node that orders its resources
		list = append(list, func(x *attack) {
			x.victim.inbox = append([]Event{{Kind: EvFollow, Size: waits}}, x.victim.inbox...)
		})
	}
	list = append(list, func(x *attack) {
		if x.victim.up {
			x.p.cut()
			x.first()
		}
	}, func(x *attack) {
		x.victim.inbox = append([]Event{{Kind: EvConnDown, Gen: x.victim.gen + 999, Cause: state.NetworkFailure}}, x.victim.inbox...) // news of another one
	}, func(x *attack) { // a stranger, who goes again
		const gen = 1 << 30
		x.victim.inbox = append([]Event{{Kind: EvConnUp, Gen: gen, Body: make([]byte, 64)}, {Kind: EvConnDown, Gen: gen, Cause: state.NetworkFailure}}, x.victim.inbox...)
	}, func(x *attack) {
		n := x.victim
		s, waits := n.r.State(0).Disk, func(ev Event) bool { return ev.Kind == EvAttach }
		if (s == state.Diskless || s == state.Failed) && n.r.vols[0].pending == nil && !slices.ContainsFunc(n.inbox, waits) {
			n.attach()
			x.first()
		}
	})
	return list
}

// first lets the newest event of the victim come before the others.
func (x *attack) first() {
	in := x.victim.inbox
	if n := len(in) - 1; n > 0 {
		x.victim.inbox = append([]Event{in[n]}, in[:n]...)
	}
}

// path is how a pair comes to a state: so many events of a scenario, then some of outside,
// each with some events after it.
type path struct {
	which  int
	steps  int
	second bool // of the nodes is looked at
	moves  []move
}

type move struct{ event, steps int }

// walk goes a path.
func (w path) walk(t *testing.T, inject []func(*attack)) *attack {
	x := besiege(t, w.which, w.steps, w.second, nil)
	x.story = fmt.Sprintf("%s, %+v: ", scenarios[w.which].name, w)
	for _, m := range w.moves {
		x.input = garbage(m.event)
		inject[m.event](x)
		for range m.steps {
			x.p.link()
			x.victim.next()
			x.victim.peer.next()
		}
	}
	return x
}

func (x *attack) key() stateKey {
	s := x.victim.r.State(0)
	if s.Conn.Lost() {
		s.Conn = state.NetworkFailure // the others differ in the log only
	}
	return stateKey{s.Conn, s.Disk, s.Role}
}

// TestEveryEventInEveryState lets every event that can come from outside happen in every state
// that the scenarios go through, for each of the nodes, and in those that such events lead to.
// make pairs runs all of it, a plain test a small part.
func TestEveryEventInEveryState(t *testing.T) {
	stride, turn, depth, hop := 37, 0, 1, 7
	if recorder != nil {
		stride, depth, hop = 1, 4, 1
	}
	seen := map[stateKey]bool{}
	inject := outside()
	var queue []path
	for which := range scenarios {
		for _, second := range []bool{false, true} {
			for steps := 0; steps < 200; steps += hop {
				queue = append(queue, path{which: which, steps: steps, second: second})
			}
		}
	}
	for len(queue) > 0 {
		w := queue[0]
		queue = queue[1:]
		if key := w.walk(t, inject).key(); seen[key] {
			continue
		} else {
			seen[key] = true
		}
		for i := range inject {
			if turn++; turn%stride != 0 {
				continue
			}
			longer := w
			longer.moves = append(slices.Clone(w.moves), move{event: i})
			x := longer.walk(t, inject)
			for range 6 { // where does it lead to?
				x.p.link()
				x.victim.next()
				longer.moves[len(w.moves)].steps++
				if len(w.moves) < depth && !seen[x.key()] {
					next := longer
					next.moves = slices.Clone(longer.moves)
					queue = append(queue, next)
				}
				x.victim.peer.next()
			}
			x.after()
		}
	}
	t.Logf("%d states", len(seen))
}

// garbage is the input for an event that is made up.
func garbage(seed int) []byte {
	rng := rand.New(rand.NewPCG(uint64(seed), 5))
	b := make([]byte, 64)
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	return b
}
