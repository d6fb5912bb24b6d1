package aoetest

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"time"
)

// Ledger makes requests to blocks and knows what each must hold: exactly what was
// acknowledged last, for it never has two requests to a block in flight. So it finds
// an acknowledged write that was lost, a read from the past, and a late copy of an old
// write that lands after a newer one.
type Ledger struct {
	Sectors int // per block
	Blocks  int
	Reads   int // of 100 requests
	First   uint64

	Written, Read uint64        // requests answered
	Slowest       time.Duration // from the first sending to the answer

	rand   *rand.Rand
	blocks []ledgerBlock
	places [256]ledgerPlace
}

type ledgerBlock struct {
	version uint32 // acknowledged; 0 is zeroes
	busy    bool
}

type ledgerPlace struct {
	block   int
	version uint32 // that is being written
}

// NewLedger returns a ledger of a device whose blocks hold zeroes.
func NewLedger(blocks, sectors, reads int, seed uint64) *Ledger {
	return &Ledger{Sectors: sectors, Blocks: blocks, Reads: reads, rand: rand.New(rand.NewPCG(seed, 1)), blocks: make([]ledgerBlock, blocks)} //nolint:gosec // reproducible
}

// Books returns which version of each block was acknowledged last, for Resume.
func (g *Ledger) Books() []uint32 {
	books := make([]uint32, len(g.blocks))
	for i, b := range g.blocks {
		books[i] = b.version
	}
	return books
}

// Resume goes on with the books of another ledger of the same device.
func (g *Ledger) Resume(books []uint32) error {
	if len(books) != len(g.blocks) {
		return fmt.Errorf("books of %d blocks, want %d", len(books), len(g.blocks))
	}
	for i, v := range books {
		g.blocks[i].version = v
	}
	return nil
}

// Next is a Load.Next.
func (g *Ledger) Next(place int, r *Request) bool {
	for range 64 {
		if i := g.rand.IntN(g.Blocks); !g.blocks[i].busy {
			g.ask(place, i, g.rand.IntN(100) >= g.Reads, r)
			return true
		}
	}
	return false
}

func (g *Ledger) ask(place, i int, write bool, r *Request) {
	b := &g.blocks[i]
	b.busy = true
	r.Write, r.LBA, r.Count = write, g.First+uint64(i*g.Sectors), uint8(g.Sectors) //nolint:gosec // at most 127
	g.places[place] = ledgerPlace{i, b.version}
	if write {
		g.places[place].version++
		stamp(r.Data[:g.Sectors*512], uint32(i), b.version+1) //nolint:gosec // few blocks
	}
}

// stamp fills a block with what says which it is and how new.
func stamp(p []byte, block, version uint32) {
	for off := 0; off < len(p); off += 16 {
		binary.BigEndian.PutUint32(p[off:], block)
		binary.BigEndian.PutUint32(p[off+4:], version)
		binary.BigEndian.PutUint64(p[off+8:], uint64(off)*uint64(version))
	}
}

// Done is a Load.Done.
func (g *Ledger) Done(place int, r *Request) error {
	p := &g.places[place]
	b := &g.blocks[p.block]
	b.busy = false
	g.Slowest = max(g.Slowest, time.Since(r.Began))
	if r.Write {
		g.Written++
		b.version = p.version
		return nil
	}
	g.Read++
	return g.check(p.block, r.Data)
}

// check returns what is wrong with the contents of a block.
func (g *Ledger) check(block int, data []byte) error {
	want := g.blocks[block].version
	expect := make([]byte, len(data))
	if want > 0 {
		stamp(expect, uint32(block), want) //nolint:gosec // few blocks
	}
	for off := 0; off < len(data); off += 16 {
		if string(data[off:off+16]) != string(expect[off:off+16]) {
			return fmt.Errorf("block %d at byte %d: % x, version %d; version %d was acknowledged",
				block, off, data[off:off+16], binary.BigEndian.Uint32(data[off+4:]), want)
		}
	}
	return nil
}

// All returns a Load.Next that reads every block once.
func (g *Ledger) All() func(int, *Request) bool {
	next := 0
	return func(place int, r *Request) bool {
		if next == g.Blocks {
			return false
		}
		g.ask(place, next, false, r)
		next++
		return true
	}
}
