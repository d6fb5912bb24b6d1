package sim

import (
	"fmt"
	"hash/crc32"
	"math/rand/v2"

	"github.com/replblk/replblk/replication"
	"github.com/replblk/replblk/replication/state"
	"github.com/replblk/replblk/replication/wire"
)

// Options are what a seed draws before a run. They are printed with a failure.
type Options struct {
	Seed     uint64
	Protocol replication.Protocol

	TwoPrimaries bool
	Congestion   uint64 // sectors on their way at which the Primary pulls ahead, 0: never

	Sectors    uint64
	Extents    int  // activity log slots asked for
	Separate   bool // data and metadata on different devices
	UseRLE     bool
	BlankPeer  bool // node 1 starts with fresh metadata: full sync
	HotBlocks  int
	HotSpan    int // sectors around a hot block that requests hit
	Depth      int // requests in progress
	MaxSectors int // of a request
	Think      replication.Time
	ReadPart   float64
	FlushPart  float64
	FUAPart    float64
	TrimPart   float64
	Duration   replication.Time

	DiskLatency    replication.Time
	NetLatency     replication.Time
	MetaSkew       replication.Time // extra delay of the meta socket
	SurviveShuffle bool
	Rate           uint32 // resync, KiB/s

	Fencing      state.Fencing
	Suspend      bool                    // on-no-data-accessible suspend-io
	OnIOError    replication.ErrorPolicy // of both nodes
	DiskTimeout  uint32                  // disk-timeout of both nodes, in tenths of a second
	MaxEpochSize int
	Drift        [2]int // of the nodes' clocks, parts in a thousand
	CrashAgain   bool   // lose all power after healing
	Rot          bool   // plant differences, verify, repair
	Room         uint64 // sectors by which disks grow at most, 0: they do not
	Integrity    bool   // data-integrity-alg, and a network that changes data
	Csums        bool   // checksum-based resyncs
	Thin         bool   // thin resyncs
	Version      int    // of the protocol, that one node knows at most; 0: the newest
	NoFailover   bool   // nobody is promoted alone
}

// draw makes options from a seed.
func draw(seed uint64, r *rand.Rand) Options {
	o := Options{Seed: seed, Protocol: replication.ProtocolC}
	if r.IntN(10) == 0 {
		o.Protocol = replication.ProtocolA + replication.Protocol(r.IntN(2))
	}
	o.Sectors = uint64(2+r.IntN(14)) * 8192 // 8 to 60 MiB
	o.HotBlocks = 4 + r.IntN(28)
	if r.IntN(5) == 0 { // more extents than slots
		o.Sectors = 75 * 8192
		o.HotBlocks = 75 + r.IntN(30)
	}
	if r.IntN(3) == 0 {
		o.Sectors -= uint64(r.IntN(4096))
	}
	o.Extents = 67
	o.Separate = r.IntN(2) == 0
	o.UseRLE = r.IntN(2) == 0
	o.BlankPeer = r.IntN(12) == 0
	o.Rot = r.IntN(8) == 0
	if r.IntN(5) == 0 {
		// Before 91 a crash at the wrong moment leaves generations that both nodes must refuse.
		o.Version = 91 + r.IntN(wire.VersionMax-91)
	}
	o.Integrity = r.IntN(8) == 0
	o.Csums = r.IntN(4) == 0
	o.Thin = r.IntN(4) == 0
	o.HotSpan = 1 << r.IntN(8)
	o.Depth = 1 + r.IntN(12)
	o.MaxSectors = 1 << r.IntN(8)
	o.Think = between(r, 100*microsecond, 5*replication.Millisecond)
	o.ReadPart = r.Float64() * 0.5
	o.FlushPart = pick(r, 0, 0.02, 0.1)
	o.FUAPart = pick(r, 0, 0.05, 0.3)
	o.TrimPart = pick(r, 0, 0, 0.05)
	o.Duration = between(r, 300*replication.Millisecond, 2*replication.Second)
	o.DiskLatency = between(r, 20*microsecond, 3*replication.Millisecond)
	o.NetLatency = between(r, 20*microsecond, 2*replication.Millisecond)
	o.MetaSkew = replication.Time(pick(r, 0, 0, 1)) * between(r, 0, 10*replication.Millisecond)
	o.SurviveShuffle = r.IntN(2) == 0
	o.Rate = uint32(50_000 + r.IntN(950_000))
	o.NoFailover = seed%5 == 3 && o.Version == 0
	if r.IntN(4) == 0 {
		o.Fencing = state.ResourceOnly
		// Before rule 41 a frozen Primary may have to be demoted first, and its requests wait.
		if seed%2 == 1 && o.Protocol != replication.ProtocolA && o.Version == 0 {
			o.Fencing = state.ResourceAndStonith
		}
	}
	o.Rot = o.Rot && o.Fencing == state.DontCare // it refuses the disconnect that a repair needs
	o.Suspend = r.IntN(4) == 0
	o.MaxEpochSize = 1 << r.IntN(12)
	if r.IntN(4) == 0 {
		o.Extents = 7
	}
	if r.IntN(3) == 0 {
		o.Drift = [2]int{r.IntN(101) - 50, r.IntN(101) - 50}
	}
	o.CrashAgain = r.IntN(5) == 0
	if o.Protocol == replication.ProtocolA && r.IntN(2) == 0 {
		o.Congestion = 1 + r.Uint64N(512)
	}
	if r.IntN(4) == 0 {
		o.Room = 1 + r.Uint64N(8192)
	}
	if r.IntN(3) == 0 {
		o.DiskTimeout = uint32(1 + r.IntN(4))
	}
	return o
}

// session is what the nodes agree upon.
func (o *Options) session() wire.Session {
	s := wire.Session{Version: wire.VersionMax, Features: wire.FeaturesAll}
	if o.Version != 0 {
		s.Version = o.Version
	}
	if s.Version < 100 {
		s.Features = 0
	}
	if o.Integrity && s.NamesIntegrity() {
		s.DigestSize = crc32.Size
	}
	return s
}

// String prints the options.
func (o Options) String() string { return fmt.Sprintf("%+v", plainOptions(o)) }

type plainOptions Options

const microsecond = replication.Millisecond / 1000

func between(r *rand.Rand, lo, hi replication.Time) replication.Time {
	return lo + replication.Time(r.Int64N(int64(hi-lo)+1))
}

func pick(r *rand.Rand, list ...float64) float64 { return list[r.IntN(len(list))] }
