package node

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/replblk/replblk/block"
	"github.com/replblk/replblk/internal/loopback"
	"github.com/replblk/replblk/replication"
	"github.com/replblk/replblk/replication/state"
)

// TestOldVersion: requests of 1 MiB, discards and zeroes with a peer that takes 32 or
// 128 KiB and knows writes only, and reads of it.
func TestOldVersion(t *testing.T) {
	for _, version := range []int{87, 96}[:seeds(2)] {
		t.Run(fmt.Sprint(version), func(t *testing.T) {
			addrA, addrB := loopback.Address(), loopback.Address()
			old := pairConfig(addrB, addrA)
			old.Core.MaxVersion = version
			a, b := newHost(t, pairConfig(addrA, addrB), nil, newDisk(t), "a"), newHost(t, old, nil, newDisk(t), "b")
			initialSync(t, a, b)
			image := make([]byte, a.dataSectors()*512)
			scribble(t, a.Volume(0), 1, 100, image)
			for i := range image[512 : 2<<20] {
				image[512+i] = byte(i>>8 + i)
			}
			if err := block.WriteAt(a.Volume(0), image[512:2<<20], 1); err != nil {
				t.Fatal(err)
			}
			clear(image[4<<20 : 9<<20])
			for _, r := range []*block.Request{{Op: block.Discard, Sector: 8192, Sectors: 8192}, {Op: block.WriteZeroes, Sector: 16384, Sectors: 2048}} {
				if err := block.Do(a.Volume(0), r); err != nil {
					t.Fatal(err)
				}
			}
			converged(t, image, a, b)
			a.do(t, replication.Admin{Kind: replication.AdminDetach})
			a.wait(t, "detached", func(s state.State) bool { return s.Disk == state.Diskless })
			got := make([]byte, len(image))
			if err := block.ReadAt(a.Volume(0), got, 0); err != nil || !bytes.Equal(got, image) {
				t.Errorf("read from the peer: %v", err)
			}
			if v := a.Status().Version; v != version {
				t.Errorf("version %d", v)
			}
		})
	}
}
