package main

import (
	"testing"
	"time"

	"github.com/replblk/replblk/internal/chaos"
	"github.com/replblk/replblk/internal/nbdclient"
)

// N09: a line of 64 kbit/s with a latency that changes between nothing and two seconds. Nobody is
// given up below the limits that are configured, however long a write takes.
func TestNarrowLine(t *testing.T) {
	t.Parallel() // it waits
	p := newTestPair(t, chaos.Options{Links: true, Net: "ping-int 1; ping-timeout 150; timeout 200; ko-count 7;"})
	begin(t, p)
	l := nbdclient.NewLedger()
	c := dial(t, p.Hosts[0])
	done := make(chan error, 1)
	began := time.Now()
	go func() { done <- l.Fill(t.Context(), c, 0, 256, 8) }()
	for writing, i := true, 0; writing; i++ {
		for _, proxy := range p.Proxies {
			for direction := range 2 {
				proxy.Set(direction, chaos.Weather{Rate: 8000, Delay: time.Duration(i*7%5) * 500 * time.Millisecond})
			}
		}
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
			writing = false
		case <-time.After(700 * time.Millisecond):
		}
	}
	t.Logf("8 writes of 4 KiB took %v", time.Since(began))
	for _, h := range p.Hosts {
		if r, err := h.Snapshot(t.Context()); err != nil || r.Reconnects != 0 || r.Connection != "Connected" {
			t.Errorf("%s: %v, %v", h.Name, chaos.Describe(r), err)
		}
	}
	for _, proxy := range p.Proxies {
		proxy.Set(chaos.Forth, chaos.Weather{})
		proxy.Set(chaos.Back, chaos.Weather{})
	}
	inSyncAndEqual(t, p, l)
}
