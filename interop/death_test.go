//go:build interop

package interop

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/replblk/replblk/block"
	"github.com/replblk/replblk/internal/nbdclient"
	"github.com/replblk/replblk/replication"
)

// claim is what the block with this number holds after its write.
func claim(n int) []byte {
	return append([]byte(fmt.Sprintf("block %08d ", n)), bytes.Repeat([]byte{byte(n)}, 4096-15)...)
}

// kept complains about each of the blocks that a disk does not hold.
func kept(t *testing.T, disk string, blocks []int) {
	t.Helper()
	f, err := os.Open(disk)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, 14)
	for _, n := range blocks {
		if _, err := f.ReadAt(b, int64(n)*4096); err != nil || !bytes.Equal(b, claim(n)[:14]) {
			t.Errorf("block %d was acknowledged, the survivor has %q, %v", n, b, err)
		}
	}
	t.Logf("%d acknowledged writes, none may be missing", len(blocks))
	if len(blocks) < 10 {
		t.Errorf("only %d writes were acknowledged: that proves nothing", len(blocks))
	}
}

// acknowledged has the kernel's machine write blocks in four lanes until its power goes.
// Each says on the console, which is a file here, what has been answered.
func (k *kernel) acknowledged() (read func() []int) {
	k.t.Helper()
	console := machine.console()
	before, err := os.ReadFile(console)
	if err != nil {
		k.t.Fatal(err)
	}
	k.sh(`for lane in 0 1 2 3; do (
	i=$lane
	while [ $i -lt 30000 ]; do
		printf 'block %08d ' $i | dd of=/dev/drbd0 bs=4096 seek=$i count=1 conv=sync,notrunc oflag=direct 2>/dev/null || exit
		echo "<answered $i>" >/dev/ttyS0
		i=$((i + 4))
	done ) >/dev/null 2>&1 & done`)
	return func() (list []int) {
		all, err := os.ReadFile(console)
		if err != nil {
			k.t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`<answered (\d+)>`).FindAllSubmatch(all[len(before):], -1) {
			n, err := strconv.Atoi(string(m[1]))
			if err != nil {
				k.t.Fatal(err)
			}
			list = append(list, n)
		}
		return list
	}
}

// untilAnswered waits until enough writes have been answered for a test to prove something.
func (k *kernel) untilAnswered(list func() []int) {
	k.t.Helper()
	for deadline := time.Now().Add(waitTimeout); len(list()) < 100; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			k.t.Fatalf("only %d writes were answered", len(list()))
		}
	}
}

// TestKernelPrimaryDies: the machine loses power while its kernel is Primary and writes. The
// survivor has all that was answered under protocol C. It takes over and goes on, and the
// kernel comes back as its target.
func TestKernelPrimaryDies(t *testing.T) {
	o := outage()
	k, p := established(t, o)
	k.sh("drbdadm primary r0")
	answered := k.acknowledged()
	k.untilAnswered(answered)
	machine.halt()
	blocks := answered()
	if err := machine.start(); err != nil {
		t.Fatal(err)
	}
	k.configure(o)
	p.wait("the kernel has gone", waiting)
	kept(t, p.disk, blocks)
	p.kind(replication.AdminPrimary)
	for _, n := range blocks {
		b := make([]byte, 4096)
		if err := block.ReadAt(p.Volume(0), b, uint64(n)*8); err != nil || !bytes.Equal(b[:14], claim(n)[:14]) {
			t.Fatalf("block %d reads %q, %v", n, b[:14], err)
		}
	}
	p.scribbleAt(1, 10, 100000, 60000)
	k.up()
	settled(k, p)
	kept(t, k.disk, blocks)
}

// load writes blocks through NBD in some lanes until the program dies, and returns those that were
// answered.
func (d *daemon) load(lanes int) (answered func() []int) {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), commandTimeout)
	d.t.Cleanup(cancel)
	var mu sync.Mutex
	var list []int
	for lane := range lanes {
		c, err := nbdclient.Dial(ctx, "unix:"+d.dir+"/nbd.sock", "r0")
		if err != nil {
			d.t.Fatal(err)
		}
		go func() {
			defer c.Close()
			for n := lane; n < 30000 && c.Write(claim(n), uint64(n)*4096, false) == nil; n += lanes {
				mu.Lock()
				list = append(list, n)
				mu.Unlock()
			}
		}()
	}
	return func() []int {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(list)
	}
}

// TestReplblkPrimaryDies: SIGKILL of replblk as Primary under load. The kernel has all that was
// answered, takes over, and replblk comes back as its target; and the same when it comes back
// before anybody was promoted.
func TestReplblkPrimaryDies(t *testing.T) {
	for _, promoted := range []bool{true, false} {
		t.Run(map[bool]string{true: "kernel takes over", false: "nobody takes over"}[promoted], func(t *testing.T) {
			k, d := daemonPair(t, outage())
			d.must("primary", "r0")
			answered := d.load(4)
			k.untilAnswered(answered)
			d.signal(syscall.SIGKILL)
			blocks := answered()
			k.wait("replblk has gone", procState.waiting)
			k.sh("sync")
			kept(t, k.disk, blocks)
			if promoted {
				k.sh("drbdadm primary r0")
				k.ddOn(0, 1, 120*1024, 1024)
			}
			d.start()
			d.settled(k)
			kept(t, d.disk, blocks)
		})
	}
}

// TestReplblkSecondaryDies: SIGKILL of replblk as Secondary under the kernel's load, twice, the
// second time in the resync after the first.
func TestReplblkSecondaryDies(t *testing.T) {
	o := outage()
	o.kernelDisk = "c-plan-ahead 0; resync-rate 10M;"
	k, d := daemonPair(t, o)
	k.sh("drbdadm primary r0")
	k.sh("(dd if=/dev/urandom of=/dev/drbd0 bs=64k count=1200 oflag=direct >/dev/null 2>&1; touch /tmp/written) & sleep 1")
	d.signal(syscall.SIGKILL)
	k.wait("replblk has gone", procState.waiting)
	k.sh("until [ -e /tmp/written ]; do sleep 0.2; done; rm /tmp/written")
	d.start()
	k.wait("resync", func(s procState) bool { return s.cs == "SyncSource" })
	d.signal(syscall.SIGKILL)
	k.wait("replblk has gone", procState.waiting)
	k.dd(2, 65536, 1024)
	d.start()
}

// TestFrozenReplblk stops replblk as Secondary while the kernel writes, past the kernel's ping
// time-out and past its ko-count: the kernel goes on without it.
func TestFrozenReplblk(t *testing.T) {
	for name, net := range map[string]string{
		"ping-timeout": "ping-int 1; timeout 60;",
		"ko-count":     "ping-int 60; timeout 10; ko-count 2;",
	} {
		t.Run(name, func(t *testing.T) {
			k, d := daemonPair(t, options{kernelNet: net})
			k.allowed = append(k.allowed, "ko-count", "ko = ")
			k.sh("drbdadm primary r0")
			k.dd(1, 0, 1024)
			if err := d.proc.Process.Signal(syscall.SIGSTOP); err != nil {
				t.Fatal(err)
			}
			k.dd(2, 0, 2048)
			k.wait("replblk is given up", func(s procState) bool { return !s.connected() })
			k.dd(3, 4096, 2048)
			if err := d.proc.Process.Signal(syscall.SIGCONT); err != nil {
				t.Fatal(err)
			}
		})
	}
}
