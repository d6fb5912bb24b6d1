// Package node runs resources: it joins the pure protocol core (package
// replication) to sockets, disks, timers and frontends.
//
// # Who runs the core
//
// There is no goroutine that owns the core. Whoever has news (a frontend that
// submits a request, the reader of a socket, a disk worker, the ticker) appends an
// event to the mailbox, and if nobody is running, becomes the runner: it takes the
// whole mailbox, steps the core through it, carries out the effects and looks
// again, until the mailbox is empty. See loop.go.
//
// The design began with an owner goroutine. It measures the same under load, but
// at queue depth one a write costs nothing except wake-ups, and with the runner
// there are only three left, all by the network: the client's request, the packet
// at the peer, its acknowledgement.
//
// # The rule
//
// The runner never waits: not for a socket (transport.Writer leaves what does not
// fit to a goroutine of its own), not for a disk (block/file has workers), not for
// metadata (metaqueue.go) and not for a lock that is held over any of these. So
// nobody who becomes the runner is kept for long, and no two of them can wait for
// each other. Who runs is not captive either: after maxRounds batches the relief
// goroutine takes over.
//
// Whoever can wait, waits where the work comes from: a frontend in Volume.Submit
// for a request slot, the reader of the data socket for room at the core.
//
// # Order
//
// Effects of a batch are carried out sends first, so that the peer starts to
// work before the local disk does. Metadata effects of a volume go through one
// queue and one goroutine, strictly in order, errors included.
package node
