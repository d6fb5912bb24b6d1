package mdtool

import (
	"bytes"
	"io"
	"math/rand"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/replblk/replblk/metadata"
)

// memory is a Store in memory that can lose power: Sync makes what was written
// durable, and after "budget" writes and flushes every further one fails.
type memory struct {
	data    []byte // as the running system sees it
	durable []byte // as of the last Sync
	budget  int    // -1 for no limit
	pending [][2]int64
}

func newMemory(data []byte) *memory {
	return &memory{data: data, durable: bytes.Clone(data), budget: -1}
}

// afterCut is what a power loss leaves: nothing of what was not flushed (mode 0), all of it
// (1), or any subset of its sectors.
func (m *memory) afterCut(mode int, rng *rand.Rand) []byte {
	image := bytes.Clone(m.durable)
	for _, w := range m.pending {
		for at := w[0]; at < w[0]+w[1]; at += 512 {
			if mode == 1 || mode > 1 && rng.Intn(2) == 1 {
				copy(image[at:at+512], m.data[at:])
			}
		}
	}
	return image
}

func (m *memory) spend() error {
	if m.budget == 0 {
		return os.ErrClosed
	}
	m.budget--
	return nil
}

func (m *memory) ReadAt(p []byte, off int64) (int, error) {
	if off >= int64(len(m.data)) {
		return 0, io.EOF
	}
	n := copy(p, m.data[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (m *memory) WriteAt(p []byte, off int64) (int, error) {
	if err := m.spend(); err != nil {
		return 0, err
	}
	if off+int64(len(p)) > int64(len(m.data)) {
		return 0, io.ErrShortWrite
	}
	m.pending = append(m.pending, [2]int64{off, int64(len(p))})
	return copy(m.data[off:], p), nil
}

func (m *memory) Sync() error {
	if err := m.spend(); err != nil {
		return err
	}
	for _, w := range m.pending {
		copy(m.durable[w[0]:w[0]+w[1]], m.data[w[0]:])
	}
	m.pending = m.pending[:0]
	return nil
}

func (m *memory) Size() int64 { return int64(len(m.data)) }

// drbdmeta runs the real tool on a file. It must be installed: a test that is
// skipped proves nothing.
func drbdmeta(t *testing.T, path string, p metadata.Placement, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	tool, err := exec.LookPath("drbdmeta")
	if err != nil {
		if _, serr := os.Stat("/usr/sbin/drbdmeta"); serr != nil {
			t.Fatalf("drbdmeta is missing: install drbd-utils, this test compares with it (%v)", err)
		}
		tool = "/usr/sbin/drbdmeta"
	}
	cmd := exec.Command(tool, append([]string{"--force", "-", "v08", path, p.String()}, args...)...)
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		t.Fatalf("running drbdmeta: %v", err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

func mustDrbdmeta(t *testing.T, path string, p metadata.Placement, args ...string) string {
	t.Helper()
	out, errs, code := drbdmeta(t, path, p, args...)
	if code != 0 {
		t.Fatalf("drbdmeta %v: exit %d\n%s%s", args, code, out, errs)
	}
	return out
}

// newFile makes a sparse file.
func newFile(t *testing.T, size int64) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

func withFile(t *testing.T, path string, use func(s *File)) {
	t.Helper()
	s, err := OpenFile(path, OpenOptions{Writable: true, AllowRegular: true})
	if err != nil {
		t.Fatal(err)
	}
	use(s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// area returns the metadata of a file, so that large sparse files need not be compared whole.
func area(t *testing.T, path string, l metadata.Layout) []byte {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	first := int64(l.First() * 512)
	b := make([]byte, min(st.Size()-first, 64<<20))
	if _, err := f.ReadAt(b, first); err != nil {
		t.Fatal(err)
	}
	return b
}

// diff describes the first difference.
func diff(t *testing.T, what string, got, want []byte) {
	t.Helper()
	if bytes.Equal(got, want) {
		return
	}
	if len(got) != len(want) {
		t.Fatalf("%s: %d bytes, drbdmeta has %d", what, len(got), len(want))
	}
	for i := range got {
		if got[i] != want[i] {
			j := i &^ 15
			t.Fatalf("%s: byte %d differs\n got % x\nwant % x", what, i, got[j:min(j+16, len(got))], want[j:min(j+16, len(want))])
		}
	}
}
