//go:build interop

package interop

import (
	"slices"
	"strings"
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

// TestDisconnectForced: an operator does not ask the other node, whose Primary is in the middle of
// writes.
func TestDisconnectForced(t *testing.T) {
	for _, by := range []string{"kernel", "replblk"} {
		for _, primary := range []string{"kernel", "replblk"} {
			t.Run(by+", "+primary+" Primary", func(t *testing.T) {
				k, p := established(t, brisk())
				k.allowed = slices.Clone(noticed)
				written := make(chan struct{})
				if primary == "kernel" {
					k.sh("drbdadm primary r0")
					stop := k.keepWriting(0)
					defer stop()
					close(written)
				} else {
					p.kind(replication.AdminPrimary)
					go func() { p.scribble(1, 100); close(written) }()
				}
				if by == "kernel" {
					k.sh("drbdadm disconnect --force r0")
					p.wait("the kernel has gone", waiting)
					k.sh("drbdadm connect r0")
				} else {
					p.do(replication.Admin{Kind: replication.AdminDisconnect, Force: true})
					k.wait("replblk has gone", procState.waiting)
					p.kind(replication.AdminConnect)
				}
				<-written
				p.wait("in sync again", inSync)
			})
		}
	}
}

// TestDisconnectBoth has both operators ask for a disconnect at the same moment.
func TestDisconnectBoth(t *testing.T) {
	k, p := established(t, options{})
	k.allowed = append(append([]string{"ProtocolError"}, noticed...), refused...)
	for i := range 4 {
		asked := make(chan int)
		go func() {
			_, code, err := machine.run("drbdadm disconnect r0", commandTimeout)
			if err != nil {
				code = -1
			}
			asked <- code
		}()
		time.Sleep(time.Duration(i) * 30 * time.Millisecond) // how long drbdadm takes to ask is not known
		res, err := p.Admin(p.limit(), replication.Admin{Kind: replication.AdminDisconnect})
		if code := <-asked; code != 0 || err != nil || !res.OK() {
			t.Errorf("round %d: kernel's exit code %d, replblk %v %v", i, code, res, err)
		}
		k.wait("alone", procState.alone)
		p.wait("alone", alone)
		p.kind(replication.AdminConnect)
		k.sh("drbdadm connect r0")
		agreed(k, p)
	}
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

// TestWrongSecret: a secret that differs is refused by both, for good; one that only one of them has
// by that one, while the other one keeps trying. With the same one they connect.
func TestWrongSecret(t *testing.T) {
	const kernelsOwn = `cram-hmac-alg sha256; shared-secret "correct horse";`
	for name, secrets := range map[string][2]string{
		"differs":          {kernelsOwn, "battery staple"},
		"kernel has none":  {"", "battery staple"},
		"replblk has none": {kernelsOwn, ""},
	} {
		t.Run(name, func(t *testing.T) {
			o := options{kernelNet: secrets[0]}
			same := options{}
			if secrets[1] != "" {
				o.core = func(c *replication.Config) { c.CramHMACAlg, c.SharedSecret = "sha256", secrets[1] }
				same.kernelNet = strings.Replace(kernelsOwn, "correct horse", secrets[1], 1)
			}
			k, p := start(t, o)
			k.allowed = append([]string{"Authentication of peer failed", "expected AuthResponse packet", "expected AuthChallenge packet", "Unexpected data packet AuthChallenge"}, noticed...)
			p.kind(replication.AdminConnect)
			if secrets[0] != "" {
				k.wait("refuse", procState.alone)
			}
			if secrets[1] != "" {
				p.wait("refuse", alone)
			}
			k.wait("refuse", func(s procState) bool { return !s.connected() })
			k.configure(same)
			k.sh("drbdadm adjust r0")
			if alone(p.State(0)) {
				p.kind(replication.AdminConnect)
			}
			k.wait("connect", procState.connected)
			p.wait("connect", connected)
			p.do(replication.Admin{Kind: replication.AdminNewCurrentUUID, ClearBitmap: true})
		})
	}
}
