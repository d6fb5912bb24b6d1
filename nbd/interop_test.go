package nbd_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/replblk/replblk/block/file"
	"github.com/replblk/replblk/nbd"
)

const interopSize = 64 << 20

// fixture serves a file of random bytes on a unix socket.
type fixture struct {
	t          *testing.T
	server     *nbd.Server
	image, uri string
}

func serve(t *testing.T, direct file.DirectMode) fixture {
	t.Helper()
	dir := t.TempDir()
	image := filepath.Join(dir, "disk.img")
	data := make([]byte, interopSize)
	rnd := rand.NewChaCha8([32]byte{1})
	_, _ = rnd.Read(data)
	if err := os.WriteFile(image, data, 0o600); err != nil {
		t.Fatal(err)
	}
	d, err := file.Open(image, file.Options{Direct: direct})
	if err != nil {
		t.Fatal(err)
	}
	s := nbd.NewServer(nbd.Options{})
	if err := s.Add(nbd.Export{Name: "r0", Description: "test", Device: d}); err != nil {
		t.Fatal(err)
	}
	sock := filepath.Join(dir, "s")
	l, err := net.Listen("unix", sock)
	if err != nil {
		t.Fatal(err)
	}
	go s.Serve(context.Background(), l)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := s.Shutdown(ctx); err != nil {
			t.Errorf("shutdown: %v", err)
		}
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return fixture{t, s, image, "nbd+unix:///r0?socket=" + sock}
}

// run executes a program that must be installed and must succeed.
func (f fixture) run(name string, args ...string) string {
	f.t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		f.t.Fatalf("%s is needed for this test: apt-get install libnbd-bin qemu-utils fio", name)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Dir = f.t.TempDir()
	out, err := cmd.CombinedOutput()
	if err != nil {
		f.t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

func TestInteropNbdinfo(t *testing.T) {
	f := serve(t, file.DirectOff)
	out := f.run("nbdinfo", f.uri)
	for _, want := range []string{
		"export-size: 67108864", "can_flush: true", "can_fua: true", "can_multi_conn: true", "can_trim: true", "can_zero: true",
		"can_fast_zero: true", "is_read_only: false", "block_size_minimum: 512", "block_size_preferred: 4096", "block_size_maximum: 33554432",
		"base:allocation", "using structured packets",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("nbdinfo does not say %q:\n%s", want, out)
		}
	}
	if out := f.run("nbdinfo", "--list", f.uri); !strings.Contains(out, `export="r0"`) || !strings.Contains(out, "test") {
		t.Errorf("nbdinfo --list:\n%s", out)
	}
	if out := f.run("nbdinfo", "--map", f.uri); !strings.Contains(out, "67108864") || !strings.Contains(out, "data") {
		t.Errorf("nbdinfo --map:\n%s", out)
	}
}

func TestInteropNbdcopy(t *testing.T) {
	f := serve(t, file.DirectOff)
	copied := filepath.Join(t.TempDir(), "copy.img")
	f.run("nbdcopy", "--connections=4", f.uri, copied)
	sameFiles(t, copied, f.image)
	// And back: half data, half zeroes, which nbdcopy sends as WRITE_ZEROES.
	if err := os.Truncate(copied, interopSize/2); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(copied, interopSize); err != nil {
		t.Fatal(err)
	}
	f.run("nbdcopy", "--flush", "--connections=4", copied, f.uri)
	sameFiles(t, copied, f.image)
}

// Holes of the file are holes for its clients: nbdcopy does not read them.
func TestInteropHoles(t *testing.T) {
	f := serve(t, file.DirectOff)
	f.run("qemu-io", "-f", "raw", "-c", "discard 8M 48M", f.uri)
	out := f.run("nbdinfo", "--map", "--totals", f.uri)
	if !strings.Contains(out, "50331648") || !strings.Contains(out, "hole,zero") {
		t.Errorf("nbdinfo --map --totals:\n%s", out)
	}
	copied := filepath.Join(t.TempDir(), "copy.img")
	f.run("nbdcopy", f.uri, copied)
	sameFiles(t, copied, f.image)
	st, err := os.Stat(copied)
	if err != nil {
		t.Fatal(err)
	}
	if used := st.Sys().(*syscall.Stat_t).Blocks * 512; used > interopSize/2 {
		t.Errorf("the copy takes %d bytes of %d, 16 MiB are data", used, interopSize)
	}
	if c, _ := f.server.ExportStats("r0"); c.ReadBytes > interopSize/2 {
		t.Errorf("nbdcopy read %d bytes, 16 MiB are data", c.ReadBytes)
	}
}

func sameFiles(t *testing.T, a, b string) {
	t.Helper()
	p, err := os.ReadFile(a)
	if err != nil {
		t.Fatal(err)
	}
	q, err := os.ReadFile(b)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(p, q) {
		t.Errorf("%s and %s differ", a, b)
	}
}

func TestInteropQemu(t *testing.T) {
	for _, direct := range []file.DirectMode{file.DirectOff, file.DirectAuto} {
		t.Run(fmt.Sprintf("direct=%d", direct), func(t *testing.T) {
			f := serve(t, direct)
			args := []string{"-f", "raw"}
			for _, c := range []string{
				"write -P 0xaa 0 64k", "write -f -P 0xbb 64k 4k", "read -P 0xaa 0 64k", "read -P 0xbb 64k 4k", "write -z -u 0 32k",
				"read -P 0 0 32k", "read -P 0xaa 32k 32k", "discard 1M 1M", "read -P 0 1M 1M", "flush", "aio_write -P 3 2M 1M", "aio_flush",
				"read -P 3 2M 1M", "write -z 3M 1M", "read -P 0 3M 1M", "write -P 7 5000 100", "read -P 7 5000 100",
			} {
				args = append(args, "-c", c)
			}
			out := f.run("qemu-io", append(args, f.uri)...)
			if strings.Contains(out, "failed") || strings.Contains(out, "rror") {
				t.Errorf("qemu-io:\n%s", out)
			}
			if out := f.run("qemu-img", "compare", "-U", "-f", "raw", "-F", "raw", f.uri, f.image); !strings.Contains(out, "identical") {
				t.Errorf("qemu-img compare:\n%s", out)
			}
		})
	}
}

func TestInteropFioVerify(t *testing.T) {
	for _, direct := range []file.DirectMode{file.DirectOff, file.DirectAuto} {
		t.Run(fmt.Sprintf("direct=%d", direct), func(t *testing.T) {
			f := serve(t, direct)
			out := f.run("fio", "--name=v", "--ioengine=nbd", "--uri="+f.uri, "--rw=randwrite", "--bsrange=4k-256k", "--iodepth=16",
				"--size=64m", "--verify=crc32c", "--verify_fatal=1", "--do_verify=1", "--verify_backlog=256", "--fsync=64")
			if strings.Contains(out, "verify:") {
				t.Errorf("fio:\n%s", out)
			}
		})
	}
}
