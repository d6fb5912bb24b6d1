package transport

import (
	"context"
	"runtime"
	"testing"
	"testing/synctest"
	"time"
)

// TestStrangersTakeLittleMemory lets 500 strangers knock who say nothing, half of a packet,
// or what a peer says, and nothing more. Whatever they do, no more than maxPending of them and
// a pair are kept, each with a goroutine and no buffer to speak of.
func TestStrangersTakeLittleMemory(t *testing.T) {
	hello := map[string][]byte{
		"silence":        nil,
		"half a packet":  firstData.encode()[:5],
		"garbage":        []byte("GET / HTTP/1.1\r\n\r\n"),
		"as a data peer": firstData.encode(),
	}
	for name, say := range hello {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := &Memory{}
				ctx, cancel := context.WithCancel(t.Context())
				c := start(ctx, n, Config{Local: "a", Peer: "nobody"})
				synctest.Wait()
				heap, routines := inUse(), runtime.NumGoroutine()
				for range 500 {
					s, err := n.Dial(ctx, "x", "a")
					if err != nil {
						t.Fatal(err)
					}
					if say != nil {
						_, _ = s.TryWrite([][]byte{say}) // or it was thrown out already
					}
					synctest.Wait()
				}
				if more := runtime.NumGoroutine() - routines; more > 2*maxPending {
					t.Errorf("%d goroutines for strangers, at most %d are pending", more, maxPending)
				}
				if more := int64(inUse()) - int64(heap); more > 64<<10*maxPending {
					t.Errorf("%d KiB for strangers, want at most 64 for each of %d", more>>10, maxPending)
				}
				time.Sleep(time.Minute)
				if more := runtime.NumGoroutine() - routines; more > 2 {
					t.Errorf("%d goroutines are left", more)
				}
				cancel()
				<-c
			})
		})
	}
}

// inUse returns the bytes of heap that are reachable.
func inUse() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
