//go:build interop

package interop

import (
	"testing"

	"github.com/replblk/replblk/replication"
)

// TestFreshPairSkipByKernel connects two fresh nodes; the kernel's operator declares
// them equal.
func TestFreshPairSkipByKernel(t *testing.T) {
	k, p := start(t, options{})
	connect(k, p)
	if s := k.state(); s.ds != "Inconsistent/Inconsistent" {
		t.Errorf("kernel: disks are %s", s.ds)
	}
	k.sh("drbdadm -- --clear-bitmap new-current-uuid r0/0")
}

// TestFreshPairSkipByReplblk is the same from the other side.
func TestFreshPairSkipByReplblk(t *testing.T) {
	k, p := start(t, options{})
	connect(k, p)
	p.do(replication.Admin{Kind: replication.AdminNewCurrentUUID, ClearBitmap: true})
}

// TestSharedSecret connects with authentication.
func TestSharedSecret(t *testing.T) {
	for _, alg := range []string{"sha1", "sha256"} {
		t.Run(alg, func(t *testing.T) {
			established(t, options{
				kernelNet: `cram-hmac-alg ` + alg + `; shared-secret "correct horse";`,
				core:      func(c *replication.Config) { c.CramHMACAlg, c.SharedSecret = alg, "correct horse" },
			})
		})
	}
}
