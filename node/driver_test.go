package node

import (
	"bytes"
	"errors"
	"log/slog"
	"math/rand/v2"
	"os"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/replblk/replblk/block"
	"github.com/replblk/replblk/block/mem"
	"github.com/replblk/replblk/internal/loopback"
	"github.com/replblk/replblk/node/transport"
	"github.com/replblk/replblk/replication"
	"github.com/replblk/replblk/replication/state"
)

const testSectors = 1 << 15 // 16 MiB

func testLog() *slog.Logger {
	if os.Getenv("NODE_TEST_LOG") != "" {
		return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	return slog.New(slog.DiscardHandler)
}

// mirror is a resource around a mirrorCore, with a memory disk.
type mirror struct {
	*Resource
	core *mirrorCore
	disk block.Device
	mem  *mem.Device
}

func newMirror(t testing.TB, n transport.Network, local, peer string, slots int) *mirror {
	t.Helper()
	c := newMirrorCore()
	cfg := Config{Core: replication.Config{Name: "r-" + local, MaxRequests: slots, Volumes: []replication.VolumeConfig{{Number: 0}}}, Network: n,
		Link: transport.Config{Local: local, Peer: peer, ConnectInterval: time.Second}}
	r := newResource(cfg, c, testLog())
	d := mem.NewVolatile(testSectors)
	m := &mirror{Resource: r, core: c, disk: d, mem: d}
	v := r.volumes[0]
	v.sectors.Store(testSectors)
	bk := &backing{data: d, meta: d, idle: make(chan struct{})}
	bk.users.Store(1)
	bk.queue = newMetaQueue(d, d, func(replication.IOID, replication.DiskError) {})
	r.disks.Add(1)
	v.disk.Store(bk)
	return m
}

func (m *mirror) connect(t testing.TB) {
	t.Helper()
	if res, err := m.Admin(t.Context(), replication.Admin{Kind: replication.AdminConnect}); err != nil || res != state.Success {
		t.Fatalf("connect: %v, %v", res, err)
	}
}

// peek runs fn where it may look at the core.
func (m *mirror) peek(fn func(c *mirrorCore)) { m.loop.call(func() { fn(m.core) }) }

func (m *mirror) waitUp(t testing.TB, ups int) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		var n int
		var gen uint32
		m.peek(func(c *mirrorCore) { n, gen = c.ups, c.gen })
		if n >= ups && gen != 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: connected %d times, want %d", m.name, n, ups)
		}
	}
}

func (m *mirror) shutdown(t testing.TB) {
	t.Helper()
	ctx := t.Context()
	_ = m.Close(ctx)
	if reqs, bufs := m.slots.inUse(), m.bufs.inUse(); reqs != 0 || bufs != 0 {
		t.Errorf("%s: %d requests and %d buffers left", m.name, reqs, bufs)
	}
}

func mirrorPair(t testing.TB, n transport.Network, a, b string) (*mirror, *mirror) {
	ma, mb := newMirror(t, n, a, b, 32), newMirror(t, n, b, a, 32)
	ma.connect(t)
	mb.connect(t)
	ma.waitUp(t, 1)
	mb.waitUp(t, 1)
	return ma, mb
}

// load writes random blocks from several goroutines, each in a range of its own, and
// keeps an image of what the disk must contain.
func load(t *testing.T, v *Volume, writers, writes int, image []byte) {
	t.Helper()
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(w), 1))
			span := uint64(testSectors / writers)
			for i := range writes {
				n := uint64(8 << rnd.IntN(5))
				s := span*uint64(w) + rnd.Uint64N(span-n)
				p := image[s*512 : (s+n)*512]
				for k := range p {
					p[k] = byte(i*7 + w)
				}
				if err := block.WriteAt(v, p, s); err != nil {
					t.Errorf("write: %v", err)
					return
				}
				if i%16 == 15 { // on fake time, let it pass
					time.Sleep(time.Millisecond)
				}
			}
		})
	}
	wg.Wait()
}

