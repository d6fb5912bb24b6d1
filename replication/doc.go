// Package replication is the protocol: a DRBD 8.4 resource as a state machine
// without I/O, clocks, goroutines or randomness of its own. Events go in, effects
// come out:
//
//	func (r *Resource) Step(ev *Event, fx *Effects)
//
// Whoever drives it (package node with sockets and disks, package sim with
// simulated ones) must keep these rules, and nothing else:
//
//  1. One caller at a time. A Step runs in bounded time and never blocks.
//  2. Sends on one socket leave in the order in which they were emitted. Disk
//     effects may run in any order and in parallel. Meta effects of one volume run
//     strictly in order, each complete before the next starts. Effects of
//     different kinds are unordered: where order is a matter of safety the core
//     waits for the completion event.
//  3. Every FxDisk is answered by exactly one EvDisk with the same IO; every
//     FxMetaNotify by exactly one EvMeta, after all Meta effects of the volume
//     that were emitted before it. If one of them failed, EvMeta carries the error
//     and those that followed it up to the notify were not carried out. Where the disk
//     does not answer, FxAbort says that the driver shall.
//  4. EvPacket, EvSent and EvConnDown carry the generation that the driver chose in
//     EvConnUp. EvConnDown is sent once per generation, after the last packet
//     of it, when no socket and no goroutine refers to the memory of a Send any
//     more. FxClose asks for it; it also comes on its own when a socket breaks.
//  5. A request's memory (Event.Req) belongs to the request until FxComplete. A
//     buffer (BufID) belongs to the core from the event that brought it until
//     FxFree, or until the Send that has FreeBuf set has been written or dropped.
//  6. EvTick arrives ten times a second with one fresh random word in Rand.
//  7. EvDevice answers every FxMeasure, once. It also comes on its own: before EvConnUp, for
//     a volume whose device has another size than the core knows, because the peer
//     is told how large it is.
//  8. Body and the slices of an Event are only valid during the Step; arena bytes
//     of Effects only until the next Reset.
//
// Numbers that follow "spec" in comments are sections of the project's
// DRBD 8.4 specification, the reference this was built from.
package replication
