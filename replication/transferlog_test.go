package replication

import (
	"strings"
	"testing"

	"github.com/replblk/replblk/activitylog"
)

func TestEpochAgeFollowsThePeersFlush(t *testing.T) {
	for _, c := range []struct {
		name string
		took func(age Time) Time // how long the peer takes for an epoch of this age
		want Time                // the age at which the log settles
	}{
		{"no volatile cache", func(Time) Time { return Millisecond }, minEpochAge},
		{"page cache, the same blocks again and again", func(Time) Time { return 120 * Millisecond }, maxEpochAge},
		{"hangs", func(Time) Time { return 3 * Second }, minEpochAge},
	} {
		var l transferLog
		for range 20 {
			l.pace(c.took(max(l.age, minEpochAge)))
		}
		if l.age != c.want && (c.want != minEpochAge || l.age > minEpochAge) {
			t.Errorf("%s: age %d ms, want %d ms", c.name, l.age/Millisecond, c.want/Millisecond)
		}
	}
	var l transferLog
	for range 50 { // streaming: half as long as the epoch
		took := max(l.age, minEpochAge) / 2
		if took > 2*maxEpochWait {
			t.Fatalf("streaming: an epoch of %d ms takes %d ms", l.age/Millisecond, took/Millisecond)
		}
		l.pace(took)
	}
}

func TestEpochsOfCompletedWritesAreNotCut(t *testing.T) {
	p := newPair()
	a, _ := establish(t, p)
	p.take()
	for i := range uint64(3000) { // more than max-epoch-size
		a.request(OpWrite, i%64*8, 4096, i)
		p.settle()
	}
	if n := strings.Count(p.take(), ">b: Barrier"); n != 0 {
		t.Errorf("%d barriers among 3000 writes that were answered at once, want none", n)
	}
	p.tick(2)
	if n := strings.Count(p.take(), ">b: Barrier"); n != 1 {
		t.Errorf("%d barriers after 200 ms, want 1", n)
	}
	if n := a.r.ios.inUse(); n != 0 {
		t.Errorf("%d requests known after the barrier was confirmed", n)
	}
}

func TestEpochIsClosedBeforeTheActivityLogStarves(t *testing.T) {
	p := newPair()
	a, _ := establish(t, p)
	v := a.r.vols[0]
	set, err := activitylog.New(8, v.disk.al.set.Ring())
	if err != nil {
		t.Fatal(err)
	}
	v.disk.al.set = set
	p.take()
	for i := range uint64(12) {
		id := a.request(OpWrite, i*8192, 4096, i)
		p.settle()
		if _, ok := a.outcome[id]; !ok {
			t.Fatalf("write to extent %d waits\n%s", i, p.take())
		}
		if len(v.disk.al.starved) > 0 {
			t.Fatalf("starved at extent %d\n%s", i, p.take())
		}
	}
	if !strings.Contains(p.take(), ">b: Barrier") {
		t.Error("12 extents went through a log of 8 without a barrier")
	}
}

// What was answered from a disk that has failed since is good on the peer only, maybe
// in its cache: it must not stay there until the epoch is old enough.
func TestFailedDiskClosesTheEpoch(t *testing.T) {
	p := newPair()
	a, _ := establish(t, p)
	a.request(OpWrite, 0, 4096, 1)
	p.settle()
	if a.r.tl.cur.count != 1 {
		t.Fatalf("%d writes in the open epoch, want 1", a.r.tl.cur.count)
	}
	a.failing[OpRead] = true
	p.take()
	a.request(OpRead, 0, 4096, 0)
	p.settle()
	if a.r.tl.cur.count != 0 || !strings.Contains(p.take(), ">b: Barrier") {
		t.Error("the own disk has failed and the peer was not asked to flush")
	}
}

// A barrier that the peer owes counts from when it was sent, not from when the first
// write of its epoch was.
func TestOldestCountsFromTheBarrier(t *testing.T) {
	p := newPair()
	a, _ := establish(t, p)
	p.now += Second
	a.request(OpWrite, 0, 4096, 1)
	p.settle()
	p.now += Second
	l := &a.r.tl
	a.r.now = p.now
	l.cur.closed = p.now
	l.closed, l.cur = append(l.closed, l.cur), epoch{number: l.cur.number + 1}
	if at, ok := l.oldest(a.r); !ok || at != p.now {
		t.Errorf("oldest: %d %v, want %d", at, ok, p.now)
	}
	q := &a.r.ios.list[l.closed[0].head]
	q.netPending, q.awaited = true, true
	if at, ok := l.oldest(a.r); !ok || at != q.start || at == p.now {
		t.Errorf("oldest with a write unanswered: %d %v, want %d", at, ok, q.start)
	}
}
