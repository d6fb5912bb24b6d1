package activitylog

import (
	"math/rand"
	"slices"
	"testing"
)

func newSet(t testing.TB, n int) *Set {
	t.Helper()
	s, err := New(n, DefaultRing)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func expect(t *testing.T, what string, got, want Outcome) {
	t.Helper()
	if got != want {
		t.Fatalf("%s: %v, want %v", what, got, want)
	}
}

func commit(t *testing.T, s *Set) (tr Transaction, evicted []Extent) {
	t.Helper()
	s.BuildTransaction(&tr)
	evicted = s.Evicted(nil)
	s.Commit()
	return tr, evicted
}

func TestUse(t *testing.T) {
	s := newSet(t, 3)
	expect(t, "cold", s.Use(10), NeedsTransaction)
	expect(t, "on its way", s.Use(10), NeedsTransaction)
	if s.Ready(10, 10) {
		t.Fatal("ready before the commit")
	}
	tr, ev := commit(t, s)
	if tr.NumUpdates != 1 || tr.UpdateSlot[0] != 0 || tr.UpdateExtent[0] != 10 || tr.Context[0] != Free || len(ev) != 0 {
		t.Fatalf("first transaction: %d updates, slot %d extent %d", tr.NumUpdates, tr.UpdateSlot[0], tr.UpdateExtent[0])
	}
	expect(t, "hot", s.Use(10), Hot)
	expect(t, "second", s.Use(11), NeedsTransaction)
	expect(t, "third", s.Use(12), NeedsTransaction)
	expect(t, "no slot", s.Use(13), Wait)
	expect(t, "hit while somebody starves", s.Use(10), Wait)
	commit(t, s)
	for range 3 {
		s.Release(10)
	}
	expect(t, "evicts", s.Use(13), NeedsTransaction)
	if s.IsActive(10) {
		t.Error("evicted extent is active")
	}
	tr, ev = commit(t, s)
	if !slices.Equal(ev, []Extent{10}) || tr.Context[0] != 10 || tr.UpdateExtent[0] != 13 || tr.Number != 2 {
		t.Errorf("eviction: evicted %v, context %d, update %d, number %d", ev, tr.Context[0], tr.UpdateExtent[0], tr.Number)
	}
}

// TestLRU: the slot reused is the one that fell idle first.
func TestLRU(t *testing.T) {
	s := newSet(t, 3)
	for e := range Extent(3) {
		s.Use(e)
	}
	commit(t, s)
	s.Release(1)
	s.Release(0)
	s.Release(2)
	expect(t, "hit renews", s.Use(1), Hot)
	s.Release(1)
	for i, want := range []Extent{0, 2, 1} {
		s.Use(Extent(10 + i))
		if _, ev := commit(t, s); !slices.Equal(ev, []Extent{want}) {
			t.Errorf("eviction %d: %v, want %d", i, ev, want)
		}
	}
}

// TestSeveral: all extents or none (A02).
func TestSeveral(t *testing.T) {
	s := newSet(t, 7)
	expect(t, "range", s.Get(5, 9), NeedsTransaction)
	expect(t, "another that does not fit", s.Get(20, 22), Wait)
	if s.Active() != 5 || s.Pending() != 5 {
		t.Errorf("after a refusal: %d active, %d pending", s.Active(), s.Pending())
	}
	expect(t, "more than there are slots", s.Get(0, 7), TooLarge)
	expect(t, "backwards", s.Get(8, 7), TooLarge)
	commit(t, s)
	s.Release(5)
	expect(t, "two slots and one idle, three needed", s.Get(20, 22), NeedsTransaction)
	s.Reset(0)

	// A hit must not be evicted by a miss of the same request.
	expect(t, "fill", s.Get(0, 6), NeedsTransaction)
	commit(t, s)
	for e := range Extent(7) {
		s.Release(e)
	}
	expect(t, "one miss, then hits that are idle", s.Get(4, 7), NeedsTransaction)
	for e := Extent(4); e <= 7; e++ {
		if !s.IsActive(e) {
			t.Errorf("extent %d was evicted by its own request", e)
		}
	}
}

// TestBatchLimit: the 65th change waits for the next transaction, and changes go
// on being collected while one is in flight.
func TestBatchLimit(t *testing.T) {
	s := newSet(t, 200)
	for e := range Extent(64) {
		expect(t, "one of 64", s.Use(e), NeedsTransaction)
	}
	expect(t, "the 65th", s.Use(64), Wait)
	var tr Transaction
	if n := s.BuildTransaction(&tr); n != 64 {
		t.Fatalf("%d updates", n)
	}
	expect(t, "the 65th while the first 64 fly", s.Use(64), NeedsTransaction)
	expect(t, "one that flies", s.Use(3), NeedsTransaction)
	s.Commit()
	if !s.Ready(0, 63) || s.Ready(64, 64) {
		t.Error("commit settled the wrong extents")
	}
	if tr, _ := commit(t, s); tr.NumUpdates != 1 || tr.UpdateExtent[0] != 64 {
		t.Errorf("second transaction: %d updates", tr.NumUpdates)
	}
}

func TestResyncExclusion(t *testing.T) {
	s := newSet(t, 70)
	s.Use(7)
	if !s.IsActiveInResyncExtent(1) || s.IsActiveInResyncExtent(0) || s.IsActiveInResyncExtent(2) {
		t.Error("extent 7 is in resync extent 1 and no other")
	}
	s.Block(1)
	expect(t, "blocked, although hot", s.Use(7), Wait)
	expect(t, "range that touches it", s.Get(3, 4), Wait)
	expect(t, "beside it", s.Use(8), NeedsTransaction)
	s.Release(7)
	if s.IsActiveInResyncExtent(1) {
		t.Error("still active after release")
	}
	s.Unblock(1)
	expect(t, "unblocked", s.Use(7), NeedsTransaction)
	for i := range uint32(MaxBlocked) {
		if !s.Block(100 + i) {
			t.Fatalf("block %d refused", i)
		}
	}
	if s.Block(99) || !s.Block(100) {
		t.Error("limit of blocked extents")
	}
}

func TestResize(t *testing.T) {
	s := newSet(t, 10)
	s.Use(1)
	if err := s.Resize(20, DefaultRing); err == nil {
		t.Error("resized in use")
	}
	commit(t, s)
	s.Release(1)
	if err := s.Resize(6434, DefaultRing); err == nil {
		t.Error("more slots than the ring keeps")
	}
	if err := s.Resize(20, DefaultRing); err != nil || s.Slots() != 20 || s.Ready(1, 1) || s.Number() != 0 {
		t.Errorf("resize: %v, %d slots", err, s.Slots())
	}
	if got := [3]int{ClampSlots(7, DefaultRing), ClampSlots(1237, DefaultRing), ClampSlots(65534, DefaultRing)}; got != [3]int{67, 1237, 6433} {
		t.Errorf("clamped: %v", got)
	}
}

func TestReleaseUnreferencedPanics(t *testing.T) {
	s := newSet(t, 10)
	s.Use(1)
	s.Release(1)
	for _, e := range []Extent{1, 2} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("release of %d did not panic", e)
				}
			}()
			s.Release(e)
		}()
	}
}

