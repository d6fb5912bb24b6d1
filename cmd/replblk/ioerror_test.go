package main

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/replblk/replblk/internal/control"
	"github.com/replblk/replblk/internal/nbdclient"
)

// TestOnIOError: the disk of a Primary cannot be read any more. Its client sees none of it, and
// the log does not take it for trouble with the link. Not with pass_on: a file that was cut off
// reads as zeroes where the metadata is written again, which no error tells.
func TestOnIOError(t *testing.T) {
	t.Parallel()
	for policy, want := range map[string]string{"detach": "Diskless", "call-local-io-error": "Diskless"} {
		t.Run(policy, func(t *testing.T) {
			t.Parallel()
			a, b := newPair(t, pairOptions{disk: "on-io-error " + policy + ";"})
			called := a.path(".called")
			a.editRes(func(s string) string {
				return strings.Replace(s, " net {", fmt.Sprintf(" handlers { local-io-error \"echo $DRBD_RESOURCE/$DRBD_VOLUME >> %s\"; }\n net {", called), 1)
			})
			a.start()
			b.start()
			a.must("wait-connect", "--timeout", patientOption, "r0")
			a.must("new-current-uuid", "--clear-bitmap", "r0")
			a.must("primary", "r0")
			l := nbdclient.NewLedger()
			c := a.dial()
			if err := l.Fill(t.Context(), c, 0, 4000, 500); err != nil {
				t.Fatal(err)
			}
			if err := os.Truncate(a.disk(), 1<<20); err != nil {
				t.Fatal(err)
			}
			a.check(l)
			r := a.waitFor("the policy", func(r *control.Resource) bool { return r.Volumes[0].Disk == want })
			if r.Connection != "Connected" || r.Volumes[0].PeerDisk != "UpToDate" {
				t.Errorf("a is %+v", r.Volumes[0])
			}
			b.waitFor("the peer knows", func(r *control.Resource) bool { return r.Volumes[0].PeerDisk == want })
			a.waitForLog(`level=ERROR msg="local disk failed" resource=r0 volume=0`)
			log, err := os.ReadFile(a.path(".log"))
			if err != nil || strings.Contains(string(log), "peer does not answer") || strings.Contains(string(log), "connection lost") {
				t.Errorf("the log takes a failing disk for a failing link (%v)", err)
			}
			if err := l.Fill(t.Context(), c, 0, 4000, 300); err != nil {
				t.Fatal(err)
			}
			_ = c.Close()
			a.check(l)
			if policy == "call-local-io-error" {
				for end := time.Now().Add(patient); ; time.Sleep(20 * time.Millisecond) {
					text, _ := os.ReadFile(called)
					if string(text) == "r0/0\n" {
						break
					}
					if time.Now().After(end) {
						t.Fatalf("the handler has written %q, want one line for r0/0", text)
					}
				}
			} else if _, err := os.Stat(called); err == nil {
				t.Error("the handler was called")
			}
			a.demote()
			b.must("primary", "r0")
			b.check(l)
		})
	}
}
