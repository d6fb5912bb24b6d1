package main

import (
	"math"
	"testing"

	"github.com/anishathalye/porcupine"
)

func TestHistoryIsJudged(t *testing.T) {
	write := func(v uint64, call, ret int64) porcupine.Operation {
		return porcupine.Operation{ClientId: int(v), Input: access{0, true, v}, Call: call, Return: ret}
	}
	read := func(v uint64, call, ret int64) porcupine.Operation {
		return porcupine.Operation{ClientId: 9, Input: access{0, false, 0}, Output: v, Call: call, Return: ret}
	}
	for _, c := range []struct {
		name string
		ops  []porcupine.Operation
		ok   bool
	}{
		{"the write is read", []porcupine.Operation{write(1, 0, 1), read(1, 2, 3)}, true},
		{"an answered write is lost", []porcupine.Operation{write(1, 0, 1), write(2, 2, 3), read(1, 4, 5)}, false},
		{"a doubted write never happens", []porcupine.Operation{write(1, 0, 1), write(2, 2, math.MaxInt64), read(1, 4, 5)}, true},
		{"a doubted write happens late", []porcupine.Operation{write(1, 0, 1), write(2, 2, math.MaxInt64), read(1, 4, 5), read(2, 6, 7)}, true},
		{"what was seen is gone", []porcupine.Operation{write(1, 0, 1), write(2, 2, math.MaxInt64), read(2, 4, 5), read(1, 6, 7)}, false},
		{"a zombie reads what is old", []porcupine.Operation{write(1, 0, 1), write(2, 2, 3), read(2, 4, 5), read(1, 6, 7)}, false},
	} {
		h := newHistory([registers]uint64{})
		for _, op := range c.ops {
			h.put(op)
		}
		if _, err := h.check(); (err == nil) != c.ok {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

func TestTornRegister(t *testing.T) {
	p := make([]byte, registerSize)
	fillRegister(p, 7)
	if v, err := readRegister(p); v != 7 || err != nil {
		t.Fatal(v, err)
	}
	fillRegister(p[256:], 8)
	if _, err := readRegister(p); err == nil {
		t.Error("a torn register is not noticed")
	}
}
