package replication

import (
	"strings"
	"testing"

	"github.com/replblk/replblk/replication/state"
)

// TestLateSuperblockIsNotForTheNextConnection: the superblock with the sync UUID is written
// when the connection is gone. On the next one it must not start a resync before the
// bitmaps are exchanged.
func TestLateSuperblockIsNotForTheNextConnection(t *testing.T) {
	for _, slow := range []int{0, 1} {
		p := newPair()
		a, b := establish(t, p)
		b.admin(Admin{Kind: AdminDisconnect})
		p.settle()
		for i := range uint64(20) {
			a.request(OpWrite, i*4096, 4096, 100+i)
		}
		p.tick(3)
		n := p.nodes[slow]
		var late []Event
		hold := func() {
			kept := n.inbox[:0]
			for _, ev := range n.inbox {
				if ev.Kind == EvMeta && ev.IO.class() == classSuper {
					late = append(late, ev)
				} else {
					kept = append(kept, ev)
				}
			}
			n.inbox = kept
		}
		waits := state.WFBitMapS
		if slow == 1 {
			waits = state.WFSyncUUID
		}
		b.admin(Admin{Kind: AdminConnect})
		for range 2000 {
			for _, n := range p.nodes {
				hold()
				n.next()
			}
			hold()
			p.link()
		}
		if c := n.r.State(0).Conn; c != waits {
			t.Fatalf("%s is %v, want %v\n%s", n.name, c, waits, p.take())
		}
		p.cut()
		p.take()
		held := true
		for range 2000 { // the next handshake, until the bitmaps are due
			for _, n := range p.nodes {
				n.next()
			}
			if c := n.r.State(0).Conn; held && (c == state.WFBitMapS || c == state.WFSyncUUID) {
				held = false
				n.inbox = append(late, n.inbox...)
			}
			p.link()
		}
		p.tick(30)
		p.states(t, "Connected Primary/Secondary UpToDate/UpToDate", "Connected Secondary/Primary UpToDate/UpToDate")
		p.equal(t)
		if log := p.take(); strings.Contains(log, NoteProtocolError.String()) {
			t.Errorf("%s had the slow disk: %s", n.name, log)
		}
		if n := len(late); n == 0 || held {
			t.Errorf("%d superblocks were late, held %v", n, held)
		}
	}
}
