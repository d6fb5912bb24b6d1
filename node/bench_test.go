package node

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/replblk/replblk/block"
	"github.com/replblk/replblk/block/file"
	"github.com/replblk/replblk/internal/loopback"
	"github.com/replblk/replblk/internal/mdtool"
	"github.com/replblk/replblk/metadata"
)

// fileHost is a node with the real core on a file in REPLBLK_BENCH_DIR, or in /dev/shm.
func fileHost(b *testing.B, name, local, peer string) *Resource {
	b.Helper()
	dir := os.Getenv("REPLBLK_BENCH_DIR")
	if dir == "" {
		dir = "/dev/shm"
	}
	dir, err := os.MkdirTemp(dir, "replblk") //nolint:usetesting // the folder decides what is measured
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, make([]byte, 64<<20), 0o600); err != nil {
		b.Fatal(err)
	}
	d, err := file.Open(path, file.Options{})
	if err != nil {
		b.Fatal(err)
	}
	if _, err := mdtool.Create(&deviceStore{d}, metadata.Internal, mdtool.CreateOptions{Ask: mdtool.Ask{Force: true}}); err != nil {
		b.Fatal(err)
	}
	return attached(b, pairConfig(local, peer), nil, name, Backing{Data: d, Close: d.Close})
}

func filePair(b *testing.B) *Resource {
	b.Helper()
	pa, pb := loopback.Address(), loopback.Address()
	x, y := &host{Resource: fileHost(b, "a", pa, pb)}, &host{Resource: fileHost(b, "b", pb, pa)}
	initialSync(b, x, y)
	time.Sleep(10 * time.Millisecond)
	return x.Resource
}

// BenchmarkReplicatedWriteQD1 is a 4 KiB write, protocol C, hot extent, both nodes in
// this process over loopback TCP.
func BenchmarkReplicatedWriteQD1(b *testing.B) {
	v := filePair(b).Volume(0)
	done := make(chan struct{}, 1)
	r := &block.Request{Op: block.Write, Sectors: 8, Data: make([]byte, 4096), Done: func(*block.Request) { done <- struct{}{} }}
	b.ReportAllocs()
	for b.Loop() {
		v.Submit(r)
		<-done
	}
	if r.Err != nil {
		b.Error(r.Err)
	}
}

// BenchmarkReplicatedWriteQD64 keeps 64 of them in flight.
func BenchmarkReplicatedWriteQD64(b *testing.B) {
	v := filePair(b).Volume(0)
	free := make(chan *block.Request, 64)
	for i := range 64 {
		free <- &block.Request{Op: block.Write, Sector: uint64(i * 64), Sectors: 8, Data: make([]byte, 4096), Done: func(r *block.Request) { free <- r }}
	}
	b.ReportAllocs()
	for b.Loop() {
		r := <-free
		r.Flags = 0
		if len(free) > 0 {
			r.Flags = block.More
		}
		v.Submit(r)
	}
	for range 64 {
		if r := <-free; r.Err != nil {
			b.Error(r.Err)
		}
	}
}
