//go:build interop

package interop

import (
	"bytes"
	"testing"

	"github.com/replblk/replblk/block"
	"github.com/replblk/replblk/replication"
)

// TestWrites has each node be Primary in turn, writes everything that the protocol has,
// and compares the disks after each turn.
func TestWrites(t *testing.T) {
	for _, c := range []struct {
		name string
		o    options
	}{
		{"protocol C", options{}},
		{"protocol B", options{protocol: 'B'}},
		{"protocol A", options{protocol: 'A'}},
	} {
		t.Run(c.name, func(t *testing.T) {
			k, p := established(t, c.o)
			kernelWrites(k, p)
			replblkWrites(k, p)
			kernelWrites(k, p) // now with a device that replblk has written
		})
	}
}

// kernelWrites has the kernel be Primary for a while.
func kernelWrites(k *kernel, p *peer) {
	k.t.Helper()
	k.sh("drbdadm primary r0")
	p.wait("the kernel is Primary", peerPrimary)
	k.fio("16m")
	k.dd(1, 65536, 8192)
	k.small()
	k.sh("yes large | dd of=/dev/drbd0 bs=1M count=4 seek=20 oflag=direct iflag=fullblock conv=notrunc")
	k.sh("blkdiscard -o 8388608 -l 4194304 /dev/drbd0")
	k.dd(2, 8192+1024, 64)
	k.sh("sync; drbdadm secondary r0")
	p.wait("the kernel is Secondary", peerSecondary)
	settled(k, p)
}

// replblkWrites has replblk be Primary for a while.
func replblkWrites(k *kernel, p *peer) {
	k.t.Helper()
	p.kind(replication.AdminPrimary)
	k.wait("replblk is Primary", func(s procState) bool { return s.ro == "Secondary/Primary" })
	p.scribble(1, 60)
	if err := block.WriteAt(p.Volume(0), bytes.Repeat([]byte("1 MiB, not aligned to anything.\n"), 1<<15), 70001); err != nil {
		k.t.Fatal(err)
	}
	p.submit(block.Discard, 0, 16384, 8192)
	p.submit(block.WriteZeroes, 0, 40000, 999)
	p.submit(block.WriteZeroes, block.NoHole, 50001, 2048)
	p.submit(block.Flush, 0, 0, 0)
	w := write{20003, make([]byte, 8192)}
	if err := block.Do(p.Volume(0), &block.Request{Op: block.Write, Flags: block.FUA, Sector: w.sector, Sectors: 16, Data: w.data}); err != nil {
		k.t.Fatal(err)
	}
	p.kind(replication.AdminSecondary)
	k.wait("replblk is Secondary", func(s procState) bool { return s.ro == "Secondary/Secondary" })
	settled(k, p)
}