func TestHitsDoNotAllocate(t *testing.T) {
	s := newSet(t, 1237)
	s.Get(0, 3)
	commit(t, s)
	if n := testing.AllocsPerRun(1000, func() {
		if s.Get(0, 3) != Hot {
			t.Fatal("not hot")
		}
		for e := range Extent(4) {
			s.Release(e)
		}
	}); n != 0 {
		t.Errorf("%v allocations per hit and release", n)
	}
}

// TestCrashCoverage is the promise of the package: whatever a disk holds after a
// crash, with the newest block old, torn or new, replay names every extent that
// was Hot or Ready and had a reference. It also follows the model: a set never
// hands out what it has not written.
func TestCrashCoverage(t *testing.T) {
	for seed := range int64(30) {
		rng := rand.New(rand.NewSource(seed))
		r := []Ring{DefaultRing, {3, 4}, {4, 2}}[seed%3]
		n := []int{7, 67, 1237, 5000}[rng.Intn(4)]
		s, err := New(n, r)
		if err != nil {
			t.Fatal(err)
		}
		s.Reset(rng.Uint32() >> (rng.Intn(2) * 4))
		if rng.Intn(2) == 0 {
			s.Reset(0x7ffffff0 + uint32(rng.Intn(8))) // passes the sign on its way
		}
		area := make([]byte, 0, r.Blocks()*BlockSize)
		for range r.Blocks() {
			area = AppendInitialized(area)
		}
		runCrash(t, rng, s, r, area)
	}
}

func runCrash(t *testing.T, rng *rand.Rand, s *Set, r Ring, area []byte) {
	t.Helper()
	var tr Transaction
	refs := map[Extent]int{}
	var held []Extent
	for range 60 {
		for len(held) > 0 && rng.Intn(3) > 0 {
			i := rng.Intn(len(held))
			s.Release(held[i])
			if refs[held[i]]--; refs[held[i]] == 0 {
				delete(refs, held[i])
			}
			held[i] = held[len(held)-1]
			held = held[:len(held)-1]
		}
		for range 30 {
			first := Extent(rng.Intn(3 * s.Slots()))
			last := first + Extent(rng.Intn(3))
			if o := s.Get(first, last); o != Hot && o != NeedsTransaction {
				continue
			}
			for e := first; e <= last; e++ {
				refs[e]++
				held = append(held, e)
			}
		}
		var durable []Extent
		for e := range refs {
			if s.Ready(e, e) {
				durable = append(durable, e)
			}
		}
		s.BuildTransaction(&tr)
		block := tr.AppendTo(nil)
		off := r.Block(tr.Number) * BlockSize
		torn := slices.Clone(area)
		for sec := range uint32(8) {
			if rng.Intn(2) == 0 {
				copy(torn[off+sec*512:][:512], block[sec*512:])
			}
		}
		covers(t, r, area, durable, "before")
		covers(t, r, torn, durable, "torn")
		copy(area[off:], block)
		covers(t, r, area, durable, "after")
		s.Commit()
	}
}

func covers(t *testing.T, r Ring, area []byte, want []Extent, when string) {
	t.Helper()
	res, err := Replay(r, area)
	if err != nil && len(want) > 0 {
		t.Fatalf("%s: %v with %d extents hot", when, err, len(want))
	}
	if res.Gap || res.Incomplete {
		t.Fatalf("%s: %+v of a ring with nothing lost", when, res)
	}
	for _, e := range want {
		if _, ok := slices.BinarySearch(res.Extents, e); !ok {
			t.Fatalf("%s: extent %d is hot and not in the log", when, e)
		}
	}
}

func BenchmarkHit(b *testing.B) {
	s := newSet(b, 1237)
	s.Use(5)
	var tr Transaction
	s.BuildTransaction(&tr)
	s.Commit()
	b.ReportAllocs()
	for b.Loop() {
		s.Use(5)
		s.Release(5)
	}
}
