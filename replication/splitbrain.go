package replication

// contest is what an after-split-brain policy may look at (spec 7.6).
type contest struct {
	selfPrimaryThen bool   // bit 0 of the own bitmap UUID: Primary when the data parted
	peerPrimaryThen bool   // the same of the peer
	selfChanges     uint64 // set bits that this node announced
	peerChanges     uint64 // set bits that the peer announced
	selfPrimary     bool   // role now
	peerPrimary     bool
	resolve         bool // RESOLVE_CONFLICTS: breaks ties on exactly one side
}

// policy returns the policy in force: the one for as many primaries as there are.
func (c contest) policy(afterSB [3]Policy) Policy {
	n := 0
	for _, primary := range []bool{c.selfPrimary, c.peerPrimary} {
		if primary {
			n++
		}
	}
	return afterSB[n]
}

// recover decides a split brain by policy: target discards the own changes,
// source the peer's, split leaves it to the operator. With SBCallHelper a Primary that
// is to be the target must first cease to be one; that is the caller's part.
func (c contest) recover(afterSB [3]Policy) verdict {
	switch {
	case c.selfPrimary && c.peerPrimary:
		return c.twoPrimaries(afterSB)
	case c.selfPrimary || c.peerPrimary:
		return c.onePrimary(afterSB)
	default:
		return c.noPrimary(afterSB[0])
	}
}

func (c contest) noPrimary(p Policy) verdict {
	switch p {
	case SBDiscardYoungerPrimary:
		if c.selfPrimaryThen != c.peerPrimaryThen {
			return winIf(c.selfPrimaryThen)
		}
		return c.undecided()
	case SBDiscardOlderPrimary:
		if c.selfPrimaryThen != c.peerPrimaryThen {
			return winIf(c.peerPrimaryThen)
		}
		return c.undecided()
	case SBDiscardZeroChanges:
		return c.zeroChanges()
	case SBDiscardLeastChanges:
		return c.leastChanges()
	case SBDiscardLocal:
		return target
	case SBDiscardRemote:
		return source
	default:
		return split
	}
}

// undecided is where discard-younger and discard-older end when both or none was
// Primary.
func (c contest) undecided() verdict {
	if v := c.zeroChanges(); v != split {
		return v
	}
	return c.leastChanges()
}

func (c contest) zeroChanges() verdict {
	switch {
	case c.selfChanges == 0 && c.peerChanges == 0:
		return winIf(!c.resolve)
	case c.peerChanges == 0:
		return source
	case c.selfChanges == 0:
		return target
	default:
		return split
	}
}

func (c contest) leastChanges() verdict {
	if c.selfChanges != c.peerChanges {
		return winIf(c.selfChanges > c.peerChanges)
	}
	return winIf(!c.resolve)
}

func (c contest) onePrimary(afterSB [3]Policy) verdict {
	switch afterSB[1] {
	case SBConsensus:
		v := c.noPrimary(afterSB[0])
		if v == target && !c.selfPrimary || v == source && c.selfPrimary {
			return v
		}
		return split
	case SBViolently, SBCallHelper:
		return c.noPrimary(afterSB[0])
	case SBDiscardSecondary:
		return winIf(c.selfPrimary)
	default:
		return split
	}
}

func (c contest) twoPrimaries(afterSB [3]Policy) verdict {
	if afterSB[2] == SBViolently || afterSB[2] == SBCallHelper {
		return c.noPrimary(afterSB[0])
	}
	return split
}

func winIf(own bool) verdict {
	if own {
		return source
	}
	return target
}
