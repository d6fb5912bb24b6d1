package transport

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/replblk/replblk/internal/loopback"
)

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

type result struct {
	pair *Pair
	err  error
}

func start(ctx context.Context, n Network, cfg Config) chan result {
	c := make(chan result, 1)
	go func() {
		p, err := Connect(ctx, n, cfg, quiet())
		c <- result{p, err}
	}()
	return c
}

// checkPair proves that a and b are the two ends of the same two sockets.
func checkPair(t *testing.T, a, b result) {
	t.Helper()
	if a.err != nil || b.err != nil {
		t.Fatalf("connect: %v, %v", a.err, b.err)
	}
	if a.pair.ResolveConflicts == b.pair.ResolveConflicts {
		t.Errorf("both sides have ResolveConflicts=%v", a.pair.ResolveConflicts)
	}
	exchange(t, a.pair.Data, b.pair.Data, "data")
	exchange(t, b.pair.Meta, a.pair.Meta, "meta")
	exchange(t, b.pair.Data, a.pair.Data, "atad")
}

func exchange(t *testing.T, from, to Socket, text string) {
	t.Helper()
	if _, err := from.WaitWrite([][]byte{[]byte(text)}); err != nil {
		t.Fatalf("write %q: %v", text, err)
	}
	got := make([]byte, len(text))
	if err := to.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(to, got); err != nil || string(got) != text {
		t.Fatalf("read %q, %v, want %q", got, err, text)
	}
}

func TestConnectPairTCP(t *testing.T) {
	for range 10 {
		a, b := loopback.Address(), loopback.Address()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		ca := start(ctx, &TCP{}, Config{Local: a, Peer: b, ConnectInterval: time.Second})
		cb := start(ctx, &TCP{}, Config{Local: b, Peer: a, ConnectInterval: time.Second})
		ra, rb := <-ca, <-cb
		checkPair(t, ra, rb)
		cancel()
		ra.pair.Close()
		rb.pair.Close()
	}
}

// TestConnectOrders starts the second node at all sorts of moments after the first,
// on fake time.
func TestConnectOrders(t *testing.T) {
	for delay := time.Duration(0); delay < 25*time.Second; delay += 173 * time.Millisecond {
		synctest.Test(t, func(t *testing.T) {
			n := &Memory{}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			ca := start(ctx, n, Config{Local: "a", Peer: "b"})
			time.Sleep(delay)
			began := time.Now()
			cb := start(ctx, n, Config{Local: "b", Peer: "a"})
			ra, rb := <-ca, <-cb
			checkPair(t, ra, rb)
			if d := time.Since(began); d > 2*time.Second {
				t.Errorf("started %v apart: established after %v, want at most 2s", delay, d)
			}
			ra.pair.Close()
			rb.pair.Close()
		})
	}
}

// TestConnectCrossed makes both nodes dial before either accepts.
func TestConnectCrossed(t *testing.T) {
	for range 50 {
		synctest.Test(t, func(t *testing.T) {
			n := &slowNetwork{Memory: &Memory{}, delay: 10 * time.Millisecond}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			ca := start(ctx, n, Config{Local: "a", Peer: "b"})
			cb := start(ctx, n, Config{Local: "b", Peer: "a"})
			ra, rb := <-ca, <-cb
			checkPair(t, ra, rb)
			ra.pair.Close()
			rb.pair.Close()
		})
	}
}

// TestConnectCrossedAlike lets both nodes believe that they have the smaller
// address, as behind address translation.
func TestConnectCrossedAlike(t *testing.T) {
	for range 50 {
		synctest.Test(t, func(t *testing.T) {
			n := &slowNetwork{Memory: &Memory{}, delay: 10 * time.Millisecond, rename: map[string]string{"y1": "b", "y2": "a"}}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			ca := start(ctx, n, Config{Local: "a", Peer: "y1"})
			cb := start(ctx, n, Config{Local: "b", Peer: "y2"})
			ra, rb := <-ca, <-cb
			checkPair(t, ra, rb)
			ra.pair.Close()
			rb.pair.Close()
		})
	}
}

// slowNetwork dials at once and returns late, so that dials cross.
type slowNetwork struct {
	*Memory
	delay  time.Duration
	rename map[string]string
}

