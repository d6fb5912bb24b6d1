//go:build interop

package interop

import (
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/replblk/replblk/block"
	"github.com/replblk/replblk/internal/mdtool"
	"github.com/replblk/replblk/metadata"
	"github.com/replblk/replblk/replication"
	"github.com/replblk/replblk/replication/state"
)

// grownSize is the size of the kernel's disk after it has grown; replblk's is larger still.
const grownSize = diskSize + 48<<20

func (p *peer) grow() {
	p.t.Helper()
	if err := os.Truncate(p.disk, grownSize+16<<20); err != nil {
		p.t.Fatal(err)
	}
}

// sectors is the size of the kernel's device.
func (k *kernel) sectors() uint64 {
	k.t.Helper()
	var n uint64
	if _, err := fmt.Sscan(k.sh("cat /sys/block/drbd0/size"), &n); err != nil {
		k.t.Fatal(err)
	}
	return n
}

// waitGrown waits until both devices are larger than before, and agree.
func waitGrown(k *kernel, p *peer, before uint64) {
	k.t.Helper()
	for deadline := time.Now().Add(waitTimeout); time.Now().Before(deadline); time.Sleep(200 * time.Millisecond) {
		if n := k.sectors(); n > before && n == p.sectors() {
			return
		}
	}
	k.t.Fatalf("kernel has %d sectors, replblk %d, it was %d", k.sectors(), p.sectors(), before)
}

