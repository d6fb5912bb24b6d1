// Package interop tests replblk against what it must work with: the DRBD 8.4.11 of
// Debian's kernel, in a virtual machine without acceleration next to this process.
//
// The tests carry the build tag interop and need root; without it they fail, they
// never skip. The test process deals them out to two processes (groups_test.go) and
// reports (report_test.go). Each of the two is in a network namespace of its own, which
// ends with it, and boots one machine on a tap device there:
//
//	this process                      the machine
//	node.Resource, 10.99.0.254 ------ kernel drbd, 10.99.0.1
//	peer.img (a file)                 kernel.img (/dev/vda)
//
// Both disks are files on this side, so that a test compares them byte for byte.
// See docs/interop.md for how to run one scenario and where to look.
package interop
