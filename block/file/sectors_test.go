package file

import (
	"bytes"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/replblk/replblk/block"
)

// Clients that write and read one sector at once see one write or the other, also where
// the page cache copies while it is read.
func TestSectorsAreWhole(t *testing.T) {
	ways := map[string]func(f *File, r *block.Request){
		"alone":   func(f *File, r *block.Request) { f.Submit(r) },
		"batches": func(f *File, r *block.Request) { f.SubmitBatch([]*block.Request{r, neighbour(r)}) },
	}
	for name, submit := range ways {
		t.Run(name, func(t *testing.T) {
			f := open(t, tempFile(t, "/dev/shm", 1<<20), Options{Inline: InlineAlways})
			if f.Direct() {
				t.Error("takes a file in memory for one that the page cache can be kept away from")
			}
			wholeSectors(t, f, submit)
		})
		t.Run(name+", mapped", func(t *testing.T) {
			wholeSectors(t, openMapped(t, 1<<20, Options{Inline: InlineAlways}), submit)
		})
	}
}

func wholeSectors(t *testing.T, f *File, submit func(*File, *block.Request)) {
	var wg sync.WaitGroup
	end := time.Now().Add(300 * time.Millisecond)
	for id := range 4 {
		wg.Go(func() {
			for i := byte(0); time.Now().Before(end); i++ {
				writeAndRead(t, f, submit, byte(id)<<6|i>>2)
			}
		})
	}
	wg.Wait()
}

// many sectors are copied at once, so that a reader often meets a writer.
const many = 64

// neighbour is a request for the sectors after those of r.
func neighbour(r *block.Request) *block.Request {
	return &block.Request{Op: r.Op, Sector: r.Sector + many, Sectors: many, Data: make([]byte, len(r.Data)), Done: func(*block.Request) {}}
}

func writeAndRead(t *testing.T, f *File, submit func(*File, *block.Request), fill byte) {
	p := bytes.Repeat([]byte{fill}, many*block.SectorSize)
	for _, op := range []block.Op{block.Write, block.Read} {
		done := make(chan error, 1)
		submit(f, &block.Request{Op: op, Sector: 8, Sectors: many, Data: p, Done: func(r *block.Request) { done <- r.Err }})
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	for sector := range slices.Chunk(p, block.SectorSize) {
		if n := bytes.Count(sector, sector[:1]); n != len(sector) {
			t.Errorf("a sector of which %d bytes are %#x", n, sector[0])
		}
	}
}
