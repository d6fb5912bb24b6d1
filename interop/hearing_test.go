//go:build interop

package interop

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"regexp"
	"strings"
	"sync"

	"github.com/replblk/replblk/node"
	"github.com/replblk/replblk/node/transport"
	"github.com/replblk/replblk/replication"
)

// judgeAll is kernelIs, and judge for each of several sides of replblk. Each is a node with a disk and a
// port of its own, so that the machine, where every program takes its time, connects to one after the
// other by one command.
func (c *court) judgeAll(theirs side, ours []side) (kernel, replblk []verdict) {
	for len(kernel) < len(ours) {
		c.kernelIs(theirs)
		k, r := c.hear(theirs, ours[len(kernel):])
		kernel, replblk = append(kernel, k...), append(replblk, r...)
	}
	return kernel, replblk
}

// hear is judgeAll until the kernel may no longer be what it was: its dry run corrects its own generations by
// two of the rules all the same.
func (c *court) hear(theirs side, ours []side) (kernel, replblk []verdict) {
	t := c.k.t
	t.Helper()
	var script strings.Builder
	script.WriteString(c.up + "dmesg -r -c || exit 1\n")
	c.up = ""
	heard := make([]<-chan node.Change, len(ours))
	done := make([]func(), len(ours))
	for i, s := range ours {
		port := courtPort + i
		o := c.o
		o.link = func(l *transport.Config) {
			l.Local, l.Peer = fmt.Sprintf("%s:%d", peerIP, port), fmt.Sprintf("%s:%d", kernelIP, port)
		}
		p := c.party(s, o, c.ownDisk(i))
		var cancel func()
		heard[i], cancel = listen(p)
		done[i] = func() { cancel(); p.close() }
		p.do(replication.Admin{Kind: replication.AdminConnect, DiscardMyData: s.discard})
		fmt.Fprintf(&script, "echo @connect@ >/dev/kmsg; %s || exit 1\nalone\n", c.connect(theirs, port))
	}
	log := c.k.sh(script.String() + "dmesg -r -c")
	c.k.judge(log)
	parts := connectMark.Split(log, -1)[1:]
	if len(parts) != len(ours) {
		t.Fatalf("%d of %d connections in the kernel's log:\n%s", len(parts), len(ours), log)
	}
	for i, s := range ours {
		k, r := c.verdicts(theirs, s, parts[i], heard[i])
		kernel, replblk = append(kernel, k), append(replblk, r)
	}
	var wg sync.WaitGroup
	for _, d := range done {
		wg.Go(d)
	}
	wg.Wait()
	for i := range kernel {
		switch {
		case kernel[i].rule == 0 || replblk[i].rule == 0: // no verdict: once more, alone
			c.kernelIs(theirs)
			kernel[i], replblk[i] = c.judge(theirs, ours[i])
			fallthrough
		case kernel[i].rule == 34 || kernel[i].rule == 71:
			return kernel[:i+1], replblk[:i+1]
		}
	}
	return kernel, replblk
}

// connectMark is where the kernel's log says that the next connection begins.
var connectMark = regexp.MustCompile(`(?m)^.*@connect@$`)

// ownDisk is a disk with fresh metadata, made when it is asked for first.
func (c *court) ownDisk(n int) string {
	t := c.k.t
	t.Helper()
	disk := fmt.Sprint(c.disk, ".", n)
	if _, err := os.Stat(disk); err == nil {
		return disk
	} else if !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	if err := newImage(disk, diskSize); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Remove(disk) })
	createMD(t, disk)
	return disk
}
