// Package mdtool is the offline tool for metadata: what drbdmeta does with a
// volume that is not attached. Create, dump, restore, replay the activity log,
// wipe, and change the generation identifiers.
//
// It joins the pure packages metadata and activitylog with a device. The device
// is a [Store], so that a test can cut the power at every write.
//
// Two rules. Nothing is written before everything that can be checked has been
// checked. And the superblock, which makes the rest believed, is written last and
// after a flush; where it exists already and the rest is about to change its
// meaning, it is destroyed first.
//
// Every error that decides a program's exit is an [ExitError] with drbdmeta's code.
package mdtool
