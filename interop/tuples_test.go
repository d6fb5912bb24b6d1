//go:build interop

package interop

import (
	"flag"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/replblk/replblk/metadata"
	"github.com/replblk/replblk/replication"
)

var tupleSeed = flag.Uint64("interop.seed", 0, "seed of the generated UUID sets (default: by the clock)")

// Generations of the table below. The last digit is not 1: bit 0 is the role.
const (
	genA = 0xA0A0A0A0A0A0A0A0
	genB = 0xB0B0B0B0B0B0B0B0
	genC = 0xC0C0C0C0C0C0C0C0
	genD = 0xD0D0D0D0D0D0D0D0
	genE = 0xE0E0E0E0E0E0E0E0
	incr = metadata.SyncIncrement
)

func set(c, b, h1, h2 uint64) side { return side{gi: metadata.UUIDs{c, b, h1, h2}} }

func crashed(s side) side { s.crashed = true; return s }
func primary(s side) side { s.primary = true; return s }

// TestUUIDRules reaches every rule of the decision table, from both ends: what the kernel
// says with a set as its own, replblk says with the same set as its own.
func TestUUIDRules(t *testing.T) {
	c := newCourt(t)
	c.o.core = quickConfig
	for _, r := range []struct {
		rule, result int
		self, peer   side
	}{
		{10, 0, set(4, 0, 0, 0), set(4, 0, 0, 0)},
		{20, -2, set(4, 0, 0, 0), set(genA, 0, 0, 0)},
		{30, 2, set(genA, 0, 0, 0), set(4, 0, 0, 0)},
		{34, 1, set(genA, genB, genC, 0), set(genA, 0, genB, genC)},
		{35, -1, set(genA, 0, genB, genC), set(genA, genB, genC, 0)},
		{36, 1, set(genA, genB, genC, 0), set(genA, 0, genD, genE)},
		{37, -1, set(genA, 0, genD, genE), set(genA, genB, genC, 0)},
		{40, 0, set(genA, 0, genB, 0), set(genA, 0, genB, 0)},
		{40, 1, crashed(set(genA, 0, genB, 0)), set(genA, 0, genB, 0)},
		{40, -1, set(genA, 0, genB, 0), crashed(set(genA, 0, genB, 0))},
		{41, 1, primary(set(genA, genB, genC, 0)), crashed(set(genA, genB, genC, 0))},
		{41, -1, crashed(set(genA, genB, genC, 0)), primary(set(genA, genB, genC, 0))},
		{41, -100, crashed(primary(set(genA, genB, genC, 0))), primary(set(genA, genB, genC, 0))},
		{50, -1, set(genA, 0, 0, 0), set(genC, genA, 0, 0)},
		{51, -1, set(genA, 0, 0, 0), set(genC, genA+incr, genA, 0)},
		{60, -2, set(genA, 0, genE, 0), set(genC, genB, genA, 0)},
		{60, -2, set(genA, 0, genE, 0), set(genC, genB, genD, genA)},
		{70, 1, set(genC, genA, 0, 0), set(genA, 0, 0, 0)},
		{71, 1, set(genC, genA+incr, genA, 0), set(genA, 0, 0, 0)},
		{80, 2, set(genC, genB, genA, 0), set(genA, 0, genE, 0)},
		{80, 2, set(genC, genB, genD, genA), set(genA, 0, genE, 0)},
		{90, 100, set(genA, genB, genD, 0), set(genC, genB, genE, 0)},
		{100, -100, set(genA, genB, genD, 1), set(genC, genE, genD, 2)},
		{100, -100, set(genA, 0, 0, 0), set(genC, 0, 0, 0)},
		{110, -1000, set(genA, 0, genB, 0x10), set(genC, 0, genD, 0x20)},
	} {
		c.kernelIs(r.self)
		kernel, _ := c.judge(r.self, r.peer)
		c.kernelIs(r.peer)
		_, replblk := c.judge(r.peer, r.self)
		if want := (verdict{rule: r.rule, result: r.result}); kernel.core() != want || replblk.core() != want {
			t.Errorf("self %s, peer %s: want %+v, kernel %+v, replblk %+v", r.self.text(), r.peer.text(), want, kernel, replblk)
		}
	}
}

