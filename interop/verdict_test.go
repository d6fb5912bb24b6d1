//go:build interop

package interop

import (
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/replblk/replblk/internal/mdtool"
	"github.com/replblk/replblk/metadata"
	"github.com/replblk/replblk/node"
	"github.com/replblk/replblk/replication"
	"github.com/replblk/replblk/replication/state"
)

// A verdict is what a node makes of the generations of both, as far as it says so.
type verdict struct {
	rule    int // of spec 7.4; 0: it did not come to a comparison
	result  int
	outcome string // "source", "target", "none"; "" if the connection is refused
	full    bool
}

func (v verdict) mirrored() verdict {
	switch v.outcome {
	case "source":
		v.outcome = "target"
	case "target":
		v.outcome = "source"
	}
	return v
}

// side is what one node brings into the comparison.
type side struct {
	gi      metadata.UUIDs
	crashed bool
	primary bool
	bits    uint64 // set in the bitmap
	discard bool   // connect --discard-my-data
}

// text is the side's identifiers as drbdmeta takes them, of a disk that was UpToDate.
func (s side) text() string {
	f := "1:1:0:0:0:0:0"
	if s.crashed {
		f = "1:1:0:0:0:0:1"
	}
	return fmt.Sprintf("%016X:%016X:%016X:%016X:%s", s.gi[0], s.gi[1], s.gi[2], s.gi[3], f)
}

// court judges generations: it gives both nodes made-up identifiers and has them connect
// with the kernel's operator asking for a dry run.
type court struct {
	k    *kernel
	disk string // replblk's
	up   string // what the kernel's node is made of again, before it connects
	o    options
	net  string // the options of the kernel's connect
	real bool   // it is to be more than a dry run, which version 90 does not have

	bitmap int64    // offset on both disks
	log    *os.File // what the kernel said to each pair
}

// newCourt makes a pair that is in sync, for its disks.
func newCourt(t *testing.T) *court {
	o := options{}
	k, p := established(t, o)
	p.close()
	k.sh("drbdadm disconnect r0")
	k.allowed = append([]string{"Split-Brain", "Unrelated data", "dry-run", "uuid_compare", "sock_", "I shall become",
		"error receiving", "Self", "pri-lost", "violating the stable-data", "did not find a decision",
		"since UUIDs where ambiguous", "but both are primary", "tate change failed", "state = {", "wanted = {", "Writing", "helper"}, noticed...)
	c := &court{k: k, disk: p.disk}
	f, err := mdtool.OpenFile(c.disk, mdtool.OpenOptions{AllowRegular: true})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	m, err := mdtool.Open(f, metadata.Internal)
	if err != nil {
		t.Fatal(err)
	}
	c.bitmap = int64(m.Layout.Bitmap) * 512
	if c.log, err = os.Create(fileName(t, "verdicts.log")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.log.Close() })
	t.Cleanup(c.adjourn)
	return c
}

// adjourn makes a pair of both nodes again, with data of one generation.
func (c *court) adjourn() {
	if c.k.t.Failed() {
		return
	}
	c.o.core = nil
	last := set(genA, 0, genB, 0)
	c.kernelIs(last)
	c.k.sh(c.up + "true")
	c.k.peer = c.replblkIs(last)
	c.k.peer.kind(replication.AdminConnect)
	c.k.sh("drbdadm connect r0")
}

// kernelIs gives the kernel its side. Its node is made when it connects.
func (c *court) kernelIs(s side) {
	c.k.t.Helper()
	if c.up == "" {
		c.k.sh(setup84 + "secondary 0; " + setup84 + "detach 0")
	}
	for _, args := range [][]string{{"apply-al"}, {"set-gi", s.text()}} {
		meta := append([]string{"--force", "-", "v08", c.k.disk, "internal"}, args...)
		if out, err := exec.Command("drbdmeta", meta...).CombinedOutput(); err != nil {
			c.k.t.Fatalf("drbdmeta %v: %v\n%s", args, err, out)
		}
	}
	c.writeBits(c.k.disk, s.bits)
	c.up = setup84 + "attach 0 /dev/vda /dev/vda internal && "
	if s.primary {
		c.up += setup84 + "primary 0 && "
	}
}

// replblkIs starts replblk's node with its side, not connected yet.
func (c *court) replblkIs(s side) *peer {
	c.k.t.Helper()
	return c.party(s, c.o, c.disk)
}

// party is replblkIs with other options and on another disk.
func (c *court) party(s side, o options, disk string) *peer {
	c.k.t.Helper()
	c.writeSide(disk, s)
	p := newPeer(c.k.t, o, disk, false)
	if s.primary {
		p.kind(replication.AdminPrimary)
	}
	return p
}

// writeSide writes replblk's metadata.
func (c *court) writeSide(disk string, s side) {
	t := c.k.t
	t.Helper()
	f, err := mdtool.OpenFile(disk, mdtool.OpenOptions{Writable: true, AllowRegular: true})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := mdtool.SetGI(f, metadata.Internal, s.text(), mdtool.Ask{Force: true}); err != nil {
		t.Fatal(err)
	}
	c.writeBits(disk, s.bits)
}

