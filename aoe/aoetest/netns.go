package aoetest

import (
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/replblk/replblk/aoe/packet"
)

// OpenIn opens an initiator's socket on an interface in the network namespace that
// `ip netns` calls ns.
func OpenIn(ns, name string) (*packet.Socket, error) {
	type result struct {
		s   *packet.Socket
		err error
	}
	done := make(chan result)
	go func() {
		// Never unlocked: the thread is in another namespace and ends with
		// the goroutine.
		runtime.LockOSThread()
		s, err := openIn(ns, name)
		done <- result{s, err}
	}()
	r := <-done
	return r.s, r.err
}

func openIn(ns, name string) (*packet.Socket, error) {
	f, err := os.Open("/run/netns/" + ns)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if err := unix.Setns(int(f.Fd()), unix.CLONE_NEWNET); err != nil {
		return nil, fmt.Errorf("enter network namespace %s: %w", ns, err)
	}
	return packet.Open(name, packet.Options{Filter: packet.Filter{Everything: true}})
}
