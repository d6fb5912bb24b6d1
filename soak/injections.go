package main

import (
	"math/rand/v2"
	"time"

	"github.com/replblk/replblk/internal/chaos"
)

// System calls of the daemon, by what they are used for. A few kinds of call are
// shared: write is also the log, read the event loop.
const (
	callsWrite   = "pwrite64,pwritev2"
	callsFlush   = "fdatasync,pwritev2"
	callsRead    = "pread64"
	callsSend    = "writev,sendto,write"
	callsReceive = "read,recvfrom"
	callsConnect = "connect,accept4,socket,bind,shutdown,close"
)

// kind is a family of injections.
type kind struct {
	weight int
	calls  string
	last   int // the Nth call that is hit is drawn from 1..last, small numbers more often
	errno  string
	delay  time.Duration
}

// kinds are what kill-points draws from. The numbers of calls are those of a life with
// killClients clients, spread over some ten threads that count for themselves.
var kinds = []kind{
	{weight: 24, calls: callsWrite, last: 24},
	{weight: 14, calls: callsFlush, last: 8},
	{weight: 16, calls: callsSend, last: 60},
	{weight: 8, calls: callsReceive, last: 80},
	{weight: 4, calls: callsConnect, last: 12},
	{weight: 2, calls: callsRead, last: 16},
	{weight: 9, calls: callsWrite, last: 24, errno: "EIO"},
	{weight: 5, calls: callsWrite, last: 24, errno: "ENOSPC"},
	{weight: 8, calls: callsFlush, last: 8, errno: "EIO"},
	{weight: 4, calls: callsRead, last: 12, errno: "EIO"},
	{weight: 4, calls: callsWrite, last: 24, delay: 40 * time.Millisecond},
	{weight: 2, calls: callsFlush, last: 8, delay: 80 * time.Millisecond},
}

// drawInjection draws a point.
func drawInjection(rng *rand.Rand) *chaos.Injection {
	total := 0
	for _, k := range kinds {
		total += k.weight
	}
	n := rng.IntN(total)
	for _, k := range kinds {
		if n -= k.weight; n >= 0 {
			continue
		}
		return &chaos.Injection{
			Calls: k.calls, Errno: k.errno, Delay: k.delay,
			Nth:  1 + min(rng.IntN(k.last), rng.IntN(k.last)),
			From: k.errno != "" && rng.IntN(2) == 0, // a sector that is bad, or a disk that is gone
		}
	}
	panic("unreachable: weights add up to total")
}