// writeBits sets the first n bits of the bitmap on a disk, and no other.
func (c *court) writeBits(disk string, n uint64) {
	t := c.k.t
	t.Helper()
	page := make([]byte, 4096)
	for i := range n {
		page[i/8] |= 1 << (i % 8)
	}
	f, err := os.OpenFile(disk, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(page, c.bitmap); err != nil {
		t.Fatal(err)
	}
}

var (
	kernelCompared = regexp.MustCompile(`uuid_compare\(\)=(-?\d+) by rule (\d+)`)
	kernelDryRun   = regexp.MustCompile(`(?i)dry-run connect: (.*)`)
)

// judge connects both and returns what each of them says. theirs is the kernel's side as
// kernelIs has set it.
func (c *court) judge(theirs, ours side) (kernel, replblk verdict) {
	t := c.k.t
	t.Helper()
	for range 3 {
		if kernel, replblk = c.tryJudge(theirs, ours); kernel.rule != 0 && replblk.rule != 0 {
			return kernel, replblk
		}
	}
	t.Fatalf("no verdict for kernel %s, replblk %s: %+v, %+v", theirs.text(), ours.text(), kernel, replblk)
	return kernel, replblk
}

func (c *court) tryJudge(theirs, ours side) (kernel, replblk verdict) {
	p := c.replblkIs(ours)
	defer p.close()
	heard, cancel := listen(p)
	defer cancel()
	p.do(replication.Admin{Kind: replication.AdminConnect, DiscardMyData: ours.discard})
	log := c.k.sh(c.up + "dmesg -r -c && echo @connect@ && " + c.connect(theirs, courtPort) + " || exit 1\nalone; dmesg -r -c")
	c.up = ""
	c.k.judge(log)
	_, log, _ = strings.Cut(log, "@connect@")
	return c.verdicts(theirs, ours, log, heard)
}

// courtPort is where both nodes listen; of several of replblk's, each has its own from there on.
const courtPort = 7789

// connect is the command that has the kernel connect, as a dry run unless it is in earnest.
func (c *court) connect(theirs side, port int) string {
	how := ""
	if !c.real {
		how = " --tentative"
	}
	if theirs.discard {
		how += " --discard-my-data"
	}
	return fmt.Sprintf("%sconnect r0 ipv4:%s:%d ipv4:%s:%d --protocol=C --socket-check-timeout=1 --connect-int=1 --ping-timeout=30 %s%s",
		setup84, kernelIP, port, peerIP, port, c.net, how)
}

// verdicts reads what both have said, and notes it.
func (c *court) verdicts(theirs, ours side, log string, heard <-chan node.Change) (kernel, replblk verdict) {
	replblk = replblkVerdict(heard)
	fmt.Fprintf(c.log, "kernel %s, replblk %s: replblk says %+v\n%s\n\n", theirs.text(), ours.text(), replblk, log)
	return kernelVerdict(log), replblk
}

// listen collects what a node says until it is cancelled.
func listen(p *peer) (heard <-chan node.Change, cancel func()) {
	all := make(chan node.Change, 64)
	return all, p.Watch(func(n node.Change) {
		if n.Kind == node.ChangeNote || n.Kind == node.ChangeState && n.New.Conn != n.Old.Conn {
			select {
			case all <- n:
			default:
			}
		}
	})
}

func kernelVerdict(log string) (v verdict) {
	if m := kernelCompared.FindStringSubmatch(log); m != nil {
		v.result, _ = strconv.Atoi(m[1])
		v.rule, _ = strconv.Atoi(m[2])
	}
	if v.result == -1000 {
		v.rule = 110 // it has no number of its own in the kernel
	}
	m := kernelDryRun.FindStringSubmatch(log)
	switch {
	case m == nil:
	case strings.Contains(m[1], "No resync"):
		v.outcome = "none"
	case strings.Contains(m[1], "SyncSource"):
		v.outcome = "source"
	case strings.Contains(m[1], "SyncTarget"):
		v.outcome = "target"
	}
	v.full = m != nil && strings.Contains(m[1], "full")
	return v
}

// replblkVerdict collects what the node has said until its connection was over.
func replblkVerdict(heard <-chan node.Change) (v verdict) {
	timeout := time.After(20 * time.Second)
	for {
		select {
		case n := <-heard:
			switch {
			case n.Kind == node.ChangeState && n.Old.Conn == state.WFReportParams && v.rule != 0:
				return v
			case n.Kind != node.ChangeNote:
			case n.Note == replication.NoteVerdict:
				v.rule, v.result = n.Rule, n.Verdict
			case n.Note == replication.NoteDryRun:
				v.outcome = map[state.Conn]string{state.WFBitMapS: "source", state.WFBitMapT: "target", state.Connected: "none"}[n.New.Conn]
				v.full = n.Full
			}
		case <-timeout:
			return v
		}
	}
}

// quickConfig is for pairs that connect many times.
func quickConfig(c *replication.Config) { c.PingTimeoutTenths = 1 }
