package replication

import (
	"testing"

	"github.com/replblk/replblk/bitmap"
	"github.com/replblk/replblk/metadata"
	"github.com/replblk/replblk/replication/state"
	"github.com/replblk/replblk/replication/wire"
)

// sized checks that both nodes have a size, in memory and on disk, and are done with resizing.
func (p *pair) sized(t *testing.T, want uint64) {
	t.Helper()
	for _, n := range p.nodes {
		v := n.r.vols[0]
		if v.size != want || v.disk.sb.LASizeSectors != want || v.disk.bm.Bits() != bitmap.BitsFor(want) {
			t.Fatalf("%s: size %d, on disk %d, bitmap of %d bits, want %d\n%s", n.name, v.size, v.disk.sb.LASizeSectors, v.disk.bm.Bits(), want, p.take())
		}
		var sb metadata.Superblock
		if err := sb.Decode(n.super); err != nil || sb.LASizeSectors != want || sb.Flags.Has(metadata.FullSync) || sb.BMOffset != n.layout.BMOffset() {
			t.Fatalf("%s: superblock %+v, %v, want size %d\n%s", n.name, sb, err, want, p.take())
		}
		if v.frozen != 0 || v.rz.stage != resizeNone {
			t.Fatalf("%s: still resizing, stage %d, %d reasons to hold requests", n.name, v.rz.stage, v.frozen)
		}
	}
}

// dirtyEnd makes what lies behind the end of the volume different on the nodes.
func (p *pair) dirtyEnd(from uint64) {
	for i, n := range p.nodes {
		for s := from; s < uint64(len(n.data)); s++ {
			n.data[s] = uint64(i + 1)
		}
	}
}

// grown is a pair in sync whose disks have more room than the volume takes.
func grown(t *testing.T, sectors uint64) (p *pair, a, b *testNode) {
	t.Helper()
	p = newPair()
	a, b = establish(t, p)
	p.dirtyEnd(a.r.vols[0].size)
	a.grow(sectors)
	b.grow(sectors)
	return p, a, b
}

// holdNewSpace settles a resize, but a's handler that runs before the resync of the new space
// takes its time.
func (p *pair) holdNewSpace(t *testing.T) {
	t.Helper()
	p.nodes[0].silent = true
	p.settle()
	if av, bv := p.nodes[0].r.vols[0], p.nodes[1].r.vols[0]; av.st.Conn != state.Connected || bv.st.Conn != state.WFSyncUUID || av.size != bv.size {
		t.Fatalf("not between growth and resync: %v, %v\n%s", av.st, bv.st, p.take())
	}
}

// freeNewSpace ends the handler.
func (p *pair) freeNewSpace(t *testing.T) {
	t.Helper()
	p.nodes[0].silent = false
	p.nodes[0].handled(t, HandlerBeforeResyncSource, 0)
}

func ok(t *testing.T, p *pair, n *testNode, token uint64) {
	t.Helper()
	if r := n.replies[token]; !r.OK() {
		t.Fatalf("%s: command is answered with %v (%d)\n%s", n.name, r, r, p.take())
	}
}

