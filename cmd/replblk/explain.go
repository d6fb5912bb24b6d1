package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/replblk/replblk/internal/control"
)

// writeExplanation says what state a resource is in and why, what happens if the peer goes
// or returns now, and what to do.
func writeExplanation(w io.Writer, r *control.Resource) {
	_, _ = fmt.Fprintf(w, "%s:\n", r.Name)
	for _, line := range explain(r, time.Now()) {
		_, _ = fmt.Fprintf(w, "  %s\n", line)
	}
}

// explain is the explanation of one resource, a sentence or two per line.
func explain(r *control.Resource, now time.Time) []string {
	e := &explanation{r: r, now: now}
	switch {
	case !r.Up:
		return []string{"It is down: no disk attached, no connection. `replblk up " + r.Name + "` starts it."}
	case r.Remote == "":
		e.add("No peer is configured: the data is on this node only.")
	default:
		e.connection()
	}
	e.disks()
	e.suspension()
	if r.Remote != "" {
		e.future()
	}
	return e.lines
}

type explanation struct {
	r     *control.Resource
	now   time.Time
	lines []string
}

func (e *explanation) add(format string, args ...any) {
	e.lines = append(e.lines, fmt.Sprintf(format, args...))
}

func (e *explanation) connected() bool { return e.r.Connection == "Connected" }

// resyncing returns the first volume that is under resync.
func (e *explanation) resyncing() *control.Volume {
	for i := range e.r.Volumes {
		if v := &e.r.Volumes[i]; v.Resync != nil && !v.Resync.Verify {
			return v
		}
	}
	return nil
}

// behind is how much of the data here differs from the peer's, as far as this node knows.
func (e *explanation) behind() (n uint64) {
	for i := range e.r.Volumes {
		n += e.r.Volumes[i].OutOfSync
	}
	return n
}

// disk returns the worst disk state of this node, or of the peer.
func (e *explanation) disk(peer bool) string {
	order := []string{"Diskless", "Attaching", "Failed", "Negotiating", "Inconsistent", "Outdated", "DUnknown", "Consistent", "UpToDate"}
	worst := len(order) - 1
	for i := range e.r.Volumes {
		word := e.r.Volumes[i].Disk
		if peer {
			word = e.r.Volumes[i].PeerDisk
		}
		for k, o := range order[:worst] {
			if o == word {
				worst = k
			}
		}
	}
	return order[worst]
}

// since is when the nodes parted, in words.
func (e *explanation) since() string {
	if t := e.r.History.Parted; !t.IsZero() {
		return fmt.Sprintf("since %s (%s ago)", clock(t), e.now.Sub(t).Round(time.Second))
	}
	return fmt.Sprintf("since before this daemon was started at %s", clock(e.r.History.Started))
}

func clock(t time.Time) string { return t.Local().Format("2006-01-02 15:04:05") }

// amount is a number of bytes as blocks and a size.
func amount(bytes uint64) string {
	const mib = 1 << 20
	blocks := bytes / bitmapBlock
	plural := "s"
	if blocks == 1 {
		plural = ""
	}
	if bytes < 10*mib {
		return fmt.Sprintf("%d block%s of 4 KiB", blocks, plural)
	}
	return fmt.Sprintf("%d block%s of 4 KiB (%d MiB)", blocks, plural, bytes/mib)
}

// roles says who serves.
func (e *explanation) roles() string {
	switch {
	case e.r.Role == "Primary" && e.r.PeerRole == "Primary":
		return "Both nodes are Primary and serve clients."
	case e.r.Role == "Primary":
		return "This node is Primary and serves clients."
	case e.r.PeerRole == "Primary":
		return e.r.Peer + " is Primary and serves clients; this node stands by."
	default:
		return "Neither node is known to be Primary: nobody serves."
	}
}

func (e *explanation) connection() {
	r := e.r
	switch {
	case r.History.SplitBrain && !e.connected():
		e.splitBrain()
	case e.connected():
		e.together()
	case r.Connection == "StandAlone" && r.History.Refusal != "":
		e.add("It does not try to connect: at %s the connection to %s was refused, because: %s.", clock(r.History.Refused), r.Peer, r.History.Refusal)
		e.add("When the cause is removed, on both nodes: `replblk connect %s`.", r.Name)
	case r.Connection == "StandAlone":
		e.add("It does not try to connect to %s, because nobody has told it to, or somebody told it to stop. `replblk connect %s` ends that.", r.Peer, r.Name)
	default:
		e.add("It is not connected to %s, %s, and keeps trying. Look at %s and at the network in between (%s to %s).", r.Peer, e.since(), r.Peer, r.Local, r.Remote)
		if r.History.Refusal != "" {
			e.add("The last attempt ended at %s with: %s.", clock(r.History.Refused), r.History.Refusal)
		}
	}
	e.add("%s", e.roles())
}

// together explains a connection that stands.
func (e *explanation) together() {
	v := e.resyncing()
	switch {
	case v == nil && e.disk(false) == "UpToDate" && e.disk(true) == "UpToDate":
		e.add("It is connected, and both nodes have the same, current data: every write goes to both.")
		return
	case v == nil:
		e.add("It is connected.")
		return
	}
	from, to := "here", e.r.Peer
	if v.State == "SyncTarget" || v.State == "PausedSyncT" {
		from, to = e.r.Peer, "here"
	}
	e.add("It is connected, and what one node lacks is being copied from %s to %s: %s of %s are left.", from, to, amount(v.Resync.Left), amount(v.Resync.Total))
	switch {
	case strings.HasPrefix(v.State, "Paused"):
		why := pausedWord(v.PausedUser, v.PausedPeer, v.PausedDependency)
		e.add("The resync is paused (%s). `replblk resume-sync %s` ends what an operator has paused, on the node where that was done.", why, e.r.Name)
	case v.Resync.Stalled:
		e.add("It makes no progress at present.")
	}
}

// splitBrain explains the state that only a person can end.
func (e *explanation) splitBrain() {
	r := e.r
	var own, peer uint64
	for i := range r.Volumes {
		own += r.Volumes[i].SplitOwn
		peer += r.Volumes[i].SplitPeer
	}
	own = max(own, e.behind())
	e.add("SPLIT BRAIN: both nodes have written without each other, so each has data that the other lacks. They refuse to connect, and nothing is lost until somebody decides.")
	e.add("Here %s have changed %s; on %s %s had, as it said at %s.", amount(own), e.since(), r.Peer, amount(peer), clock(r.History.Refused))
	e.add("The configured policies (%s for 0, 1 and 2 primaries) do not decide it.", r.AfterSB)
	e.add("To keep the data of %s and give up what was written here: on this node `replblk secondary %s; replblk disconnect %s; replblk connect --discard-my-data %s`, on %s `replblk connect %s` if it is StandAlone. These %s are then overwritten with what %s has, and so are the %s that it has changed.",
		r.Peer, r.Name, r.Name, r.Name, r.Peer, r.Name, amount(own), r.Peer, amount(peer))
	e.add("To keep the data of this node: the same the other way round. What was written on %s is then lost: %s.", r.Peer, amount(peer))
	e.add("To see first what would happen: `replblk connect --tentative %s`. To save the loser's data first, copy its disk.", r.Name)
}
