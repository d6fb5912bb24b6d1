package replication

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/replblk/replblk/metadata"
	"github.com/replblk/replblk/replication/state"
)

// image is what a node has on its disk.
type image struct {
	super []byte
	pages map[uint64][]byte
	ring  map[uint64][]byte // of the activity log
	data  []uint64
}

func (n *testNode) image() image {
	pages := map[uint64][]byte{}
	for s, b := range n.pages {
		pages[s] = bytes.Clone(b)
	}
	return image{bytes.Clone(n.super), pages, maps.Clone(n.ring), slices.Clone(n.data)}
}

// restart makes a pair of nodes that find what images hold.
func restart(sectors uint64, images [2]image) *pair {
	p := newSizedPair(sectors)
	p.quiet = true
	for i, n := range p.nodes {
		n.super, n.pages, n.ring, n.data = images[i].super, maps.Clone(images[i].pages), maps.Clone(images[i].ring), slices.Clone(images[i].data)
	}
	return p
}

// smallDisk is large enough for metadata and some data, and small enough for thousands of
// pairs.
const smallDisk = 4 << 11

// Block 10 is what the two disks have of their own in most of the situations.
const newer, older = 9, 5

// situations are states of two disks. In each of them node a has the good data.
var situations = []struct {
	name      string
	bMayServe bool // without fencing
	prepare   func(p *pair, a, b *testNode)
}{
	{"in sync", true, func(p *pair, a, b *testNode) { p.stop(a, b) }},
	{"b is behind", true, func(p *pair, a, b *testNode) {
		b.admin(Admin{Kind: AdminDisconnect})
		p.settle()
		a.request(OpWrite, 80, 4096, newer)
		p.tick(2)
		p.stop(a, b)
	}},
	{"a crashed as Primary", true, func(p *pair, a, b *testNode) {
		a.request(OpWrite, 80, 4096, newer)
		p.tick(2)
		clear(b.data[80:88]) // it has not arrived: the activity log names it, and nothing else
	}},
	{"b is Inconsistent", false, func(p *pair, a, b *testNode) {
		a.request(OpWrite, 80, 4096, newer)
		b.admin(Admin{Kind: AdminDisconnect})
		p.settle()
		b.admin(Admin{Kind: AdminInvalidate})
		p.settle()
		copy(b.data[80:88], slices.Repeat([]uint64{older}, 8))
		p.stop(a, b)
	}},
	{"b is Outdated", false, func(p *pair, a, b *testNode) {
		b.admin(Admin{Kind: AdminDisconnect})
		p.settle()
		b.admin(Admin{Kind: AdminOutdate})
		a.request(OpWrite, 80, 4096, newer)
		p.tick(2)
		p.stop(a, b)
	}},
}

// stop ends both nodes in order.
func (p *pair) stop(a, b *testNode) {
	a.admin(Admin{Kind: AdminSecondary})
	p.tick(2)
	for _, n := range []*testNode{b, a} {
		n.admin(Admin{Kind: AdminDisconnect, Force: true})
		p.tick(1)
		n.admin(Admin{Kind: AdminDetach})
		p.tick(2)
	}
}

// What two disks come to, of which one has a damaged superblock.
var (
	errDiskRefused = errors.New("disk refused")
	errPeerRefused = errors.New("peer refused")
	errLost        = errors.New("lost")   // older data overwrite newer data
	errDiffer      = errors.New("differ") // both say that they are equal
	errShrunk      = errors.New("shrunk")
	errStale       = errors.New("stale") // a node that is known to be behind is promoted
)

// meet lets two nodes find the images, and says what comes of it. nil: they are in sync, with
// the good data.
func meet(images [2]image) error {
	good := images[0].data
	p := restart(smallDisk, images)
	for i, n := range p.nodes {
		var sb metadata.Superblock
		if err := sb.Decode(images[i].super); err != nil {
			return errDiskRefused
		}
		if _, err := sb.Validate(metadata.Internal, smallDisk, smallDisk); err != nil && !errors.Is(err, metadata.ErrUnclean) {
			return errDiskRefused
		}
		n.attach()
	}
	p.settle()
	a, b := p.nodes[0], p.nodes[1]
	if a.r.State(0).Disk == state.Diskless || b.r.State(0).Disk == state.Diskless {
		return errDiskRefused
	}
	for _, n := range p.nodes {
		n.admin(Admin{Kind: AdminConnect})
	}
	for range 100 {
		p.tick(1)
		if a.inSync() && b.inSync() {
			break
		}
	}
	size := a.layout.DataSectors
	switch {
	case !slices.Equal(a.data[:size], good[:size]):
		return errLost
	case !a.inSync() || !b.inSync():
		return errPeerRefused
	case a.r.vols[0].size != size || b.r.vols[0].size != size:
		return errShrunk
	case !slices.Equal(a.data[:size], b.data[:size]):
		return errDiffer
	}
	return nil
}

