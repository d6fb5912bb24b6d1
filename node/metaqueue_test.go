package node

import (
	"fmt"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/replblk/replblk/block"
	"github.com/replblk/replblk/replication"
)

// scriptDisk records requests and fails those at bad sectors.
type scriptDisk struct {
	name string
	mu   sync.Mutex
	log  *[]string
	bad  map[uint64]error
}

func (d *scriptDisk) Geometry() block.Geometry { return block.Geometry{Sectors: 1 << 20} }

func (d *scriptDisk) Submit(r *block.Request) {
	d.mu.Lock()
	*d.log = append(*d.log, fmt.Sprintf("%s %v %d+%d", d.name, r.Op, r.Sector, r.Sectors))
	err := d.bad[r.Sector]
	d.mu.Unlock()
	go r.Complete(err)
}

func TestMetaQueueOrder(t *testing.T) {
	blk := make([]byte, metaBlock)
	write := func(s uint64) metaOp { return metaOp{kind: replication.FxMetaWrite, sector: s} }
	notify := func(io replication.IOID) metaOp { return metaOp{kind: replication.FxMetaNotify, io: io} }
	flush, flushAll := metaOp{kind: replication.FxMetaFlush}, metaOp{kind: replication.FxMetaFlush, data: true}
	for _, tt := range []struct {
		name     string
		internal bool
		ops      []metaOp
		want     string
	}{
		{"adjacent writes become one", true,
			[]metaOp{write(8), write(16), write(24), flush, notify(1), write(32), notify(2)},
			"m write 8+24|m flush 0+0|notify 1 0|m write 32+8|notify 2 0"},
		{"gaps and steps back do not", true,
			[]metaOp{write(8), write(24), write(16), notify(1)}, "m write 8+8|m write 24+8|m write 16+8|notify 1 0"},
		{"an error skips the rest up to the notify", true,
			[]metaOp{write(8), write(800), write(8), flush, notify(1), write(8), flush, notify(2)},
			"m write 8+8|m write 800+8|notify 1 1|m write 8+8|m flush 0+0|notify 2 0"},
		{"flushing the data too", false,
			[]metaOp{write(8), flushAll, notify(1)}, "m write 8+8|d flush 0+0|m flush 0+0|notify 1 0"},
		{"flushing the data of internal metadata", true,
			[]metaOp{flushAll, notify(1)}, "m flush 0+0|notify 1 0"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var log []string
			meta := &scriptDisk{name: "m", log: &log, bad: map[uint64]error{800: syscall.EIO}}
			data := block.Device(meta)
			if !tt.internal {
				data = &scriptDisk{name: "d", log: &log}
			}
			q := newMetaQueue(data, meta, func(io replication.IOID, err replication.DiskError) {
				meta.mu.Lock()
				log = append(log, fmt.Sprintf("notify %d %d", io, err))
				meta.mu.Unlock()
			})
			q.mu.Lock() // one batch, so that what is coalesced does not depend on timing
			for _, op := range tt.ops {
				q.ops = append(q.ops, op)
				switch op.kind {
				case replication.FxMetaWrite:
					q.arena = append(q.arena, blk...)
				case replication.FxMetaNotify:
					q.owed = append(q.owed, op.io)
				default:
				}
			}
			q.mu.Unlock()
			q.close()
			<-q.done
			if got := strings.Join(log, "|"); got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}
