package mdtool

import (
	"io"

	"github.com/replblk/replblk/metadata"
)

// DumpOptions shape the text of Dump.
type DumpOptions struct {
	Preamble  []string // comment lines: time and command line
	Force     bool     // dump unclean metadata, marked so that nothing restores it
	RealFlags bool     // see metadata.Dump
}

// Dump writes the metadata as text, the form Restore reads.
func Dump(s Store, p metadata.Placement, w io.Writer, o DumpOptions) error {
	m, err := Open(s, p)
	if err != nil {
		return err
	}
	// A missing AL_CLEAN alone does not stop drbdmeta: the magic decides.
	if m.Superblock.Unclean && !o.Force {
		return exit(ExitCancelled, "%w", metadata.ErrUnclean)
	}
	d := metadata.Dump{Preamble: o.Preamble, Layout: m.Layout, Superblock: m.Superblock, RealFlags: o.RealFlags}
	area := io.NewSectionReader(s, int64(m.Layout.Bitmap*512), int64(m.Layout.BitmapSectors*512))
	// The area of external metadata may end within a page; the text knows only pages.
	return exitWith(ExitDevice, d.Write(w, io.MultiReader(area, io.LimitReader(zeroes{}, pageSize))))
}

type zeroes struct{}

// Read yields zeroes.
func (zeroes) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// RestoreOptions are those of Restore.
type RestoreOptions struct {
	Ask
	DataSectors uint64 // size of the data device if it is another one, 0 if unknown
	Out         io.Writer
}

// RestoreResult tells what did not fit.
type RestoreResult struct {
	SizeCut   bool // the dump's device was larger: la_size_sect was reduced
	BitmapCut bool // set bits beyond the end of the bitmap area were dropped
}

// Restore makes metadata from a dump. The text is read twice: a mistake in its
// last line must not be found when the old metadata is gone.
func Restore(s Store, p metadata.Placement, text io.ReadSeeker, o RestoreOptions) (RestoreResult, error) {
	var r RestoreResult
	h, err := checkDump(text)
	if err != nil {
		return r, err
	}
	c := creator{store: s, out: o.Out, ask: o.Ask}
	c.layout, err = metadata.NewLayout(p, backingSectors(p, s, o.DataSectors), sectors(s), h.Striping)
	if err != nil {
		return r, exitWith(ExitConfig, err)
	}
	r.SizeCut = h.LASizeSectors > c.layout.DataSectors
	if err := c.prepare(o.DataSectors); err != nil {
		return r, err
	}
	if _, err := text.Seek(0, io.SeekStart); err != nil {
		return r, exitWith(ExitDevice, err)
	}
	parser := metadata.NewDumpParser(text)
	if _, err := parser.Head(); err != nil {
		return r, exitWith(ExitConfig, err)
	}
	w := bitmapWriter{store: s, at: c.layout.Bitmap, left: c.layout.BitmapSectors * 64}
	if err := exitWith(ExitConfig, parser.Bitmap(w.put)); err != nil {
		return r, err
	}
	if err := w.flush(); err != nil {
		return r, err
	}
	r.BitmapCut = w.cut
	return r, c.finish(metadata.FromDump(h, c.layout))
}

func checkDump(text io.ReadSeeker) (metadata.Restored, error) {
	if _, err := text.Seek(0, io.SeekStart); err != nil {
		return metadata.Restored{}, exitWith(ExitDevice, err)
	}
	parser := metadata.NewDumpParser(text)
	h, err := parser.Head()
	if err != nil {
		return h, exitWith(ExitConfig, err)
	}
	return h, exitWith(ExitConfig, parser.Bitmap(func(count, word uint64) error { return nil }))
}

// bitmapWriter collects words into large writes and drops those for which there
// is no room.
type bitmapWriter struct {
	store Store
	at    uint64 // sector of the start of buf
	left  uint64 // words that fit, buf not counted
	buf   []byte
	cut   bool
}

func (w *bitmapWriter) put(count, word uint64) error {
	if count > w.left {
		w.cut = w.cut || word != 0
		count = w.left
	}
	w.left -= count
	for ; count > 0; count-- {
		for i := range 8 {
			w.buf = append(w.buf, byte(word>>(8*i)))
		}
		if len(w.buf) == zeroChunk {
			if err := w.flush(); err != nil {
				return err
			}
		}
	}
	return nil
}

// flush writes the buffer, filled up to whole sectors, which the area consists of.
func (w *bitmapWriter) flush() error {
	for len(w.buf)%512 != 0 {
		w.buf = append(w.buf, 0)
	}
	if err := writeAt(w.store, w.buf, w.at); err != nil {
		return err
	}
	w.at += uint64(len(w.buf)) / 512
	w.buf = w.buf[:0]
	return nil
}
