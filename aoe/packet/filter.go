package packet

import (
	"golang.org/x/net/bpf"
)

// EtherType is the Ethernet type of AoE.
const EtherType = 0x88a2

// Address is the address of an AoE target.
type Address struct {
	Shelf uint16
	Slot  uint8
}

// Filter says which AoE frames a socket receives. Responses to config queries
// always pass: they tell of other targets with the same address. So do responses of
// the command that the ends of a mirror talk to each other with.
//
//	offset  size  field that the filter reads
//	    12     2  Ethernet type
//	    14     1  0x08 is the response flag
//	    16     2  shelf, 0xffff is any
//	    18     1  slot, 0xff is any
//	    19     1  command, 1 is query config, 0xf0 that of the two ends
type Filter struct {
	// Targets are the addresses whose requests pass, wildcards included. With
	// more than maxFilterTargets, requests to any address pass.
	Targets []Address
	// Everything passes all AoE frames: for initiators.
	Everything bool
}

// maxFilterTargets keeps the program short; each address costs seven
// instructions for every frame to a later one.
const maxFilterTargets = 32

// snapLen is larger than any frame: the filter never cuts.
const snapLen = 1 << 18

// instructions returns the filter's program.
func (f Filter) instructions() []bpf.Instruction {
	accept, reject := bpf.RetConstant{Val: snapLen}, bpf.RetConstant{}
	prog := []bpf.Instruction{
		bpf.LoadAbsolute{Off: 12, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: EtherType, SkipTrue: 1},
		reject,
	}
	if f.Everything {
		return append(prog, accept)
	}
	prog = append(prog,
		bpf.LoadAbsolute{Off: 14, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpBitsNotSet, Val: 0x08, SkipTrue: 5},
		bpf.LoadAbsolute{Off: 19, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: 1, SkipTrue: 2},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: 0xf0, SkipTrue: 1},
		reject,
		accept,
	)
	if len(f.Targets) > maxFilterTargets {
		return append(prog, accept)
	}
	for _, a := range f.Targets {
		prog = append(prog,
			bpf.LoadAbsolute{Off: 16, Size: 2},
			bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(a.Shelf), SkipTrue: 1},
			bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: 0xffff, SkipTrue: 4},
			bpf.LoadAbsolute{Off: 18, Size: 1},
			bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(a.Slot), SkipTrue: 1},
			bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: 0xff, SkipTrue: 1},
			accept,
		)
	}
	return append(prog, reject)
}
