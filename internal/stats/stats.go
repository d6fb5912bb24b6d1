// Package stats has what benchmarks and tests say of a series of measurements.
package stats

import "slices"

// Median returns the value in the middle of a series in any order, or the mean of the two in
// the middle; 0 of none. The series stays as it is.
func Median(series []float64) float64 {
	if len(series) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(series))
	return (s[(len(s)-1)/2] + s[len(s)/2]) / 2
}
