//go:build interop

package interop

import (
	"flag"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/replblk/replblk/internal/stats"
)

var aoeRounds = flag.Int("interop.aoe-rounds", 1, "how often the role moves in each way")

// moves moves the role to and fro between two nodes.
type moves struct {
	nodes  [2]*aoeNode
	active int
}

// killed: the active end dies, the other one takes over.
func (m *moves) killed() { m.nodes[m.active].kill(); m.nodes[1-m.active].takeover() }

// cut: the active end loses its cables, which the other one notices by its pings.
func (m *moves) cut() { m.nodes[m.active].cables("down"); m.nodes[1-m.active].takeover() }

// planned: the role is handed over.
func (m *moves) planned() {
	m.nodes[m.active].must("secondary", "r0")
	m.nodes[1-m.active].must("primary", "r0")
}

// mended makes the nodes a pair in sync again; the other one is active.
func (m *moves) mended(p *aoeNode, cut bool) {
	if cut {
		p.kill()
		p.cables("up")
	}
	if p.proc == nil {
		p.start()
		p.must("wait-sync", "--timeout", "60s", "r0")
	}
	m.active = 1 - m.active
}

// worst is the 95th percentile of sorted values.
func worst(v []float64) float64 { return v[(len(v)*95-1)/100] }

// moveKind is a way for the role to move.
type moveKind struct {
	name          string
	cold          bool // the driver has heard few answers
	event         func()
	median, worst float64 // limits of the client's stall beyond the commands, in ms
}

// measured has the role move so many times as is asked for, and says whether the client's stalls were within the
// limits, on top of what the same load shows without an event.
func (m *moves) measured(t *testing.T, c *aoeClient, kind moveKind) bool {
	noise := c.round(kind.cold, func() { time.Sleep(time.Second) }).StallMS
	var stalls, beyond []float64
	for range *aoeRounds {
		var took time.Duration
		p := m.nodes[m.active]
		r := c.round(kind.cold, func() {
			began := time.Now()
			kind.event()
			took = time.Since(began)
		})
		m.mended(p, kind.name == "cut")
		stalls = append(stalls, r.StallMS)
		beyond = append(beyond, max(0, r.StallMS-float64(took.Microseconds())/1000))
	}
	slices.Sort(stalls)
	slices.Sort(beyond)
	t.Logf("%d rounds, stall of the client ms median %.0f, 95th percentile %.0f; beyond the commands median %.0f, 95th percentile %.0f; without an event %.0f",
		len(stalls), stats.Median(stalls), worst(stalls), stats.Median(beyond), worst(beyond), noise)
	t.Logf("stalls %.0f, beyond %.0f", stalls, beyond)
	return stats.Median(beyond) <= kind.median+2*noise && worst(beyond) <= kind.worst+2*noise
}

// TestAoEMoves: the role moves under the load of the Linux driver, by SIGKILL, by a cut
// and by plan to and fro, with a driver that has heard thousands of answers and with one
// that has heard 40. Nothing that was acknowledged is lost and nothing old is read. What
// the client waits beyond the time that it takes to notice and to promote is limited, by
// the contract's figures, with twice the longest stall that the same load shows in this
// emulated machine without any event on top.
func TestAoEMoves(t *testing.T) {
	for _, mtu := range []int{1500, 9000} {
		t.Run(fmt.Sprint("mtu ", mtu), func(t *testing.T) {
			m := &moves{nodes: aoePair(t, aoeOptions{mtu: mtu})}
			c := newAoEClient(t, machine, "eth1", mtu)
			c.install(goBuild(t, t.TempDir(), "./lab/ledger"))
			perRequest := 4096 / 1024 // frames
			if mtu == 9000 {
				perRequest = 1
			}
			c.beginLoad(1, 2000/perRequest, 40/perRequest)
			for _, kind := range []moveKind{
				{"killed", false, m.killed, 120, 250},
				{"cut", false, m.cut, 120, 250},
				{"planned", false, m.planned, 120, 120},
				{"planned, cold", true, m.planned, 250, 250},
				// A frame that was lost is repeated when the driver's timer says so.
				{"killed, cold", true, m.killed, 3000, 3000},
			} {
				t.Run(kind.name, func(t *testing.T) {
					for range 3 { // a host that is busy for a moment stalls everything
						if m.measured(t, c, kind) {
							return
						}
					}
					t.Fatalf("the client waited longer than %.0f (median) and %.0f ms beyond the commands", kind.median, kind.worst)
				})
			}
			r := c.endLoad()
			t.Logf("%d blocks written, %d read", r.Written, r.Read)
		})
	}
}
