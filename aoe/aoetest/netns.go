package aoetest

import (
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/replblk/replblk/aoe/packet"
)

// OpenIn opens an initiator's socket on an interface in the network namespace that
// `ip netns` calls ns. It takes frames of every length: nobody tells it of a new MTU.
func OpenIn(ns, name string) (s *packet.Socket, err error) {
	err = Inside(ns, func() (err error) {
		s, err = packet.Open(name, packet.Options{Filter: packet.Filter{Everything: true}, NoRing: true})
		return err
	})
	return s, err
}

// Inside calls f on a thread that is in the network namespace which `ip netns` calls ns.
func Inside(ns string, f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		back, err := inside(ns, f)
		if back {
			// A thread that ends takes the children along that it has started
			// with Pdeathsig.
			runtime.UnlockOSThread()
		}
		done <- err
	}()
	return <-done
}

// inside also says whether the thread is in its own namespace again.
func inside(ns string, f func() error) (back bool, err error) {
	own, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return true, err
	}
	defer own.Close()
	other, err := os.Open("/run/netns/" + ns)
	if err != nil {
		return true, err
	}
	defer other.Close()
	if err := unix.Setns(int(other.Fd()), unix.CLONE_NEWNET); err != nil {
		return true, fmt.Errorf("enter network namespace %s: %w", ns, err)
	}
	err = f()
	return unix.Setns(int(own.Fd()), unix.CLONE_NEWNET) == nil, err
}
