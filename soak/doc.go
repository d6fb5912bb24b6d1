// Soak breaks pairs of real replblk daemons and checks that nothing is lost:
//
//	soak kill-points [-points N]     a daemon dies, or its disk fails, at the Nth system call
//	soak run [-duration D]           cycles of fault, heal, compare
//
// Both print figures at the end and exit with 1 if a write was lost, the disks differ
// or a pair does not come back by itself. Everything random follows from -seed, as far
// as two daemons and a kernel let it: the plan is repeated, not what it hits.
package main
