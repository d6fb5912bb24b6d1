//go:build interop

package interop

import (
	"syscall"
	"testing"

	"github.com/replblk/replblk/replication"
	"github.com/replblk/replblk/replication/state"
)

// TestFrozenKernel stops the kernel's machine in the middle of writes, once for longer than its
// pings may take, once (with pings that take long) for longer than timeout times ko-count. The
// writes go on without it, and it gets them when it wakes up.
func TestFrozenKernel(t *testing.T) {
	for name, core := range map[string]func(c *replication.Config){
		"ping-timeout": func(c *replication.Config) { c.PingIntSeconds = 1 },
		"ko-count": func(c *replication.Config) {
			c.PingIntSeconds, c.PingTimeoutTenths, c.TimeoutTenths, c.KoCount = 60, 300, 10, 2
		},
	} {
		t.Run(name, func(t *testing.T) {
			k, p := established(t, options{core: core})
			k.allowed = noticed
			p.kind(replication.AdminPrimary)
			p.scribble(1, 10)
			if err := machine.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
				t.Fatal(err)
			}
			written := make(chan struct{})
			go func() {
				defer close(written)
				p.scribble(2, 20)
			}()
			p.wait("the kernel is given up", func(s state.State) bool { return s.Conn < state.Connected })
			<-written
			if err := machine.cmd.Process.Signal(syscall.SIGCONT); err != nil {
				t.Fatal(err)
			}
		})
	}
}
