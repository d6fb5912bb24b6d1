package main

import (
	"encoding/binary"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/replblk/replblk/aoe"
)

// TestResize: a file that grows or shrinks under us is advertised again with its
// new size; a window with a length keeps it as long as the file reaches that far.
func TestResize(t *testing.T) {
	bin := build(t)
	for name, c := range map[string]struct {
		args               []string
		first, grown, less uint64
	}{
		"whole":  {nil, 64, 128, 32},
		"offset": {[]string{"-o", "8"}, 56, 120, 24},
		"length": {[]string{"-o", "8", "-l", "40"}, 40, 40, 24},
	} {
		t.Run(name, func(t *testing.T) {
			n, path := newNets(t, 1500), image(t, 64)
			s := n.start(t, bin, append(c.args, "1", "1", "srv", path)...)
			socket := n.socket(t)
			client := newClient(socket, 1, 1)
			if _, err := find(client); err != nil {
				t.Fatal(err)
			}
			for _, step := range []struct {
				file int64
				want uint64
			}{{64, c.first}, {128, c.grown}, {32, c.less}} {
				if err := os.Truncate(path, step.file*512); err != nil {
					t.Fatal(err)
				}
				_ = s.cmd.Process.Signal(syscall.SIGHUP)
				eventually(t, fmt.Sprintf("a file of %d sectors: not %d are exported", step.file, step.want), func() bool {
					_, b, err := client.ATA(aoe.ATA{Command: aoe.ATAIdentify, Count: 1}, nil)
					if err != nil {
						t.Fatal(err)
					}
					return binary.LittleEndian.Uint64(b[200:]) == step.want
				})
			}
			if r, _, err := client.ATA(aoe.ATA{Command: aoe.ATARead, Count: 1, LBA: c.less}, nil); err != nil || r.Feature != aoe.ATANotFound {
				t.Errorf("read behind the new end: %+v, %v", r, err)
			}
			if err := s.stop(t); err != nil {
				t.Errorf("stop: %v", err)
			}
			if !strings.Contains(s.stderr.String(), "sectors now") {
				t.Errorf("nothing was said: %q", s.stderr)
			}
		})
	}
}

// TestResizeIsAdvertised: initiators that ask nobody are told.
func TestResizeIsAdvertised(t *testing.T) {
	unraced(t)
	n, path := newNets(t, 1500), image(t, 64)
	n.start(t, build(t), "1", "1", "srv", path)
	watch := n.socket(t)
	heard := func(until time.Duration) bool {
		_ = watch.SetRecvDeadline(time.Now().Add(until))
		for {
			bufs := [][]byte{make([]byte, 2048), make([]byte, 2048)}
			got, err := watch.Recv(bufs, nil)
			if err != nil {
				return false
			}
			for _, b := range bufs[:got] {
				var h aoe.Header
				if h.DecodeFrom(b) == nil && h.Command == aoe.CommandConfig && h.Flags&aoe.FlagResponse != 0 && h.Dst == aoe.Broadcast {
					return true
				}
			}
		}
	}
	eventually(t, "advertised without a reason", func() bool { return !heard(1500 * time.Millisecond) }) // as at the start
	if err := os.Truncate(path, 128*512); err != nil {
		t.Fatal(err)
	}
	if !heard(patience) { // without SIGHUP
		t.Error("not advertised after the file has grown")
	}
}