func (n *slowNetwork) Dial(ctx context.Context, local, remote string) (Socket, error) {
	if r, ok := n.rename[remote]; ok {
		remote = r
	}
	time.Sleep(n.delay)
	s, err := n.Memory.Dial(ctx, local, remote)
	time.Sleep(n.delay)
	return s, err
}

// TestConnectLikeKernel plays the kernel's side with plain sockets: it accepts our
// data socket and connects the meta socket back.
func TestConnectLikeKernel(t *testing.T) {
	a, b := loopback.Address(), loopback.Address()
	kernel, err := net.Listen("tcp", b)
	if err != nil {
		t.Fatal(err)
	}
	defer kernel.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	ca := start(ctx, &TCP{}, Config{Local: a, Peer: b})

	data, err := kernel.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer data.Close()
	first := make([]byte, 8)
	if _, err := io.ReadFull(data, first); err != nil || string(first) != "\x83\x74\x02\x67\xff\xf2\x00\x00" {
		t.Fatalf("first packet %x, %v", first, err)
	}
	meta, err := net.Dial("tcp", a)
	if err != nil {
		t.Fatal(err)
	}
	defer meta.Close()
	if _, err := meta.Write([]byte("\x83\x74\x02\x67\xff\xf1\x00\x00EARLY")); err != nil {
		t.Fatal(err)
	}
	r := <-ca
	if r.err != nil {
		t.Fatal(r.err)
	}
	defer r.pair.Close()
	if !r.pair.ResolveConflicts {
		t.Error("accepted the meta socket without ResolveConflicts")
	}
	early := make([]byte, 5)
	if _, err := io.ReadFull(r.pair.Meta, early); err != nil || string(early) != "EARLY" {
		t.Errorf("early data: %q, %v", early, err)
	}
}

// TestConnectStrangers floods the port with silence and garbage while a true peer
// connects.
func TestConnectStrangers(t *testing.T) {
	a, b := loopback.Address(), loopback.Address()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	ca := start(ctx, &TCP{}, Config{Local: a, Peer: b, ConnectInterval: 300 * time.Millisecond})
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		if c, err := net.Dial("tcp", a); err == nil {
			c.Close()
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("no listener")
		}
	}
	var strangers []net.Conn
	for i := range 60 {
		c, err := net.Dial("tcp", a)
		if err != nil {
			t.Fatal(err)
		}
		strangers = append(strangers, c)
		if i%3 == 0 {
			c.Write([]byte("GET / HTTP/1.1\r\n\r\n"))
		}
		if i%3 == 1 {
			c.Write([]byte("\x83\x74"))
		}
	}
	cb := start(ctx, &TCP{}, Config{Local: b, Peer: a, ConnectInterval: 300 * time.Millisecond})
	ra, rb := <-ca, <-cb
	checkPair(t, ra, rb)
	ra.pair.Close()
	rb.pair.Close()
	for _, c := range strangers {
		c.Close()
	}
}

func TestConnectSilentStrangerTimesOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &Memory{}
		ctx, cancel := context.WithCancel(t.Context())
		c := start(ctx, n, Config{Local: "a", Peer: "nobody"})
		synctest.Wait()
		s, err := n.Dial(ctx, "x", "a")
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		if _, err := s.Read(make([]byte, 1)); err == nil {
			t.Error("stranger was given data")
		}
		if d := time.Since(began); d != 2*time.Second {
			t.Errorf("stranger dropped after %v, want 2s", d)
		}
		cancel()
		if r := <-c; !errors.Is(r.err, context.Canceled) {
			t.Errorf("connect: %v, want canceled", r.err)
		}
		_ = s.Close()
	})
}

func TestConnectReconnectAfterOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &Memory{}
		ctx := t.Context()
		n.SetDown(true)
		ca := start(ctx, n, Config{Local: "a", Peer: "b"})
		cb := start(ctx, n, Config{Local: "b", Peer: "a"})
		time.Sleep(time.Minute)
		n.SetDown(false)
		ra, rb := <-ca, <-cb
		checkPair(t, ra, rb)
		n.SetDown(true)
		if ra.pair.Data.Alive() || rb.pair.Meta.Alive() {
			t.Error("sockets alive after the network went down")
		}
		ra.pair.Close()
		rb.pair.Close()
	})
}
