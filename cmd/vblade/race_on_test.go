//go:build race

package main

// raceEnabled builds the program under test with the race detector if the tests are.
const raceEnabled = true
