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
		runtime.LockOSThread()
		s, back, err := openIn(ns, name)
		if back {
			// A thread that ends takes the children along that it has started
			// with Pdeathsig.
			runtime.UnlockOSThread()
		}
		done <- result{s, err}
	}()
	r := <-done
	return r.s, r.err
}

// openIn also says whether the thread is in its own namespace again.
func openIn(ns, name string) (s *packet.Socket, back bool, err error) {
	own, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return nil, true, err
	}
	defer own.Close()
	f, err := os.Open("/run/netns/" + ns)
	if err != nil {
		return nil, true, err
	}
	defer f.Close()
	if err := unix.Setns(int(f.Fd()), unix.CLONE_NEWNET); err != nil {
		return nil, true, fmt.Errorf("enter network namespace %s: %w", ns, err)
	}
	s, err = packet.Open(name, packet.Options{Filter: packet.Filter{Everything: true}})
	return s, unix.Setns(int(own.Fd()), unix.CLONE_NEWNET) == nil, err
}
