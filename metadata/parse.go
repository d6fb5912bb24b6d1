package metadata

import (
	"fmt"
	"io"
	"strings"
)

// Restored is what the head of a dump says, as restore-md needs it. Offsets and
// sizes of the old device are comments in a dump: restoring computes them anew.
type Restored struct {
	UUIDs           UUIDs
	Flags           Flags
	LASizeSectors   uint64
	DeviceUUID      uint64
	PeerMaxBIOBytes uint32
	Striping        Striping
}

// DumpParser reads the text form of metadata: first Head, then Bitmap. It holds
// no more than a token of the text in memory.
type DumpParser struct {
	lex scanner
}

// NewDumpParser reads from r.
func NewDumpParser(r io.Reader) *DumpParser { return &DumpParser{lex: newScanner(r)} }

// ParseError tells where a dump departs from the grammar.
type ParseError struct {
	Line int
	Msg  string
}

// Error gives the line first, as editors expect it.
func (e *ParseError) Error() string { return fmt.Sprintf("line %d: %s", e.Line, e.Msg) }

// Head reads up to the bitmap.
//
//	version "v08";
//	uuid { CURRENT; BITMAP; HISTORY1; HISTORY2; flags FLAGS; }
//	la-size-sect N; bm-byte-per-bit 4096; device-uuid UUID;
//	la-peer-max-bio-size N; al-stripes N; al-stripe-size-4k N;
//
// The last two lines may lack everything behind device-uuid, as dumps by old
// versions do.
func (p *DumpParser) Head() (Restored, error) {
	var h Restored
	p.keyword("version")
	if v := p.lex.expect(tokString, `"v08"`); p.lex.err == nil && v.text != "v08" {
		p.lex.fail("dump is of version %q, want \"v08\"", v.text)
	}
	p.semicolon()
	p.keyword("uuid")
	p.lex.expect(tokOpen, "{")
	for i := range h.UUIDs {
		h.UUIDs[i] = p.lex.expect(tokHex16, "a 16-digit hex number").num
		p.semicolon()
	}
	p.keyword("flags")
	h.Flags = Flags(p.lex.expect(tokHex8, "an 8-digit hex number").num)
	p.semicolon()
	p.lex.expect(tokClose, "}")
	h.LASizeSectors = p.field("la-size-sect", 1<<63)
	if n := p.field("bm-byte-per-bit", 1<<32-1); p.lex.err == nil && n != BytesPerBit {
		p.lex.fail("bm-byte-per-bit is %d, want 4096", n)
	}
	p.keyword("device-uuid")
	h.DeviceUUID = p.lex.expect(tokHex16, "a 16-digit hex number").num
	p.semicolon()
	h.Striping = DefaultStriping
	if p.lex.isWord("la-peer-max-bio-size") {
		h.PeerMaxBIOBytes = uint32(p.field("la-peer-max-bio-size", 1<<32-1))
		h.Striping.Stripes = uint32(p.field("al-stripes", 1<<32-1))
		h.Striping.StripeSize4K = uint32(p.field("al-stripe-size-4k", 1<<32-1))
	}
	if p.lex.err != nil {
		return Restored{}, p.lex.err
	}
	if err := h.Striping.check(); err != nil {
		return Restored{}, &ParseError{p.lex.line, err.Error()}
	}
	return h, nil
}

// Bitmap reads "bm { words }" and hands every run of words to put, in order. A
// count comes from the text: it is for put to bound it. An error of put ends the
// parse and is returned.
func (p *DumpParser) Bitmap(put func(count, word uint64) error) error {
	p.keyword("bm")
	p.lex.expect(tokOpen, "{")
	for p.lex.err == nil {
		t := p.lex.next()
		count := uint64(1)
		switch t.kind {
		case tokClose:
			p.lex.expect(tokEOF, "end of file")
			return p.lex.err
		case tokNumber:
			count = t.num
			p.keyword("times")
			t = p.lex.expect(tokHex16, "a 16-digit hex number")
		case tokHex16:
		default:
			p.lex.fail("repeat count, 16-digit hex number, or closing brace (}) expected, not %s", t)
		}
		p.semicolon()
		if p.lex.err != nil {
			break
		}
		if err := put(count, t.num); err != nil {
			return err
		}
	}
	return p.lex.err
}

func (p *DumpParser) keyword(w string) {
	if t := p.lex.next(); p.lex.err == nil && (t.kind != tokWord || t.text != w) {
		p.lex.fail("keyword '%s' expected, not %s", w, t)
	}
}

func (p *DumpParser) semicolon() { p.lex.expect(tokSemicolon, ";") }

func (p *DumpParser) field(name string, limit uint64) uint64 {
	p.keyword(name)
	t := p.lex.expect(tokNumber, "a number")
	if p.lex.err == nil && t.num > limit {
		p.lex.fail("%s is %d, at most %d is possible", name, t.num, limit)
	}
	p.semicolon()
	return t.num
}

// FromDump returns the superblock that restoring h into the layout gives. The
// device may be smaller than the one the dump came from; then the size is cut and
// the caller must know that the data was cut with it.
func FromDump(h Restored, l Layout) Superblock {
	sb := NewSuperblock(l)
	sb.UUIDs = h.UUIDs
	sb.Flags = h.Flags
	sb.LASizeSectors = min(h.LASizeSectors, l.DataSectors)
	sb.DeviceUUID = h.DeviceUUID
	sb.PeerMaxBIOBytes = h.PeerMaxBIOBytes
	return sb
}

// IsUncleanDump says whether a parse failed because the dump was made of unclean
// metadata, which has no meaning without its activity log.
func IsUncleanDump(err error) bool {
	return err != nil && strings.Contains(err.Error(), "This_is_an_unclean")
}
