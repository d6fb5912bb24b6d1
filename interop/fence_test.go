//go:build interop

package interop

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/replblk/replblk/block"
	"github.com/replblk/replblk/replication"
	"github.com/replblk/replblk/replication/state"
)

func fenced(policy state.Fencing) func(*replication.Config) {
	return func(c *replication.Config) {
		c.PingIntSeconds, c.TimeoutTenths, c.KoCount = 1, 30, 2
		c.Volumes[0].Fencing = policy
	}
}

const kernelFenced = "ping-int 1; timeout 30; connect-int 1; ko-count 2;"

// TestFencedDisconnect: under fencing a disconnect outdates the Secondary, whoever asks for
// it and whoever is Primary; it cannot be promoted, and is the target of a resync later.
func TestFencedDisconnect(t *testing.T) {
	for _, primary := range []string{"kernel", "replblk"} {
		for _, asks := range []string{"kernel", "replblk"} {
			t.Run(primary+" Primary, "+asks+" asks", func(t *testing.T) {
				k, p := established(t, options{kernelNet: kernelFenced, kernelDisk: "fencing resource-only;", core: fenced(state.ResourceOnly)})
				k.allowed = append(slices.Clone(noticed), refused...)
				if primary == "kernel" {
					k.sh("drbdadm primary r0")
					p.wait("the kernel is Primary", peerPrimary)
				} else {
					p.kind(replication.AdminPrimary)
				}
				if asks == "kernel" {
					k.sh("drbdadm disconnect r0")
				} else {
					p.kind(replication.AdminDisconnect)
				}
				if primary == "kernel" {
					p.wait("outdated", func(s state.State) bool { return s.Disk == state.Outdated && s.Conn < state.Connected })
					k.wait("peer outdated", func(s procState) bool { return s.ds == "UpToDate/Outdated" && !s.connected() })
					p.refuses(replication.Admin{Kind: replication.AdminPrimary}, state.NoUpToDateDisk)
					k.dd(1, 0, 2048)
				} else {
					k.wait("outdated", func(s procState) bool { return s.ds == "Outdated/DUnknown" || s.ds == "Outdated/UpToDate" })
					if s := p.State(0); s.PeerDisk != state.Outdated || s.SuspFen {
						t.Errorf("replblk: %+v", s)
					}
					k.refuses("drbdadm primary r0", "Need access to UpToDate data")
					p.scribble(1, 10)
				}
				if asks == "kernel" {
					k.sh("drbdadm connect r0")
				} else {
					p.kind(replication.AdminConnect)
				}
			})
		}
	}
}

// TestFencePeer: replblk as Primary with resource-and-stonith loses its peer. Writes wait
// for the fence-peer handler, which has the kernel's operator outdate that node; then they
// go on.
func TestFencePeer(t *testing.T) {
	dir := t.TempDir()
	begun, done := filepath.Join(dir, "begun"), filepath.Join(dir, "done")
	k, p := established(t, options{
		kernelNet: kernelFenced, kernelDisk: "fencing resource-and-stonith;", core: fenced(state.ResourceAndStonith),
		handlers: map[string]string{"fence-peer": fmt.Sprintf("touch %s; while ! test -e %s; do sleep 0.05; done; exit 4", begun, done)},
	})
	k.allowed = append(slices.Clone(noticed), refused...)
	p.kind(replication.AdminPrimary)
	p.scribble(1, 5)
	cable(t, "down")
	p.wait("frozen", func(s state.State) bool { return s.SuspFen && s.Conn < state.Connected })
	answered := make(chan error, 1)
	go func() { answered <- block.WriteAt(p.Volume(0), make([]byte, 4096), 4096) }()
	for deadline := time.Now().Add(waitTimeout); ; time.Sleep(20 * time.Millisecond) {
		if _, err := os.Stat(begun); err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("fence-peer was not called")
		}
	}
	select {
	case err := <-answered:
		t.Fatalf("a write was answered before the peer is fenced: %v", err)
	case <-time.After(500 * time.Millisecond):
	}
	k.wait("replblk has gone", procState.waiting)
	k.sh("drbdadm outdate r0")
	if err := os.WriteFile(done, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := <-answered; err != nil {
		t.Errorf("write after fencing: %v", err)
	}
	if s := p.State(0); s.SuspFen || s.PeerDisk != state.Outdated {
		t.Errorf("replblk: %+v", s)
	}
	k.refuses("drbdadm primary r0", "Need access to UpToDate data")
	cable(t, "up")
	settled(k, p)
	p.scribble(2, 5)
}

// TestOutdatedReplblk: the kernel is Primary alone, and replblk, outdated by its operator
// as the kernel's handler would have it, is not promoted before it has been brought up to
// date.
func TestOutdatedReplblk(t *testing.T) {
	k, p := established(t, options{kernelNet: kernelFenced, kernelDisk: "fencing resource-only;", core: fenced(state.ResourceOnly)})
	k.allowed = append(append([]string{"fence-peer helper broken"}, noticed...), refused...)
	k.sh("drbdadm primary r0")
	p.wait("the kernel is Primary", peerPrimary)
	p.refuses(replication.Admin{Kind: replication.AdminOutdate}, state.ConnectedOutdates)
	cable(t, "down")
	p.wait("the kernel has gone", waiting)
	p.kind(replication.AdminOutdate)
	k.wait("replblk has gone", procState.waiting)
	k.dd(1, 0, 2048)
	p.refuses(replication.Admin{Kind: replication.AdminPrimary}, state.NoUpToDateDisk)
	cable(t, "up")
}
