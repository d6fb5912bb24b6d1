package replication

import (
	"os"
	"testing"

	"github.com/replblk/replblk/internal/pairs"
)

// recorder notes which events a core was given in which states, for make pairs; nil: it does
// not.
var recorder *pairs.Recorder

func TestMain(m *testing.M) {
	os.Exit(pairs.Main(m, "replication", func(r *pairs.Recorder) { recorder = r }))
}

// record notes the event that a core is about to get.
func record(r *Resource, ev *Event) {
	if recorder == nil {
		return
	}
	admin := AdminKind(0)
	if ev.Admin != nil {
		admin = ev.Admin.Kind
	}
	recorder.Seen(r.State(ev.Vol), uint8(ev.Kind), uint8(ev.Op), ev.Cmd, uint8(admin), ev.Err != DiskOK)
}
