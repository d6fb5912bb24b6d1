package main

import (
	"errors"
	"syscall"
	"testing"

	"github.com/replblk/replblk/block"
	"github.com/replblk/replblk/block/mem"
)

// TestWindowBatch: a request of a batch that leaves the window fails, the others are moved.
func TestWindowBatch(t *testing.T) {
	below := mem.New(100)
	length := uint64(8)
	w, err := newWindow(below, 10, &length)
	if err != nil {
		t.Fatal(err)
	}
	var rs []*block.Request
	for i := range uint64(5) { // 0, 2, 4, 6 and 8, which is behind the end
		data := make([]byte, 1024)
		data[0] = byte(i + 1)
		rs = append(rs, &block.Request{Op: block.Write, Sector: i * 2, Sectors: 2, Data: data, Done: func(*block.Request) {}})
	}
	rs = append(rs, &block.Request{Op: block.Flush, Done: func(*block.Request) {}})
	block.SubmitAll(w, rs)
	for i, r := range rs {
		if i != 4 && r.Err != nil || i == 4 && !errors.Is(r.Err, syscall.EINVAL) {
			t.Errorf("request %d: %v", i, r.Err)
		}
	}
	data := make([]byte, 100*512)
	if err := block.ReadAt(below, data, 0); err != nil {
		t.Fatal(err)
	}
	for sector := range 100 {
		want := byte(0)
		if sector >= 10 && sector < 18 && sector%2 == 0 {
			want = byte(sector-10)/2 + 1
		}
		if data[sector*512] != want {
			t.Errorf("sector %d holds %d, want %d", sector, data[sector*512], want)
		}
	}
}
