package chaos

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"
)

// through returns both ends of a connection through a proxy.
func through(t *testing.T) (p *Proxy, near, far net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if p, err = NewProxy(l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	if near, err = net.Dial("tcp", p.Address()); err != nil {
		t.Fatal(err)
	}
	if far, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { near.Close(); far.Close() })
	return p, near, far
}

func send(t *testing.T, c net.Conn, p []byte) {
	t.Helper()
	if _, err := c.Write(p); err != nil {
		t.Fatal(err)
	}
}

// receive reads n bytes, or less when d is over.
func receive(c net.Conn, n int, d time.Duration) ([]byte, error) {
	_ = c.SetReadDeadline(time.Now().Add(d))
	p := make([]byte, n)
	got, err := io.ReadFull(c, p)
	return p[:got], err
}

const (
	soon = time.Minute
	wait = 60 * time.Millisecond
)

func TestProxyRelays(t *testing.T) {
	_, near, far := through(t)
	want := bytes.Repeat([]byte("0123456789"), 20000)
	go func() { _, _ = near.Write(want) }()
	if got, err := receive(far, len(want), soon); err != nil || !bytes.Equal(got, want) {
		t.Fatalf("forth: %d bytes, %v", len(got), err)
	}
	send(t, far, []byte("back"))
	if got, err := receive(near, 4, soon); err != nil || string(got) != "back" {
		t.Fatalf("back: %q, %v", got, err)
	}
	far.Close()
	if _, err := receive(near, 1, soon); !errors.Is(err, io.EOF) {
		t.Errorf("end: %v", err)
	}
}

func TestProxyDelays(t *testing.T) {
	p, near, far := through(t)
	p.Set(Forth, Weather{Delay: wait})
	began := time.Now()
	send(t, near, []byte("x"))
	if _, err := receive(far, 1, soon); err != nil || time.Since(began) < wait {
		t.Errorf("after %v: %v", time.Since(began), err)
	}
}

func TestProxyIsSlow(t *testing.T) {
	p, near, far := through(t)
	p.Set(Forth, Weather{Rate: 1000})
	began := time.Now()
	send(t, near, make([]byte, 100))
	if _, err := receive(far, 100, soon); err != nil || time.Since(began) < 100*time.Millisecond {
		t.Errorf("100 bytes at 1000 a second came after %v: %v", time.Since(began), err)
	}
}

func TestProxyStallLosesNothing(t *testing.T) {
	p, near, far := through(t)
	p.Set(Forth, Weather{Stall: true})
	send(t, near, []byte("abc"))
	if got, err := receive(far, 1, wait); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("stalled: %q, %v", got, err)
	}
	p.Set(Forth, Weather{})
	if got, err := receive(far, 3, soon); string(got) != "abc" {
		t.Errorf("after the stall: %q, %v", got, err)
	}
}

// lost says whether a connection has lost a byte.
func (p *Proxy) lost(direction int) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for r := range p.links {
		if r.mute[direction].Load() {
			return true
		}
	}
	return false
}

// Silence is one way, hides the end of the connection, and leaves no gap behind.
func TestProxySilence(t *testing.T) {
	p, near, far := through(t)
	p.Set(Forth, Weather{Silence: true})
	send(t, near, []byte("lost"))
	send(t, far, []byte("heard"))
	if got, err := receive(near, 5, soon); string(got) != "heard" {
		t.Fatalf("the other way: %q, %v", got, err)
	}
	for end := time.Now().Add(soon); !p.lost(Forth); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("nothing was lost")
		}
	}
	if got, err := receive(far, 1, wait); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("silent: %q, %v", got, err)
	}
	p.Set(Forth, Weather{})
	send(t, near, []byte("later"))
	near.Close()
	if got, err := receive(far, 1, wait); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("a gap: %q, %v", got, err)
	}
	p.Heal()
	if _, err := receive(far, 1, soon); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("healed: %v", err)
	}
}

func TestProxyCorruptsOneBit(t *testing.T) {
	p, near, far := through(t)
	p.Set(Forth, Weather{Corrupt: 3})
	send(t, near, []byte{0, 0, 0, 0, 0})
	if got, err := receive(far, 5, soon); !bytes.Equal(got, []byte{0, 0, 8, 0, 0}) {
		t.Errorf("%v, %v", got, err)
	}
}

func TestProxyResetsInTheMiddle(t *testing.T) {
	p, near, far := through(t)
	p.Set(Forth, Weather{Reset: 3})
	send(t, near, []byte("abcdef"))
	if got, err := receive(far, 6, soon); len(got) > 3 || !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("%q, %v", got, err)
	}
}

func TestProxyRefuses(t *testing.T) {
	p, _, _ := through(t)
	p.Refuse(true)
	c, err := net.Dial("tcp", p.Address())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := receive(c, 1, soon); errors.Is(err, os.ErrDeadlineExceeded) || err == nil {
		t.Errorf("refused: %v", err)
	}
}
