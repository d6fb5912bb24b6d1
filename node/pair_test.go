package node

import (
	"bytes"
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/replblk/replblk/block"
	"github.com/replblk/replblk/block/mem"
	"github.com/replblk/replblk/internal/loopback"
	"github.com/replblk/replblk/internal/mdtool"
	"github.com/replblk/replblk/metadata"
	"github.com/replblk/replblk/node/transport"
	"github.com/replblk/replblk/replication"
	"github.com/replblk/replblk/replication/state"
)

// These tests run two resources with the real core, each with a memory disk and
// internal metadata.

const pairSectors = 1 << 16 // 32 MiB with metadata

// host is one side of a pair.
type host struct {
	*Resource
	disk  *mem.Device
	power *power
}

func pairConfig(local, peer string) Config {
	return Config{
		Core: replication.Config{
			Name: "r0", Protocol: replication.ProtocolC, TimeoutTenths: 60, PingIntSeconds: 10, PingTimeoutTenths: 5,
			KoCount: 7, MaxEpochSize: 2048, MaxBuffers: 2048, UseRLE: true,
			Volumes: []replication.VolumeConfig{{
				Number: 0, DiskFlushes: true, MDFlushes: true, ALExtents: 1237, ALUpdates: true,
				ResyncRateKiB: 250, PlanAheadTenths: 20, FillTargetSector: 100, DelayTargetTenth: 1, MaxRateKiB: 1 << 20, MinRateKiB: 250,
			}},
		},
		Link: transport.Config{Local: local, Peer: peer, ConnectInterval: time.Second},
	}
}

func newDisk(t testing.TB) *mem.Device {
	t.Helper()
	d := mem.New(pairSectors)
	if _, err := mdtool.Create(&deviceStore{d}, metadata.Internal, mdtool.CreateOptions{Ask: mdtool.Ask{Force: true}}); err != nil {
		t.Fatal(err)
	}
	return d
}

func newHost(t testing.TB, cfg Config, n transport.Network, d *mem.Device, name string) *host {
	t.Helper()
	p := &power{Device: d}
	return &host{Resource: attached(t, cfg, n, name, Backing{Data: p}), disk: d, power: p}
}

// attached makes a node on a disk with internal metadata.
func attached(t testing.TB, cfg Config, n transport.Network, name string, b Backing) *Resource {
	t.Helper()
	cfg.Network, b.Placement = n, metadata.Internal
	if n == nil { // a real one, and real time: who only gets no processor is not given up
		cfg.Core.PingTimeoutTenths, cfg.Core.TimeoutTenths = 100, 300
	}
	r, err := NewResource(cfg, testLog().With("node", name))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.closeOnce.Do(r.end) }) // a test that failed leaves nothing behind
	if err := r.AttachVolume(limit(t), 0, b); err != nil {
		t.Fatalf("attach: %v", err)
	}
	return r
}

// power is a disk that does nothing any more when it is off.
type power struct {
	block.Device
	off atomic.Bool
}

// Submit implements block.Device.
func (p *power) Submit(r *block.Request) {
	if p.off.Load() {
		r.Complete(r.Fail(syscall.EIO))
		return
	}
	p.Device.Submit(r)
}

// crash stops the node as a power failure does: the disk first, then everything else,
// without a word to the peer. The disk keeps some of what was not flushed.
func (h *host) crash(seed uint64) {
	h.power.off.Store(true)
	h.closeOnce.Do(h.end)
	h.disk.Crash(seed)
}

// seeds is how many of n runs a test makes: one under the race detector (-short), which costs
// ten times as much and finds what it looks for in any of them.
func seeds(n uint64) uint64 {
	if testing.Short() {
		return 1
	}
	return n
}

func limit(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// do carries out a command that must succeed.
func (h *host) do(t testing.TB, cmd replication.Admin) {
	t.Helper()
	if res, err := h.Admin(limit(t), cmd); err != nil || !res.OK() {
		t.Fatalf("command %d: %v, %v; state %+v", cmd.Kind, res, err, h.State(0))
	}
}

// wait waits until cond holds for the volume's state.
func (h *host) wait(t testing.TB, what string, cond func(state.State) bool) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(5 * time.Millisecond) {
		s := h.State(0)
		if cond(s) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: state is %+v", what, s)
		}
	}
}

func (h *host) close(t testing.TB) {
	t.Helper()
	if err := h.Close(limit(t)); err != nil {
		t.Errorf("close: %v", err)
	}
	if reqs, bufs := h.slots.inUse(), h.bufs.inUse(); reqs != 0 || bufs != 0 {
		t.Errorf("%d requests and %d buffers left", reqs, bufs)
	}
}

