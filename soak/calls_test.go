package main

import (
	"syscall"
	"testing"

	"github.com/replblk/replblk/internal/chaos"
	"github.com/replblk/replblk/internal/nbdclient"
)

// D09, D11, X05: system calls of the Primary that fail, under load. What is only interrupted is
// done again, a socket without buffers costs its connection, a disk that is gone or that nobody
// may write to any more is detached. Clients see nothing else of it, and afterwards both copies
// are the same.
func TestFailingCalls(t *testing.T) {
	t.Parallel()
	const disk = callsWrite + "," + callsRead + ",fdatasync"
	for name, c := range map[string]struct {
		in   chaos.Injection
		disk string // of the Primary, while it lasts
		cut  bool   // it may cost clients their connection too
	}{
		"interrupted":      {chaos.Injection{Calls: callsWrite + "," + callsRead, Errno: "EINTR", Nth: 3, Step: 3}, "UpToDate", false},
		"no buffers":       {chaos.Injection{Calls: "writev", Errno: "ENOBUFS", Nth: 40, Step: 40}, "UpToDate", true},
		"the disk is gone": {chaos.Injection{Calls: disk, Errno: "ENODEV", Nth: 20, From: true}, "Diskless", false},
		"it is read-only":  {chaos.Injection{Calls: callsWrite, Errno: "EROFS", Nth: 20, From: true}, "Diskless", false},
		"over the quota":   {chaos.Injection{Calls: callsWrite, Errno: "EDQUOT", Nth: 20, From: true}, "Diskless", false},
	} {
		t.Run(name, func(t *testing.T) {
			p := newTestPair(t, chaos.Options{})
			begin(t, p)
			restart := func(in *chaos.Injection) {
				t.Helper()
				_ = p.Hosts[0].End(syscall.SIGTERM)
				if err := p.Hosts[0].Start(in); err != nil {
					t.Fatal(err)
				}
				if err := p.WaitInSync(t.Context(), patience); err != nil {
					t.Fatal(err)
				}
				if err := p.Hosts[0].Primary(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			restart(&c.in)
			l := nbdclient.NewLedger()
			client := dial(t, p.Hosts[0])
			for i := range uint64(8) {
				err := l.Fill(t.Context(), client, i*256, 256, 60)
				if err == nil {
					err = client.Flush()
				}
				if err != nil && !c.cut {
					t.Fatalf("it reached the client: %v", err)
				}
				if err != nil {
					client = dial(t, p.Hosts[0])
				}
			}
			r, err := p.Hosts[0].Snapshot(t.Context())
			if err != nil || r.Volumes[0].Disk != c.disk {
				t.Errorf("%s, want the disk %s (%v)", chaos.Describe(r), c.disk, err)
			}
			if n := p.Hosts[0].Injected(); n == 0 {
				t.Error("no call has failed")
			} else {
				t.Logf("%d calls have failed", n)
			}
			restart(nil)
			inSyncAndEqual(t, p, l)
		})
	}
}
