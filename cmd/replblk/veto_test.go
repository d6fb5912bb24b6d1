package main

import (
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/replblk/replblk/internal/control"
)

// TestHandlerVetoesAResync: before-resync-target decides by its exit code.
func TestHandlerVetoesAResync(t *testing.T) {
	a, b := synced(t, pairOptions{disk: "c-plan-ahead 0; resync-rate 100M;"})
	if err := b.end(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	a.must("primary", "r0")
	c := a.dial()
	if err := c.Write(make([]byte, 4096), 0, true); err != nil {
		t.Fatal(err)
	}
	flag := b.path(".may")
	b.editRes(func(s string) string {
		return strings.Replace(s, " net {", " handlers { before-resync-target \"test -e "+flag+"\"; after-resync-target \"touch "+flag+".done\"; }\n net {", 1)
	})
	b.start()
	b.waitForLog("does not want it")
	b.waitFor("vetoed", func(r *control.Resource) bool { return r.Connection == "StandAlone" })
	if err := os.WriteFile(flag, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	b.must("connect", "r0")
	b.must("wait-sync", "--timeout", patientOption, "r0")
	b.waitForLog("after-resync-target")
	equalDisks(t, a, b, a.snapshot().Volumes[0].Size)
}
