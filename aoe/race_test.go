//go:build race

package aoe

// raceEnabled: sync.Pool drops entries at random under the race detector.
const raceEnabled = true
