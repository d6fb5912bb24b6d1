package aoe

// VirtualMAC returns the address that both ends of a mirror give the target
// shelf.slot on one network: locally administered, and the same wherever it is
// made. Two interfaces on one network need two, hence fabric: the place of the
// interface in the target's list (spec/aoe.md 4.5, scheme D).
//
//	02 ae <shelf, 2 bytes> <slot> <fabric>
func VirtualMAC(shelf uint16, slot, fabric uint8) MAC {
	return MAC{0x02, 0xae, byte(shelf >> 8), byte(shelf), slot, fabric}
}

// group returns the group address on which the ends that share the virtual
// address m hear each other, whatever the mask list admits. Bridges flood it and
// initiators do not listen to it.
func (m MAC) group() MAC {
	m[0] |= 1
	return m
}

// Address is what a request must name to reach a target.
type Address struct {
	Shelf uint16
	Slot  uint8
}

// Reception is what a Link must take in.
type Reception struct {
	// Requests are the targets whose requests are wanted, wildcards included.
	// Config responses, which tell of other stations, are wanted always.
	Requests []Address
	// MACs are addresses to receive for beside the interface's own and
	// broadcast; some are group addresses.
	MACs []MAC
}