// TestUUIDVersions: rules that older versions do not have, or in another form, for a peer that
// speaks no more than one of them. What the kernel says of two sets replblk says, too.
func TestUUIDVersions(t *testing.T) {
	c := newCourt(t)
	c.k.allowed = append(c.k.allowed, "both sides have to support at least protocol 91")
	correction := set(genC, genA+incr, genA, 0)
	for _, r := range []struct {
		version    int
		self, peer side
	}{
		{90, set(genA, genB, genC, 0), set(genA, 0, genB, genC)}, // 34 and 35
		{90, set(genA, genB, genC, 0), set(genA, 0, genD, genE)}, // 36 and 37
		{90, set(genA, 0, 0, 0), correction},                     // 51 and 71
		{95, set(genA, 0, 0, 0), correction},
		{95, set(genA, 0, genB, 0), set(genC, genB+incr, genA, 0)},
		{100, primary(set(genA, genB, genC, 0)), crashed(set(genA, genB, genC, 0))}, // 41
		{100, crashed(set(genA, 0, genB, 0)), set(genA, 0, genB, 0)},                // 40
	} {
		c.o.core = func(cfg *replication.Config) { quickConfig(cfg); cfg.MaxVersion = r.version }
		c.real = r.version < 92
		c.kernelIs(r.self)
		kernel, _ := c.judge(r.self, r.peer)
		c.kernelIs(r.peer)
		back, replblk := c.judge(r.peer, r.self)
		t.Logf("version %d, self %s, peer %s: %+v; the other way round %+v", r.version, r.self.text(), r.peer.text(), kernel, back)
		if kernel.result == -1091 && kernel.rule == 30 { // it has not noted yet that it is at rule 34 or 35
			kernel.rule = replblk.rule
		}
		if kernel.core() != replblk.core() {
			t.Errorf("version %d, self %s, peer %s: kernel %+v, replblk %+v", r.version, r.self.text(), r.peer.text(), kernel, replblk)
		}
	}
}

// core is the comparison alone.
func (v verdict) core() verdict { return verdict{rule: v.rule, result: v.result} }

// TestGeneratedUUIDs has both nodes judge generated sets: groups in which every set meets
// every other one, from both ends. The kernel's verdict and replblk's on the same two sets
// are the same, and so is what would follow from it; but replblk refuses to go on where the
// two verdicts contradict each other.
func TestGeneratedUUIDs(t *testing.T) {
	const groups, size = 8, 8
	seed := *tupleSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("repeat with -interop.seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	c := newCourt(t)
	c.o.core = quickConfig
	rules, refused, began := map[int]int{}, 0, time.Now()
	for range groups {
		sets := generate(rnd, size)
		var kernel, replblk [size][size]verdict // what one with the first set says of the other
		for i, theirs := range sets {
			ks, rs := c.judgeAll(theirs, sets)
			for j, ours := range sets {
				k, r := ks[j], rs[j]
				kernel[i][j], replblk[j][i] = k, r
				if decided := k.outcome != "" && k.outcome != r.mirrored().outcome; decided && r.outcome != "" {
					t.Errorf("kernel %s is to be %s, replblk %s %s", theirs.text(), k.outcome, ours.text(), r.outcome)
				} else if decided {
					refused++
				}
			}
		}
		for i := range sets {
			for j := range sets {
				rules[kernel[i][j].rule]++
				k, r := kernel[i][j], replblk[i][j]
				if k.rule == 40 && sets[i].crashed && sets[j].crashed {
					r = replblk[j][i].mirrored() // who accepted a socket decides, so the same connection counts
					r.result = -r.result
				}
				if k.core() != r.core() || r.outcome != "" && k != r {
					t.Errorf("self %s, peer %s: kernel %+v, replblk %+v", sets[i].text(), sets[j].text(), k, r)
				}
			}
		}
	}
	t.Logf("%d connections in %v, by rule: %v; replblk refused %d that the kernel did not", groups*size*size, time.Since(began).Round(time.Second), rules, refused)
}

// generate returns n sets over few generations, so that they often meet.
func generate(rnd *rand.Rand, n int) []side {
	pool := []uint64{0, 4}
	for range 3 {
		g := rnd.Uint64() &^ 1
		pool = append(pool, g, g, g+incr)
	}
	sets := make([]side, n)
	for i := range sets {
		for slot := range sets[i].gi {
			sets[i].gi[slot] = pool[rnd.IntN(len(pool))]
			if slot > 0 {
				sets[i].gi[slot] |= uint64(rnd.IntN(2)) &^ boolBit(sets[i].gi[slot] == 0)
			}
		}
		if sets[i].gi[0] == 0 {
			sets[i].gi[0] = 4 // a disk without any generation is none
		}
		sets[i].crashed = rnd.IntN(4) == 0
	}
	return sets
}

func boolBit(b bool) uint64 {
	if b {
		return 1
	}
	return 0
}
