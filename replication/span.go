package replication

// span is a range of sectors that something is busy with.
type span struct {
	start, end uint64 // sectors, end exclusive
	owner      uint32
}

func (s span) sectors() uint64 { return s.end - s.start }

func (s span) overlaps(start, end uint64) bool { return start < s.end && s.start < end }

// overlapping says whether any span of list touches [start, end). The lists hold
// at most a few hundred entries and a scan costs about a nanosecond each; an
// interval tree would pay off only far beyond that.
func overlapping(list []span, start, end uint64) bool {
	for i := range list {
		if list[i].overlaps(start, end) {
			return true
		}
	}
	return false
}

// spanOf returns the span of exactly size bytes from sector on.
func spanOf(list []span, sector uint64, size uint32) (span, bool) {
	for _, s := range list {
		if s.start == sector && s.sectors() == uint64(size)>>9 {
			return s, true
		}
	}
	return span{}, false
}

// without removes the span of owner.
func without(list []span, owner uint32) []span {
	for i := range list {
		if list[i].owner == owner {
			list[i] = list[len(list)-1]
			return list[:len(list)-1]
		}
	}
	return list
}
