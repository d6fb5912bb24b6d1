package activitylog

// Extent is the number of a 4 MiB piece of the volume, the unit of the activity
// log.
type Extent = uint32

const (
	// SectorsPerExtent is the size of an AL extent: 4 MiB.
	SectorsPerExtent = 8192
	// ExtentsPerResyncExtent is how many AL extents one resync extent of 16 MiB has.
	ExtentsPerResyncExtent = 4
	// BitmapBytesPerExtent is how many bytes of the bitmap stand for an AL extent.
	BitmapBytesPerExtent = 128
	// Free marks a slot that holds no extent.
	Free Extent = 0xffffffff
)

// Extents returns the first and last extent that sectors [sector, sector+count)
// touch. count must not be 0.
func Extents(sector, count uint64) (first, last Extent) {
	return Extent(sector / SectorsPerExtent), Extent((sector + count - 1) / SectorsPerExtent)
}
