//go:build interop

package interop

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/replblk/replblk/block"
	"github.com/replblk/replblk/replication"
)

// TestBitmap exchanges bitmaps that run-length encoding cannot make smaller, next to
// long runs, in many packets, in both directions.
func TestBitmap(t *testing.T) {
	t.Run("kernel source", func(t *testing.T) {
		k, p := established(t, bigOutage())
		k.sh("drbdadm primary r0")
		broken(k, p, func() {
			k.scatter(0)
			k.scatter(3 << 30)
			k.dd(1, 1<<20, 16384)
		})
	})
	t.Run("replblk source", func(t *testing.T) {
		k, p := established(t, bigOutage())
		p.kind(replication.AdminPrimary)
		broken(k, p, func() {
			p.scatter(0)
			p.scatter(3 << 21)
			p.submit(block.Discard, 0, 2<<21, 65536)
		})
	})
	t.Run("both sides", func(t *testing.T) {
		k, p := established(t, bigOutage())
		// The kernel's bits from a resync that it has not finished, and replblk's
		// from what it writes then.
		p.kind(replication.AdminPrimary)
		broken(k, p, func() { p.scatter(0) })
		broken(k, p, func() { p.scatter(1 << 20) })
	})
}

func bigOutage() options {
	o := outage()
	o.big = true
	return o
}

// scatter writes 4 KiB to about half of the blocks of 64 MiB, from the byte at on.
func (k *kernel) scatter(at int64) {
	k.t.Helper()
	k.sh("fio --name=scatter --filename=/dev/drbd0 --rw=randwrite --bs=4k --direct=1 --ioengine=libaio --iodepth=32 --minimal" +
		fmt.Sprintf(" --offset=%d --size=64m --io_size=32m", at))
}

// scatter writes 4 KiB to about half of the blocks of 64 MiB, from the sector at on.
func (p *peer) scatter(at uint64) {
	p.t.Helper()
	rnd := rand.New(rand.NewPCG(at, 1))
	b := make([]byte, 4096)
	for i := range uint64(16384) {
		if rnd.IntN(2) == 0 {
			continue
		}
		b[0], b[4095] = byte(i), byte(i>>8)
		if err := block.WriteAt(p.Volume(0), b, at+i*8); err != nil {
			p.t.Fatalf("replblk: %v", err)
		}
	}
}
