//go:build interop

package interop

import (
	"context"
	"log/slog"
	"os"
	"testing"
	"time"

	"github.com/replblk/replblk/block"
	"github.com/replblk/replblk/block/file"
	"github.com/replblk/replblk/internal/mdtool"
	"github.com/replblk/replblk/metadata"
	"github.com/replblk/replblk/node"
	"github.com/replblk/replblk/node/transport"
	"github.com/replblk/replblk/replication"
	"github.com/replblk/replblk/replication/state"
)

// waitTimeout is how long a state may take to come about.
const waitTimeout = 2 * time.Minute

// peer is replblk's node of r0, in this process.
type peer struct {
	*node.Resource
	t    *testing.T
	o    options
	disk string
	log  *os.File
}

// options are what a scenario changes in the configuration.
type options struct {
	protocol   byte   // 'A' or 'B'; 0 is 'C'
	kernelNet  string // further lines of the kernel's net section
	kernelDisk string // and disk section
	core       func(*replication.Config)
	handlers   map[string]string // replblk's
	big        bool              // disks of bigDiskSize
	small      bool              // disks of smallSize
	ownTool    bool              // the machine's drbdadm makes the metadata: it notes the size for check-resize
	two        bool              // a volume 1 of secondSize besides

	ipv6           bool
	meta           metadata.Placement              // of the kernel's metadata, if not internal
	link           func(*transport.Config)         // replblk's, changed
	swapped        bool                            // replblk's node is the one that is the kernel's otherwise
	breakable      bool                            // the kernel's disk can be broken
	kernelHandlers string                          // lines of the kernel's handlers section
	wrap           func(block.Device) block.Device // replblk's disk
}

func (o options) proto() byte {
	if o.protocol == 0 {
		return 'C'
	}
	return o.protocol
}

func (o options) size() int64 {
	switch {
	case o.big:
		return bigDiskSize
	case o.small:
		return smallSize
	}
	return diskSize
}

// device returns the kernel's device and the file behind it.
func (o options) device() (dev, file string) {
	switch {
	case o.big:
		return "/dev/vdb", machine.big
	case o.breakable:
		return breakable, machine.disk
	}
	return "/dev/vda", machine.disk
}

// addresses returns where the kernel and replblk listen.
func (o options) addresses() (kernel, replblk string) {
	if o.ipv6 {
		return "[" + kernelIPv6 + "]:7789", "[" + peerIPv6 + "]:7789"
	}
	return kernelIP + ":7789", peerIP + ":7789"
}

// metaDisk is where the kernel has its metadata, as drbd.conf says it.
func (o options) metaDisk() string {
	switch {
	case !o.meta.Valid():
		return "internal"
	case o.meta == metadata.FlexExternal:
		return "/dev/vdb"
	}
	return "/dev/vdb[1]"
}

func (o options) config() node.Config {
	c := node.Config{
		Core: replication.Config{
			Name: "r0", Protocol: replication.Protocol(o.proto() - 'A' + 1), TimeoutTenths: 60, PingIntSeconds: 10, PingTimeoutTenths: 30, // for a machine on a busy host

			KoCount: 7, MaxEpochSize: 2048, MaxBuffers: 2048, UseRLE: true,
			Volumes: []replication.VolumeConfig{{
				Number: 0, DiskFlushes: true, MDFlushes: true, ALExtents: 1237, ALUpdates: true,
				ResyncRateKiB: 250, PlanAheadTenths: 20, FillTargetSector: 100, DelayTargetTenth: 10, MaxRateKiB: 102400, MinRateKiB: 250,
			}},
		},
		Link: transport.Config{ConnectInterval: time.Second},
	}
	c.Link.Peer, c.Link.Local = o.addresses()
	if o.two {
		c.Core.Volumes = append(c.Core.Volumes, c.Core.Volumes[0])
		c.Core.Volumes[1].Number = 1
	}
	if o.swapped {
		c.Link.Local, c.Link.Peer = c.Link.Peer, c.Link.Local
	}
	if o.link != nil {
		o.link(&c.Link)
	}
	if o.core != nil {
		o.core(&c.Core)
	}
	c.Handlers.Commands = o.handlers
	c.Link.PingTimeout = 500 * time.Millisecond
	return c
}

