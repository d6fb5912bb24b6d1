// Package loopback gives tests addresses that nobody else has. A port that was free a
// moment ago is not enough for a daemon that closes its listener while it is connected
// and dies in between: whoever asks the kernel for a free port may be given that one,
// and then two clusters of different tests meet.
package loopback

import (
	"fmt"
	"os"
	"sync/atomic"
)

// Ports that are given out: below those that the kernel chooses for itself.
const (
	firstPort = 7000
	lastPort  = 31999
)

var given atomic.Uint32

// Address returns an address of the loopback network, "host:port", that was not returned
// before and that no other process which asks here has. The host is the same for one process,
// 127.64.0.0/10 with its process id. Linux only: elsewhere just 127.0.0.1 is local.
func Address() string {
	n := given.Add(1) - 1
	if n > lastPort-firstPort {
		panic(fmt.Sprintf("loopback: more than %d addresses", lastPort-firstPort+1))
	}
	pid := os.Getpid() // at most 22 bits
	return fmt.Sprintf("127.%d.%d.%d:%d", 64|pid>>16&63, pid>>8&255, pid&255, firstPort+n)
}
