package transport

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"
)

// kernelNode establishes a connection as the kernel does (spec 3.2): it dials, then it listens for
// connect-int, and who accepted a data socket dials the meta socket.
type kernelNode struct {
	net         Network
	local, peer string
	l           Listener
	data, meta  Socket
	resolve     bool
}

const kernelConnectInt = 10 * time.Second

func (k *kernelNode) connect(ctx context.Context) (*Pair, error) {
	var err error
	if k.l, err = k.net.Listen(k.local); err != nil {
		return nil, err
	}
	defer k.l.Close()
	arrivals := make(chan Socket)
	go func() {
		for {
			s, err := k.l.Accept()
			if err != nil {
				return
			}
			select {
			case arrivals <- s:
			case <-ctx.Done():
			}
		}
	}()
	for {
		k.dial(ctx)
		if k.established() {
			return &Pair{Data: k.data, Meta: k.meta, ResolveConflicts: k.resolve}, nil
		}
		for again := true; again; {
			select {
			case <-ctx.Done():
				return nil, ctx.Err()
			case <-time.After(kernelConnectInt):
				again = false
			case s := <-arrivals:
				again = k.take(s) && rand.IntN(2) == 0
			}
		}
		if k.established() {
			return &Pair{Data: k.data, Meta: k.meta, ResolveConflicts: k.resolve}, nil
		}
	}
}

func (k *kernelNode) dial(ctx context.Context) {
	s, err := k.net.Dial(ctx, k.local, k.peer)
	switch {
	case err != nil:
	case k.data == nil:
		k.data = s
		_ = announce(s, firstData)
	case k.meta == nil:
		k.meta, k.resolve = s, false
		_ = announce(s, firstMeta)
	default:
		_ = s.Close()
	}
}

func (k *kernelNode) drop() {
	for _, s := range []*Socket{&k.data, &k.meta} {
		if *s != nil && !(*s).Alive() {
			closeAll(*s)
			*s = nil
		}
	}
}

func (k *kernelNode) established() bool {
	if k.data == nil || k.meta == nil {
		return false
	}
	time.Sleep(500 * time.Millisecond)
	k.drop()
	return k.data != nil && k.meta != nil
}

// take takes an accepted socket and says whether it crossed one of its own.
func (k *kernelNode) take(s Socket) (crossed bool) {
	kind, err := readFirst(s, 2*time.Second)
	k.drop()
	slot := &k.data
	switch {
	case err != nil:
		_ = s.Close()
		return true
	case kind == firstMeta:
		slot, k.resolve = &k.meta, true
	}
	crossed = *slot != nil
	closeAll(*slot)
	*slot = s
	return crossed
}

// TestResolve starts a node that wants to resolve conflicts and a kernel at all sorts of moments
// after each other: it does so every time, and soon.
func TestResolve(t *testing.T) {
	for delay := -25 * time.Second; delay < 25*time.Second; delay += 173 * time.Millisecond {
		for _, late := range []time.Duration{0, 10 * time.Millisecond} {
			t.Run(fmt.Sprint(delay, late), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { resolveWithKernel(t, delay, late) })
			})
		}
	}
}

func resolveWithKernel(t *testing.T, delay, late time.Duration) {
	n := &slowNetwork{Memory: &Memory{}, delay: late}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var ours chan result
	theirs := make(chan result, 1)
	kernel := func() {
		p, err := (&kernelNode{net: n, local: "b", peer: "a"}).connect(ctx)
		theirs <- result{p, err}
	}
	node := func() { ours = start(ctx, n, Config{Local: "a", Peer: "b", Resolve: true}) }
	if delay < 0 {
		node()
		time.Sleep(-delay)
		go kernel()
	} else {
		go kernel()
		time.Sleep(delay)
		node()
	}
	began := time.Now()
	a, b := <-ours, <-theirs
	checkPair(t, a, b)
	if !a.pair.ResolveConflicts {
		t.Error("the kernel resolves conflicts")
	}
	if d := time.Since(began); d > 4*time.Second {
		t.Errorf("established after %v", d)
	}
	a.pair.Close()
	b.pair.Close()
}

// TestResolveBoth has both nodes want to: one does.
func TestResolveBoth(t *testing.T) {
	for delay := time.Duration(0); delay < 12*time.Second; delay += 173 * time.Millisecond {
		for _, late := range []time.Duration{0, 10 * time.Millisecond} {
			synctest.Test(t, func(t *testing.T) {
				n := &slowNetwork{Memory: &Memory{}, delay: late}
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				ca := start(ctx, n, Config{Local: "a", Peer: "b", Resolve: true})
				time.Sleep(delay)
				began := time.Now()
				cb := start(ctx, n, Config{Local: "b", Peer: "a", Resolve: true})
				ra, rb := <-ca, <-cb
				checkPair(t, ra, rb)
				if d := time.Since(began); d > 4*time.Second {
					t.Errorf("started %v apart: established after %v", delay, d)
				}
				ra.pair.Close()
				rb.pair.Close()
			})
		}
	}
}
