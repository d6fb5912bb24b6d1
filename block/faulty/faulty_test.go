package faulty

import (
	"bytes"
	"errors"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/replblk/replblk/block"
	"github.com/replblk/replblk/block/mem"
)

var ones = bytes.Repeat([]byte{1}, 4096)

func TestFailsOnlyWhatTheRuleSelects(t *testing.T) {
	m := mem.New(64)
	d := New(m, Rule{Ops: []block.Op{block.Write}, First: 8, End: 16, Skip: 1, Count: 1, Err: syscall.EIO})
	for i, c := range []struct {
		sector uint64
		want   error
	}{{0, nil}, {8, nil}, {4, syscall.EIO}, {8, nil}, {16, nil}} {
		if err := block.WriteAt(d, ones, c.sector); !errors.Is(err, c.want) {
			t.Errorf("write %d at %d: %v, want %v", i, c.sector, err, c.want)
		}
	}
	if err := block.ReadAt(d, make([]byte, 4096), 8); err != nil {
		t.Error(err)
	}
	if d.Hits(0) != 1 {
		t.Errorf("%d hits, want 1", d.Hits(0))
	}
}

func TestTearWritesAPrefix(t *testing.T) {
	m := mem.New(64)
	d := New(m, Rule{Torn: true, Tear: 3, Err: syscall.EIO})
	if err := block.WriteAt(d, ones, 0); !errors.Is(err, syscall.EIO) {
		t.Errorf("torn write: %v", err)
	}
	c := m.Contents()
	if c[3*512-1] != 1 || c[3*512] != 0 {
		t.Error("not exactly three sectors were written")
	}
}

func TestMisdirect(t *testing.T) {
	m := mem.New(64)
	d := New(m, Rule{Ops: []block.Op{block.Write}, Misdirect: 8})
	if err := block.WriteAt(d, ones, 0); err != nil {
		t.Error(err)
	}
	if c := m.Contents(); c[0] != 0 || c[8*512] != 1 {
		t.Error("write was not misdirected")
	}
}

func TestHoldAndRelease(t *testing.T) {
	d := New(mem.New(64), Rule{Hold: true})
	done := 0
	for range 3 {
		d.Submit(&block.Request{Op: block.Flush, Done: func(*block.Request) { done++ }})
	}
	if done != 0 || d.Held() != 3 {
		t.Fatalf("%d done, %d held", done, d.Held())
	}
	d.Release()
	if done != 3 || d.Held() != 0 {
		t.Errorf("after release %d done, %d held", done, d.Held())
	}
}

func TestDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := New(mem.New(64), Rule{Delay: time.Minute})
		start := time.Now()
		if err := block.FlushAll(d); err != nil {
			t.Error(err)
		}
		if took := time.Since(start); took != time.Minute {
			t.Errorf("took %v", took)
		}
	})
}
