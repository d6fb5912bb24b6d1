package replication

import (
	"strings"
	"testing"
)

// The first request does not wait for a tick: a small resync would take no time
// otherwise but that.
func TestResyncBeginsAtOnce(t *testing.T) {
	p := newPair()
	a, b := establish(t, p)
	b.admin(Admin{Kind: AdminDisconnect})
	p.settle()
	a.request(OpWrite, 0, 4096, 7)
	p.settle()
	b.admin(Admin{Kind: AdminConnect})
	p.take()
	p.settle()
	if log := p.take(); !strings.Contains(log, "b>a: RSDataRequest") || b.data[0] != 7 {
		t.Errorf("nothing was copied before the first tick\n%s", log)
	}
	p.equal(t)
}
