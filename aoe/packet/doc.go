// Package packet is the AF_PACKET socket that AoE frames go through: bound to
// one interface and the AoE Ethernet type, filtered in the kernel, many frames
// per system call. Frames are received through a ring that the kernel shares with the
// socket, or by recvmmsg where there is no memory for one. The socket is not in the
// runtime's poller, which each frame would wake, sent ones included; Recv waits in poll.
//
// A Socket outlives its interface's troubles. When the link goes down Recv
// reports it once and then waits for it to come up; a frame that the interface
// does not take is dropped and counted, since AoE initiators repeat what is
// not answered. Only the removal of the interface ends a socket: Refresh says so.
//
// The package knows nothing of AoE beyond the offsets its filter needs.
package packet
