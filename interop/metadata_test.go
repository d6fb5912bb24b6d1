//go:build interop

package interop

import (
	"bytes"
	"compress/gzip"
	"math/bits"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/replblk/replblk/internal/mdtool"
	"github.com/replblk/replblk/metadata"
	"github.com/replblk/replblk/replication"
)

// TestKernelMetadata reads what the kernel leaves on its disk: after a crash as Primary
// with an activity log in use, after that log was applied, after growth, and with a striped
// log. How many blocks the log marks is what the kernel itself marks.
func TestKernelMetadata(t *testing.T) {
	o := outage()
	o.kernelDisk = brisk().kernelDisk
	o.core = func(c *replication.Config) { outage().core(c); brisk().core(c) }
	k, p := established(t, o)
	k.allowed = append([]string{"Resize while not connected was forced by the user!"}, noticed...)
	k.sh("drbdadm primary r0")
	p.kind(replication.AdminDisconnect)
	k.wait("replblk has gone", procState.waiting)
	for at := range 20 {
		k.dd(at, at*5120, 64)
	}
	k.restart(o)
	crashed := keepMetadata(t, k.disk, "crashed")
	k.up()
	if s := k.state(); s.oos != strconv.Itoa(4*crashed) {
		t.Errorf("kernel: %s KiB out of sync, our replay marks %d blocks", s.oos, crashed)
	}
	k.sh("drbdadm down r0")
	if n := keepMetadata(t, k.disk, "applied"); n != crashed {
		t.Errorf("the kernel has written a bitmap of %d blocks, want %d", n, crashed)
	}

	k.sh("drbdadm up r0 && drbdadm primary r0")
	k.resize(grownSize)
	k.sh("drbdadm -- --assume-peer-has-space resize r0")
	k.sh("drbdadm secondary r0 && drbdadm down r0")
	if n := keepMetadata(t, k.disk, "grown"); n <= crashed {
		t.Errorf("%d blocks marked after growth, %d before", n, crashed)
	}

	k.create(o)
	k.sh("drbdmeta --force 0 v08 /dev/vda internal wipe-md && drbdmeta --force 0 v08 /dev/vda internal create-md --al-stripes 3 --al-stripe-size-kB 32")
	// With every bit set, as on a fresh disk, the kernel does not use its log.
	k.sh("drbdadm up r0 && drbdadm disconnect r0 && drbdadm -- --clear-bitmap new-current-uuid r0/0 && drbdadm primary --force r0")
	for at := range 9 {
		k.dd(at, at*12288, 64)
	}
	k.restart(o)
	if n := keepMetadata(t, k.disk, "striped"); n < 9*1024 {
		t.Errorf("%d blocks marked, want 9 extents at least", n)
	}
	k.up() // and a fresh node gets all of it
	p.close()
	k.peer = newPeer(t, o, peerDisk(), true)
	k.peer.kind(replication.AdminConnect)
}

// keepMetadata leaves the metadata of a disk in a file and returns how many blocks are
// marked in its bitmap once the activity log is applied.
func keepMetadata(t *testing.T, disk, what string) int {
	t.Helper()
	image := readFile(t, disk)
	path := filepath.Join(t.TempDir(), what)
	if err := os.WriteFile(path, image, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := mdtool.OpenFile(path, mdtool.OpenOptions{Writable: true, AllowRegular: true})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	m, err := mdtool.Open(f, metadata.Internal)
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := z.Write(image[m.Layout.First()*512:]); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	keep(t, what+".md.gz", b.String())
	if _, err := mdtool.ApplyAL(f, metadata.Internal, mdtool.ApplyOptions{}); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	area := make([]byte, metadata.BitmapBytes(m.Superblock.LASizeSectors))
	if _, err := f.ReadAt(area, int64(m.Layout.Bitmap*512)); err != nil {
		t.Fatal(err)
	}
	n := 0
	for i, b := range area {
		if uint64(i)*64 < m.Superblock.LASizeSectors { // the rest has no blocks
			n += bits.OnesCount8(b)
		}
	}
	return n
}
