// Package aoe serves a block.Device over ATA over Ethernet, protocol version 1.
//
// # Model
//
// A Target is one exported volume with a shelf and a slot. A Port joins targets
// to one Ethernet interface, which it knows only as a Link (package aoe/packet
// has the AF_PACKET one, tests use memory). A frame travels
//
//	Link.Recv → Port → Target.Handle → block.Device → Target → Sender → Link.Send
//
// in one buffer: the request's frame becomes the response's frame, a write's
// payload goes to the device from where the kernel put it, and a read's data is
// put where the kernel will take it. The payload starts on a page boundary so
// that a device opened with O_DIRECT can use it.
//
// # Rules
//
//   - AoE is at-least-once: the initiator repeats what is not answered. So
//     dropping a request in silence is always correct, and it is what a target
//     does with everything it cannot decide now. An error answer is for what
//     will still be wrong the next time (spec/aoe.md 1.1 and rule R9).
//   - A write is acknowledged when it is durable. The Linux initiator never
//     flushes, so its file systems believe every acknowledgement. CommitNone
//     gives this up for the page cache's speed.
//   - Overlapping requests execute in order of arrival, all others at once. A
//     late copy of a write can therefore not overwrite a newer one (O01, O02).
//   - A target that was told to stop serving says nothing and starts nothing,
//     not even what arrived before (O03). Every request remembers the serving
//     period that it arrived in.
//   - Nothing beyond the received length of a frame is read, and nothing but
//     zeroes pads an answer.
//   - Every queue has a limit, for all initiators together and for each.
//
// The package imports no socket and no metrics library: it counts, others collect.
package aoe
