package bitmap

// How pages get to the disk:
//
//	           change            Snapshot             MarkWritten
//	clean ─────────────▶ dirty ─────────────▶ writing ─────────────▶ clean
//	                       ▲                  │  │
//	                       │    MarkDirty     │  │ change
//	                       ├──────────────────┘  ▼
//	                       └─────────────── writing and dirty
//	                          MarkWritten
//
// The dirty mark goes when the content is copied, before the write starts,
// never after it: a change made while the write is under way is not in the
// copy and must be written again.

// NextDirty returns the first page from on that is dirty and not being
// written. A page that changed during its write is returned after that ended.
func (b *Bitmap) NextDirty(from uint32) (p uint32, ok bool) {
	return b.dirty.next(from, b.Pages(), false, b.writing)
}

// NextUnwrittenSets is [Bitmap.NextDirty] for the pages whose write must not
// wait: those with bits set since they were last taken for writing.
func (b *Bitmap) NextUnwrittenSets(from uint32) (p uint32, ok bool) {
	return b.sets.next(from, b.Pages(), false, b.writing)
}

// DirtyPages returns the number of dirty pages, at the cost of a count over
// the pages.
func (b *Bitmap) DirtyPages() int { return b.dirty.count() }

// Dirty reports whether page p changed since its content was last taken for
// writing.
func (b *Bitmap) Dirty(p uint32) bool { return b.dirty.has(p) }

// Writing reports whether a write of page p is under way.
func (b *Bitmap) Writing(p uint32) bool { return b.writing.has(p) }

// HasUnwrittenSets reports whether page p may hold a bit that was set and is
// not known to be on the disk. A bit missing on the disk may lose data after a
// crash, so sets are written early; a bit that is on the disk but was cleared
// only costs a block of resync, so clears may wait.
func (b *Bitmap) HasUnwrittenSets(p uint32) bool { return b.sets.has(p) || b.setsOut.has(p) }

// Snapshot appends the [PageSize] bytes of page p to dst for a write that
// starts now, and takes the dirty mark off. The caller reports the end of the
// write by [Bitmap.MarkWritten], or its failure by [Bitmap.MarkDirty].
//
// If a write of the page is under way already, Snapshot does nothing and
// returns ok false: of two writes to one place the older could land last.
func (b *Bitmap) Snapshot(dst []byte, p uint32) (_ []byte, ok bool) {
	if b.writing.has(p) {
		return dst, false
	}
	b.setsOut.put(p, b.sets.has(p))
	b.sets.remove(p)
	b.dirty.remove(p)
	b.writing.add(p)
	return b.AppendPage(dst, p), true
}

// MarkWritten records that the write of page p that began with
// [Bitmap.Snapshot] is durable. The page stays dirty if it changed since.
func (b *Bitmap) MarkWritten(p uint32) {
	b.writing.remove(p)
	b.setsOut.remove(p)
}

// MarkDirty records that the content of page p on the disk is unknown, because
// its write failed or for any other reason: the page must be written. If a
// write was under way, it has ended.
func (b *Bitmap) MarkDirty(p uint32) {
	b.MarkWritten(p)
	b.touch(p, b.weights[p] != 0)
}

// MarkAllDirty marks every page to be written; writes under way stay so.
func (b *Bitmap) MarkAllDirty() {
	for p := range b.Pages() {
		b.touch(p, b.weights[p] != 0)
	}
}

// touch marks page p dirty after a change that set, or only cleared, bits.
func (b *Bitmap) touch(p uint32, set bool) {
	b.dirty.add(p)
	if set {
		b.sets.add(p)
	}
}
