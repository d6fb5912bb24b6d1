package nbd

import (
	"bytes"
	"context"
	"errors"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/replblk/replblk/block"
	"github.com/replblk/replblk/block/faulty"
	"github.com/replblk/replblk/block/mem"
	"github.com/replblk/replblk/nbd/wire"
)

// A write that is stuck in the server when its connection dies must not land
// after what the client writes next on a new connection.
func TestFenceAfterReconnect(t *testing.T) {
	m := mem.NewVolatile(64)
	f := faulty.New(m, faulty.Rule{Ops: []block.Op{block.Write}, Count: 1, Hold: true})
	s := serverOf(t, Export{Device: f})
	old := sockClient(t, s)
	old.enter("", false)
	old.write(append(requestBytes(wire.CmdWrite, 0, 1, 0, 512), payload(1, 512)...))
	eventually(t, "stuck", func() bool { return f.Held() == 1 })
	old.c.Close()
	x, _ := s.find("")
	eventually(t, "fence is up", func() bool { return x.draining.Load() == 1 })

	c := sockClient(t, s)
	c.enter("", false)
	if _, errno := c.do(wire.CmdRead, 0, 0, 512, nil); errno != 0 {
		t.Fatalf("a read waits for nothing: %d", errno)
	}
	c.write(append(requestBytes(wire.CmdWrite, 0, 2, 0, 512), payload(2, 512)...))
	_ = c.c.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if n, _ := c.c.Read(make([]byte, 1)); n != 0 {
		t.Fatal("a write passed the fence")
	}
	_ = c.c.SetReadDeadline(time.Now().Add(timeout))
	f.Release()
	if cookie, errno := c.simple(); cookie != 2 || errno != 0 {
		t.Fatalf("cookie %d, error %d", cookie, errno)
	}
	if m.Contents()[0] != 2 {
		t.Error("the old write landed after the new one")
	}
}

// The same when the old write has been read and is not in the device yet, because
// its goroutine does not get to run.
func TestFenceCoversTheRequestInHand(t *testing.T) {
	m := mem.NewVolatile(64)
	entered, leave := make(chan struct{}), make(chan struct{})
	var once atomic.Bool
	d := watch{m, func(r *block.Request) {
		if r.Op == block.Write && once.CompareAndSwap(false, true) {
			close(entered)
			<-leave
		}
	}}
	s := serverOf(t, Export{Device: d})
	old := sockClient(t, s)
	old.enter("", false)
	old.write(append(requestBytes(wire.CmdWrite, 0, 1, 0, 512), payload(1, 512)...))
	<-entered
	old.c.Close()

	c := sockClient(t, s)
	c.enter("", false)
	c.write(append(requestBytes(wire.CmdWrite, 0, 2, 0, 512), payload(2, 512)...))
	_ = c.c.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if n, _ := c.c.Read(make([]byte, 1)); n != 0 {
		t.Error("a write overtook the one in hand of the old connection")
	}
	close(leave)
	eventually(t, "the new write is there", func() bool { st, _ := s.ExportStats(""); return st.Active == 1 && m.Contents()[0] == 2 })
	time.Sleep(20 * time.Millisecond)
	if v := m.Contents()[0]; v != 2 {
		t.Errorf("sector holds %d: the old write landed after the new one", v)
	}
}

// What a client had sent and the server not yet read when the client connected
// anew must not be executed.
func TestUnreadRequestsOfAHungUpClientAreDropped(t *testing.T) {
	m := mem.NewVolatile(64)
	entered, leave := make(chan struct{}), make(chan struct{})
	var once atomic.Bool
	d := watch{m, func(r *block.Request) {
		if r.Op == block.Flush && once.CompareAndSwap(false, true) {
			close(entered)
			<-leave // a device that blocks in Submit stalls the reader
		}
	}}
	s := serverOf(t, Export{Device: d})
	old := sockClient(t, s)
	old.enter("", false)
	old.write(requestBytes(wire.CmdFlush, 0, 1, 0, 0))
	<-entered
	old.write(append(requestBytes(wire.CmdWrite, 0, 2, 0, 512), payload(1, 512)...))
	old.c.Close()

	c := sockClient(t, s)
	c.enter("", false)
	if _, errno := c.do(wire.CmdRead, 0, 0, 512, nil); errno != 0 {
		t.Fatal(errno)
	}
	close(leave)
	if _, errno := c.do(wire.CmdWrite, 0, 0, 512, payload(2, 512)); errno != 0 {
		t.Fatal(errno)
	}
	eventually(t, "old connection gone", func() bool { st, _ := s.ExportStats(""); return st.Active == 1 })
	if v := m.Contents()[0]; v != 2 {
		t.Errorf("sector holds %d: the old connection's write was executed", v)
	}
}

