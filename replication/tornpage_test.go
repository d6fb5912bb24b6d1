package replication

import (
	"testing"

	"github.com/replblk/replblk/activitylog"
	"github.com/replblk/replblk/bitmap"
	"github.com/replblk/replblk/metadata"
)

// tearer looks at every bitmap page that a pair writes, torn in all 256 ways.
type tearer struct {
	t     *testing.T
	p     *pair
	logs  [2][]byte // the rings of the activity log
	torn  int       // pages that were torn
	byLog int       // of these, the pages that nothing but the log stands for in some way
}

func newTearer(t *testing.T, p *pair) *tearer {
	w := &tearer{t: t, p: p}
	for i, n := range p.nodes {
		for range n.layout.ActivityLogSectors / 8 {
			w.logs[i] = activitylog.AppendInitialized(w.logs[i])
		}
		n.writing = func(sector uint64, block []byte) {
			switch l := n.layout; {
			case sector >= l.ActivityLog && sector < l.Superblock:
				copy(w.logs[i][(sector-l.ActivityLog)*512:], block)
			case sector >= l.Bitmap && sector < l.ActivityLog:
				w.tear(i, sector, block)
			}
		}
	}
	return w
}

// cover is what a node would take for different after a loss of power, its bitmap aside.
type cover struct {
	all     bool
	extents map[activitylog.Extent]bool
}

func (w *tearer) cover(i int) cover {
	var sb metadata.Superblock
	if err := sb.Decode(w.p.nodes[i].super); err != nil {
		w.t.Fatal(err)
	}
	c := cover{sb.Flags.Has(metadata.FullSync) || !sb.Flags.Has(metadata.Consistent), map[activitylog.Extent]bool{}}
	if !sb.Flags.Has(metadata.PrimaryInd) {
		return c
	}
	log, err := activitylog.Replay(activitylog.Ring(w.p.nodes[i].layout.Striping), w.logs[i])
	if err != nil {
		w.t.Fatal(err)
	}
	for _, x := range log.Extents {
		c.extents[x] = true
	}
	return c
}

// tear checks that whatever part of a page reaches the disk, every block that differs
// between the disks is named by what one of them holds.
func (w *tearer) tear(i int, sector uint64, block []byte) {
	w.torn++
	n, other := w.p.nodes[i], w.p.nodes[1-i]
	mine, theirs := w.cover(i), w.cover(1-i)
	if mine.all || theirs.all {
		return
	}
	first := (sector - n.layout.Bitmap) / 8 * bitmap.PageBits
	old, needed := n.pages[sector], false
	if old == nil {
		old = make([]byte, len(block))
	}
	for bit := first; bit < min(first+bitmap.PageBits, n.layout.DataSectors/8); bit++ {
		x := activitylog.Extent(bit * 8 / activitylog.SectorsPerExtent)
		if [8]uint64(n.data[bit*8:]) == [8]uint64(other.data[bit*8:]) || theirs.extents[x] || has(other.pages[sector], bit-first) {
			continue
		}
		// Each sector of the page is the old one or the new one, and a bit lies in one of
		// them: of the 256 subsets two are different for it.
		for _, page := range [...][]byte{old, block} {
			if has(page, bit-first) {
				continue
			}
			needed = true
			if !mine.extents[x] {
				w.t.Fatalf("%s: page at %d is torn: block %d differs, and nothing names it", n.name, sector, bit)
			}
		}
	}
	if needed {
		w.byLog++
	}
}

func has(page []byte, bit uint64) bool {
	return page != nil && page[bit/8]&(1<<(bit%8)) != 0
}

// TestEveryTornBitmapPageIsCovered: B01, M08. A page of the bitmap has no checksum. It does not
// need one against tearing: while one is being written, the activity log, the bits that
// were on disk before, or the other node's metadata name every block that differs, in all 256
// ways in which its sectors can be torn.
func TestEveryTornBitmapPageIsCovered(t *testing.T) {
	cfg := testConfig()
	cfg.Volumes[0].ResyncRateKiB = 40000
	const extents = 100 // more than the 67 slots of the log
	p := newSizedPair(extents*activitylog.SectorsPerExtent+16<<11, cfg, cfg)
	p.quiet = true
	a, b := establish(t, p)
	w := newTearer(t, p)
	value := uint64(100)
	write := func(times int) {
		for range times {
			value++
			a.request(OpWrite, value*37%extents*activitylog.SectorsPerExtent+value%64*8, 4096, value)
			p.settle()
		}
		p.tick(2)
	}
	write(50)
	for round := range 4 {
		b.admin(Admin{Kind: AdminDisconnect})
		p.settle()
		write(120)
		if round == 1 {
			a.admin(Admin{Kind: AdminSecondary})
			p.tick(2)
			a.admin(Admin{Kind: AdminPrimary})
			p.tick(2)
		}
		b.admin(Admin{Kind: AdminConnect})
		write(10)
		p.tick(30)
	}
	p.cut()
	write(90)
	p.tick(30)
	p.equal(t)
	t.Logf("%d pages were torn, for %d of them the activity log was needed", w.torn, w.byLog)
	if w.torn < 20 || w.byLog < 10 {
		t.Fatalf("%d pages were torn, for %d of them the activity log was needed: this shows too little", w.torn, w.byLog)
	}
}
