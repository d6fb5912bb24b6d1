package file

import "testing"

func TestStripes(t *testing.T) {
	for _, c := range []struct {
		off, n      int64
		first, past int
	}{
		{0, 512, 0, 1},
		{stripeBytes - 512, 1024, 0, 2},
		{3 * stripeBytes, stripeBytes, 3, 4},
		{(stripeCount + 3) * stripeBytes, 4096, 3, 4},
		{(stripeCount - 1) * stripeBytes, 2 * stripeBytes, stripeCount - 1, stripeCount + 1},
		{512, stripeCount * stripeBytes, 0, stripeCount},
		{stripeBytes, 4 * stripeCount * stripeBytes, 1, stripeCount + 1},
		{0, 0, 0, 0},
	} {
		if first, past := stripes(c.off, c.n); first != c.first || past != c.past {
			t.Errorf("stripes(%d, %d) = %d, %d, want %d, %d", c.off, c.n, first, past, c.first, c.past)
		}
	}
	var l sectorLocks
	l.lock(200*stripeBytes, 100*stripeBytes) // around the end of the table
	if l[0].TryRLock() || l[43].TryRLock() || !l[44].TryRLock() || !l[199].TryLock() || l[200].TryLock() {
		t.Error("not the locks of the range")
	}
	l.unlock(200*stripeBytes, 100*stripeBytes)
	if !l[0].TryLock() || !l[255].TryLock() {
		t.Error("not given back")
	}
}
