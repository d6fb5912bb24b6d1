package metadata

// DiskState is what the superblock says about the local data before the peer has
// been asked. The names are DRBD's; the zero value is invalid.
type DiskState uint8

// Disk states a superblock can express, from worst to best.
const (
	DiskInconsistent DiskState = iota + 1
	DiskOutdated
	DiskConsistent // whether it is also up to date only the peer knows
	DiskUpToDate
)

var diskNames = [...]string{"invalid", "Inconsistent", "Outdated", "Consistent", "UpToDate"}

// String returns DRBD's name of the state, as printed by drbdmeta dstate.
func (d DiskState) String() string {
	if int(d) < len(diskNames) {
		return diskNames[d]
	}
	return diskNames[0]
}

// AttachState is how a node reads its flags when it attaches the disk (section 2.3).
type AttachState struct {
	Disk           DiskState
	PeerOutdated   bool // the peer's disk is known to be Outdated; else nothing is known of it
	CrashedPrimary bool // this node may have writes in flight that the peer has not
	Degraded       bool // a node that was alone: use the degraded wait-for-connection timeout unless Primary
	SetAllBits     bool // do not read the bitmap, treat every block as out of sync
}

// AttachContext is what the flags alone do not tell.
type AttachContext struct {
	// FencingDontCare: no fencing is configured, so that Consistent is trusted.
	FencingDontCare bool
	// SuspendedPrimary: this node is Primary at the moment, with I/O suspended
	// for lack of data. Its PRIMARY_IND is no sign of a crash then.
	SuspendedPrimary bool
}

// AttachState interprets the flags. If the node is connected while it attaches,
// the disk state is not taken at once but negotiated with the peer.
func (sb *Superblock) AttachState(c AttachContext) AttachState {
	f := sb.Flags
	s := AttachState{
		Disk:           f.disk(c.FencingDontCare),
		PeerOutdated:   f.Has(PeerOutDated),
		CrashedPrimary: f.Has(CrashedPrimary) || f.Has(PrimaryInd) && !c.SuspendedPrimary,
		Degraded:       f.Has(PrimaryInd) && !f.Has(ConnectedInd),
	}
	// A crashed Primary that kept no activity log does not know what it wrote.
	s.SetAllBits = f.Has(FullSync) || s.CrashedPrimary && f.Has(ALDisabled)
	return s
}

func (f Flags) disk(dontCare bool) DiskState {
	switch {
	case !f.Has(Consistent):
		return DiskInconsistent
	case !f.Has(WasUpToDate):
		return DiskOutdated
	case f.Has(PeerOutDated) || dontCare:
		return DiskUpToDate
	}
	return DiskConsistent
}
