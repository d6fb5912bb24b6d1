//go:build interop

package interop

import (
	"strings"
	"testing"

	"github.com/replblk/replblk/replication"
)

// TestPowerLoss pulls the plug of the kernel's machine while there are writes, as
// Primary and as Secondary, and starts it again.
func TestPowerLoss(t *testing.T) {
	t.Run("Primary", func(t *testing.T) {
		o := outage()
		k, p := established(t, o)
		k.sh("drbdadm primary r0")
		answered := k.acknowledged()
		k.untilAnswered(answered)
		k.restart(o)
		blocks := answered()
		p.wait("the kernel has gone", waiting)
		if out := k.sh("drbdadm up r0 2>&1; cat /proc/drbd"); !strings.Contains(out, "ds:") {
			t.Fatalf("kernel: %s", out)
		}
		settled(k, p)
		kept(t, k.disk, blocks)
		kept(t, p.disk, blocks)
	})
	t.Run("Secondary", func(t *testing.T) {
		o := outage()
		k, p := established(t, o)
		p.kind(replication.AdminPrimary)
		done := make(chan struct{})
		go func() { p.scribble(1, 300); close(done) }()
		k.sh("sleep 1")
		k.restart(o)
		<-done
		k.up()
	})
}

// restart takes the machine's power away and gives it back. Its configuration was in
// memory.
func (k *kernel) restart(o options) {
	k.t.Helper()
	machine.halt()
	if err := machine.start(); err != nil {
		k.t.Fatal(err)
	}
	k.configure(o)
}
