// Package bitmap keeps the out-of-sync bitmap of a volume: one bit for every
// 4096 bytes of storage, where a set bit means that the block differs, or may
// differ, between the two nodes (specification 2.4). It also holds the codec of
// the bitmap exchange (specification 8.2 and 8.3).
//
// # Model
//
// The bitmap is cut into pages of 4096 bytes, the unit in which it is written
// to the metadata area; a page covers 128 MiB of storage. Memory follows the
// part that is neither all clear nor all set:
//
//	table[p] == nil     every bit of page p is clear
//	table[p] == &ones   every bit of page p is set; the words are shared
//	otherwise           the page has words of its own
//
// so a clean volume of 16 TiB and one that needs a full sync both cost about
// 1.5 MiB, and an operation on a range costs steps per page, not per bit.
// Beside the table are a weight per page and bit sets over the pages: which
// hold a set bit, which are full, which must be written. Scans read
// these first, 64 pages (8 GiB of storage) for every word.
//
// # Invariants
//
//   - bits at or beyond [Bitmap.Bits] are clear, whatever the disk or the peer
//     said: a bit nobody can resync would keep a resync from ending;
//   - a page is all clear exactly if its table entry is nil, and all set
//     exactly if the entry is the shared page (the last page, if it is
//     shorter, always has its own words unless clear);
//   - a page that changed since its content was last taken for writing is
//     dirty, also while that write is under way.
//
// # What is not done here
//
// Nothing here does I/O or knows when a bit must be set: the order of bitmap
// pages, activity log and data is decided by package replication. A Bitmap and
// the codecs over it have one owner and no locks.
package bitmap
