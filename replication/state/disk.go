package state

// Disk says how good the data of one node are. Higher is better, except that
// DUnknown is no statement at all.
type Disk uint8

// Disk states, with their values on the wire.
const (
	Diskless     Disk = 0
	Attaching    Disk = 1
	Failed       Disk = 2
	Negotiating  Disk = 3
	Inconsistent Disk = 4
	Outdated     Disk = 5
	DUnknown     Disk = 6 // only ever said of the peer's disk
	Consistent   Disk = 7 // could be UpToDate or Outdated, the connection will tell
	UpToDate     Disk = 8

	diskMask Disk = 15
)

var diskNames = [...]string{
	Diskless: "Diskless", Attaching: "Attaching", Failed: "Failed", Negotiating: "Negotiating",
	Inconsistent: "Inconsistent", Outdated: "Outdated", DUnknown: "DUnknown", Consistent: "Consistent", UpToDate: "UpToDate",
}

// String returns DRBD's name of the disk state.
func (d Disk) String() string { return name("Disk", diskNames[:], uint8(d)) }

// Valid says whether d is a disk state and not a mask or garbage.
func (d Disk) Valid() bool { return int(d) < len(diskNames) }
