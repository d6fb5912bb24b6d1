//go:build interop

package interop

import (
	"testing"
	"time"

	"github.com/replblk/replblk/replication"
	"github.com/replblk/replblk/replication/state"
)

// TestDisconnect has each operator in turn end the connection and establish it again.
func TestDisconnect(t *testing.T) {
	k, p := established(t, options{})
	for range 2 {
		k.sh("drbdadm disconnect r0")
		k.wait("disconnect", procState.alone)
		p.wait("the kernel has gone", waiting)
		k.sh("drbdadm connect r0")
		agreed(k, p)

		p.kind(replication.AdminDisconnect)
		if s := p.State(0); !alone(s) {
			t.Errorf("replblk: after disconnect: %+v", s)
		}
		k.wait("replblk has gone", procState.waiting)
		p.kind(replication.AdminConnect)
		agreed(k, p)
	}
}

// TestDisconnectPrimary is the same with a Primary that goes on alone, and resyncs.
func TestDisconnectPrimary(t *testing.T) {
	t.Run("kernel", func(t *testing.T) {
		k, p := established(t, options{})
		k.sh("drbdadm primary r0")
		p.kind(replication.AdminDisconnect)
		k.wait("replblk has gone", procState.waiting)
		k.dd(1, 0, 2048)
		p.kind(replication.AdminConnect)
		settled(k, p)
		k.sh("drbdadm disconnect r0")
		p.wait("the kernel has gone", waiting)
		k.dd(2, 4096, 2048)
		k.sh("drbdadm connect r0")
	})
	t.Run("replblk", func(t *testing.T) {
		k, p := established(t, options{})
		p.kind(replication.AdminPrimary)
		k.sh("drbdadm disconnect r0")
		p.wait("the kernel has gone", waiting)
		p.scribble(1, 10)
		k.sh("drbdadm connect r0")
		settled(k, p)
		p.kind(replication.AdminDisconnect)
		k.wait("replblk has gone", procState.waiting)
		p.scribble(2, 10)
		p.kind(replication.AdminConnect)
	})
}

// refused is what the kernel says of a change that it or its peer refuses.
var refused = []string{"tate change failed", "state = {", "wanted = {", "mask = 0x", "old_conn:"}

// TestPromotionRefused asks for a second Primary on either side.
func TestPromotionRefused(t *testing.T) {
	k, p := established(t, options{})
	k.sh("drbdadm primary r0")
	p.wait("the kernel is Primary", peerPrimary)
	p.refuses(replication.Admin{Kind: replication.AdminPrimary}, state.TwoPrimaries)
	agreed(k, p)
	k.sh("drbdadm secondary r0")
	p.wait("the kernel is Secondary", peerSecondary)
	p.kind(replication.AdminPrimary)
	k.wait("replblk is Primary", func(s procState) bool { return s.ro == "Secondary/Primary" })
	k.allowed = refused
	k.refuses("drbdadm primary r0", "Multiple primaries not allowed by config")
	agreed(k, p)
	p.kind(replication.AdminSecondary)
	k.wait("replblk is Secondary", func(s procState) bool { return s.ro == "Secondary/Secondary" })
	k.sh("drbdadm primary r0 && drbdadm secondary r0")
	p.wait("the kernel is Secondary", peerSecondary)
	agreed(k, p)
}

// TestPromotionRace promotes both nodes at the same moment: never both of them, and a
// loser is none the worse for it.
func TestPromotionRace(t *testing.T) {
	k, p := established(t, options{})
	k.allowed = refused
	var won [2]int
	for i := range 12 {
		code := make(chan int)
		go func() {
			_, n, err := machine.run("drbdadm primary r0", commandTimeout)
			if err != nil {
				n = -1
			}
			code <- n
		}()
		time.Sleep(time.Duration(i) * 15 * time.Millisecond) // how long drbdadm takes to ask is not known
		res, err := p.Admin(p.limit(), replication.Admin{Kind: replication.AdminPrimary})
		kernelWon, replblkWon := <-code == 0, err == nil && res.OK()
		if kernelWon && replblkWon {
			t.Fatalf("both are Primary: kernel %+v, replblk %+v", k.state(), p.State(0))
		}
		if kernelWon {
			won[0]++
			k.sh("drbdadm secondary r0")
		}
		if replblkWon {
			won[1]++
			p.kind(replication.AdminSecondary)
		}
		k.wait("both are Secondary", func(s procState) bool { return s.ro == "Secondary/Secondary" })
		p.wait("both are Secondary", func(s state.State) bool { return s.Role == state.Secondary && s.Peer == state.Secondary })
	}
	t.Logf("the kernel won %d times, replblk %d times", won[0], won[1])
	if won[0]+won[1] == 0 {
		t.Error("nobody ever won")
	}
	agreed(k, p)
}

// TestWrongSecret is refused by both, for good.
func TestWrongSecret(t *testing.T) {
	k, p := start(t, options{
		kernelNet: `cram-hmac-alg sha256; shared-secret "correct horse";`,
		core:      func(c *replication.Config) { c.CramHMACAlg, c.SharedSecret = "sha256", "battery staple" },
	})
	k.ends = "no connection"
	k.allowed = []string{"Authentication of peer failed", "expected AuthResponse packet", "expected AuthChallenge packet", "shut down by peer"}
	p.kind(replication.AdminConnect)
	k.wait("refuse", procState.alone)
	p.wait("refuse", alone)
}
