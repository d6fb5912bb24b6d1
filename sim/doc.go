// Package sim runs two protocol cores against each other in a world of simulated
// disks, a simulated network, a client and an operator, under virtual time. A
// run is a function of its seed: the same seed gives the same trace.
//
//	go test ./sim                                    some hundred seeds
//	go test ./sim -run TestSim -sim.runs=20000       more of them
//	go test ./sim -run TestSim -sim.seed=42 -sim.v   one, with its trace
//
// A seed draws a set of options (sizes, latencies, weights of faults; some classes
// of faults are off). The run has three phases: faults; healing, in which
// everything is repaired and the copies must become equal in bounded time; and
// the verdict. Some runs lose all power after that and have to heal again.
//
// # Fault model
//
// What a node survives:
//
//   - the end of its process at any time. Completed writes stay in the cache of its
//     disk; of those in progress any subset of sectors is written. Sockets deliver
//     what was written to them.
//   - loss of power at any time. Of the writes that completed since the last flush
//     any subset of sectors survives, in any order if the seed says so; a 4 KiB
//     block is torn at 512 bytes. Sockets fall silent.
//   - both again, at any point of the replay of the activity log.
//   - a connection that breaks with or without notice or falls silent in one direction.
//     Within one connection nothing is lost and followed by something that
//     arrives: it is a pair of TCP streams, with delays of their own.
//   - an error of one disk at a time: of a read, of a write (any subset of its
//     sectors is written), of a flush (any subset of the cache is lost), on data or
//     metadata. The operator attaches the disk again later.
//   - disks that grow, in use, while a node is down or apart, and an operator who resizes.
//   - with data-integrity-alg, a bit that flips on the network.
//   - an operator who connects, disconnects, invalidates, detaches and changes
//     roles, and who promotes a survivor, but only if the other node is down or
//     Secondary and this one has all data (that is what fencing is for).
//
// What it does not promise: see the table. Rows are what happened since a write
// was answered, columns how it was answered. "In sync" is: Connected, both
// UpToDate, protocol C.
//
//	                                  in sync   in sync,  alone     alone,
//	                                            flushed             flushed
//	end of any process                kept      kept      kept      kept
//	power of the Primary,
//	  the peer is promoted            kept      kept      -         -
//	  nobody is promoted,
//	    the Secondary ran on          kept      kept      flushed   kept
//	    it did not                    flushed   kept      flushed   kept
//	power of the Secondary            kept      kept      kept      kept
//	power of both                     flushed   kept      flushed   kept
//	one disk fails                    kept      kept      reported  reported
//	flush error while alone           -         -         may be lost, reported
//
// A Secondary that has run, on the same disk, since both were in sync is the source of
// the resync when a Primary comes back from a power loss, unless that one had noticed that it
// was alone and begun a new generation. Otherwise DRBD's rule holds: the
// crashed Primary is, and what only the other one had is overwritten. Under protocols A and B "in sync" promises no more than
// "alone" until a flush was answered.
//
// Never allowed: copies that claim to be equal and are not, a write that shows up
// after a newer one was answered, a read of data that is known to be behind, a
// request that is answered twice or never.
//
// # What is checked
//
// Every sector is a register whose writes have unique values (checker.go, oracle.go
// for what must have survived). Beside that: the activity log on stable storage
// covers every write that is submitted (I3 of the reliability specification);
// every block that differs between the stable images is marked in a bitmap or a
// log on stable storage (I2); a resync never goes from a copy that lacks what was
// promised; at rest the copies are equal and no bit is set (Q1, Q2).
//
// Online verifies run at any time and must find nothing. In some runs a disk decays at rest,
// or loses writes and puts them elsewhere: a verify must find exactly these blocks, and its
// repair must mend them.
//
// With resource-and-stonith a handler outdates or kills the other node, or fails with any
// exit code, takes long, hangs: until it has succeeded nothing is answered that only one node
// has. With on-no-data-accessible suspend-io nothing is answered with an error.
//
// Not here yet: several volumes.
package sim