// TestResize grows both disks while they are in use; either operator resizes, with either node
// as Primary. The new space is copied from the Primary.
func TestResize(t *testing.T) {
	for _, c := range []struct {
		name                    string
		kernelPrimary, byKernel bool
	}{
		{"kernel Primary, its operator", true, true},
		{"kernel Primary, replblk's operator", true, false},
		{"replblk Primary, its operator", false, false},
		{"replblk Primary, the kernel's operator", false, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			k, p := established(t, options{})
			k.allowed = []string{"Considerable difference in lower level device sizes"}
			if c.kernelPrimary {
				k.sh("drbdadm primary r0")
				k.dd(1, 0, 4096)
			} else {
				p.kind(replication.AdminPrimary)
				p.scribble(1, 20)
			}
			before := p.sectors()
			k.resize(grownSize)
			p.grow()
			if c.byKernel {
				k.sh("drbdadm resize r0")
			} else {
				p.do(replication.Admin{Kind: replication.AdminResize})
			}
			waitGrown(k, p, before)
			settled(k, p)
			last := p.sectors()/128*128 - 2048 // 1 MiB in whole 64 KiB
			if c.kernelPrimary {
				k.dd(2, int(last/2), 1024)
				k.sh("drbdadm secondary r0")
			} else if err := block.WriteAt(p.Volume(0), make([]byte, 1<<20), last); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestResizeOneByOne: nothing happens before the second disk has grown, too; replblk's grows
// first, or the kernel's.
func TestResizeOneByOne(t *testing.T) {
	for _, first := range []string{"kernel", "replblk"} {
		t.Run(first, func(t *testing.T) {
			k, p := established(t, options{})
			k.allowed = []string{"Considerable difference in lower level device sizes"}
			k.sh("drbdadm primary r0")
			k.dd(1, 0, 4096)
			before := p.sectors()
			steps := []func(){
				func() { k.resize(grownSize); k.sh("drbdadm resize r0") },
				func() { p.grow(); p.do(replication.Admin{Kind: replication.AdminResize}) },
			}
			if first == "replblk" {
				steps[0], steps[1] = steps[1], steps[0]
			}
			steps[0]()
			agreed(k, p)
			if a, b := k.sectors(), p.sectors(); a != before || b != before {
				t.Fatalf("kernel has %d sectors, replblk %d, it was %d", a, b, before)
			}
			k.dd(2, 4096, 4096)
			steps[1]()
			waitGrown(k, p, before)
		})
	}
}

// TestResizeAssumeClean: no resync, whoever asks for it.
func TestResizeAssumeClean(t *testing.T) {
	for _, by := range []string{"kernel", "replblk"} {
		t.Run(by, func(t *testing.T) {
			k, p := established(t, brisk())
			k.allowed = []string{"Considerable difference in lower level device sizes"}
			p.kind(replication.AdminPrimary)
			p.scribble(1, 20)
			before, gi := p.sectors(), k.gi()
			k.resize(grownSize)
			p.grow()
			if by == "kernel" {
				k.sh("drbdadm -- --assume-clean resize r0")
			} else {
				p.do(replication.Admin{Kind: replication.AdminResize, AssumeClean: true})
			}
			waitGrown(k, p, before)
			p.wait("in sync", inSync)
			k.wait("in sync", procState.inSync)
			if now := k.gi(); now[0] != gi[0] {
				t.Errorf("UUIDs were %v, are %v: there was a resync", gi, now)
			}
			// The new space is what each disk had there: drbd promises nothing else.
			sameDisks(t, k.disk, p.disk, int64(before)*512)
			k.sh("drbdadm invalidate r0") // which makes them equal
			p.wait("resync", func(s state.State) bool { return s.Conn == state.SyncSource })
		})
	}
}

// TestShrink: the kernel's operator makes the volume smaller, then replblk's.
func TestShrink(t *testing.T) {
	k, p := established(t, options{})
	k.allowed = []string{"Considerable difference in user requested size"}
	p.kind(replication.AdminPrimary)
	p.scribble(1, 20)
	p.kind(replication.AdminSecondary)
	k.sh("drbdadm primary r0")
	before := p.sectors()
	k.sh("drbdadm -- --size=100M resize r0")
	for deadline := time.Now().Add(waitTimeout); p.sectors() == before && time.Now().Before(deadline); {
		time.Sleep(100 * time.Millisecond)
	}
	settled(k, p)
	if a, b := k.sectors(), p.sectors(); a != 100<<11 || b != a {
		t.Fatalf("kernel has %d sectors, replblk %d", a, b)
	}
	k.sh("drbdadm secondary r0")
	p.kind(replication.AdminPrimary)
	p.do(replication.Admin{Kind: replication.AdminResize, Sectors: 80 << 11, Force: true})
	for deadline := time.Now().Add(waitTimeout); k.sectors() != 80<<11 && time.Now().Before(deadline); {
		time.Sleep(100 * time.Millisecond)
	}
	p.scribble(2, 20)
	settled(k, p)
	if a, b := k.sectors(), p.sectors(); a != 80<<11 || b != a {
		t.Fatalf("kernel has %d sectors, replblk %d", a, b)
	}
}

// TestGrownWhileDown grows both disks while nobody uses them. The metadata of each is moved by
// its own tool, and the nodes must agree on what is behind the old end.
func TestGrownWhileDown(t *testing.T) {
	k, p := established(t, options{ownTool: true})
	k.sh("drbdadm primary r0")
	k.dd(1, 0, 4096)
	k.sh("drbdadm secondary r0")
	settled(k, p)
	before := p.sectors()
	k.sh("drbdadm down r0")
	k.sh("drbdadm check-resize r0") // notes the size
	p.close()
	k.resize(grownSize)
	p.grow()
	k.sh("drbdadm check-resize r0")
	p.checkResize(diskSize)
	// The kernel leaves it at bits that are set; replblk sees to it that they are copied.
	k.allowed = noticed
	k.up()
	p = k.again(p.o)
	p.kind(replication.AdminConnect)
	waitGrown(k, p, before)
	p.kind(replication.AdminPrimary) // only a Primary begins the generation that has it copied
	p.wait("the new space is copied", func(state.State) bool { return p.Status().Volumes[0].OutOfSync == 0 })
	settled(k, p)
	p.kind(replication.AdminSecondary)
}

// checkResize moves the metadata of replblk's disk, which had size bytes.
func (p *peer) checkResize(size uint64) {
	p.t.Helper()
	f, err := mdtool.OpenFile(p.disk, mdtool.OpenOptions{Writable: true, AllowRegular: true})
	if err != nil {
		p.t.Fatal(err)
	}
	defer f.Close()
	if moved, err := mdtool.CheckResize(f, metadata.Internal, size/512); err != nil || !moved {
		p.t.Fatalf("check-resize: moved %v, %v", moved, err)
	}
}
