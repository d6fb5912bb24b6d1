// Package state knows DRBD's roles, disk states and connection states, and the
// rules that govern how they change. It is arithmetic on values: nothing here
// remembers anything.
//
// One node describes one volume with a State: its own role and disk, what it
// knows of the peer's, the state of the connection, and why I/O or resync may
// be held back. On the wire a State is packed into a Word.
//
// A change goes through Next, in three steps. Sanitize adds what the wanted
// state implies (a lost connection makes the peer's role unknown).
// CheckTransition then applies to everybody, even to facts such as a lost link
// (a "hard" change). Wishes must also satisfy CheckState, which judges the
// resulting state, and CheckSoft, which judges the way there.
//
// Both peers run the same rules on mirrored states and must reach mirrored
// results, so the rules follow the kernel literally, oddities included.
//
// The numeric order of the enumerations is part of the protocol: many rules
// compare with < and >. Their zero values (Unknown, Diskless, StandAlone) are
// states like any other.
package state
