package control

// SplitState splits DRBD 8.4's one word for connection and replication into the two
// that DRBD 9 has.
func SplitState(cs string) (connection, replication string) {
	switch cs {
	case "StandAlone", "Disconnecting", "Unconnected", "Timeout", "BrokenPipe", "NetworkFailure", "ProtocolError", "TearDown":
		return cs, "Off"
	case "WFConnection":
		return "Connecting", "Off"
	case "WFReportParams":
		return "Connected", "Off"
	case "Connected":
		return "Connected", "Established"
	default:
		return "Connected", cs
	}
}

// Open says whether clients use a volume.
func (r *Resource) Open(volume uint16) bool {
	for i := range r.NBD {
		if r.NBD[i].Volume == volume && r.NBD[i].Active > 0 {
			return true
		}
	}
	for i := range r.AoE {
		if r.AoE[i].Volume == volume && r.AoE[i].Serving {
			return true
		}
	}
	return false
}

// MayPromote says whether the resource could become Primary now: nobody is, and every
// volume has data that is known to be good.
func (r *Resource) MayPromote() bool {
	if !r.Up || r.Role == "Primary" || r.PeerRole == "Primary" {
		return false
	}
	for i := range r.Volumes {
		if r.Volumes[i].Disk != "UpToDate" && r.Volumes[i].PeerDisk != "UpToDate" {
			return false
		}
	}
	return true
}

// PromotionScore is DRBD 9's measure of how well this node is suited to be Primary:
// 10000 for a disk under every volume, 100 for each copy that is up to date, and the
// smallest number of copies of any volume.
func (r *Resource) PromotionScore() int {
	if !r.Up || len(r.Volumes) == 0 {
		return 0
	}
	disks, upToDate, least := true, 2, 2
	for i := range r.Volumes {
		v := &r.Volumes[i]
		good, copies := 0, 0
		for _, d := range []string{v.Disk, v.PeerDisk} {
			if d == "UpToDate" {
				good++
			}
			if d != "Diskless" && d != "DUnknown" {
				copies++
			}
		}
		disks = disks && v.Disk != "Diskless"
		upToDate, least = min(upToDate, good), min(least, copies)
	}
	score := upToDate*100 + least
	if disks {
		score += 10000
	}
	return score
}
