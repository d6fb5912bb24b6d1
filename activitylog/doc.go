// Package activitylog keeps the set of hot extents of a volume and its record on
// disk, DRBD 8.4's activity log (chapter 2.5 of the specification).
//
// The model. A write may reach one disk and not the other when a Primary dies. So
// that afterwards not the whole device has to be compared, the log on disk names,
// at all times, a superset of the 4 MiB extents to which writes may be under way.
// [Set] decides which extents are in it; [Transaction] is a change to it as one
// 4 KiB block of a ring on disk; [Replay] reads a ring back into a list of extents.
//
// Invariants, each checked by a test:
//
//   - An extent that has a reference is on disk before Get calls it Hot, and stays
//     on disk until it has no reference and a later transaction replaces it.
//   - A request takes all its extents or none: nobody holds one extent and waits
//     for another.
//   - A transaction that did not become durable, or only in part, changes nothing:
//     its checksum fails, and the blocks before it still cover every extent that
//     had a reference.
//   - Any run of (ring size - 1) consecutive blocks names every slot, because each
//     block carries a window of the slot table that slides over all of it.
//
// What is not done here: writing. [Set.Get] says "needs a transaction" and the
// caller writes, in this order: the bitmap pages of the evicted extents, a flush,
// the block that BuildTransaction filled, a flush, Commit. Nor does the package
// know the bitmap or the superblock; what a replayed extent means to them is the
// caller's business.
//
// The package is pure, has no goroutines and allocates nothing after New on the
// path of a hit or a release.
package activitylog
