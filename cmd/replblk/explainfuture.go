package main

// disks explains the state of this node's data.
func (e *explanation) disks() {
	name := e.r.Name
	switch e.disk(false) {
	case "Diskless":
		if e.connected() && e.disk(true) == "UpToDate" {
			e.add("This node has no disk; everything is read from and written to %s. `replblk attach %s` brings the disk back.", e.r.Peer, name)
			return
		}
		e.add("This node has no disk in service. The log says whether it failed or was detached; `replblk attach %s` brings it back, a new one needs `replblk create-md %s` first.", name, name)
	case "Failed":
		e.add("The disk of this node has failed and is being let go.")
	case "Inconsistent":
		e.add("The data here is incomplete: a copy from %s has not been finished. It cannot be used before that, unless by force (`replblk primary --force %s`), with whatever is missing or mixed.", e.r.Peer, name)
	case "Outdated":
		e.add("The data here is complete, but known to be older than %s's. It will not be used before it has been brought up to date.", e.r.Peer)
	case "Consistent":
		e.add("The data here is complete, but whether it is current is not known before %s has been asked.", e.r.Peer)
	}
	if n := e.behind(); n > 0 && !e.connected() && !e.r.History.SplitBrain {
		e.add("%s here may differ from %s's copy, %s.", amount(n), e.r.Peer, e.since())
	}
}

// suspension explains why clients wait.
func (e *explanation) suspension() {
	v := &e.r.Volumes[0]
	if v.SuspendedUser {
		e.add("Clients wait because an operator has suspended I/O: `replblk resume-io %s`.", e.r.Name)
	}
	if v.SuspendedNoData {
		e.add("Clients wait because neither copy can be reached (on-no-data-accessible suspend-io). They go on when %s or the disk is back; `replblk resume-io %s` has them fail instead.", e.r.Peer, e.r.Name)
	}
	if v.SuspendedFencing {
		e.add("Clients wait until it is certain that %s does not write (fencing %s): until the fence-peer handler succeeds, or %s is back. If it is certainly down: `replblk resume-io %s`.", e.r.Peer, e.r.Fencing, e.r.Peer, e.r.Name)
	}
}

// future says what happens if the peer goes, or returns.
func (e *explanation) future() {
	if e.connected() {
		e.ifPeerGoes()
		return
	}
	e.ifPeerReturns()
}

func (e *explanation) ifPeerGoes() {
	r := e.r
	current := e.disk(false) == "UpToDate"
	switch {
	case r.Role == "Primary" && !current:
		e.add("If %s goes now, there is no complete copy left within reach: clients get errors, or wait (on-no-data-accessible).", r.Peer)
	case r.Role == "Primary" && r.Fencing == "resource-and-stonith":
		e.add("If %s goes now, clients wait until the fence-peer handler has made sure that it does not write.", r.Peer)
	case r.Role == "Primary":
		e.add("If %s goes now, clients notice nothing; what changes is noted, and copied when it returns.", r.Peer)
	case !current:
		e.add("If %s goes now, this node cannot take over: its copy is not complete.", r.Peer)
	case r.PeerRole == "Primary" && r.Protocol == "C":
		e.add("If %s goes now, `replblk primary %s` takes over with everything that its clients were told is written.", r.Peer, r.Name)
	case r.PeerRole == "Primary":
		e.add("If %s goes now, `replblk primary %s` takes over; the last writes may be missing here (protocol %s).", r.Peer, r.Name, r.Protocol)
	default:
		e.add("If %s goes now, nothing happens; either node can be made Primary.", r.Peer)
	}
}

func (e *explanation) ifPeerReturns() {
	r := e.r
	disk := e.disk(false)
	switch {
	case r.Connection == "StandAlone" || disk == "Diskless" || disk == "Failed":
		return // said above
	case disk == "Inconsistent" || disk == "Outdated":
		e.add("If %s returns now, the current data is copied from there.", r.Peer)
	case r.Volumes[0].UUIDs[1] != 0:
		e.add("If %s returns now and was not Primary meanwhile, the changes are copied there: %s. If it was, that is a split brain, and they refuse to connect until somebody decides.", r.Peer, amount(e.behind()))
	case r.Role != "Primary":
		e.add("If %s returns now, what it has written meanwhile is copied here. If this node is made Primary before, and %s was Primary too, that is a split brain.", r.Peer, r.Peer)
	}
}
