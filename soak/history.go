package main

import (
	"encoding/binary"
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/anishathalye/porcupine"
)

// Registers are single sectors beyond what the ledger uses. Each write of one is a value
// that was never written before.
const (
	registers     = 6
	registerFirst = 3 * 1024 * 4096 // byte where the first one lies
	registerStep  = 4096
	registerSize  = 512
)

// checkTime bounds the search for an order of a history.
const checkTime = 2 * time.Minute

// access is an operation on a register.
type access struct {
	register int
	write    bool
	value    uint64 // what a write writes
}

// history records what clients did to the registers between two quiet moments, and
// whether one disk could have answered so. All methods may be called from any
// goroutine.
type history struct {
	began time.Time

	mu  sync.Mutex
	ops []porcupine.Operation // guarded by mu
}

// newHistory begins with what the registers hold.
func newHistory(initial [registers]uint64) *history {
	h := &history{began: time.Now()}
	for i, v := range initial {
		h.ops = append(h.ops, porcupine.Operation{Input: access{i, true, v}, Call: -2, Return: -1})
	}
	return h
}

func (h *history) now() int64 { return int64(time.Since(h.began)) }

// add records an operation that was answered.
func (h *history) add(client int, a access, read uint64, called int64) {
	h.put(porcupine.Operation{ClientId: client, Input: a, Output: read, Call: called, Return: h.now()})
}

// doubt records a write that was not answered: it may take effect at any time from its
// call on, or never.
func (h *history) doubt(client int, a access, called int64) {
	h.put(porcupine.Operation{ClientId: client, Input: a, Call: called, Return: math.MaxInt64})
}

func (h *history) put(op porcupine.Operation) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ops = append(h.ops, op)
}

// model is a register: a read returns what the last write wrote.
var model = porcupine.Model{
	Partition: func(all []porcupine.Operation) [][]porcupine.Operation {
		parts := make([][]porcupine.Operation, registers)
		for _, op := range all {
			i := op.Input.(access).register
			parts[i] = append(parts[i], op)
		}
		return parts
	},
	Init: func() any { return uint64(0) },
	Step: func(held, input, output any) (bool, any) {
		a := input.(access)
		if a.write {
			return true, a.value
		}
		return output.(uint64) == held.(uint64), held
	},
}

// check asks porcupine, and returns how many operations it has judged.
func (h *history) check() (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if got := porcupine.CheckOperationsTimeout(model, h.ops, checkTime); got != porcupine.Ok {
		return len(h.ops), fmt.Errorf("a history of %d operations on %d registers is %v: no single disk could have answered so", len(h.ops), registers, got)
	}
	return len(h.ops), nil
}

// fillRegister makes the contents of a register: the value over and over.
func fillRegister(p []byte, value uint64) {
	for i := 0; i < len(p); i += 8 {
		binary.LittleEndian.PutUint64(p[i:], value)
	}
}

// readRegister is its reverse. A sector is written whole or not at all.
func readRegister(p []byte) (uint64, error) {
	value := binary.LittleEndian.Uint64(p)
	for i := 8; i < len(p); i += 8 {
		if v := binary.LittleEndian.Uint64(p[i:]); v != value {
			return 0, fmt.Errorf("a sector holds write %#x and, from byte %d, write %#x", value, i, v)
		}
	}
	return value, nil
}