func inSync(s state.State) bool {
	return s.Conn == state.Connected && s.Disk == state.UpToDate && s.PeerDisk == state.UpToDate
}

// pair returns two nodes in sync, a being Primary.
func pair(t testing.TB, n transport.Network, addrA, addrB string) (a, b *host) {
	t.Helper()
	a = newHost(t, pairConfig(addrA, addrB), n, newDisk(t), "a")
	b = newHost(t, pairConfig(addrB, addrA), n, newDisk(t), "b")
	initialSync(t, a, b)
	return a, b
}

// initialSync makes a Primary and connects it with b, which gets its data.
func initialSync(t testing.TB, a, b *host) {
	t.Helper()
	a.do(t, replication.Admin{Kind: replication.AdminPrimary, Force: true})
	for _, h := range []*host{a, b} {
		h.do(t, replication.Admin{Kind: replication.AdminConnect})
	}
	for _, h := range []*host{a, b} {
		h.wait(t, "initial sync", inSync)
	}
}

// converged waits until the nodes are in sync, and checks that image is on both disks.
func converged(t testing.TB, image []byte, hosts ...*host) {
	t.Helper()
	for _, h := range hosts {
		h.wait(t, "resync", inSync)
	}
	for _, h := range hosts {
		h.compare(t, image)
	}
}

func closeAll(t testing.TB, hosts ...*host) {
	t.Helper()
	for _, h := range hosts {
		h.close(t)
	}
}

// dataSectors is what both nodes replicate.
func (h *host) dataSectors() uint64 { return h.Volume(0).Geometry().Sectors }

func scribble(t testing.TB, v *Volume, seed uint64, writes int, image []byte) {
	t.Helper()
	rnd := rand.New(rand.NewPCG(seed, 1))
	size := uint64(len(image)) / 512
	for i := range writes {
		n := uint64(8 << rnd.IntN(5))
		s := rnd.Uint64N((size-n)/8) * 8
		p := image[s*512 : (s+n)*512]
		for k := range p {
			p[k] = byte(uint64(i) + seed*31 + uint64(k/512))
		}
		if err := block.WriteAt(v, p, s); err != nil {
			t.Fatalf("write %d: %v", i, err)
		}
	}
}

func (h *host) compare(t testing.TB, image []byte) {
	t.Helper()
	got := h.disk.Contents()[:len(image)]
	for s := 0; s < len(image); s += 512 {
		if !bytes.Equal(got[s:s+512], image[s:s+512]) {
			t.Fatalf("sector %d differs", s/512)
		}
	}
}

func TestPairTCP(t *testing.T) {
	a, b := pair(t, nil, loopback.Address(), loopback.Address())
	image := make([]byte, a.dataSectors()*512)
	scribble(t, a.Volume(0), 1, 500, image)
	got := make([]byte, len(image))
	if err := block.ReadAt(a.Volume(0), got, 0); err != nil || !bytes.Equal(got, image) {
		t.Errorf("read back: %v", err)
	}
	converged(t, image, a, b)
	closeAll(t, a, b)
}

// The other tests run on fake time and a network in memory, where an outage of an hour
// takes no time and a goroutine that is left behind is an error.

func TestPairResyncAfterOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &transport.Memory{}
		a, b := pair(t, n, "a", "b")
		image := make([]byte, a.dataSectors()*512)
		scribble(t, a.Volume(0), 1, 100, image)
		for round := range uint64(3) {
			n.SetDown(true)
			a.wait(t, "a notices", func(s state.State) bool { return s.Conn < state.Connected })
			scribble(t, a.Volume(0), round+2, 200, image)
			n.SetDown(false)
			converged(t, image, a, b)
		}
		closeAll(t, a, b)
	})
}

func TestPairSwitchPrimaries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := pair(t, &transport.Memory{}, "a", "b")
		image := make([]byte, a.dataSectors()*512)
		scribble(t, a.Volume(0), 1, 50, image)
		if res, err := b.Admin(limit(t), replication.Admin{Kind: replication.AdminPrimary}); err != nil || res.OK() {
			t.Errorf("second Primary: %v, %v, want a refusal", res, err)
		}
		a.do(t, replication.Admin{Kind: replication.AdminSecondary})
		b.do(t, replication.Admin{Kind: replication.AdminPrimary})
		scribble(t, b.Volume(0), 2, 50, image)
		if err := block.FlushAll(b.Volume(0)); err != nil {
			t.Errorf("flush: %v", err)
		}
		converged(t, image, a, b)
		closeAll(t, a, b)
	})
}

