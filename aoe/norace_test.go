//go:build !race

package aoe

// raceEnabled: see race_test.go.
const raceEnabled = false
