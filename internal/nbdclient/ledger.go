package nbdclient

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"sync"
)

// BlockSize is the size of the blocks that a Ledger writes.
const BlockSize = 4096

// Ledger writes blocks and remembers for each what was acknowledged, so that it can be
// asked after a disaster whether every acknowledged write is still there.
//
// A write that was sent and never answered may have happened or not: both are
// right. A block with anything else than its last acknowledged contents, or those of
// the one write in doubt after it, is a lost write.
type Ledger struct {
	mu     sync.Mutex
	last   uint64               // guarded by mu: the newest write's number
	blocks map[uint64]*contents // guarded by mu: by block number
	acked  int                  // guarded by mu
}

// contents of a block are told by the number of the write that made them; 0 is
// what was there before.
type contents struct {
	acked   uint64
	doubted []uint64 // writes after the acknowledged one that may have happened
}

// NewLedger returns an empty Ledger.
func NewLedger() *Ledger { return &Ledger{blocks: make(map[uint64]*contents)} }

// Fill writes blocks at random places of the range [first, first+n) of block numbers
// until ctx ends, count writes are done (0: no limit), or a write fails, which is the
// error. Calls at the same time need ranges of their own.
func (l *Ledger) Fill(ctx context.Context, c *Client, first, n uint64, count int) error {
	buf := make([]byte, BlockSize)
	for i := 0; (count == 0 || i < count) && ctx.Err() == nil; i++ {
		block := first + rand.Uint64N(n)
		number := l.begin(block)
		pattern(buf, block, number)
		if err := c.Write(buf, block*BlockSize, false); err != nil {
			return err
		}
		l.ack(block, number)
	}
	return nil
}

// begin records a write that is about to be sent.
func (l *Ledger) begin(block uint64) uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.last++
	b := l.blocks[block]
	if b == nil {
		b = &contents{}
		l.blocks[block] = b
	}
	b.doubted = append(b.doubted, l.last)
	return l.last
}

// ack records the answer. It ends the doubt about earlier writes too: one writer writes
// a block at a time.
func (l *Ledger) ack(block, number uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.blocks[block]
	b.acked, b.doubted = number, nil
	l.acked++
}

// Acknowledged returns how many writes were acknowledged, and how many blocks were
// written.
func (l *Ledger) Acknowledged() (writes, blocks int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.acked, len(l.blocks)
}

// Reader is what a Ledger checks: a Client, or a disk behind its back.
type Reader interface {
	// Read fills p from byte off.
	Read(p []byte, off uint64) error
}

// Check reads every block and returns an error for the first that does not hold what
// it must. What it finds settles all doubts. It must not run beside Fill.
func (l *Ledger) Check(c Reader) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	buf, want := make([]byte, BlockSize), make([]byte, BlockSize)
	for block, b := range l.blocks {
		if err := c.Read(buf, block*BlockSize); err != nil {
			return fmt.Errorf("read block %d: %w", block, err)
		}
		if err := b.check(buf, want, block); err != nil {
			return err
		}
	}
	return nil
}

func (b *contents) check(got, want []byte, block uint64) error {
	for _, number := range append([]uint64{b.acked}, b.doubted...) {
		pattern(want, block, number)
		if bytes.Equal(got, want) {
			b.acked, b.doubted = number, nil
			return nil
		}
	}
	return fmt.Errorf("block %d: write %d was acknowledged, found %s (writes %v may have happened)", block, b.acked, describe(got), b.doubted)
}

// describe says what a wrong block is.
func describe(p []byte) string {
	number, at := binary.LittleEndian.Uint64(p), binary.LittleEndian.Uint64(p[8:])
	want := make([]byte, BlockSize)
	pattern(want, at, number)
	switch {
	case bytes.Equal(p, make([]byte, BlockSize)):
		return "zeroes"
	case bytes.Equal(p, want):
		return fmt.Sprintf("write %d to block %d", number, at)
	default:
		return fmt.Sprintf("a mixture that begins like write %d", number)
	}
}

// pattern makes the contents of a block: the number of the write and of the block, and
// bytes that follow from them. Write 0 is a block of zeroes.
func pattern(p []byte, block, number uint64) {
	if number == 0 {
		clear(p)
		return
	}
	binary.LittleEndian.PutUint64(p, number)
	binary.LittleEndian.PutUint64(p[8:], block)
	r := rand.New(rand.NewPCG(number, block))
	for i := 16; i < len(p); i += 8 {
		binary.LittleEndian.PutUint64(p[i:], r.Uint64())
	}
}
