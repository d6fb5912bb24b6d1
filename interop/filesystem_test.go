//go:build interop

package interop

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/replblk/replblk/block"
	"github.com/replblk/replblk/replication"
)

// counted is a disk that counts the writes that zero something.
type counted struct {
	block.Device
	discards, zeroes *atomic.Int64
}

func (c counted) Submit(r *block.Request) {
	switch r.Op {
	case block.Discard:
		c.discards.Add(1)
	case block.WriteZeroes:
		c.zeroes.Add(1)
	}
	c.Device.Submit(r)
}

// TestFileSystem has the kernel's machine make an ext4 (mkfs zeroes the inode tables), fill it,
// delete some of it and trim; replblk is promoted, and what it serves is checked with e2fsck and
// read. Then the reverse: replblk is given a file system, and the machine mounts it.
func TestFileSystem(t *testing.T) {
	var discards, zeroes atomic.Int64
	k, p := established(t, options{wrap: func(d block.Device) block.Device { return counted{d, &discards, &zeroes} }})
	k.sh("drbdadm primary r0")
	p.wait("the kernel is Primary", peerPrimary)
	k.sh("modprobe ext4; mkfs.ext4 -q -F -E lazy_itable_init=0,lazy_journal_init=0 /dev/drbd0; mkdir -p /tmp/m; mount -t ext4 /dev/drbd0 /tmp/m")
	k.sh("for i in $(seq 40); do dd if=/dev/urandom of=/tmp/m/f$i bs=1k count=$((i * 29)) 2>/dev/null; done; sync; rm /tmp/m/f[1-9]; fstrim /tmp/m; cd /tmp/m && sha1sum f* >/tmp/sums; cp /tmp/sums /tmp/m/sums; cd /; umount /tmp/m")
	sums := k.sh("cat /tmp/sums")
	k.sh("drbdadm secondary r0")
	p.wait("the kernel is Secondary", peerSecondary)
	settled(k, p)
	t.Logf("the kernel has sent %d discards and %d zero-outs", discards.Load(), zeroes.Load())
	if discards.Load() == 0 || zeroes.Load() == 0 {
		t.Errorf("%d discards and %d zero-outs: mkfs and fstrim have both", discards.Load(), zeroes.Load())
	}

	p.kind(replication.AdminPrimary)
	dir := t.TempDir()
	image := filepath.Join(dir, "image")
	p.readAll(image)
	must(t, "e2fsck", "-fn", image)
	out := filepath.Join(dir, "out")
	if err := os.Mkdir(out, 0o755); err != nil {
		t.Fatal(err)
	}
	must(t, "debugfs", "-R", "rdump / "+out, image)
	check := exec.Command("sha1sum", "-c", "--quiet", "-")
	check.Dir, check.Stdin = out, strings.NewReader(sums+"\n")
	if b, err := check.CombinedOutput(); err != nil {
		t.Errorf("files: %v\n%s", err, b)
	}

	if err := os.WriteFile(filepath.Join(out, "new"), []byte(strings.Repeat("written through replblk\n", 50000)), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(image); err != nil {
		t.Fatal(err)
	}
	must(t, "mkfs.ext4", "-q", "-F", "-b", "1024", "-d", out, image, fmt.Sprint(p.sectors()/2))
	p.writeAll(image)
	p.kind(replication.AdminSecondary)
	k.wait("replblk is Secondary", func(s procState) bool { return s.ro == "Secondary/Secondary" })
	k.sh("drbdadm primary r0 && fsck.ext4 -fn /dev/drbd0 >/tmp/fsck 2>&1 || { cat /tmp/fsck; exit 1; }")
	k.sh("mount -t ext4 /dev/drbd0 /tmp/m && cd /tmp/m && sha1sum -c /tmp/sums >/dev/null && [ $(wc -l <new) = 50000 ]; s=$?; cd /; umount /tmp/m; exit $s")
}

func must(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
}

// readAll copies replblk's device to a file.
func (p *peer) readAll(path string) {
	p.t.Helper()
	f, err := os.Create(path)
	if err != nil {
		p.t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, 1<<20)
	for at := uint64(0); at < p.sectors(); at += uint64(len(b)) / 512 {
		b = b[:min(uint64(len(b)), (p.sectors()-at)*512)]
		if err := block.ReadAt(p.Volume(0), b, at); err != nil {
			p.t.Fatal(err)
		}
		if _, err := f.Write(b); err != nil {
			p.t.Fatal(err)
		}
	}
}

// writeAll copies a file to replblk's device in pieces of 256 KiB; what is zero is zeroed, and
// discarded first in every second of them.
func (p *peer) writeAll(path string) {
	p.t.Helper()
	f, err := os.Open(path)
	if err != nil {
		p.t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, 256<<10)
	for at := uint64(0); at < p.sectors(); at += uint64(len(b)) / 512 {
		n := min(uint64(len(b)), (p.sectors()-at)*512)
		if _, err := io.ReadFull(f, b[:n]); err != nil {
			p.t.Fatal(err)
		}
		if strings.Trim(string(b[:n]), "\x00") != "" {
			if err := block.WriteAt(p.Volume(0), b[:n], at); err != nil {
				p.t.Fatal(err)
			}
			continue
		}
		if at/512%2 == 0 {
			p.submit(block.Discard, 0, at, uint32(n/512))
		}
		p.submit(block.WriteZeroes, 0, at, uint32(n/512))
	}
}
