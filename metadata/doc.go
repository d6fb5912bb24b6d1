// Package metadata knows what DRBD 8.4 (format v08) keeps on disk beside the
// data: where the superblock, the activity log and the bitmap lie, the bytes of
// the superblock, which of its contents may be trusted, and the text form that
// "drbdmeta dump-md" prints.
//
// The model. A volume's metadata lives at the end of the data device (internal),
// on a device of its own (flexible external), or in one of up to 256 numbered
// slots of 128 MiB (indexed external). From the placement and the sizes of the
// devices follows a [Layout]. The [Superblock] repeats the layout as offsets
// relative to itself; [Superblock.Validate] compares the two.
//
// What is promised: decoding never panics, whatever the bytes; encoding writes
// every reserved byte as zero; nothing here repairs. A superblock with a foreign
// magic is refused rather than guessed at, because the block it was found in may
// be the user's data.
//
// What is not done here: reading or writing devices (internal/mdtool and node do
// that), the meaning of the activity log (package activitylog), and the rules by
// which two peers compare their generations (package replication).
//
// The package is pure: it imports no os, net, sync or time. A sector is 512
// bytes, integers on disk are big endian, bitmap words are little endian.
package metadata
