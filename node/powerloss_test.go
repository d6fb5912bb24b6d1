package node

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/replblk/replblk/activitylog"
	"github.com/replblk/replblk/block"
	"github.com/replblk/replblk/block/mem"
	"github.com/replblk/replblk/block/record"
	"github.com/replblk/replblk/internal/mdtool"
	"github.com/replblk/replblk/metadata"
	"github.com/replblk/replblk/node/transport"
	"github.com/replblk/replblk/replication"
)

// These tests record what two nodes do to their disks, and start from every disk that a
// power loss could have left (L01 to L05, L09, M02, A03, A04).

const (
	blackoutSectors = 1 << 15 // 16 MiB, four extents
	blackoutBlock   = 8       // sectors of a write
)

// blackout is a recorded session of two nodes.
type blackout struct {
	size  uint64 // sectors of the volume
	base  [2][]byte
	log   [2][]record.Entry
	first uint64 // moment at which the load began
	last  uint64
	ops   []recordedOp
}

// recordedOp is what the application did. A write fills its block with the number of
// the write.
type recordedOp struct {
	flush        bool
	fua          bool
	block        uint64
	value        byte
	began, ended uint64
}

// recordSession runs a pair under load and returns what its disks were asked to do.
func recordSession(t *testing.T, seed uint64) *blackout {
	var b blackout
	synctest.Test(t, func(t *testing.T) {
		clock := &record.Clock{}
		n := &transport.Memory{}
		var hosts [2]*host
		var disks [2]*record.Device
		for i, name := range []string{"a", "b"} {
			d := mem.New(blackoutSectors)
			if _, err := mdtool.Create(&deviceStore{d}, metadata.Internal, mdtool.CreateOptions{Ask: mdtool.Ask{Force: true}}); err != nil {
				t.Fatal(err)
			}
			b.base[i] = append([]byte(nil), d.Contents()...)
			disks[i] = record.New(d, clock)
			hosts[i] = newBlackoutHost(t, n, disks[i], name)
		}
		initialSync(t, hosts[0], hosts[1])
		b.size = hosts[0].dataSectors()
		b.first = clock.Tick()
		b.load(t, hosts[0].Volume(0), clock, rand.New(rand.NewPCG(seed, 0)))
		b.last = clock.Tick()
		for i, h := range hosts {
			b.log[i] = disks[i].Entries()
			h.close(t)
		}
	})
	return &b
}

func newBlackoutHost(t *testing.T, n transport.Network, d block.Device, name string) *host {
	t.Helper()
	peer := map[string]string{"a": "b", "b": "a"}[name]
	return &host{Resource: attached(t, pairConfig(name, peer), n, name, Backing{Data: d})}
}

// load writes few blocks of all extents, again and again, several at a time.
func (b *blackout) load(t *testing.T, v *Volume, clock *record.Clock, rng *rand.Rand) {
	blocks := make([]uint64, 24)
	for i := range blocks {
		blocks[i] = rng.Uint64N(b.size/blackoutBlock) * blackoutBlock
	}
	for i := range 160 {
		op := recordedOp{flush: rng.IntN(9) == 0, block: blocks[rng.IntN(len(blocks))], value: byte(1 + i)}
		r := &block.Request{Op: block.Flush}
		if !op.flush {
			r = &block.Request{Op: block.Write, Sector: op.block, Sectors: blackoutBlock, Data: bytes.Repeat([]byte{op.value}, blackoutBlock*block.SectorSize)}
			if op.fua = rng.IntN(6) == 0; op.fua {
				r.Flags = block.FUA
			}
		}
		op.began = clock.Tick()
		if err := block.Do(v, r); err != nil {
			t.Fatal(err)
		}
		op.ended = clock.Tick()
		b.ops = append(b.ops, op)
		if rng.IntN(20) == 0 {
			time.Sleep(200 * time.Millisecond) // epochs close, the log is idle
		}
	}
}

// disk is what a power loss leaves of a node's disk.
func (b *blackout) disk(node int, at uint64, keep record.Keep) []byte {
	image := append([]byte(nil), b.base[node]...)
	record.Lose(b.log[node], at, image, keep)
	return image
}

// floor returns for each block that was written the values that it may hold after a
// power loss of everything at a moment: the newest that a flush has promised, or that was
// written with FUA and answered, or any that was begun later.
func (b *blackout) floor(at uint64) map[uint64][]byte {
	flushed := uint64(0) // writes that ended before this are promised
	for _, op := range b.ops {
		if op.flush && op.ended <= at {
			flushed = op.began
		}
	}
	may := make(map[uint64][]byte)
	for _, op := range b.ops {
		switch {
		case op.flush || op.began > at:
		case op.ended < flushed, op.fua && op.ended <= at:
			may[op.block] = []byte{op.value}
		default:
			if may[op.block] == nil {
				may[op.block] = []byte{0}
			}
			may[op.block] = append(may[op.block], op.value)
		}
	}
	return may
}

