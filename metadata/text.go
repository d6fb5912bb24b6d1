package metadata

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"math/bits"
)

// Dump is what the text form of metadata needs beside the bitmap.
//
// Preamble goes into the comment at the top, one comment line per element:
// drbdmeta writes the time and its command line there.
//
// RealFlags writes the flags as they are. drbdmeta 9.22 prints zero for v08
// whatever the flags are, so that a volume restored from its dump has forgotten
// that it was consistent; it reads the true value without complaint. Leave
// RealFlags unset to have drbdmeta's bytes.
type Dump struct {
	Preamble   []string
	Layout     Layout
	Superblock Superblock
	RealFlags  bool
}

// rleMinimum is the shortest run of all-zero or all-one words that is written as
// a count. Other words are never counted, however often they repeat.
const rleMinimum = 8

// Write writes the text that drbdmeta dump-md prints. The bitmap is read from
// bitmap, which must yield BitmapBytes of the device size.
//
// Unclean metadata gets a line that makes the text unreadable for every parser:
// its bitmap lacks what is in the activity log.
func (d *Dump) Write(w io.Writer, bitmap io.Reader) error {
	out := bufio.NewWriter(w)
	la := d.Superblock.LASizeSectors
	if la > d.Layout.DataSectors {
		la = d.Layout.DataSectors
		fmt.Fprintf(out, "# la-size-sect was too big (%d), truncated (%d)!\n", d.Superblock.LASizeSectors, la)
	}
	d.writeHead(out)
	d.writeFields(out, la)
	n := BitmapBytes(la)
	fmt.Fprintf(out, "# bm-bytes %d;\nbm {\n", n)
	set, err := writeBitmap(out, io.LimitReader(bitmap, int64(n)), n/8)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "}\n# bits-set %d;\n", set)
	return out.Flush()
}

func (d *Dump) writeHead(out *bufio.Writer) {
	fmt.Fprint(out, "# DRBD meta data dump\n")
	for _, line := range d.Preamble {
		fmt.Fprintf(out, "# %s\n", line)
	}
	fmt.Fprint(out, "#\n\nversion \"v08\";\n\n")
	if d.Superblock.Unclean {
		fmt.Fprint(out, "This_is_an_unclean_meta_data_dump._Don't_trust_the_bitmap.\n"+
			"# You should \"apply-al\" first, if you plan to restore this.\n\n")
	}
	fmt.Fprintf(out, "# md_size_sect %d\n", d.Superblock.MDSizeSectors)
	fmt.Fprintf(out, "# md_offset %d\n", d.Layout.Superblock*512)
	fmt.Fprintf(out, "# al_offset %d\n", d.Layout.ActivityLog*512)
	fmt.Fprintf(out, "# bm_offset %d\n\n", d.Layout.Bitmap*512)
}

func (d *Dump) writeFields(out *bufio.Writer, la uint64) {
	sb := &d.Superblock
	fmt.Fprint(out, "uuid {\n    ")
	for i, u := range sb.UUIDs {
		if i > 0 {
			fmt.Fprint(out, " ")
		}
		fmt.Fprintf(out, "0x%016X;", u)
	}
	var flags Flags
	if d.RealFlags {
		flags = sb.Flags
	}
	fmt.Fprintf(out, "\n    flags 0x%08X;\n}\n", uint32(flags))
	fmt.Fprintf(out, "# al-extents %d;\n", sb.ALExtents)
	fmt.Fprintf(out, "la-size-sect %d;\n", la)
	fmt.Fprintf(out, "bm-byte-per-bit %d;\n", sb.BytesPerBit)
	fmt.Fprintf(out, "device-uuid 0x%016X;\n", sb.DeviceUUID)
	fmt.Fprintf(out, "la-peer-max-bio-size %d;\n", sb.PeerMaxBIOBytes)
	fmt.Fprintf(out, "al-stripes %d;\n", d.Layout.Striping.Stripes)
	fmt.Fprintf(out, "al-stripe-size-4k %d;\n", d.Layout.Striping.StripeSize4K)
}

// writeBitmap writes words, a multiple of 512, four to a line, with a heading
// every 32 and runs counted in multiples of four, so that lines stay whole.
func writeBitmap(out *bufio.Writer, r io.Reader, words uint64) (set uint64, err error) {
	s := wordRuns{r: bufio.NewReaderSize(r, 1<<16), left: words}
	for i := uint64(0); i < words; {
		if i%32 == 0 {
			fmt.Fprintf(out, "   # at %dkB\n", i*256)
		}
		v, n := s.run()
		if n >= rleMinimum {
			n &^= 3
			fmt.Fprintf(out, "    %d times 0x%016X;\n", n, v)
			s.skip(n)
			set += n * uint64(bits.OnesCount64(v))
			i += n
			continue
		}
		for col := range 4 {
			sep := " "
			if col == 0 {
				sep = "    "
			}
			v, _ := s.run()
			s.skip(1)
			fmt.Fprintf(out, "%s0x%016X;", sep, v)
			set += uint64(bits.OnesCount64(v))
		}
		fmt.Fprint(out, "\n")
		i += 4
		if s.err != nil {
			break
		}
	}
	return set, s.err
}

// wordRuns reads a bitmap as runs: how often the next word repeats, if it is all
// zeroes or all ones. It looks ahead without a limit but holds only a count.
type wordRuns struct {
	r       *bufio.Reader
	left    uint64 // words not yet read from r
	value   uint64 // of the current run
	count   uint64 // of words left in the current run
	peek    uint64 // the word that ended the run
	hasPeek bool
	err     error
}

// run returns the current run. It is at least one word long unless reading failed.
func (s *wordRuns) run() (value, count uint64) {
	if s.count > 0 {
		return s.value, s.count
	}
	v, ok := s.next()
	if !ok {
		return 0, 0
	}
	s.value, s.count = v, 1
	if v != 0 && v != ^uint64(0) {
		return s.value, s.count
	}
	for {
		v, ok = s.next()
		if !ok {
			return s.value, s.count
		}
		if v != s.value {
			s.peek, s.hasPeek = v, true
			return s.value, s.count
		}
		s.count++
	}
}

func (s *wordRuns) skip(n uint64) { s.count -= min(n, s.count) }

func (s *wordRuns) next() (uint64, bool) {
	if s.hasPeek {
		s.hasPeek = false
		return s.peek, true
	}
	if s.left == 0 || s.err != nil {
		return 0, false
	}
	var b [8]byte
	if _, err := io.ReadFull(s.r, b[:]); err != nil {
		s.err = fmt.Errorf("bitmap, %d words before its end: %w", s.left, err)
		return 0, false
	}
	s.left--
	return binary.LittleEndian.Uint64(b[:]), true
}