func TestDriverReplicates(t *testing.T) {
	for name, tt := range map[string]struct {
		net  transport.Network
		a, b string
	}{"tcp": {&transport.TCP{}, loopback.Address(), loopback.Address()}, "memory": {&transport.Memory{}, "a", "b"}} {
		t.Run(name, func(t *testing.T) {
			a, b := mirrorPair(t, tt.net, tt.a, tt.b)
			image := make([]byte, testSectors*512)
			load(t, a.Volume(0), 16, 100, image)
			if !bytes.Equal(a.mem.Contents(), image) {
				t.Error("local disk differs from what was written")
			}
			if !bytes.Equal(b.mem.Contents(), image) {
				t.Error("peer's disk differs from what was written")
			}
			got := make([]byte, len(image))
			if err := block.ReadAt(a.Volume(0), got, 0); err != nil || !bytes.Equal(got, image) { // split into 16
				t.Errorf("read back: %v", err)
			}
			a.shutdown(t)
			b.shutdown(t)
		})
	}
}

// TestDriverBothWays lets both nodes write, which needs the two directions of both
// sockets and both roles of every goroutine at once.
func TestDriverBothWays(t *testing.T) {
	a, b := mirrorPair(t, &transport.TCP{}, loopback.Address(), loopback.Address())
	var wg sync.WaitGroup
	for i, m := range []*mirror{a, b} {
		wg.Go(func() {
			p := bytes.Repeat([]byte{byte(i + 1)}, 64<<10)
			for k := range 200 {
				if err := block.WriteAt(m.Volume(0), p, uint64(i*testSectors/2+k*64%8192)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if !bytes.Equal(a.mem.Contents(), b.mem.Contents()) {
		t.Error("the disks differ")
	}
	a.shutdown(t)
	b.shutdown(t)
}

// TestDriverReconnects breaks the connection again and again under load. No request
// may be lost, each generation must end exactly once, every buffer must come back.
func TestDriverReconnects(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &transport.Memory{}
		a, b := mirrorPair(t, n, "a", "b")
		image := make([]byte, testSectors*512)
		done := make(chan struct{})
		go func() { defer close(done); load(t, a.Volume(0), 8, 1000, image) }()
		for up := 2; up <= 4; up++ {
			time.Sleep(time.Duration(up) * time.Millisecond)
			n.SetDown(true)
			n.SetDown(false)
			a.waitUp(t, up)
			b.waitUp(t, up)
		}
		<-done
		a.shutdown(t)
		b.shutdown(t)
		for _, c := range []*mirrorCore{a.core, b.core} {
			if c.ups != c.downs {
				t.Errorf("%d generations began and %d ended", c.ups, c.downs)
			}
			for i, g := range c.rerun {
				if g != uint32(i+1) {
					t.Errorf("generations ended: %v, want each once in order", c.rerun)
					break
				}
			}
			if len(c.lastRnd) != handshakeRandom {
				t.Errorf("connection came with %d random bytes", len(c.lastRnd))
			}
		}
		if !bytes.Equal(a.mem.Contents(), image) {
			t.Error("local disk differs from what was written")
		}
	})
}

// TestDriverLifecycleFakeTime runs connect, write, outage, reconnect and close with
// fake time, where a goroutine that is left behind is an error.
func TestDriverLifecycleFakeTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &transport.Memory{}
		a, b := mirrorPair(t, n, "a", "b")
		p := bytes.Repeat([]byte{0xa5}, 4096)
		if err := block.WriteAt(a.Volume(0), p, 8); err != nil {
			t.Fatal(err)
		}
		n.SetDown(true)
		time.Sleep(time.Hour)
		if err := block.WriteAt(a.Volume(0), p, 16); err != nil {
			t.Fatal(err)
		}
		n.SetDown(false)
		time.Sleep(10 * time.Second)
		a.waitUp(t, 2)
		if err := block.WriteAt(a.Volume(0), p, 24); err != nil {
			t.Fatal(err)
		}
		a.shutdown(t)
		b.shutdown(t)
		got := b.mem.Contents()
		if !bytes.Equal(got[8*512:16*512], p) || !bytes.Equal(got[24*512:32*512], p) {
			t.Error("peer lacks a write that was acknowledged while connected")
		}
	})
}

// stuck is a device that keeps writes until it is released.
type stuck struct {
	block.Device
	mu   sync.Mutex
	held []*block.Request // guarded by mu; nil after release
	open bool             // guarded by mu
}

