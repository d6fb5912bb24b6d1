package sim

import (
	"os"
	"testing"

	"github.com/replblk/replblk/internal/pairs"
	"github.com/replblk/replblk/replication"
)

// recorder notes which events a core was given in which states, for make pairs; nil: it does
// not.
var recorder *pairs.Recorder

func TestMain(m *testing.M) {
	os.Exit(pairs.Main(m, "sim", func(r *pairs.Recorder) { recorder, observe = r, record }))
}

// record notes the event that a core is about to get.
func record(core *replication.Resource, ev *replication.Event) {
	admin := replication.AdminKind(0)
	if ev.Admin != nil {
		admin = ev.Admin.Kind
	}
	recorder.Seen(core.State(ev.Vol), uint8(ev.Kind), uint8(ev.Op), ev.Cmd, uint8(admin), ev.Err != replication.DiskOK)
}