// TestResizeOnline grows both devices in either order and resizes from either node. The new
// space is copied from the Primary, and the metadata moves.
func TestResizeOnline(t *testing.T) {
	for _, c := range []struct {
		name  string
		by    int  // node whose operator resizes
		first int  // node whose device grows first
		twice bool // each operator resizes when his device has grown
	}{
		{"both grown, by the Primary", 0, 0, false},
		{"both grown, by the Secondary", 1, 0, false},
		{"Primary first, each resizes", 0, 0, true},
		{"Secondary first, each resizes", 1, 1, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newPair()
			a, b := establish(t, p)
			before := a.r.vols[0].size
			p.dirtyEnd(before)
			n, m := p.nodes[c.first], p.nodes[1-c.first]
			n.grow(20000)
			if c.twice {
				token := n.admin(Admin{Kind: AdminResize})
				p.tick(5)
				ok(t, p, n, token)
				p.sized(t, before)
				c.by = 1 - c.first
			}
			m.grow(12000)
			token := p.nodes[c.by].admin(Admin{Kind: AdminResize})
			p.tick(100)
			ok(t, p, p.nodes[c.by], token)
			want := m.layout.DataSectors
			if want <= before || m.layout.Superblock != m.sectors-8 || n.layout.Superblock != n.sectors-8 {
				t.Fatalf("layouts %+v and %+v", n.layout, m.layout)
			}
			p.sized(t, want)
			p.states(t, "Connected Primary/Secondary UpToDate/UpToDate", "Connected Secondary/Primary UpToDate/UpToDate")
			p.equal(t)
			if b.data[want-1] != 1 {
				t.Fatal("the new space was not copied from the Primary")
			}
			id := a.request(OpWrite, want-8, 4096, 77)
			p.tick(3)
			if o, done := a.outcome[id]; !done || o != OK || b.data[want-1] != 77 {
				t.Fatalf("write to the last block: %v %v", o, done)
			}
			if !a.r.vols[0].disk.sb.UUIDs.Same(&b.r.vols[0].disk.sb.UUIDs) {
				t.Fatal("UUIDs differ")
			}
		})
	}
}

// TestResizeUnderLoad: writes go on during a resize, none is lost, and none goes to new space
// before the size is on disk.
func TestResizeUnderLoad(t *testing.T) {
	p, a, b := grown(t, 1<<18) // a bitmap page more
	before := a.r.vols[0].size
	var ids []ReqID
	for i := range uint64(40) {
		ids = append(ids, a.request(OpWrite, i*8192%before, 4096, 500+i))
	}
	b.admin(Admin{Kind: AdminResize})
	for i := range uint64(40) {
		ids = append(ids, a.request(OpWrite, i*8200%before, 512, 600+i))
	}
	p.tick(300)
	for _, id := range ids {
		if o, done := a.outcome[id]; !done || o != OK {
			t.Fatalf("write %d: %v %v\n%s", id, o, done, p.take())
		}
	}
	p.sized(t, a.layout.DataSectors)
	p.equal(t)
}

// TestResizeAssumeClean: no resync, and the new space is what it was.
func TestResizeAssumeClean(t *testing.T) {
	p, a, b := grown(t, 4096)
	token := a.admin(Admin{Kind: AdminResize, AssumeClean: true})
	p.take()
	p.tick(5)
	ok(t, p, a, token)
	p.sized(t, a.layout.DataSectors)
	p.states(t, "Connected Primary/Secondary UpToDate/UpToDate", "Connected Secondary/Primary UpToDate/UpToDate")
	if b.r.vols[0].disk.bm.Weight() != 0 {
		t.Fatal("bits are set")
	}
}

// TestResizeToSize: an explicit size, less than there is room for, then less than there is.
func TestResizeToSize(t *testing.T) {
	p, a, b := grown(t, 40960)
	before := a.r.vols[0].size
	token := a.admin(Admin{Kind: AdminResize, Sectors: before + 1003}) // no whole block
	p.tick(50)
	ok(t, p, a, token)
	p.sized(t, before+1003)
	p.equal(t)
	token = a.admin(Admin{Kind: AdminResize, Sectors: before - 40000})
	p.tick(5)
	if r := a.replies[token]; r != state.ImplicitShrink {
		t.Fatalf("shrink without force: %v", r)
	}
	token = a.admin(Admin{Kind: AdminResize, Sectors: 1 << 30})
	p.tick(5)
	if r := a.replies[token]; r != state.DiskTooSmall {
		t.Fatalf("larger than the disk: %v", r)
	}
	p.sized(t, before+1003)
	late := a.request(OpWrite, before-4096, 4096, 9)
	token = a.admin(Admin{Kind: AdminResize, Sectors: before - 40000, Force: true})
	p.tick(20)
	ok(t, p, a, token)
	if a.outcome[late] != OK {
		t.Fatal("a write before the command failed")
	}
	p.sized(t, before-40000)
	p.equal(t)
	id := a.request(OpWrite, before-40000, 4096, 9)
	p.tick(2)
	if o, done := a.outcome[id]; !done || o != IOError {
		t.Fatalf("write beyond the end: %v %v", o, done)
	}
	_ = b
}