func TestShutdownAnswersWhatWasSubmitted(t *testing.T) {
	f := faulty.New(mem.NewVolatile(64), faulty.Rule{Hold: true})
	s := serverOf(t, Export{Device: f})
	l, err := net.Listen("unix", t.TempDir()+"/s")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(context.Background(), l) }()
	nc, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	_ = nc.SetDeadline(time.Now().Add(timeout))
	c := &client{t, nc}
	c.enter("", false)
	idle, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer idle.Close()

	c.write(requestBytes(wire.CmdRead, 0, 1, 0, 512))
	c.write(append(requestBytes(wire.CmdWrite, 0, 2, 0, 1024), payload(1, 1000)...)) // never complete
	eventually(t, "submitted", func() bool { return f.Held() == 1 })
	down := make(chan error, 1)
	go func() { down <- s.Shutdown(context.Background()) }()
	if err := <-served; !errors.Is(err, ErrClosed) {
		t.Errorf("Serve: %v", err)
	}
	f.Release()
	if cookie, errno := c.simple(); cookie != 1 || errno != 0 {
		t.Errorf("cookie %d, error %d", cookie, errno)
	}
	c.read(512)
	c.dropped()
	if err := <-down; err != nil {
		t.Errorf("Shutdown: %v", err)
	}
	if err := s.ServeConn(idle); !errors.Is(err, ErrClosed) {
		t.Errorf("after Shutdown: %v", err)
	}
}

func TestShutdownDoesNotWaitForever(t *testing.T) {
	f := faulty.New(mem.NewVolatile(64), faulty.Rule{Hold: true})
	s := serverOf(t, Export{Device: f})
	c := sockClient(t, s)
	c.enter("", false)
	c.write(requestBytes(wire.CmdFlush, 0, 1, 0, 0))
	eventually(t, "submitted", func() bool { return f.Held() == 1 })
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if err := s.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Shutdown: %v", err)
	}
	c.dropped()
	f.Release()
}

// Demotion: clients are dropped, the device is closed after its last request,
// and who comes back is refused.
func TestDisconnect(t *testing.T) {
	m := mem.NewVolatile(64)
	var secondary atomic.Bool
	var open atomic.Int32
	s := serverOf(t, Export{
		Open: func() (block.Device, error) {
			if secondary.Load() {
				return nil, errors.New("resource r0 is Secondary")
			}
			open.Add(1)
			return m, nil
		},
		Close: func(block.Device) { open.Add(-1) },
	})
	a, b := sockClient(t, s), pipeClient(t, s)
	a.enter("", false)
	b.enter("", false)
	eventually(t, "both serve", func() bool { st, _ := s.ExportStats(""); return st.Active == 2 })
	secondary.Store(true)
	if err := s.Disconnect(context.Background(), ""); err != nil {
		t.Fatal(err)
	}
	if n := open.Load(); n != 0 {
		t.Errorf("%d opens left", n)
	}
	a.dropped()
	b.dropped()
	c := sockClient(t, s)
	c.hello(3)
	if r, _ := c.option(wire.OptGo, goData("")); r != wire.RepErrPolicy {
		t.Errorf("reply %x", r)
	}
	secondary.Store(false)
	if r, _ := c.option(wire.OptInfo, goData("")); r != wire.RepAck {
		t.Errorf("reply %x", r)
	}
	if open.Load() != 0 {
		t.Error("INFO left the device open")
	}
	if err := s.Remove(context.Background(), ""); err != nil {
		t.Fatal(err)
	}
	if r, _ := c.option(wire.OptGo, goData("")); r != wire.RepErrUnknown {
		t.Errorf("reply after Remove: %x", r)
	}
	if err := s.Disconnect(context.Background(), ""); !errors.Is(err, ErrUnknownExport) {
		t.Errorf("disconnect of nothing: %v", err)
	}
}

// The timeout is on virtual time: who is slow here is not the machine.
func TestConnectionLimitAndHandshakeTimeout(t *testing.T) {
	synctest.Test(t, connectionLimitAndHandshakeTimeout)
}

func connectionLimitAndHandshakeTimeout(t *testing.T) {
	s := NewServer(Options{MaxConns: 1, HandshakeTimeout: 100 * time.Millisecond})
	if err := s.Add(Export{Device: mem.NewVolatile(64)}); err != nil {
		t.Fatal(err)
	}
	c := pipeClient(t, s)
	c.hello(3)
	pipeClient(t, s).dropped()
	c.dropped() // said nothing for too long
	eventually(t, "room for another", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return len(s.conns) == 0
	})
	c = pipeClient(t, s)
	c.enter("", false)
	time.Sleep(200 * time.Millisecond)
	if _, errno := c.do(wire.CmdFlush, 0, 0, 0, nil); errno != 0 {
		t.Error("the handshake timeout ended a served client")
	}
	if s.Stats().RefusedAtMaximum != 1 {
		t.Errorf("%+v", s.Stats())
	}
}

// Two connections are one device (CAN_MULTI_CONN).
func TestConnectionsShareTheDevice(t *testing.T) {
	m := mem.New(64)
	s := serverOf(t, Export{Device: m})
	a, b := sockClient(t, s), sockClient(t, s)
	a.enter("", false)
	b.enter("", false)
	a.do(wire.CmdWrite, 0, 0, 512, payload(3, 512))
	if got, _ := b.do(wire.CmdRead, 0, 0, 512, nil); !bytes.Equal(got, payload(3, 512)) {
		t.Error("an acknowledged write is not visible to the other connection")
	}
	if b.do(wire.CmdFlush, 0, 0, 0, nil); m.Unflushed() != 0 {
		t.Error("flush does not cover the other connection's writes")
	}
	st, _ := s.ExportStats("")
	if st.Writes != 1 || st.Reads != 1 || st.Flushes != 1 || st.Connections != 2 || st.WriteBytes != 512 {
		t.Errorf("%+v", st)
	}
}