func (s *stuck) Submit(r *block.Request) {
	s.mu.Lock()
	if !s.open {
		s.held = append(s.held, r)
		s.mu.Unlock()
		return
	}
	s.mu.Unlock()
	s.Device.Submit(r)
}

func (s *stuck) release() {
	s.mu.Lock()
	held := s.held
	s.held, s.open = nil, true
	s.mu.Unlock()
	for _, r := range held {
		s.Device.Submit(r)
	}
}

// TestDriverBackpressure gives the peer a disk that hangs. The peer must stop reading
// when its core has no room, the Primary must stop accepting when its slots are taken,
// and everything must end well when the disk comes back.
func TestDriverBackpressure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &transport.Memory{}
		a, b := newMirror(t, n, "a", "b", 100), newMirror(t, n, "b", "a", 4)
		d := &stuck{Device: b.disk}
		b.volumes[0].disk.Load().data = d
		a.connect(t)
		b.connect(t)
		a.waitUp(t, 1)
		b.waitUp(t, 1)
		var wg sync.WaitGroup
		for i := range 150 {
			wg.Go(func() {
				if err := block.WriteAt(a.Volume(0), bytes.Repeat([]byte{byte(i + 1)}, 4096), uint64(i*8)); err != nil {
					t.Error(err)
				}
			})
		}
		time.Sleep(10 * time.Second)
		if used := a.slots.inUse(); used != 100 {
			t.Errorf("%d slots of 100 in use", used)
		}
		d.mu.Lock()
		held := len(d.held)
		d.mu.Unlock()
		if held != 64 {
			t.Errorf("%d writes reached the peer's disk, want the 64 it has room for", held)
		}
		d.release()
		wg.Wait()
		if !bytes.Equal(a.mem.Contents(), b.mem.Contents()) {
			t.Error("the disks differ")
		}
		a.shutdown(t)
		b.shutdown(t)
	})
}

// failing is a device that fails reads.
type failing struct{ block.Device }

func (f failing) Submit(r *block.Request) {
	if r.Op == block.Read {
		go r.Complete(r.Fail(syscall.EIO))
		return
	}
	f.Device.Submit(r)
}

// TestVolumeDirectRead sends reads past the core while it allows that, and through
// the core when the disk fails them.
func TestVolumeDirectRead(t *testing.T) {
	m := newMirror(t, &transport.Memory{}, "a", "b", 4)
	v := m.Volume(0)
	p := make([]byte, 4096)
	steps := func() (n int) { m.peek(func(c *mirrorCore) { n = int(c.nextIO) }); return n }
	v.reads.Store(true)
	if err := block.ReadAt(v, p, 0); err != nil || steps() != 0 {
		t.Errorf("direct read: %v, %d disk operations by the core, want 0", err, steps())
	}
	b := v.disk.Load()
	b.data = failing{b.data}
	if err := block.ReadAt(v, p, 0); !errors.Is(err, nil) || steps() != 1 {
		t.Errorf("failed read: %v, %d disk operations by the core, want nil and 1", err, steps())
	}
	v.reads.Store(false)
	b.data = m.disk
	if err := block.ReadAt(v, p, 0); err != nil || steps() != 2 {
		t.Errorf("read by the core: %v, %d disk operations by it, want 2", err, steps())
	}
	m.shutdown(t)
}

func TestVolumeRefusals(t *testing.T) {
	m := newMirror(t, &transport.Memory{}, "a", "b", 4)
	v := m.Volume(0)
	p := make([]byte, 4096)
	if err := block.WriteAt(v, p, testSectors-4); block.Errno(err) != syscall.ENOSPC {
		t.Errorf("write beyond the end: %v, want ENOSPC", err)
	}
	s := state.Initial()
	v.changed(s)
	if err := block.WriteAt(v, p, 0); block.Errno(err) != syscall.EROFS {
		t.Errorf("write to a Secondary: %v, want EROFS", err)
	}
	if err := block.ReadAt(v, p, 0); block.Errno(err) != syscall.EROFS || !v.Geometry().ReadOnly {
		t.Errorf("read of a Secondary: %v, want EROFS", err)
	}
	s.Role = state.Primary
	v.changed(s)
	// A discard that crosses extents is cut at them.
	if err := block.Do(v, &block.Request{Op: block.Discard, Sector: 8000, Sectors: 16384 + 400}); err != nil {
		t.Errorf("discard: %v", err)
	}
	var ios int
	m.peek(func(c *mirrorCore) { ios = int(c.nextIO) })
	if ios != 4 {
		t.Errorf("discard of sectors 8000 to 24784 took %d pieces, want 4", ios)
	}
	m.shutdown(t)
	if err := block.WriteAt(v, p, 0); block.Errno(err) != syscall.ESHUTDOWN {
		t.Errorf("write after close: %v, want ESHUTDOWN", err)
	}
}