// TestResizeAlone: without the peer nothing grows unless the operator knows that it has room.
// When it comes back it grows too, and gets the new space; with less room it is refused.
func TestResizeAlone(t *testing.T) {
	for _, room := range []bool{true, false} {
		p := newPair()
		a, b := establish(t, p)
		before := a.r.vols[0].size
		p.dirtyEnd(before)
		b.admin(Admin{Kind: AdminDisconnect})
		p.settle()
		a.grow(40960)
		token := a.admin(Admin{Kind: AdminResize})
		p.tick(3)
		ok(t, p, a, token)
		if a.r.vols[0].size != before {
			t.Fatal("grown without the peer")
		}
		token = a.admin(Admin{Kind: AdminResize, AssumePeer: true})
		p.tick(3)
		ok(t, p, a, token)
		if a.r.vols[0].size != a.layout.DataSectors || a.layout.DataSectors <= before {
			t.Fatalf("size %d, room for %d", a.r.vols[0].size, a.layout.DataSectors)
		}
		a.request(OpWrite, a.r.vols[0].size-8, 4096, 5)
		p.tick(2)
		if room {
			b.admin(Admin{Kind: AdminDetach})
			p.settle()
			b.growOffline(t, 50000)
			b.attach()
		}
		b.admin(Admin{Kind: AdminConnect})
		p.tick(100)
		if !room {
			if s := a.r.State(0); s.Conn >= state.Connected || a.data[a.r.vols[0].size-1] != 5 {
				t.Fatalf("connected to a peer without room: %v", s)
			}
			continue
		}
		p.sized(t, a.layout.DataSectors)
		p.states(t, "Connected Primary/Secondary UpToDate/UpToDate", "Connected Secondary/Primary UpToDate/UpToDate")
		p.equal(t)
	}
}

// growOffline makes the device of a node that is down larger, as check-resize does.
func (n *testNode) growOffline(t *testing.T, more uint64) {
	t.Helper()
	n.grow(more)
	var err error
	var sb metadata.Superblock
	if n.found, err = n.layout.Grown(n.sectors); err == nil {
		err = sb.Decode(n.super)
	}
	if err != nil {
		t.Fatal(err)
	}
	sb.SetLayout(n.found)
	n.super = sb.AppendTo(nil)
	n.move()
	n.inbox = nil
}

// TestGrownApart grows both devices while the nodes are down. With equal generations nothing
// but the growth calls for a resync. It waits for a Primary, whichever node that is, and
// outlives a connection; if the Primary does not see to it, as a kernel, the other node does.
func TestGrownApart(t *testing.T) {
	for i := range 8 {
		lazy, cut := i&2 != 0, i&4 != 0
		p := newPair()
		first, other := p.nodes[i&1], p.nodes[1-i&1]
		a, b := establish(t, p)
		a.admin(Admin{Kind: AdminSecondary})
		p.tick(3)
		before := a.r.vols[0].size
		p.dirtyEnd(before)
		p.cut()
		for _, n := range p.nodes {
			n.r = New(testConfig())
			n.wants, n.up = false, false
			n.growOffline(t, 20000)
		}
		p.bringUp()
		p.settle()
		p.states(t, "Connected Secondary/Secondary UpToDate/UpToDate", "Connected Secondary/Secondary UpToDate/UpToDate")
		if cut {
			p.apart = true
			p.cut()
			p.tick(2)
			p.apart = false
			p.tick(1)
		}
		first.admin(Admin{Kind: AdminPrimary})
		p.settle()
		if lazy {
			first.r.vols[0].fresh = freshSpace{}
			p.tick(20)
			if other.r.vols[0].disk.bm.Weight() == 0 {
				t.Fatal("the other node did not wait")
			}
		}
		p.tick(100)
		p.sized(t, a.layout.DataSectors)
		if s := first.r.State(0).String(); s != "Connected Primary/Secondary UpToDate/UpToDate" {
			t.Fatalf("promoted %s, lazy %v, cut %v: %s", first.name, lazy, cut, s)
		}
		p.equal(t)
		if !a.r.vols[0].disk.sb.UUIDs.Same(&b.r.vols[0].disk.sb.UUIDs) {
			t.Fatal("UUIDs differ")
		}
	}
}

