package main

import (
	"bytes"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/replblk/replblk/aoe/aoetest"
)

// TestKilledWithImageInMemory: what was answered from a mapping is in the file, whatever becomes of
// the process, and what was not is there when the initiator has repeated it.
func TestKilledWithImageInMemory(t *testing.T) {
	const kills, between, blockSectors = 3, 1500, 2
	n := newNets(t, 1500)
	f, err := os.CreateTemp("/dev/shm", "vblade-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Remove(f.Name()) })
	if _, err := f.Write(make([]byte, sectors*512)); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	bin := build(t)
	srv := n.start(t, bin, "-b", "64", "7", "3", "srv", f.Name())
	link := n.socket(t)
	c := newClient(link, 7, 3)
	if _, err := find(c); err != nil {
		t.Fatal(err)
	}

	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", srv.cmd.Process.Pid))
	if err != nil || !bytes.Contains(maps, []byte(f.Name())) {
		t.Errorf("%s is not mapped (%v)", f.Name(), err)
	}

	ledger := aoetest.NewLedger(sectors/blockSectors, blockSectors, 30, 1)
	load := aoetest.Load{
		Link: link, Shelf: 7, Slot: 3, Target: c.Target, Timer: aoetest.Fixed{After: 300 * time.Millisecond, Size: 64},
		Window: 64, Sectors: blockSectors, Done: ledger.Done,
	}
	asked := 0
	load.Next = func(place int, r *aoetest.Request) bool {
		if asked++; asked > between*(kills+1) {
			return false
		}
		if asked%between == 0 && asked <= between*kills {
			_ = srv.cmd.Process.Kill() // with up to 63 requests at work
			<-srv.exited
			srv = n.start(t, bin, "-b", "64", "7", "3", "srv", f.Name())
		}
		return ledger.Next(place, r)
	}
	if err := load.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	load.Next = ledger.All()
	if err := load.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if ledger.Written < between*kills/2 {
		t.Errorf("only %d blocks were written", ledger.Written)
	}
	if err := srv.stop(t); err != nil {
		t.Error(err)
	}
}
