package stats

import (
	"slices"
	"testing"
)

func TestMedian(t *testing.T) {
	for _, c := range []struct {
		series []float64
		want   float64
	}{
		{nil, 0},
		{[]float64{7}, 7},
		{[]float64{9, 1}, 5},
		{[]float64{3, 100, 1}, 3},
		{[]float64{4, 1, 3, 2}, 2.5},
	} {
		before := slices.Clone(c.series)
		if got := Median(c.series); got != c.want || !slices.Equal(c.series, before) {
			t.Errorf("median of %v is %v, want %v; now %v", before, got, c.want, c.series)
		}
	}
}
