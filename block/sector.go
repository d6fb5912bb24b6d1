package block

// SectorSize is the unit of every address and length named "sector": 512 bytes,
// whatever the logical block size of the device.
const (
	SectorSize  = 1 << SectorShift
	SectorShift = 9
)

// Bytes returns the length or offset of n sectors in bytes.
func Bytes(sectors uint64) int64 { return int64(sectors << SectorShift) }

// SectorsIn returns how many whole sectors fit into n bytes.
func SectorsIn(n int64) uint64 { return uint64(n) >> SectorShift }
