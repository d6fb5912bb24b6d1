package metadata

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
)

// parseAll reads a whole dump; it refuses bitmaps of more than limit words.
func parseAll(text string, limit uint64) (Restored, []byte, error) {
	p := NewDumpParser(strings.NewReader(text))
	h, err := p.Head()
	if err != nil {
		return h, nil, err
	}
	var bm []byte
	err = p.Bitmap(func(count, word uint64) error {
		if count > limit-uint64(len(bm)/8) {
			return io.ErrShortBuffer
		}
		for range count {
			bm = binary.LittleEndian.AppendUint64(bm, word)
		}
		return nil
	})
	return h, bm, err
}

func golden(t testing.TB) string {
	t.Helper()
	b, err := os.ReadFile("testdata/dump.txt")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// goldenDump restores testdata/dump.txt and returns what writes it again.
func goldenDump(t testing.TB) (*Dump, []byte) {
	t.Helper()
	text := golden(t)
	h, bm, err := parseAll(text, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	l, err := NewLayout(Internal, 300<<11, 0, h.Striping)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.SplitN(text, "\n", 4)
	return &Dump{Preamble: []string{lines[1][2:], lines[2][2:]}, Layout: l, Superblock: FromDump(h, l)}, bm
}

// TestGoldenDump: a dump by drbdmeta, parsed and written, is the same text.
func TestGoldenDump(t *testing.T) {
	d, bm := goldenDump(t)
	var out bytes.Buffer
	if err := d.Write(&out, bytes.NewReader(bm)); err != nil {
		t.Fatal(err)
	}
	if got, want := out.String(), golden(t); got != want {
		a, b := strings.Split(got, "\n"), strings.Split(want, "\n")
		for i := range min(len(a), len(b)) {
			if a[i] != b[i] {
				t.Fatalf("line %d:\n got %s\nwant %s", i+1, a[i], b[i])
			}
		}
		t.Fatalf("%d lines, want %d", len(a), len(b))
	}
	sb := d.Superblock
	if sb.UUIDs.Bitmap() != 0x1122334455667788 || sb.LASizeSectors != 300000 || sb.DeviceUUID != 0xDEADBEEF || sb.PeerMaxBIOBytes != 1048576 {
		t.Errorf("restored %+v", sb)
	}
}

func TestDumpRealFlags(t *testing.T) {
	d, bm := goldenDump(t)
	d.Superblock.Flags, d.RealFlags = 0x91, true
	var out bytes.Buffer
	if err := d.Write(&out, bytes.NewReader(bm)); err != nil {
		t.Fatal(err)
	}
	if h, _, err := parseAll(out.String(), 1<<20); err != nil || h.Flags != 0x91 {
		t.Errorf("%v, flags %v", err, h.Flags)
	}
}

func TestDumpTooLargeAndUnclean(t *testing.T) {
	d, bm := goldenDump(t)
	d.Superblock.LASizeSectors = 1 << 40
	bm = append(bm, make([]byte, BitmapBytes(d.Layout.DataSectors))...)
	var out bytes.Buffer
	if err := d.Write(&out, bytes.NewReader(bm)); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(out.String(), "# la-size-sect was too big (1099511627776), truncated (614304)!\n") {
		t.Errorf("starts with %.80s", out.String())
	}
	out.Reset()
	d.Superblock.Unclean = true
	if err := d.Write(&out, bytes.NewReader(bm)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := parseAll(out.String(), 1<<20); !IsUncleanDump(err) {
		t.Errorf("parsing an unclean dump: %v", err)
	}
}

func TestDumpShortBitmap(t *testing.T) {
	d, bm := goldenDump(t)
	if err := d.Write(io.Discard, bytes.NewReader(bm[:4095])); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("short bitmap: %v", err)
	}
}

func TestParseErrors(t *testing.T) {
	text := golden(t)
	cases := []struct{ old, new, want string }{
		{`"v08"`, `"v09"`, `line 6: dump is of version "v09"`},
		{`"v08"`, `"v08`, "line 7: string is not closed"},
		{"uuid {", "uuid", "'{'"},
		{"0x0000000000000099;", "0x99;", "line 14: invalid hex number"},
		{"0x0000000000000099;", "99;", "a 16-digit hex number expected, not '99'"},
		{"bm-byte-per-bit 4096", "bm-byte-per-bit 512", "want 4096"},
		{"al-stripes 1;", "al-stripes 0;", "0 stripes of 8"},
		{"al-stripes 1;", "", "keyword 'al-stripes' expected"},
		{"la-size-sect 300000", "la-size-sect 99999999999999999999", "invalid number"},
		{"la-size-sect 300000", "la-size-sect 18446744073709551615", "at most"},
		{" times ", " turns ", "keyword 'times' expected"},
		{"\n}\n# bits-set", "\n} }\n#", "end of file expected"},
		{"\n}\n# bits-set", "\n#", "end of file"},
	}
	for _, c := range cases {
		bad := strings.Replace(text, c.old, c.new, 1)
		if bad == text {
			t.Fatalf("%q is not in the text", c.old)
		}
		_, _, err := parseAll(bad, 1<<20)
		if err == nil || !strings.Contains(err.Error(), c.want) && c.want != "'{'" {
			t.Errorf("%q for %q: %v, want %q", c.new, c.old, err, c.want)
		}
		var pe *ParseError
		if err != nil && !errors.As(err, &pe) {
			t.Errorf("%q: %T", c.new, err)
		}
	}
}

func TestParseOldDump(t *testing.T) {
	text := golden(t)
	from, to := strings.Index(text, "la-peer-max"), strings.Index(text, "# bm-bytes")
	h, _, err := parseAll(text[:from]+text[to:], 1<<20)
	if err != nil || h.Striping != DefaultStriping || h.PeerMaxBIOBytes != 0 {
		t.Errorf("dump without the newer fields: %v, %+v", err, h)
	}
}

func FuzzDumpParse(f *testing.F) {
	f.Add(golden(f))
	f.Add(`version "v08"; uuid { 0x0000000000000001; 0x0000000000000002; 0x0000000000000003; 0x0000000000000004; flags 0x00000001; }` +
		` la-size-sect 8; bm-byte-per-bit 4096; device-uuid 0x0000000000000009; bm { 8 times 0xFFFFFFFFFFFFFFFF; 0x0000000000000001; }`)
	f.Add("version")
	f.Fuzz(func(t *testing.T, text string) {
		h, bm, err := parseAll(text, 1<<12)
		if err != nil {
			return
		}
		l, err := NewLayout(Internal, 1<<24, 0, h.Striping)
		if err != nil {
			return
		}
		d := Dump{Layout: l, Superblock: FromDump(h, l), RealFlags: true}
		d.Superblock.LASizeSectors = min(h.LASizeSectors, 1<<20)
		bm = append(bm, make([]byte, 1<<17)...)
		var out bytes.Buffer
		if err := d.Write(&out, bytes.NewReader(bm)); err != nil {
			t.Fatal(err)
		}
		h2, bm2, err := parseAll(out.String(), 1<<20)
		h.LASizeSectors = d.Superblock.LASizeSectors
		if err != nil || h2 != h || !bytes.HasPrefix(bm, bm2) {
			t.Fatalf("written and parsed again: %v\n got %+v\nwant %+v", err, h2, h)
		}
	})
}
