package buffer

import (
	"sync"
	"testing"
)

func TestGetIsAlignedAndLongEnough(t *testing.T) {
	for _, n := range []int{0, 1, 512, 4095, 4096, 4097, 65536, 65537, 1 << 20, MaxSize, MaxSize + 1, 64 << 20} {
		b := Get(n)
		if len(b.B) != n {
			t.Errorf("Get(%d): length %d", n, len(b.B))
		}
		if n > 0 && !IsAligned(b.B, Align) {
			t.Errorf("Get(%d): not aligned to %d", n, Align)
		}
		Put(b)
	}
}

func TestClassOf(t *testing.T) {
	for _, c := range []struct{ n, class int }{
		{0, 0}, {4096, 0}, {4097, 1}, {8192, 1}, {8193, 2}, {MaxSize - 1, classes - 1}, {MaxSize, classes - 1}, {MaxSize + 1, -1},
	} {
		if got := classOf(c.n); got != c.class {
			t.Errorf("classOf(%d) = %d, want %d", c.n, got, c.class)
		}
	}
}

func TestPutTwicePanics(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("second Put did not panic")
		}
	}()
	b := Get(MinSize)
	Put(b)
	Put(b)
}

func TestHotListIsBounded(t *testing.T) {
	var all []*Buffer
	for range 3 * hotBytes / 65536 {
		all = append(all, Get(65536))
	}
	for _, b := range all {
		Put(b)
	}
	c := &pool[classOf(65536)]
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.n*65536 > hotBytes {
		t.Errorf("%d buffers of 64 KiB kept, limit is %d bytes", c.n, hotBytes)
	}
}

func TestOneOwnerAtATime(t *testing.T) {
	var wg sync.WaitGroup
	for g := range byte(8) {
		wg.Go(func() {
			for range 2000 {
				b := Get(4096)
				for i := range b.B[:64] {
					b.B[i] = g
				}
				for i, v := range b.B[:64] {
					if v != g {
						t.Errorf("byte %d is %d, owner is %d", i, v, g)
						return
					}
				}
				Put(b)
			}
		})
	}
	wg.Wait()
}

func TestGetPutDoesNotAllocate(t *testing.T) {
	Put(Get(4096))
	if n := testing.AllocsPerRun(1000, func() { Put(Get(4096)) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkGetPut(b *testing.B) {
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			Put(Get(4096))
		}
	})
}
