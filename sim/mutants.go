package sim

// Mutant is a bug planted in the driver, to show that the checker can fail.
type Mutant uint8

// Planted bugs.
const (
	NoMutant          Mutant = iota
	EarlyNotify              // metadata notifies do not wait for the writes before them
	PeerNoFlush              // flushes of a Secondary's disk do nothing
	OldGeneration            // packets of a dead connection are delivered on the next one
	LostPacket               // a packet is lost and what follows it arrives
	NoReplay                 // the activity log is not replayed at restart
	NoBitmapWrites           // bitmap pages are not written
	EarlyDiskDone            // writes are reported before they reach the disk
	FlushErrorIgnored        // a failed flush is reported as done
	DigestIgnored            // data that differs from its digest is delivered as good
	numMutants
)

var mutantNames = [...]string{"none", "early notify", "peer does not flush", "packet of an old generation", "lost packet",
	"no replay of the activity log", "bitmap is not written", "early disk completion", "flush error ignored",
	"digest ignored"}

// String names the bug.
func (m Mutant) String() string { return mutantNames[m] }