// TestPairForcedWhileConnected decides whose data are good after two fresh nodes have
// met, which starts the initial resync at once.
func TestPairForcedWhileConnected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &transport.Memory{}
		a, b := newHost(t, pairConfig("a", "b"), n, newDisk(t), "a"), newHost(t, pairConfig("b", "a"), n, newDisk(t), "b")
		a.do(t, replication.Admin{Kind: replication.AdminConnect})
		b.do(t, replication.Admin{Kind: replication.AdminConnect})
		a.wait(t, "connect", func(s state.State) bool { return s.Conn == state.Connected })
		b.wait(t, "connect", func(s state.State) bool { return s.Conn == state.Connected })
		a.do(t, replication.Admin{Kind: replication.AdminPrimary, Force: true})
		a.wait(t, "initial sync", inSync)
		b.wait(t, "initial sync", inSync)
		closeAll(t, a, b)
	})
}

// TestPairOutagesUnderLoad breaks the connection at any moment, also during resync,
// while four applications write.
func TestPairOutagesUnderLoad(t *testing.T) {
	for seed := range seeds(2) {
		synctest.Test(t, func(t *testing.T) {
			n := &transport.Memory{}
			a, b := pair(t, n, "a", "b")
			image := make([]byte, a.dataSectors()*512)
			var wg sync.WaitGroup
			for w := range uint64(4) {
				wg.Go(func() {
					region(t, a.Volume(0), w, image)
				})
			}
			rnd := rand.New(rand.NewPCG(seed, 2))
			for range 8 {
				time.Sleep(time.Duration(rnd.IntN(3000)) * time.Millisecond)
				n.SetDown(true)
				time.Sleep(time.Duration(rnd.IntN(3000)) * time.Millisecond)
				n.SetDown(false)
			}
			wg.Wait()
			converged(t, image, a, b)
			closeAll(t, a, b)
		})
	}
}

// region writes to one of four parts of the volume, with pauses.
func region(t *testing.T, v *Volume, w uint64, image []byte) {
	rnd := rand.New(rand.NewPCG(w, 3))
	part := v.Geometry().Sectors / 4 &^ 7
	for i := range 500 {
		n := uint64(8 << rnd.IntN(5))
		s := part*w + rnd.Uint64N((part-n)/8)*8
		p := image[s*512 : (s+n)*512]
		for k := range p {
			p[k] = byte(i + int(w))
		}
		if err := block.WriteAt(v, p, s); err != nil {
			t.Errorf("write %d: %v", i, err)
			return
		}
		time.Sleep(time.Duration(rnd.IntN(100)) * time.Millisecond)
	}
}

// TestPairCrashedPrimary pulls the plug of the Primary and starts it again. It becomes
// the source of a resync of what its activity log covers, so a write that the
// application did not flush may be lost; but both copies must be equal, and contain
// everything that was flushed.
func TestPairCrashedPrimary(t *testing.T) {
	for seed := range seeds(4) {
		synctest.Test(t, func(t *testing.T) {
			n := &transport.Memory{}
			a, b := pair(t, n, "a", "b")
			size := a.dataSectors()
			image := make([]byte, size/2*512)
			scribble(t, a.Volume(0), seed, 300, image)
			if err := block.FlushAll(a.Volume(0)); err != nil {
				t.Fatal(err)
			}
			for i := range uint64(100) {
				if err := block.WriteAt(a.Volume(0), bytes.Repeat([]byte{byte(seed + i)}, 4096), size/2+i*37%(size/2-8)); err != nil {
					t.Fatal(err)
				}
			}
			a.crash(seed)
			b.wait(t, "b notices", func(s state.State) bool { return s.Conn < state.Connected })
			a = newHost(t, pairConfig("a", "b"), n, a.disk, "a2")
			a.do(t, replication.Admin{Kind: replication.AdminConnect})
			converged(t, image, a, b)
			b.compare(t, a.disk.Contents()[:size*512])
			closeAll(t, a, b)
		})
	}
}

// TestPairCrashedSecondary pulls the plug of the Secondary while the Primary writes on.
func TestPairCrashedSecondary(t *testing.T) {
	for seed := range seeds(4) {
		synctest.Test(t, func(t *testing.T) {
			n := &transport.Memory{}
			a, b := pair(t, n, "a", "b")
			image := make([]byte, a.dataSectors()*512)
			scribble(t, a.Volume(0), seed, 300, image)
			b.crash(seed)
			scribble(t, a.Volume(0), seed+100, 100, image)
			b = newHost(t, pairConfig("b", "a"), n, b.disk, "b2")
			b.do(t, replication.Admin{Kind: replication.AdminConnect})
			converged(t, image, a, b)
			closeAll(t, a, b)
		})
	}
}
