package bitmap

import (
	"bytes"
	"testing"

	"pgregory.net/rapid"
)

func TestSnapshotTakesTheMarkBeforeTheWrite(t *testing.T) {
	b := New(3 * PageBits)
	b.SetRange(PageBits, PageBits+1)
	data, ok := b.Snapshot(nil, 1)
	if !ok || len(data) != PageSize || data[0] != 1 {
		t.Fatalf("snapshot of %d bytes, %v", len(data), ok)
	}
	if b.Dirty(1) || !b.Writing(1) || !b.HasUnwrittenSets(1) {
		t.Errorf("being written: dirty %v writing %v sets %v", b.Dirty(1), b.Writing(1), b.HasUnwrittenSets(1))
	}
	b.SetRange(PageBits+1, PageBits+2) // not in the copy
	if p, ok := b.NextDirty(0); ok {
		t.Errorf("page %d offered while its write is under way", p)
	}
	if _, ok := b.Snapshot(nil, 1); ok {
		t.Error("second write of a page at the same time")
	}
	b.MarkWritten(1)
	if p, ok := b.NextDirty(0); !ok || p != 1 || !b.HasUnwrittenSets(1) {
		t.Errorf("the change during the write is lost: NextDirty = %d, %v", p, ok)
	}
	b.Snapshot(nil, 1)
	b.MarkWritten(1)
	if b.DirtyPages() != 0 || b.HasUnwrittenSets(1) {
		t.Error("not clean after the second write")
	}
}

func TestFailedWriteIsDirtyAgain(t *testing.T) {
	b := New(PageBits)
	b.SetRange(0, 9)
	b.Snapshot(nil, 0)
	b.MarkDirty(0)
	if !b.Dirty(0) || b.Writing(0) || !b.HasUnwrittenSets(0) {
		t.Errorf("dirty %v writing %v sets %v", b.Dirty(0), b.Writing(0), b.HasUnwrittenSets(0))
	}
}

func TestClearsAreNotSets(t *testing.T) {
	b := New(2 * PageBits)
	b.SetRange(0, 10)
	b.Snapshot(nil, 0)
	b.MarkWritten(0)
	b.ClearRange(0, 5)
	if !b.Dirty(0) || b.HasUnwrittenSets(0) {
		t.Errorf("after a clear: dirty %v sets %v", b.Dirty(0), b.HasUnwrittenSets(0))
	}
	if p, ok := b.NextUnwrittenSets(0); ok {
		t.Errorf("NextUnwrittenSets = %d", p)
	}
	b.SetRange(5, 6)
	if b.HasUnwrittenSets(0) {
		t.Error("a bit that was set already is not a change")
	}
	b.SetRange(0, 1)
	if p, ok := b.NextUnwrittenSets(0); !ok || p != 0 {
		t.Error("a set bit is not reported")
	}
}

// However changes, writes and failures interleave: when no page is dirty and
// no write is under way, disk and memory are equal; and at any time a set bit
// that is not on the disk is in a page with unwritten sets.
func TestDiskFollowsMemory(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const pages = 3
		b := New(pages*PageBits - 77)
		var disk [pages][]byte
		var flying [pages][]byte
		for p := range disk {
			disk[p] = make([]byte, PageSize)
		}
		page := rapid.Uint32Range(0, pages-1)
		t.Repeat(map[string]func(*rapid.T){
			"change": func(t *rapid.T) {
				first := rapid.Uint64Range(0, b.Bits()).Draw(t, "first")
				n := rapid.SampledFrom([]uint64{1, 2, 100, PageBits}).Draw(t, "n")
				if rapid.Bool().Draw(t, "set") {
					b.SetRange(first, first+n)
				} else {
					b.ClearRange(first, first+n)
				}
			},
			"write": func(t *rapid.T) {
				p, ok := b.NextDirty(page.Draw(t, "from"))
				if !ok {
					return
				}
				if flying[p], ok = b.Snapshot(nil, p); !ok {
					t.Fatalf("page %d is offered but cannot be written", p)
				}
			},
			"end": func(t *rapid.T) {
				p := page.Draw(t, "page")
				if flying[p] == nil {
					return
				}
				if rapid.Bool().Draw(t, "fails") {
					copy(disk[p], flying[p][:512]) // torn
					b.MarkDirty(p)
				} else {
					disk[p] = flying[p]
					b.MarkWritten(p)
				}
				flying[p] = nil
			},
			"": func(t *rapid.T) {
				checkInvariants(t, b)
				for p := range b.Pages() {
					memory := b.AppendPage(nil, p)
					if !b.Dirty(p) && flying[p] == nil && !bytes.Equal(memory, disk[p]) {
						t.Fatalf("page %d is clean but differs from the disk", p)
					}
					missing := false
					for i := range memory {
						missing = missing || memory[i]&^disk[p][i] != 0
					}
					if missing && !b.HasUnwrittenSets(p) {
						t.Fatalf("page %d: a set bit is missing on the disk", p)
					}
				}
			},
		})
	})
}