// aloneIsGood says whether a node that finds an image may become Primary without its peer.
func aloneIsGood(im image) bool {
	p := restart(smallDisk, [2]image{im, im})
	n := p.nodes[0]
	n.attach()
	token := n.admin(Admin{Kind: AdminPrimary})
	p.settle()
	return n.replies[token].OK()
}

func (n *testNode) inSync() bool {
	s := n.r.State(0)
	return s.Conn == state.Connected && s.Disk == state.UpToDate && s.PeerDisk == state.UpToDate
}

// TestEveryFlippedBitOfASuperblock: M08. The format has no checksum for its superblock, so
// this is what a flipped bit in it does, on the node with the good data and on the other one.
// Everything that is not listed is refused or leads to equal copies of the good data.
func TestEveryFlippedBitOfASuperblock(t *testing.T) {
	want := map[string]string{
		"in sync, flipped on a":              "map[]",
		"in sync, flipped on b":              "map[]",
		"b is behind, flipped on a":          "map[]",
		"b is behind, flipped on b":          "map[]",
		"a crashed as Primary, flipped on a": "map[differ: PRIMARY_IND:1]",
		"a crashed as Primary, flipped on b": "map[lost: CRASHED_PRIMARY:1 lost: PRIMARY_IND:1 lost: bitmap UUID:64]",
		"b is Inconsistent, flipped on a":    "map[]",
		"b is Inconsistent, flipped on b":    "map[]",
		"b is Outdated, flipped on a":        "map[]",
		"b is Outdated, flipped on b":        "map[stale: WAS_UP_TO_DATE:1]",
	}
	for _, s := range situations {
		p := newSizedPair(smallDisk)
		p.quiet = true
		a, b := establish(t, p)
		s.prepare(p, a, b)
		images := [2]image{a.image(), b.image()}
		if err := meet(images); err != nil {
			t.Fatalf("%s, undamaged: %v", s.name, err)
		}
		if !aloneIsGood(images[0]) || aloneIsGood(images[1]) != s.bMayServe {
			t.Fatalf("%s, undamaged: who may be promoted alone", s.name)
		}
		for i, n := range p.nodes {
			bad := map[string]int{}
			for bit := range 96 * 8 {
				damaged := images
				damaged[i].super = bytes.Clone(images[i].super)
				damaged[i].super[bit/8] ^= 1 << (bit % 8)
				err := meet(damaged)
				if err == nil && i == 1 && !s.bMayServe && aloneIsGood(damaged[1]) {
					err = errStale
				}
				if err != nil && !errors.Is(err, errDiskRefused) && !errors.Is(err, errPeerRefused) {
					bad[fmt.Sprintf("%v: %s", err, fieldOf(bit))]++
				}
			}
			key := s.name + ", flipped on " + n.name
			if got := fmt.Sprint(bad); got != want[key] { // fmt sorts the keys
				t.Errorf("%q: %q", key, got)
			}
		}
	}
}

// fieldOf names the field that a bit belongs to, or the flag that it is.
func fieldOf(bit int) string {
	switch at := bit / 8; {
	case at < 8:
		return "size"
	case at < 40:
		return [...]string{"current", "bitmap", "history 1", "history 2"}[at/8-1] + " UUID"
	case at >= 56 && at < 60:
		return metadata.Flags(1 << ((59-at)*8 + bit%8)).String()
	default:
		return fmt.Sprintf("byte %d", at)
	}
}

// TestEveryFlippedBitOfTheBitmap: M08, B03, B18. A bit that appears costs one block of resync, a bit
// beyond the end nothing. A bit that vanishes is the only thing that said that its block
// differs: the format has no checksum for that, online verify finds it
// (TestVerifyFindsExactlyWhatDiffers).
func TestEveryFlippedBitOfTheBitmap(t *testing.T) {
	p := newSizedPair(smallDisk)
	p.quiet = true
	a, b := establish(t, p)
	b.admin(Admin{Kind: AdminDisconnect})
	p.settle()
	a.request(OpWrite, 80, 4096, newer)
	p.tick(2)
	p.stop(a, b)
	images := [2]image{a.image(), b.image()}
	sector := a.layout.Bitmap
	for i := range images {
		for bit := range a.layout.DataSectors/8 + 64 {
			damaged := images
			page := make([]byte, 4096)
			copy(page, images[i].pages[sector])
			page[bit/8] ^= 1 << (bit % 8)
			damaged[i].pages = map[uint64][]byte{sector: page}
			var want error
			if i == 0 && bit == 10 {
				want = errDiffer
			}
			if err := meet(damaged); !errors.Is(err, want) {
				t.Errorf("bit %d flipped on %s: %v, want %v", bit, p.nodes[i].name, err, want)
			}
		}
	}
}
