package mdtool

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/replblk/replblk/metadata"
)

// TestDetect places each signature alone on an empty device.
func TestDetect(t *testing.T) {
	for _, sig := range signatures {
		b := make([]byte, 1<<20)
		copy(b[sig.off:], sig.magic)
		if sig.magic == "FAT1" || sig.magic == "FAT32" {
			copy(b[510:], "\x55\xaa")
		}
		f, err := Detect(newMemory(b))
		if err != nil || f.Name != sig.name {
			t.Errorf("%s at %d: found %+v, %v", sig.name, sig.off, f, err)
		}
	}
	if f, err := Detect(newMemory(make([]byte, 1<<20))); err != nil || f != (Found{}) {
		t.Errorf("zeroes: found %+v, %v", f, err)
	}
	b := make([]byte, 1<<20)
	b[70000] = 1
	if f, _ := Detect(newMemory(b)); f.Name != "" {
		t.Errorf("a byte beyond 68 KiB: found %+v", f)
	}
	b[69631] = 1
	if f, _ := Detect(newMemory(b)); f.Name != "some data" {
		t.Errorf("a byte within 68 KiB: found %+v", f)
	}
}

// TestCreateProtects checks every reason to ask or to refuse.
func TestCreateProtects(t *testing.T) {
	ext := func(blocks uint32) []byte {
		b := make([]byte, 4<<20)
		binary.LittleEndian.PutUint32(b[1024+4:], blocks)
		binary.LittleEndian.PutUint16(b[1080:], 0xef53)
		return b
	}
	withMeta := make([]byte, 4<<20)
	if _, err := Create(newMemory(withMeta), metadata.Internal, CreateOptions{}); err != nil {
		t.Fatalf("empty device: %v", err)
	}
	some := make([]byte, 4<<20)
	some[5000] = 1
	cases := []struct {
		name      string
		data      []byte
		questions int
		code      int
	}{
		{"empty", make([]byte, 4<<20), 0, 0},
		{"metadata", withMeta, 1, 0},
		{"some data", some, 1, 0},
		{"file system that fits", ext(4000), 1, 0},
		{"file system that does not fit", ext(4096), 0, ExitWouldCut},
	}
	for _, c := range cases {
		for _, answer := range []bool{true, false} {
			m := newMemory(bytes.Clone(c.data))
			asked := 0
			_, err := Create(m, metadata.Internal, CreateOptions{Ask: Ask{Confirm: func(string) bool { asked++; return answer }}})
			want := c.code
			if c.questions > 0 && !answer {
				want = ExitCancelled
			}
			got := 0
			if e, ok := errors.AsType[*ExitError](err); ok {
				got = e.Code
			}
			if got != want || asked != c.questions {
				t.Errorf("%s, answer %v: exit %d (%v) after %d questions, want %d after %d", c.name, answer, got, err, asked, want, c.questions)
			}
			if want != 0 && !bytes.Equal(m.data, c.data) {
				t.Errorf("%s, answer %v: refused, but the device changed", c.name, answer)
			}
		}
	}
	if _, err := Create(newMemory(bytes.Clone(some)), metadata.Internal, CreateOptions{}); !errors.Is(err, ErrCancelled) {
		t.Errorf("nobody to ask: %v", err)
	}
	_, err := Create(newMemory(ext(4096)), metadata.Internal, CreateOptions{Ask: Ask{Force: true}})
	var e *ExitError
	if !errors.As(err, &e) || e.Code != ExitWouldCut {
		t.Errorf("force does not help a file system that would be cut: %v", err)
	}
}

// TestExtEqualsDrbdmeta compares the verdict on real ext file systems.
func TestExtEqualsDrbdmeta(t *testing.T) {
	mkfs, err := exec.LookPath("mkfs.ext4")
	if err != nil {
		mkfs = "/usr/sbin/mkfs.ext4"
	}
	for _, size := range []string{"16384k", "16344k", "16345k", "9M"} {
		path := newFile(t, 16<<20)
		if out, err := exec.Command(mkfs, "-q", "-F", "-b", "1024", path, size).CombinedOutput(); err != nil {
			t.Fatalf("mkfs.ext4 (install e2fsprogs): %v: %s", err, out)
		}
		theirs := copyFile(t, path)
		_, _, want := drbdmeta(t, theirs, metadata.Internal, "create-md")
		var out strings.Builder
		withFile(t, path, func(s *File) {
			_, err := Create(s, metadata.Internal, CreateOptions{Ask: Ask{Force: true}, Out: &out})
			got := 0
			if e, ok := errors.AsType[*ExitError](err); ok {
				got = e.Code
			}
			if got != want {
				t.Errorf("ext4 of %s: exit %d (%v), drbdmeta %d", size, got, err, want)
			}
		})
		if !strings.Contains(out.String(), "left usable") {
			t.Errorf("ext4 of %s: output lacks the sizes:\n%s", size, out.String())
		}
	}
}

func TestOpenFile(t *testing.T) {
	path := newFile(t, 1<<20)
	var e *ExitError
	if _, err := OpenFile(path, OpenOptions{}); !errors.As(err, &e) || e.Code != ExitDevice {
		t.Errorf("regular file without permission: %v", err)
	}
	if _, err := OpenFile(filepath.Join(path, "none"), OpenOptions{AllowRegular: true}); !errors.As(err, &e) || e.Code != ExitDevice {
		t.Errorf("missing file: %v", err)
	}
	withFile(t, path, func(*File) {
		if _, err := OpenFile(path, OpenOptions{AllowRegular: true}); !errors.As(err, &e) || e.Code != ExitDevice {
			t.Errorf("second open of a locked file: %v", err)
		}
	})
	withFile(t, path, func(s *File) {
		if _, err := Open(s, metadata.Internal); !errors.Is(err, ErrNoMetadata) || !errors.As(err, &e) || e.Code != ExitCancelled {
			t.Errorf("no metadata: %v", err)
		}
	})
}