// newPeer starts the node on the disk at path. fresh makes a new disk.
func newPeer(t *testing.T, o options, path string, fresh bool) *peer {
	t.Helper()
	if fresh {
		if err := newImage(path, o.size()); err != nil {
			t.Fatal(err)
		}
		createMD(t, path)
		if o.two {
			if err := newImage(secondDisk(), secondSize); err != nil {
				t.Fatal(err)
			}
			createMD(t, secondDisk())
		}
	}
	p := newDisklessPeer(t, o, path)
	p.attach()
	if o.two {
		p.attachVolume(1, secondDisk())
	}
	return p
}

// newDisklessPeer is newPeer without the disk.
func newDisklessPeer(t *testing.T, o options, path string) *peer {
	t.Helper()
	log, err := os.OpenFile(fileName(t, "peer.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	r, err := node.NewResource(o.config(), slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug})))
	if err != nil {
		t.Fatal(err)
	}
	return &peer{Resource: r, t: t, o: o, disk: path, log: log}
}

func createMD(t *testing.T, path string) {
	t.Helper()
	f, err := mdtool.OpenFile(path, mdtool.OpenOptions{Writable: true, AllowRegular: true})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := mdtool.Create(f, metadata.Internal, mdtool.CreateOptions{Ask: mdtool.Ask{Force: true}}); err != nil {
		t.Fatal(err)
	}
}

// attach gives the node its disk.
func (p *peer) attach() { p.t.Helper(); p.attachVolume(0, p.disk) }

func (p *peer) attachVolume(vol uint16, path string) {
	p.t.Helper()
	if err := p.offer(vol, path); err != nil {
		p.t.Fatal(err)
	}
}

// offer is attachVolume for a disk that may be refused.
func (p *peer) offer(vol uint16, path string) error {
	p.t.Helper()
	f, err := file.Open(path, file.Options{})
	if err != nil {
		p.t.Fatal(err)
	}
	var d block.Device = f
	if p.o.wrap != nil {
		d = p.o.wrap(f)
	}
	return p.AttachVolume(p.limit(), vol, node.Backing{Data: d, Placement: metadata.Internal, Close: f.Close})
}

func (p *peer) limit() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), commandTimeout)
	p.t.Cleanup(cancel)
	return ctx
}

// do carries out a command that must succeed.
func (p *peer) do(cmd replication.Admin) {
	p.t.Helper()
	if res, err := p.Admin(p.limit(), cmd); err != nil || !res.OK() {
		p.t.Fatalf("replblk: command %d: %v, %v; state %+v", cmd.Kind, res, err, p.State(0))
	}
}

// kind is do for a command without parameters.
func (p *peer) kind(k replication.AdminKind) { p.t.Helper(); p.do(replication.Admin{Kind: k}) }

// refuses carries out a command that must fail with want.
func (p *peer) refuses(cmd replication.Admin, want state.Result) {
	p.t.Helper()
	if res, err := p.Admin(p.limit(), cmd); err != nil || res != want {
		p.t.Fatalf("replblk: command %d: %v, %v, want %v", cmd.Kind, res, err, want)
	}
}

// wait waits until the volume's state satisfies cond.
func (p *peer) wait(what string, cond func(state.State) bool) { p.t.Helper(); p.waitFor(0, what, cond) }

// waitFor is wait for a volume.
func (p *peer) waitFor(vol uint16, what string, cond func(state.State) bool) {
	p.t.Helper()
	for deadline := time.Now().Add(waitTimeout); ; time.Sleep(10 * time.Millisecond) {
		s := p.State(vol)
		if cond(s) {
			return
		}
		if time.Now().After(deadline) {
			p.t.Fatalf("replblk: volume %d: %s: state is %+v", vol, what, s)
		}
	}
}

func inSync(s state.State) bool {
	return s.Conn == state.Connected && s.Disk == state.UpToDate && s.PeerDisk == state.UpToDate
}
func connected(s state.State) bool { return s.Conn == state.Connected }
func waiting(s state.State) bool   { return s.Conn == state.WFConnection || s.Conn == state.Unconnected }
func alone(s state.State) bool     { return s.Conn == state.StandAlone }

// close ends the node in order.
func (p *peer) close() {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), commandTimeout)
	defer cancel()
	if err := p.Close(ctx); err != nil {
		p.t.Errorf("replblk: close: %v", err)
	}
	_ = p.log.Close()
}

// sectors is the size of the replicated device.
func (p *peer) sectors() uint64 { return p.Volume(0).Geometry().Sectors }

func peerPrimary(s state.State) bool   { return s.Peer == state.Primary }
func peerSecondary(s state.State) bool { return s.Peer == state.Secondary }
