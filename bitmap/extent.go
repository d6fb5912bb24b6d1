package bitmap

// ExtentBits is the number of bits of a resync extent, 16 MiB of storage: 512
// bytes of the bitmap, one sector of the metadata area. Eight make a page.
const ExtentBits = 4096

// ExtentOf returns the resync extent of bit.
func ExtentOf(bit uint64) uint32 { return uint32(bit / ExtentBits) }

// Extents returns the number of resync extents; the last may be partly used.
func (b *Bitmap) Extents() uint32 { return uint32((b.bits + ExtentBits - 1) / ExtentBits) }

// ExtentRange returns the bits [first, last) of an extent.
func (b *Bitmap) ExtentRange(extent uint32) (first, last uint64) {
	first = min(uint64(extent)*ExtentBits, b.bits)
	return first, min(first+ExtentBits, b.bits)
}

// ExtentWeight returns the number of set bits of an extent.
//
// A counter per extent, kept on set and clear, was the first design. Counting
// the 64 words takes about 40 ns, less than the bookkeeping it replaces, needs
// no memory and cannot disagree with the bits.
func (b *Bitmap) ExtentWeight(extent uint32) uint32 {
	if extent >= b.Extents() {
		return 0
	}
	const perPage = PageBits / ExtentBits
	w := b.table[extent/perPage]
	if w == nil {
		return 0
	}
	lo := extent % perPage * ExtentBits
	return w.count(lo, lo+ExtentBits)
}

// BitsFor returns the number of bits for a device of that many sectors: the last
// block may be shorter than the others.
func BitsFor(sectors uint64) uint64 {
	_, last := SectorsOut(0, sectors)
	return last
}

// SectorsOut returns the bits [first, last) touched by a range of sectors: it
// is rounded outwards. These are the bits to set when the range may differ.
func SectorsOut(sector, sectors uint64) (first, last uint64) {
	first = sector / SectorsPerBit
	if sectors == 0 {
		return first, first
	}
	return first, (end(sector, sectors)-1)/SectorsPerBit + 1
}

// SectorsIn returns the bits [first, last) whose blocks a range of sectors
// covers whole: it is rounded inwards. These are the bits that may be cleared
// when the range is in sync. A range that reaches the last sector of the
// device covers the last block, which may be shorter than the others.
func SectorsIn(sector, sectors, deviceSectors uint64) (first, last uint64) {
	first = sector / SectorsPerBit
	if sector%SectorsPerBit != 0 {
		first++
	}
	if sectors == 0 {
		return first, first
	}
	stop := end(sector, sectors)
	if stop < deviceSectors {
		last = stop / SectorsPerBit
	} else if deviceSectors > 0 {
		last = (deviceSectors-1)/SectorsPerBit + 1
	}
	return first, max(first, last)
}

// end returns sector+sectors, or the largest number if that does not fit.
func end(sector, sectors uint64) uint64 {
	if e := sector + sectors; e >= sector {
		return e
	}
	return ^uint64(0)
}