func TestHandlerExit(t *testing.T) {
	const fence, split = replication.HandlerFencePeer, replication.HandlerSplitBrain
	for _, tt := range []struct {
		kind    replication.Handler
		command string
		want    int
		told    bool // that it ended
		late    bool
	}{
		{fence, "", 0, false, false},
		{fence, "exit 7", 7, true, false},
		{split, `test "$DRBD_RESOURCE/$DRBD_MINOR/$DRBD_VOLUME$HOME" = r0/3/1/ || exit 9`, 0, true, false},
		{fence, `test "$DRBD_RESOURCE/$DRBD_MINOR/$DRBD_VOLUME$HOME" = "r0/2 3//" || exit 9`, 0, true, false}, // about all volumes
		{fence, "sleep 10", 255, true, true},
		{fence, "kill -9 $$", 255, true, false},
	} {
		limit := time.Minute
		if tt.late {
			limit = 100 * time.Millisecond
		}
		got := make(chan int, 1)
		c := &countingCore{t: t, onRun: func(ev *replication.Event, _ *replication.Effects) { got <- ev.Exit }}
		l := newLoop(c, func(*replication.Effects) {})
		told := make(chan Change, 1)
		h := newHandlers(t.Context(), HandlerConfig{
			Commands: map[string]string{tt.kind.String(): tt.command}, Env: []string{"DRBD_RESOURCE=r0", "DRBD_MINOR=2 3"},
			VolumeEnv: map[uint16][]string{1: {"DRBD_MINOR=3"}}, Timeout: limit,
		}, l, testLog(), func(c Change) { told <- c })
		h.start(tt.kind, 1, 5)
		if exit := <-got; exit != tt.want {
			t.Errorf("handler %q: exit %d, want %d", tt.command, exit, tt.want)
		}
		h.wg.Wait()
		if len(told) > 0 != tt.told {
			t.Errorf("handler %q: told %v", tt.command, len(told))
		} else if tt.told {
			if c := <-told; c.Handler != tt.kind || c.Exit != tt.want || c.TimedOut != tt.late {
				t.Errorf("handler %q: told %+v", tt.command, c)
			}
		}
	}
}

func BenchmarkWriteQD1(b *testing.B) {
	x, y := mirrorPair(b, &transport.TCP{}, loopback.Address(), loopback.Address())
	p := make([]byte, 4096)
	done := make(chan struct{}, 1)
	r := &block.Request{Op: block.Write, Sectors: 8, Data: p, Done: func(*block.Request) { done <- struct{}{} }}
	b.ReportAllocs()
	for b.Loop() {
		x.Volume(0).Submit(r)
		<-done
	}
	x.shutdown(b)
	y.shutdown(b)
}

func BenchmarkWriteQD64(b *testing.B) {
	x, y := mirrorPair(b, &transport.TCP{}, loopback.Address(), loopback.Address())
	free := make(chan *block.Request, 64)
	for i := range 64 {
		free <- &block.Request{Op: block.Write, Sector: uint64(i * 8), Sectors: 8, Data: make([]byte, 4096), Done: func(r *block.Request) { free <- r }}
	}
	b.ReportAllocs()
	for b.Loop() {
		r := <-free
		r.Flags = 0
		if len(free) > 0 {
			r.Flags = block.More
		}
		x.Volume(0).Submit(r)
	}
	for range 64 {
		<-free
	}
	x.shutdown(b)
	y.shutdown(b)
}
