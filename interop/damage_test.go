//go:build interop

package interop

import (
	"bytes"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/replblk/replblk/block"
	"github.com/replblk/replblk/internal/chaos"
	"github.com/replblk/replblk/node"
	"github.com/replblk/replblk/node/transport"
	"github.com/replblk/replblk/replication"
	"github.com/replblk/replblk/replication/state"
)

// TestDamageOnTheWire flips a bit of a write on its way, in either direction: who receives it
// sees that by its digest, writes nothing of it, and ends the connection. The next one brings
// what was meant.
func TestDamageOnTheWire(t *testing.T) {
	for _, primary := range []string{"kernel", "replblk"} {
		t.Run(primary+" Primary", func(t *testing.T) {
			relay, err := chaos.NewProxy(kernelIP + ":7789")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(relay.Close)
			o := outage()
			o.kernelNet += " data-integrity-alg crc32c;"
			quick := o.core
			o.core = func(c *replication.Config) { quick(c); c.IntegrityAlg = "crc32c" }
			o.link = func(c *transport.Config) { // the kernel finds nobody where it connects to
				c.Local, c.Peer = "127.0.0.1:7789", relay.Address()
			}
			k, p := established(t, o)
			k.allowed = append([]string{"Digest integrity check FAILED", "error receiving Data", "ProtocolError"}, noticed...)
			var connections atomic.Int32
			defer p.Watch(countConnections(&connections))()
			defer p.Watch(func(c node.Change) { // one bit is enough: the weather holds for the next connection, too
				if c.Old.Conn >= state.Connected && c.New.Conn < state.Connected {
					relay.Set(chaos.Forth, chaos.Weather{})
					relay.Set(chaos.Back, chaos.Weather{})
				}
			})()
			const somewhere = 100_000 // bytes of the connection: not in a header, which has no digest
			if primary == "kernel" {
				k.sh("drbdadm primary r0")
				relay.Set(chaos.Back, chaos.Weather{Corrupt: somewhere})
				k.sh("yes damage | dd of=/dev/drbd0 bs=64k iflag=fullblock count=16 oflag=direct conv=notrunc")
			} else {
				p.kind(replication.AdminPrimary)
				relay.Set(chaos.Forth, chaos.Weather{Corrupt: somewhere})
				if err := block.WriteAt(p.Volume(0), bytes.Repeat([]byte("damaged "), 1<<15), 4096); err != nil {
					t.Error(err)
				}
			}
			p.wait("a new connection", func(s state.State) bool { return connections.Load() > 0 && inSync(s) })
			if seen := strings.Contains(k.sh("dmesg"), "Digest integrity check FAILED"); seen != (primary == "replblk") {
				t.Errorf("the kernel has noticed damage: %v", seen)
			}
		})
	}
}