// TestGrowthInterrupted breaks the connection when both nodes have grown and the new space was
// not copied (simulator, seed 3505): the generations are equal then, the copies are not.
func TestGrowthInterrupted(t *testing.T) {
	p, a, b := grown(t, 20000)
	a.admin(Admin{Kind: AdminResize})
	a.admin(Admin{Kind: AdminSecondary})
	p.holdNewSpace(t)
	p.cut()
	p.freeNewSpace(t)
	p.settle()
	b.admin(Admin{Kind: AdminPrimary}) // only a Primary begins the generation that has it copied
	p.tick(100)
	p.sized(t, a.layout.DataSectors)
	p.states(t, "Connected Secondary/Primary UpToDate/UpToDate", "Connected Primary/Secondary UpToDate/UpToDate")
	p.equal(t)
}

// TestGrowthWithinGrowth: more room on both disks while the resync of new space is about to
// start waits for its end. The target takes no size before, and a write to space that it does
// not know would end the connection (simulator, seed 9693).
func TestGrowthWithinGrowth(t *testing.T) {
	p, a, b := grown(t, 40000)
	av, bv := a.r.vols[0], b.r.vols[0]
	b.admin(Admin{Kind: AdminResize, Sectors: av.size + 20000})
	p.holdNewSpace(t)
	more := wire.Sizes{Backing: av.disk.limit(), MaxBioSize: 1 << 20}
	a.hears(wire.CmdSizes, DataSocket, more.AppendTo(nil, a.r.session()))
	token := a.admin(Admin{Kind: AdminResize})
	p.tick(5)
	if r := a.replies[token]; r != state.ResizeDuringResync || av.size != bv.size {
		t.Fatalf("resize: %v, sizes %d and %d\n%s", r, av.size, bv.size, p.take())
	}
	p.freeNewSpace(t)
	p.tick(200)
	p.sized(t, a.layout.DataSectors)
	p.states(t, "Connected Primary/Secondary UpToDate/UpToDate", "Connected Secondary/Primary UpToDate/UpToDate")
	p.equal(t)
}

// TestGrowthAskedFromBothEnds: both operators resize, and the Primary asked when its disk had
// less room than now. The Secondary does not answer that before it has its own answer
// (simulator, seed 1660 with growth on links that break).
func TestGrowthAskedFromBothEnds(t *testing.T) {
	p, a, b := grown(t, 40000)
	before := a.r.vols[0].size
	a.asleep = true
	b.admin(Admin{Kind: AdminResize})
	p.settle()
	b.hears(wire.CmdSizes, DataSocket, (&wire.Sizes{Backing: before + 20000, MaxBioSize: 1 << 20}).AppendTo(nil, b.r.session()))
	p.settle()
	if size := b.r.vols[0].size; size != before {
		t.Fatalf("the Secondary has decided on %d sectors", size)
	}
	a.asleep = false
	p.tick(200)
	p.sized(t, a.layout.DataSectors)
	p.states(t, "Connected Primary/Secondary UpToDate/UpToDate", "Connected Secondary/Primary UpToDate/UpToDate")
	p.equal(t)
}

// TestGrowthDoneAtBothEnds: as both operators resize, each node learns of the other's room before it
// grows, and has grown when it is asked. The Secondary has its answer then and waits for the resync;
// the Primary has still to have its own (simulator, seed 225902).
func TestGrowthDoneAtBothEnds(t *testing.T) {
	p := newPair()
	a, b := establish(t, p)
	b.grow(40000)
	b.admin(Admin{Kind: AdminResize})
	p.tick(3)
	a.grow(20000)
	b.asleep = true
	a.admin(Admin{Kind: AdminResize})
	p.settle()
	if size := a.r.vols[0].size; size != a.layout.DataSectors {
		t.Fatalf("the Primary has not grown: %d sectors\n%s", size, p.take())
	}
	b.inbox = append([]Event{{Kind: EvAdmin, Admin: &Admin{Kind: AdminResize, Token: 99}}}, b.inbox...)
	b.asleep = false
	p.tick(200)
	p.sized(t, a.layout.DataSectors)
	p.states(t, "Connected Primary/Secondary UpToDate/UpToDate", "Connected Secondary/Primary UpToDate/UpToDate")
	p.equal(t)
}

