//go:build interop

package interop

import (
	"fmt"
	"strings"
	"testing"

	"github.com/replblk/replblk/replication"
	"github.com/replblk/replblk/replication/state"
)

// dual is a pair that is in sync, both nodes Primary.
func dual(t *testing.T) (*kernel, *peer) {
	t.Helper()
	k, p := established(t, options{kernelNet: "allow-two-primaries yes;", core: func(c *replication.Config) { c.TwoPrimaries = true }})
	k.sh("drbdadm primary r0")
	p.kind(replication.AdminPrimary)
	k.wait("both Primary", func(s procState) bool { return s.ro == "Primary/Primary" })
	p.wait("both Primary", func(s state.State) bool { return s.Role == state.Primary && s.Peer == state.Primary })
	if log := string(readFile(t, fileName(t, "peer.log"))); !strings.Contains(log[strings.LastIndex(log, "connection established"):], "decides-ties=true") {
		t.Error("the kernel decides which of two writes wins, and confirms none of the epochs after the first that it refuses")
	}
	return k, p
}

// TestDualPrimary has both ends write: to regions of their own at the same time, one after the
// other to the same blocks, then at the same time to the same blocks.
func TestDualPrimary(t *testing.T) {
	k, p := dual(t)
	done := make(chan struct{})
	go func() {
		defer close(done)
		p.scribbleAt(1, 60, 100000, 20000)
	}()
	for i := range 4 {
		k.dd(i, 0, 4096)
	}
	<-done
	settled(k, p)

	for i := range 6 {
		k.sh(fmt.Sprintf("yes 'both %d' | dd of=/dev/drbd0 bs=16k count=16 seek=%d oflag=direct iflag=fullblock conv=notrunc 2>/dev/null", i, i))
		p.scribbleAt(uint64(i), 20, 0, 4096)
	}
	settled(k, p)
	if t.Failed() {
		return
	}

	k.allowed = []string{"Concurrent writes detected"}
	done = make(chan struct{})
	go func() {
		defer close(done)
		for i := range uint64(10) {
			p.scribbleAt(100+i, 40, 0, 2600)
		}
	}()
	for i := range 10 {
		k.sh(fmt.Sprintf("for n in 1 2 3 4 5 6 7 8; do yes 'both %d' | dd of=/dev/drbd0 bs=$((n*1024)) count=20 oflag=direct iflag=fullblock conv=notrunc 2>/dev/null; done", i))
	}
	<-done
	settled(k, p)
	k.sh("drbdadm secondary r0")
	p.wait("the kernel is Secondary", peerSecondary)
	p.scribbleAt(7, 20, 0, 4096)
}
