package mdtool

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"

	"github.com/replblk/replblk/metadata"
)

// detectBytes is how much of the start of a device is looked at. btrfs, at 64
// KiB, is the deepest signature.
const detectBytes = 68 << 10

// Found is what a device holds.
type Found struct {
	Name  string // "" if it is all zeroes
	Bytes uint64 // how much of the device it uses from the start; 0 if not known
}

// signature recognises a format by bytes at a place. size tells how much of the
// device it uses, from its first 68 KiB.
type signature struct {
	name  string
	off   int
	magic string
	size  func(b []byte) uint64
}

// Order matters only where two formats may be present at once: those that span
// the whole device come before partition tables, which boot sectors resemble.
var signatures = []signature{
	{"ext filesystem", 1080, "\x53\xef", extBytes},
	{"xfs filesystem", 0, "XFSB", xfsBytes},
	{"btrfs filesystem", 0x10040, "_BHRfS_M", func(b []byte) uint64 { return binary.LittleEndian.Uint64(b[0x10070:]) }},
	{"reiser filesystem", 0x10034, "ReIsEr", reiserBytes},
	{"reiser filesystem", 0x2034, "ReIsEr", nil},
	{"jfs filesystem", 0x8000, "JFS1", jfsBytes},
	{"f2fs filesystem", 1024, "\x10\x20\xf5\xf2", f2fsBytes},
	{"ocfs2 filesystem", 0x800, "OCFSV2", nil},
	{"ocfs2 filesystem", 0x1000, "OCFSV2", nil},
	{"gfs2 filesystem", 0x10000, "\x01\x16\x19\x70", nil},
	{"nilfs2 filesystem", 1030, "\x34\x34", nil},
	{"squashfs filesystem", 0, "hsqs", func(b []byte) uint64 { return binary.LittleEndian.Uint64(b[40:]) }},
	{"iso9660 filesystem", 0x8001, "CD001", nil},
	{"ntfs filesystem", 3, "NTFS    ", func(b []byte) uint64 { return binary.LittleEndian.Uint64(b[40:]) * 512 }},
	{"exfat filesystem", 3, "EXFAT   ", nil},
	{"fat filesystem", 54, "FAT1", nil},
	{"fat filesystem", 82, "FAT32", nil},
	{"LVM physical volume", 24, "LVM2 001", nil},
	{"LVM physical volume", 512 + 24, "LVM2 001", nil},
	{"LVM physical volume", 1024 + 24, "LVM2 001", nil},
	{"LVM physical volume", 1536 + 24, "LVM2 001", nil},
	{"LUKS container", 0, "LUKS\xba\xbe", nil},
	{"swap space", 4096 - 10, "SWAPSPACE2", swapBytes},
	{"swap space", 4096 - 10, "SWAP-SPACE", nil},
	{"MD RAID member", 0, "\xfc\x4e\x2b\xa9", nil},
	{"MD RAID member", 4096, "\xfc\x4e\x2b\xa9", nil},
	{"bcache device", 4096 + 24, "\xc6\x85\x73\xf6\x4e\x1a\x45\xca", nil},
	{"GPT partition table", 512, "EFI PART", nil},
	{"GPT partition table", 4096, "EFI PART", nil},
	{"MBR partition table", 510, "\x55\xaa", nil},
}

// Detect looks for anything that somebody might miss in the first 68 KiB. Bytes
// that it does not know are "some data"; only zeroes are nothing.
func Detect(s Store) (Found, error) {
	b := make([]byte, detectBytes)
	n, err := s.ReadAt(b, 0)
	if n < len(b) && err != nil && !errors.Is(err, io.EOF) {
		return Found{}, exit(ExitDevice, "reading the first %d bytes: %w", len(b), err)
	}
	for _, sig := range signatures {
		if !bytes.HasPrefix(b[sig.off:], []byte(sig.magic)) {
			continue
		}
		f := Found{Name: sig.name}
		if sig.size != nil {
			f.Bytes = sig.size(b)
		}
		return f, nil
	}
	if v := drbdVersion(b); v != "" {
		return Found{Name: v + " meta data"}, nil
	}
	for _, c := range b {
		if c != 0 {
			return Found{Name: "some data"}, nil
		}
	}
	return Found{}, nil
}

// drbdVersion names the version of the DRBD superblock at the start of b, or
// returns "". The magic is at the same place in all versions.
func drbdVersion(b []byte) string {
	switch binary.BigEndian.Uint32(b[60:]) {
	case metadata.MagicV07:
		return "v07"
	case metadata.MagicClean, metadata.MagicUnclean:
		return "v08"
	case metadata.MagicV09:
		return "v09"
	}
	return ""
}

// product multiplies a number of blocks by their size; a product that does not
// fit, in a damaged file system, is as large as can be.
func product(blocks, size uint64) uint64 {
	if size != 0 && blocks > ^uint64(0)/size {
		return ^uint64(0)
	}
	return blocks * size
}

func extBytes(b []byte) uint64 {
	le := binary.LittleEndian
	sb := b[1024:]
	blocks := uint64(le.Uint32(sb[4:]))
	const incompat64Bit = 0x80
	if le.Uint32(sb[96:])&incompat64Bit != 0 {
		blocks |= uint64(le.Uint32(sb[0x150:])) << 32
	}
	shift := le.Uint32(sb[24:])
	if shift > 6 { // 64 KiB blocks are the largest
		return ^uint64(0)
	}
	return product(blocks, 1024<<shift)
}

func xfsBytes(b []byte) uint64 {
	be := binary.BigEndian
	return product(be.Uint64(b[8:]), uint64(be.Uint32(b[4:])))
}

func reiserBytes(b []byte) uint64 {
	le := binary.LittleEndian
	return product(uint64(le.Uint32(b[0x10000:])), uint64(le.Uint16(b[0x10000+44:])))
}

func jfsBytes(b []byte) uint64 {
	// Blocks of the hardware's size, and what that size is.
	le := binary.LittleEndian
	return product(le.Uint64(b[0x8008:]), uint64(le.Uint32(b[0x8000+24:])))
}

func f2fsBytes(b []byte) uint64 {
	le := binary.LittleEndian
	shift := le.Uint32(b[1024+16:])
	if shift > 16 {
		return ^uint64(0)
	}
	return product(le.Uint64(b[1024+36:]), 1<<shift)
}

func swapBytes(b []byte) uint64 {
	// The header counts pages without the first.
	return product(uint64(binary.LittleEndian.Uint32(b[1024+4:]))+1, 4096)
}