// TestResizeRefused: who may not resize, and when.
func TestResizeRefused(t *testing.T) {
	p := newPair()
	a, b := establish(t, p)
	a.admin(Admin{Kind: AdminSecondary})
	p.tick(3)
	token := a.admin(Admin{Kind: AdminResize})
	p.settle()
	if r := a.replies[token]; r != state.ResizeNeedsPrimary {
		t.Errorf("without a Primary: %v", r)
	}
	b.admin(Admin{Kind: AdminInvalidateRemote})
	for range 20 {
		p.tick(1)
		if a.r.State(0).Conn == state.SyncTarget {
			break
		}
	}
	token = a.admin(Admin{Kind: AdminResize})
	p.settle()
	if r := a.replies[token]; r != state.ResizeDuringResync {
		t.Errorf("during a resync: %v, %v", r, a.r.State(0))
	}
	p.tick(600)
	a.admin(Admin{Kind: AdminDetach})
	p.tick(3)
	token = a.admin(Admin{Kind: AdminResize})
	p.settle()
	if r := a.replies[token]; r != state.IsDiskless {
		t.Errorf("without a disk: %v", r)
	}
}

// TestResizeMoveFails: the disk is given up, the peer serves on.
func TestResizeMoveFails(t *testing.T) {
	p, a, _ := grown(t, 4096)
	a.moveErr = DiskIOError
	token := a.admin(Admin{Kind: AdminResize})
	p.tick(5)
	if r := a.replies[token]; r.OK() {
		t.Fatalf("resize: %v", r)
	}
	if s := a.r.State(0); s.Disk != state.Diskless || s.PeerDisk != state.UpToDate {
		t.Fatalf("state %v", s)
	}
	id := a.request(OpWrite, 0, 4096, 3)
	p.tick(2)
	if o, done := a.outcome[id]; !done || o != OK || p.nodes[1].data[0] != 3 {
		t.Fatalf("write: %v %v", o, done)
	}
}

// TestResizeSizeDurableFirst: as long as the superblock with the new size is not on disk no
// request is admitted, and nobody is told of the size.
func TestResizeSizeDurableFirst(t *testing.T) {
	p, a, b := grown(t, 4096)
	before := a.r.vols[0].size
	b.stuck = true
	a.admin(Admin{Kind: AdminResize})
	p.tick(2)
	id := a.request(OpWrite, 0, 4096, 3)
	p.tick(2)
	if b.r.vols[0].size != before || a.r.vols[0].size != before {
		t.Fatal("grown before it is durable")
	}
	if _, done := a.outcome[id]; done || b.data[0] == 3 {
		t.Fatal("a write was done by a node that is resizing")
	}
	b.stuck = false
	b.inbox = append(b.inbox, Event{Kind: EvMeta, IO: ioFor(classPages, 0)})
	p.tick(100)
	if o, done := a.outcome[id]; !done || o != OK {
		t.Fatalf("write: %v %v, stage %d", o, done, b.r.vols[0].rz.stage)
	}
}

// TestGrowBitmapTail: new space that begins within a block marks that block.
func TestGrowBitmapTail(t *testing.T) {
	p := newPair()
	a, _ := establish(t, p)
	v := a.r.vols[0]
	from := v.size - 3
	v.disk.bm.Resize(bitmap.BitsFor(from), false)
	v.growBitmap(from, v.size, true)
	if bit := from / bitmap.SectorsPerBit; !v.disk.bm.Test(bit) || v.disk.bm.Weight() != bitmap.BitsFor(v.size)-bit {
		t.Fatalf("%d bits set", v.disk.bm.Weight())
	}
}
