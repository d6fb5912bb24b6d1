package aoe

import (
	"encoding/binary"

	"github.com/replblk/replblk/block"
)

// Identity is what IDENTIFY DEVICE tells about a volume. Both ends of a mirror
// must present the same (O12). Longer strings are cut, anything but printable
// ASCII becomes a question mark.
type Identity struct {
	Serial   string // 20 characters
	Firmware string // 8 characters
	Model    string // 40 characters
}

// identifyLen is the size of the block that IDENTIFY DEVICE returns.
const identifyLen = 512

// handleIdentify answers IDENTIFY DEVICE, to a wildcard address too: some
// initiators discover that way.
func (t *Target) handleIdentify(c *call, a *ATA) {
	if a.Count > 1 {
		c.malformed()
		return
	}
	g := t.device.Geometry()
	if t.notOurs(&g) {
		c.drop(DropUnavailable)
		return
	}
	putIdentify(c.frame.buf[DataOffset:DataOffset+identifyLen], g, &t.identity)
	c.replyATAData(a, identifyLen)
}

// putIdentify writes the identify block, little-endian words, to b.
//
//	 word  value
//	    0  0x0040 fixed drive
//	    1  cylinders, 3 heads, 6 sectors per track: the legacy geometry
//	10-19  serial, 23-26 firmware, 27-46 model
//	   47  0x8000, no READ MULTIPLE
//	   49  LBA
//	53-58  current legacy geometry
//	60-61  sectors reachable with 28 bits
//	   80  ATA/ATAPI-4 to 8
//	82-84  SMART; LBA48, FLUSH CACHE, FLUSH CACHE EXT; enabled in 85-87
//	   93  0x400b
//	100-3  sectors
//	  106  logical sectors per physical
//	  217  1, not rotating
//	  255  checksum
func putIdentify(b []byte, g block.Geometry, id *Identity) {
	clear(b)
	word := func(i int, v uint16) { binary.LittleEndian.PutUint16(b[2*i:], v) }
	const heads, perTrack = 16, 63
	cylinders := min(g.Sectors/(heads*perTrack), 16383)
	lba28 := uint32(min(g.Sectors, lba28Mask))

	word(0, 0x0040)
	word(1, uint16(cylinders))
	word(3, heads)
	word(6, perTrack)
	putATAString(b[20:40], id.Serial)
	putATAString(b[46:54], id.Firmware)
	putATAString(b[54:94], id.Model)
	word(47, 0x8000)
	word(49, 0x0200)
	word(50, 0x4000)
	word(53, 0x0007)
	word(54, uint16(cylinders))
	word(55, heads)
	word(56, perTrack)
	binary.LittleEndian.PutUint32(b[2*57:], uint32(cylinders*heads*perTrack))
	binary.LittleEndian.PutUint32(b[2*60:], lba28)
	word(80, 0x01f0)
	for _, base := range []int{82, 85} { // supported, enabled
		word(base, 0x0001)
		word(base+2, 0x4000)
	}
	word(83, 0x7400)
	word(86, 0x3400)
	word(93, 0x400b)
	binary.LittleEndian.PutUint64(b[2*100:], g.Sectors)
	if shift := physicalShift(g.PhysicalBlock); shift > 0 {
		word(106, 0x6000|shift)
	}
	if !g.Rotational {
		word(217, 1)
	}
	putChecksum(b)
}

// physicalShift returns the power of two of sectors in a physical block.
func physicalShift(bytes uint32) uint16 {
	var shift uint16
	for block.SectorSize<<(shift+1) <= bytes && shift < 15 {
		shift++
	}
	return shift
}

// putATAString writes s padded with spaces. ATA strings have the first
// character of each word in its high byte.
func putATAString(b []byte, s string) {
	for i := range b {
		ch := byte(' ')
		if i < len(s) {
			ch = s[i]
			if ch < 0x20 || ch > 0x7e {
				ch = '?'
			}
		}
		b[i^1] = ch
	}
}

// putChecksum makes the sum of all bytes zero, with the signature that says so.
func putChecksum(b []byte) {
	b[510] = 0xa5
	var sum byte
	for _, v := range b[:511] {
		sum += v
	}
	b[511] = -sum
}
