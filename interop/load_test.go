//go:build interop

package interop

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/replblk/replblk/block"
)

// fio writes to the kernel's device with several requests in flight and reads all of it
// back, comparing checksums.
func (k *kernel) fio(size string) {
	k.t.Helper()
	k.sh("fio --name=interop --filename=/dev/drbd0 --rw=randwrite --bsrange=4k-256k --bs_unaligned=0 --direct=1 " +
		"--ioengine=libaio --iodepth=8 --size=" + k.span + " --io_size=" + size + " --fsync=32 --verify=crc32c --verify_fatal=1 --randseed=7 --minimal")
}

// dd writes bytes that depend on seed to n KiB of the kernel's device from KiB at on.
func (k *kernel) dd(seed, at, n int) { k.t.Helper(); k.ddOn(0, seed, at, n) }

// ddOn is dd for a volume.
func (k *kernel) ddOn(vol, seed, at, n int) {
	k.t.Helper()
	k.sh(fmt.Sprintf("yes 'interop %d' | dd of=/dev/drbd%d bs=64k iflag=fullblock seek=%d count=%d conv=fsync,notrunc", seed, vol, at/64, n/64))
}

// small writes single sectors and blocks that share one with their neighbours.
func (k *kernel) small() {
	k.t.Helper()
	k.sh("for i in 1 2 3 7 8 9 20001 50001; do dd if=/dev/urandom of=/dev/drbd0 bs=512 count=3 seek=$i oflag=direct conv=notrunc 2>/dev/null || exit; done")
}

// keepWriting writes to the kernel's device, with a pause after every 256 KiB, until the function that it returns is called.
func (k *kernel) keepWriting(pause time.Duration) (stop func()) {
	k.t.Helper()
	k.sh(fmt.Sprintf(`rm -f /tmp/enough /tmp/failed
(i=0
while [ -b /dev/drbd0 ] && ! [ -e /tmp/enough ]; do
	dd if=/dev/urandom of=/dev/drbd0 bs=32k seek=$((i * 7 %% 900)) count=8 oflag=direct conv=notrunc 2>/tmp/dd.err || cp /tmp/dd.err /tmp/failed
	i=$((i + 1))
	[ %[1]d = 0 ] || usleep %[1]d
done; rm -f /tmp/enough) >/dev/null 2>&1 &`, pause.Microseconds()))
	k.t.Cleanup(func() { // before the resource is taken down
		_, _, _ = machine.run("touch /tmp/enough; for i in $(seq 200); do pidof dd || break; sleep 0.1; done", commandTimeout)
	})
	return func() {
		k.t.Helper()
		k.sh("touch /tmp/enough; while [ -e /tmp/enough ]; do sleep 0.1; done; ! [ -e /tmp/failed ] || { cat /tmp/failed; exit 1; }")
	}
}

// write is a write of random bytes.
type write struct {
	sector uint64
	data   []byte
}

// randomWrites returns n writes of 512 bytes to 256 KiB, none overlapping another one
// in flight: each of the lanes has its own part of the device.
func randomWrites(seed uint64, lane, lanes, sectors uint64, n int) []write {
	rnd := rand.New(rand.NewPCG(seed, lane))
	part := sectors / lanes
	list := make([]write, n)
	for i := range list {
		size := uint64(1) << rnd.IntN(10)
		w := write{part*lane + rnd.Uint64N(part-size), make([]byte, size*512)}
		for k := range w.data {
			w.data[k] = byte(rnd.Uint32())
		}
		list[i] = w
	}
	return list
}

// scribble writes n requests in each of four lanes to replblk's device.
func (p *peer) scribble(seed uint64, n int) { p.scribbleAt(seed, n, 0, p.sectors()) }

// scribbleAt is scribble within a range of sectors.
func (p *peer) scribbleAt(seed uint64, n int, first, sectors uint64) {
	p.scribbleOn(p.Volume(0), seed, n, first, sectors)
}

// scribbleOn is scribbleAt for a volume.
func (p *peer) scribbleOn(d block.Device, seed uint64, n int, first, sectors uint64) {
	const lanes = 4
	var wg sync.WaitGroup
	for lane := range uint64(lanes) {
		wg.Go(func() {
			for i, w := range randomWrites(seed, lane, lanes, sectors, n) {
				if err := block.WriteAt(d, w.data, first+w.sector); err != nil {
					p.t.Errorf("replblk: %v", err)
					return
				}
				if i%16 == 15 {
					if err := block.FlushAll(d); err != nil {
						p.t.Errorf("replblk: %v", err)
					}
				}
			}
		})
	}
	wg.Wait()
}

// submit carries out one request of another kind.
func (p *peer) submit(op block.Op, flags block.Flags, sector uint64, sectors uint32) {
	p.t.Helper()
	r := &block.Request{Op: op, Flags: flags, Sector: sector, Sectors: sectors}
	if err := block.Do(p.Volume(0), r); err != nil {
		p.t.Fatalf("replblk: %v", err)
	}
}
