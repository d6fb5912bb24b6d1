package file

import (
	"testing"

	"github.com/replblk/replblk/block"
)

// TestWritesOneByOne: a second worker gets no write to the page cache while the first is at one,
// but everything else.
func TestWritesOneByOne(t *testing.T) {
	f := &File{}
	q := &f.queue
	q.init(f, 0) // no workers: this test is all of them
	first, second := &block.Request{Op: block.Write}, &block.Request{Op: block.Write}
	durable, read := &block.Request{Op: block.Write, Flags: block.FUA}, &block.Request{Op: block.Read}
	for _, r := range []*block.Request{first, second, durable, read} {
		q.push(r)
	}
	for i, step := range []struct {
		wrote bool
		want  *block.Request
		write bool
	}{{false, first, true}, {false, durable, false}, {true, second, true}, {false, read, false}} {
		if r, write := q.pop(step.wrote); r != step.want || write != step.write {
			t.Fatalf("step %d: %+v, %v, want %+v, %v", i, r, write, step.want, step.write)
		}
	}
	q.close()
	if r, _ := q.pop(true); r != nil {
		t.Fatalf("%+v out of an empty queue", r)
	}
}

// TestOneByOne: what is written past the page cache, or durable when it returns, goes beside others.
func TestOneByOne(t *testing.T) {
	for name, f := range map[string]*File{
		"direct": {direct: true}, "block device": {blockDev: true}, "write through": {opt: Options{WriteThrough: true}},
	} {
		if f.oneByOne(&block.Request{Op: block.Write}) {
			t.Errorf("%s: writes go one by one", name)
		}
	}
}