// holds fails if a block holds something that the floor does not allow. Blocks may be
// torn between allowed values.
func (b *blackout) holds(t *testing.T, what string, image []byte, at uint64) {
	t.Helper()
	for at8, may := range b.floor(at) {
		for s := at8; s < at8+blackoutBlock; s++ {
			p := image[block.Bytes(s):block.Bytes(s+1)]
			if !bytes.Contains(may, p[:1]) || !bytes.Equal(p, bytes.Repeat(p[:1], block.SectorSize)) {
				t.Fatalf("%s: sector %d holds write %d, allowed are %v", what, s, p[0], may)
			}
		}
	}
}

// keepOf draws which sectors in doubt survive: none, all, or some.
func keepOf(rng *rand.Rand) record.Keep {
	part := []float64{0, 0.1, 0.5, 0.9, 1}[rng.IntN(5)]
	return func(int) bool { return rng.Float64() < part }
}

// Both nodes lose power at the same moment. They come back by themselves, are equal, and
// have what was flushed; and so has the Secondary's disk alone, if the other one burned.
func TestBlackoutOfBoth(t *testing.T) {
	b := recordSession(t, 1)
	rng := rand.New(rand.NewPCG(1, 1))
	states := 60
	if testing.Short() {
		states = 2
	}
	for i := range states {
		at := b.first + rng.Uint64N(b.last-b.first)
		images := [2][]byte{b.disk(0, at, keepOf(rng)), b.disk(1, at, keepOf(rng))}
		what := fmt.Sprintf("state %d, power lost at moment %d", i, at)
		b.holds(t, what+", the Secondary's disk", images[1], at)
		synctest.Test(t, func(t *testing.T) {
			n := &transport.Memory{}
			var hosts [2]*host
			var disks [2]*mem.Device
			for k, name := range []string{"a", "b"} {
				disks[k] = mem.NewVolatile(blackoutSectors)
				if err := block.WriteAt(disks[k], images[k], 0); err != nil {
					t.Fatal(err)
				}
				hosts[k] = newBlackoutHost(t, n, disks[k], name)
			}
			for _, h := range hosts {
				h.do(t, replication.Admin{Kind: replication.AdminConnect})
			}
			for _, h := range hosts {
				h.wait(t, what, inSync)
			}
			x, y := disks[0].Contents()[:block.Bytes(b.size)], disks[1].Contents()[:block.Bytes(b.size)]
			if !bytes.Equal(x, y) {
				t.Fatalf("%s: the copies differ", what)
			}
			b.holds(t, what, x, at)
			closeAll(t, hosts[:]...)
		})
	}
}

// At every moment, whatever survives, the metadata of the Primary is readable, and its
// activity log names the extent of every write that was under way or not yet
// confirmed by the peer's flush (I3). No extent leaves a log this small.
func TestBlackoutLeavesTheLog(t *testing.T) {
	if testing.Short() {
		t.Skip("nothing happens at the same time here")
	}
	b := recordSession(t, 2)
	rng := rand.New(rand.NewPCG(2, 2))
	states := 0
	for at := b.first; at < b.last; at += 5 {
		for range 2 {
			states++
			d := mem.NewVolatile(blackoutSectors)
			if err := block.WriteAt(d, b.disk(0, at, keepOf(rng)), 0); err != nil {
				t.Fatal(err)
			}
			b.logged(t, d, at)
		}
	}
	t.Logf("%d states of %d moments", states, b.last-b.first)
}

// logged checks one disk.
func (b *blackout) logged(t *testing.T, d block.Device, at uint64) {
	t.Helper()
	m, err := mdtool.Open(&deviceStore{d}, metadata.Internal)
	if err != nil {
		t.Fatalf("moment %d: %v", at, err)
	}
	ring := make([]byte, block.Bytes(m.Layout.ActivityLogSectors))
	if err := block.ReadAt(d, ring, m.Layout.ActivityLog); err != nil {
		t.Fatal(err)
	}
	res, err := activitylog.Replay(activitylog.Ring(m.Layout.Striping), ring)
	if err != nil {
		t.Fatalf("moment %d: %v", at, err)
	}
	for i := range b.log[0] {
		e := &b.log[0][i]
		if e.Op == block.Flush || e.Began < b.first || e.Began > at || e.Sector >= b.size {
			continue
		}
		first, last := activitylog.Extents(e.Sector, uint64(e.Sectors))
		for x := first; x <= last; x++ {
			if !slices.Contains(res.Extents, x) {
				t.Fatalf("moment %d: a write of extent %d began at %d, the log has %v", at, x, e.Began, res.Extents)
			}
		}
	}
}
