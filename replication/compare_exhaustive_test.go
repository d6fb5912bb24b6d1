package replication

import (
	"testing"

	"github.com/replblk/replblk/metadata"
)

// decide is what a handshake makes of two sets: the table, and the refusal of verdicts that
// the other end would contradict.
func decide(self, peer generations, resolve bool) verdict {
	v := compare(self, peer, 101, true, resolve).verdict
	if v > unrelated && v.contradicts(compare(peer, self, 101, true, !resolve).verdict) {
		return unrelated
	}
	return v
}

// U01, I10: over every pair of sets that can be made of seven values (none, just created,
// two generations, what a resync from each of them is called, and one more), in every
// combination of roles and crashes: what one node calls source the other calls target, or
// both refuse. Both are never the target, never the source.
func TestUUIDTableIsMirroredForAllTuples(t *testing.T) {
	if testing.Short() {
		t.Skip("twenty million comparisons")
	}
	values := [...]uint64{0, metadata.JustCreated, uA, uB, uA + metadata.SyncIncrement, uB + metadata.SyncIncrement, uC}
	const n = uint32(len(values))
	set := func(k uint32) (u metadata.UUIDs) {
		for i := range u {
			u[i] = values[k%n]
			k /= n
		}
		return u
	}
	count, refused := 0, 0
	for i := range n * n * n * n {
		for j := range n * n * n * n {
			flags := (i*31 + j*17) % 512 // each pair with one combination, all combinations with very many pairs
			a := generations{UUIDs: set(i), crashed: flags&1 != 0, primary: flags&2 != 0, kept: flags&32 != 0, outdated: flags&128 != 0, marked: uint64(i % 3)}
			b := generations{UUIDs: set(j), crashed: flags&4 != 0, primary: flags&8 != 0, kept: flags&64 != 0, outdated: flags&256 != 0, marked: uint64(j % 3)}
			x, y := decide(a, b, flags&16 != 0), decide(b, a, flags&16 == 0)
			count++
			if x <= unrelated || y <= unrelated {
				refused++
				if x > unrelated || y > unrelated {
					t.Fatalf("%x and %x, flags %09b: %v here, %v there: only one refuses", a.UUIDs, b.UUIDs, flags, x, y)
				}
				continue
			}
			if !mirrors(x, y) {
				t.Fatalf("%x and %x, flags %09b: %v here, %v there", a.UUIDs, b.UUIDs, flags, x, y)
			}
		}
	}
	t.Logf("%d pairs, %d refused", count, refused)
}
