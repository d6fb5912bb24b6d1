//go:build interop

package interop

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/replblk/replblk/replication"
	"github.com/replblk/replblk/replication/state"
)

// TestVeto: a handler of the target does not want a resync. Both go apart without a copied block,
// and the resync runs when the handler has nothing against it. Then after-resync-target is
// called.
func TestVeto(t *testing.T) {
	t.Run("replblk target", func(t *testing.T) {
		dir := t.TempDir()
		may, done := filepath.Join(dir, "may"), filepath.Join(dir, "done")
		o := outage()
		o.handlers = map[string]string{"before-resync-target": "test -e " + may, "after-resync-target": "touch " + done}
		k, p := established(t, o)
		k.allowed = append(k.allowed, noticed...)
		k.sh("drbdadm primary r0")
		broken(k, p, func() { k.dd(7, 1024, 2048) })
		p.wait("veto", alone)
		k.wait("replblk has gone", func(s procState) bool { return s.waiting() || s.alone() })
		if s := p.State(0); s.Disk == state.UpToDate || s.Disk == state.Inconsistent {
			t.Errorf("replblk: disk is %v after the veto", s.Disk)
		}
		if n := p.Status().Volumes[0].OutOfSync; n < 512 {
			t.Errorf("replblk: %d blocks out of sync after the veto", n)
		}
		if err := os.WriteFile(may, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		p.kind(replication.AdminConnect)
		settled(k, p)
		p.wait("after-resync-target", func(state.State) bool { _, err := os.Stat(done); return err == nil })
	})
	t.Run("kernel target", func(t *testing.T) {
		o := outage()
		o.kernelHandlers = `before-resync-target "test -e /tmp/may"; after-resync-target "touch /tmp/done";`
		k, p := established(t, o)
		k.sh("rm -f /tmp/may /tmp/done")
		k.allowed = append(append(k.allowed, "before-resync-target"), noticed...)
		p.kind(replication.AdminPrimary)
		broken(k, p, func() { p.scribble(7, 15) })
		k.wait("veto", procState.alone)
		p.wait("the kernel has gone", waiting)
		if s := k.state(); strings.HasPrefix(s.ds, "UpToDate") || s.oos == "0" {
			t.Errorf("kernel after the veto: %+v", s)
		}
		p.scribble(8, 5)
		k.sh("touch /tmp/may; drbdadm connect r0")
		settled(k, p)
		k.sh(awaitFile("/tmp/done", 600, "cat /proc/drbd"))
	})
}

// TestVetoedInvalidate: the handler of either node does not want the resync that an invalidate
// of either node's copy asks for. Nobody is Primary, so no new generation makes up for it: the
// next connection does all the same what an operator has asked for who was not told that it
// failed.
func TestVetoedInvalidate(t *testing.T) {
	for _, target := range []string{"kernel", "replblk"} {
		for _, objects := range []string{"kernel", "replblk"} {
			t.Run(target+"'s copy, "+objects+" objects", func(t *testing.T) {
				handler := map[bool]string{true: "before-resync-target", false: "before-resync-source"}[target == objects]
				may := filepath.Join(t.TempDir(), "may")
				o := brisk()
				o.small = true
				if objects == "kernel" {
					o.kernelHandlers = handler + ` "test -e /tmp/may";`
				} else {
					o.handlers = map[string]string{handler: "test -e " + may}
				}
				k, p := established(t, o)
				k.sh("rm -f /tmp/may")
				k.allowed = append(append(append(k.allowed, handler), noticed...), refused...)
				before := k.gi()
				var promised bool
				if target == "kernel" {
					_, code, err := machine.run("drbdadm invalidate r0", commandTimeout)
					promised = err == nil && code == 0
				} else {
					res, err := p.Admin(p.limit(), replication.Admin{Kind: replication.AdminInvalidate})
					promised = err == nil && res.OK()
				}
				p.wait("apart", func(s state.State) bool { return s.Conn < state.Connected })
				k.wait("apart", func(s procState) bool { return s.alone() || s.waiting() })
				t.Logf("promised: %v; after the veto: kernel %+v %v, replblk %+v", promised, k.state(), k.gi(), p.State(0))
				k.sh("touch /tmp/may")
				if err := os.WriteFile(may, nil, 0o600); err != nil {
					t.Fatal(err)
				}
				if p.State(0).Conn == state.StandAlone {
					p.kind(replication.AdminConnect)
				}
				k.sh("drbdadm adjust r0")
				if promised && target == "kernel" && objects == "replblk" {
					k.nextGeneration(p)
				}
				settled(k, p)
				if copied := k.gi() != before; copied != promised {
					t.Errorf("promised: %v, copied: %v", promised, copied)
				}
			})
		}
	}
}

// nextGeneration has replblk begin a generation, for the sake of a kernel that has all bits set
// and forgets why: it was only Outdated when its source went.
func (k *kernel) nextGeneration(p *peer) {
	k.t.Helper()
	p.wait("connect", connected)
	k.wait("connect", func(s procState) bool { return s.connected() && s.oos != "0" })
	p.kind(replication.AdminPrimary)
	p.kind(replication.AdminDisconnect)
	k.wait("replblk has gone", procState.waiting)
	p.kind(replication.AdminConnect)
}

// TestKernelFences: the kernel as Primary with resource-and-stonith loses replblk. Its writes
// wait for its handler, which says that replblk is outdated; replblk, really outdated by its
// operator, comes back and is the target.
func TestKernelFences(t *testing.T) {
	o := outage()
	o.kernelDisk = "fencing resource-and-stonith;"
	o.core = fenced(state.ResourceAndStonith)
	o.kernelHandlers = `fence-peer "touch /tmp/fencing; while ! [ -e /tmp/fenced ]; do sleep 0.1; done; exit 4";`
	k, p := established(t, o)
	k.sh("rm -f /tmp/fencing /tmp/fenced /tmp/wrote")
	k.allowed = append(append(noticed, refused...), "fence-peer",
		"rcu_note_context_switch") // its own: it waits in a place where it must not
	k.sh("drbdadm primary r0")
	p.wait("the kernel is Primary", peerPrimary)
	k.dd(1, 0, 1024)
	cable(t, "down")
	defer cable(t, "up")
	p.wait("the kernel has gone", waiting)
	k.sh(awaitFile("/tmp/fencing", 900, "cat /proc/drbd"))
	k.sh("(yes frozen | dd of=/dev/drbd0 bs=64k iflag=fullblock count=4 oflag=direct conv=notrunc 2>/dev/null; touch /tmp/wrote) & sleep 1; ! [ -e /tmp/wrote ]")
	p.kind(replication.AdminOutdate)
	k.sh("touch /tmp/fenced; " + awaitFile("/tmp/wrote", 600, "cat /proc/drbd"))
	k.wait("fenced", func(s procState) bool { return s.ds == "UpToDate/Outdated" })
	p.refuses(replication.Admin{Kind: replication.AdminPrimary}, state.NoUpToDateDisk)
	cable(t, "up")
}
