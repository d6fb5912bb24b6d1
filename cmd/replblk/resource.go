package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/replblk/replblk/block/file"
	"github.com/replblk/replblk/internal/config"
	"github.com/replblk/replblk/internal/control"
	"github.com/replblk/replblk/internal/mdtool"
	"github.com/replblk/replblk/metadata"
	"github.com/replblk/replblk/node"
	"github.com/replblk/replblk/node/transport"
	"github.com/replblk/replblk/replication"
	"github.com/replblk/replblk/replication/state"
)

// downTimeout is how long an orderly end of a resource may take; after it the resource
// is ended as a crash would.
const downTimeout = 20 * time.Second

// managed is a resource of this node under the daemon's care: configured for as long
// as the daemon runs, up or down.
type managed struct {
	sec *section // as the daemon was started: who, where, which disks
	log *slog.Logger
	// options are those in use: sec with what adjust has changed. Changed under admin
	options atomic.Pointer[section]
	base    *slog.Logger // without the resource's name, which node adds itself
	direct  config.DirectIO
	nodeID  int
	peerID  int

	sizeDir string // where the sizes of disks are noted

	// admin lets one command at a time change what is up and what is attached.
	admin sync.Mutex
	res   atomic.Pointer[node.Resource] // nil: down. Changed under admin
	busy  atomic.Int32                  // commands that hold or want admin
	order *node.Order                   // of the resyncs of all resources
	leave func()                        // takes res out of order. Changed under admin

	// started is closed when the daemon has brought the resource up, or has tried.
	started chan struct{}

	// Frontends, immutable once the daemon serves.
	nbd []*nbdExport
	aoe []*aoeExport
	// closing makes the NBD exports refuse clients while the resource is about to
	// become Secondary: who was sent away comes back at once.
	closing atomic.Bool
	roles   chan struct{} // capacity 1: the role has changed

	disks  map[uint16]*diskCounters // immutable
	net    netCounters
	sync   progress
	events *hub

	history history

	connections atomic.Uint64 // established since the daemon started
	splitBrains atomic.Uint64
}

func newManaged(s *section, d *config.Daemon, order *node.Order, times diskTimesFor, log *slog.Logger) *managed {
	m := &managed{
		sec: s, log: log.With("resource", s.res.Name), base: log, direct: d.DirectIO(s.res.Name),
		order: order, started: make(chan struct{}), roles: make(chan struct{}, 1), disks: make(map[uint16]*diskCounters), events: newHub(),
	}
	m.nodeID, m.peerID = nodeIDs(s.local, s.peer)
	m.options.Store(s)
	m.history.started = time.Now()
	for _, v := range s.local.Volumes {
		m.disks[v.Number] = &diskCounters{times: times(s.res.Name, v.Number, v.Minor)}
	}
	return m
}

func (m *managed) name() string { return m.sec.res.Name }

// running returns the resource, or the error for a command that needs it up.
func (m *managed) running() (*node.Resource, error) {
	if r := m.res.Load(); r != nil {
		return r, nil
	}
	return nil, control.Errorf(control.ExitConfig, "%s: Failure: (158) Unknown resource: it is down, see replblk up", m.name())
}

// lock keeps other commands away until the function that it returns is called.
func (m *managed) lock() (unlock func()) {
	m.busy.Add(1)
	m.admin.Lock()
	return func() {
		m.admin.Unlock()
		m.busy.Add(-1)
	}
}

// changing says whether the resource is on its way up or down.
func (m *managed) changing() bool {
	select {
	case <-m.started:
		return m.busy.Load() > 0
	default:
		return true
	}
}

// up brings everything up that is not: the resource, its disks, its connection. What
// is up already stays as it is.
func (m *managed) up(ctx context.Context) error {
	defer m.lock()()
	r := m.res.Load()
	if r == nil {
		var err error
		if r, err = m.create(); err != nil {
			return err
		}
	}
	for _, n := range r.Volumes() {
		if r.State(n).Disk != state.Diskless {
			continue
		}
		if err := m.attachVolume(ctx, r, n); err != nil {
			return err
		}
	}
	return m.connectIfNot(ctx, r)
}

// create makes the resource, without disk and connection.
func (m *managed) create() (*node.Resource, error) {
	cfg, err := m.configFor(m.options.Load())
	if err != nil {
		return nil, err
	}
	r, err := node.NewResource(cfg, m.base)
	if err != nil {
		return nil, control.Errorf(control.ExitConfig, "%v", err)
	}
	r.Watch(m.changed)
	m.res.Store(r)
	m.orderAfter(m.options.Load())
	m.leave = m.order.Join(r, m.sec.minors())
	m.events.publish(event{kind: eventCreated})
	return r, nil
}

// minors are the minor numbers of the volumes.
func (s *section) minors() map[uint16]uint32 {
	minors := make(map[uint16]uint32)
	for _, v := range s.local.Volumes {
		minors[v.Number] = v.Minor
	}
	return minors
}

// orderAfter takes over which volumes are resynced before those of this resource.
func (m *managed) orderAfter(s *section) {
	for _, v := range s.local.Volumes {
		m.order.Follow(v.Minor, v.DiskOptions.ResyncAfterMinor)
	}
}

// configFor is what package node wants to know, with a network whose bytes are counted.
func (m *managed) configFor(s *section) (node.Config, error) {
	cfg, err := s.nodeConfig()
	if err != nil {
		return cfg, control.Errorf(control.ExitConfig, "%v", err)
	}
	cfg.Network = &countedNetwork{&transport.TCP{Options: cfg.Options}, &m.net}
	return cfg, nil
}

func (m *managed) connectIfNot(ctx context.Context, r *node.Resource) error {
	if m.sec.peer == nil || r.Status().Connection != state.StandAlone {
		return nil
	}
	return m.command(ctx, replication.Admin{Kind: replication.AdminConnect})
}

// attach gives a volume its disk.
func (m *managed) attach(ctx context.Context, vol uint16) error {
	defer m.lock()()
	r, err := m.running()
	if err != nil {
		return err
	}
	if r.State(vol).Disk != state.Diskless {
		return control.Errorf(control.ExitConfig, "%s/%d: Failure: (124) Device is attached to a disk (use detach first)", m.name(), vol)
	}
	return m.attachVolume(ctx, r, vol)
}

func (m *managed) attachVolume(ctx context.Context, r *node.Resource, vol uint16) error {
	attach := func() error {
		b, err := m.openBacking(vol)
		if err != nil {
			return err
		}
		return r.AttachVolume(ctx, vol, b)
	}
	err := attach()
	if errors.Is(err, mdtool.ErrNoMetadata) { // the disk may have grown while nobody used it
		if moved, _ := checkResize(m.sec.local.Volume(vol), m.sizeDir, 0); moved {
			m.log.Info("the disk has grown, its metadata was moved", "volume", vol)
			err = attach()
		}
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, mdtool.ErrNoMetadata):
		return control.Errorf(control.ExitConfig, "%s/%d: Failure: (119) No valid meta-data signature found on %s: %v (replblk create-md %s makes it)",
			m.name(), vol, m.sec.local.Volume(vol).Disk, err, m.name())
	default:
		return control.Errorf(control.ExitConfig, "%s/%d: %v", m.name(), vol, err)
	}
}

// openBacking opens the devices of a volume.
func (m *managed) openBacking(vol uint16) (node.Backing, error) {
	v := m.sec.local.Volume(vol)
	var b node.Backing
	where, err := placement(v)
	if err != nil {
		return b, err
	}
	opt := file.Options{Direct: directModes[m.direct]}
	if m.options.Load().local.Volume(vol).DiskOptions.DiskTimeoutTenths != 0 {
		opt.Inline = file.InlineNever // whoever waits in the disk cannot see how long it takes
	}
	data, err := file.Open(v.Disk, opt)
	if err != nil {
		return b, fmt.Errorf("disk: %w", err)
	}
	b = node.Backing{Placement: where, Close: data.Close}
	c := m.disks[vol]
	if where.IsInternal() {
		d := measure(data, findMeta(data, where), c)
		b.Data = d
		c.disk.Store(d)
		m.noteSize(vol, d)
		return b, nil
	}
	meta, err := file.Open(v.MetaDisk.Path, opt)
	if err != nil {
		return b, errors.Join(fmt.Errorf("meta-disk: %w", err), data.Close())
	}
	b.Data, b.Meta = measure(data, nil, c), measure(meta, findMeta(meta, where), c)
	b.Close = func() error { return errors.Join(data.Close(), meta.Close()) }
	return b, nil
}

// findMeta looks where the metadata lies, for the counters. If there is none the
// attachment will say so.
func findMeta(f *file.File, p metadata.Placement) *mdtool.Meta {
	m, err := mdtool.Open(f, p)
	if err != nil {
		return nil
	}
	return m
}

// noteSize remembers how large the disk of a volume is, whose metadata is at its end.
func (m *managed) noteSize(vol uint16, d *measured) {
	if d.layout.Load() == nil {
		return
	}
	v := m.sec.local.Volume(vol)
	err := lastSizeOf(m.sizeDir, v.Minor).write(v.Disk, d.Geometry().Sectors, d.uuid)
	if err != nil {
		m.log.Debug("size of the disk is not noted", "volume", vol, "err", err)
	}
}

var directModes = map[config.DirectIO]file.DirectMode{
	config.DirectAuto: file.DirectAuto, config.DirectYes: file.DirectOn, config.DirectNo: file.DirectOff,
}

// down ends the resource: no clients, not Primary, not connected, no disk.
func (m *managed) down(ctx context.Context, force bool) error {
	defer m.lock()()
	r := m.res.Load()
	if r == nil {
		return nil
	}
	if !force {
		if err := m.inUse(); err != nil {
			return err
		}
	}
	m.closing.Store(true)
	defer m.closing.Store(false)
	ctx, cancel := context.WithTimeout(ctx, downTimeout)
	defer cancel()
	if err := m.hush(ctx); err != nil {
		m.log.Warn("exports did not close in time", "err", err)
	}
	// From here on snapshots show it as down; whoever has it still may use it.
	m.res.Store(nil)
	m.leave()
	err := r.Close(ctx)
	m.silenceAoE(false)
	m.sync.forget()
	m.events.publish(event{kind: eventDestroyed})
	if err != nil {
		m.log.Warn("resource was not ended in order", "err", err)
	}
	return nil
}

// inUse refuses what would take the data away from under a client.
func (m *managed) inUse() error {
	for _, e := range m.nbd {
		if n := e.active(); n > 0 {
			return control.Errorf(control.ExitRefused, "%s: State change failed: (%d) %v: NBD export %s has %d clients (--force sends them away)",
				m.name(), state.DeviceInUse, state.DeviceInUse, e.cfg.ExportName, n)
		}
	}
	return nil
}

// secondary takes the Primary role away.
func (m *managed) secondary(ctx context.Context, force bool) error {
	defer m.lock()()
	if _, err := m.running(); err != nil {
		return err
	}
	if !force {
		if err := m.inUse(); err != nil {
			return err
		}
	}
	m.closing.Store(true)
	defer m.closing.Store(false)
	if err := m.hush(ctx); err != nil {
		m.announce()
		return control.Errorf(control.ExitRefused, "%s: exports did not close: %v", m.name(), err)
	}
	err := m.command(ctx, replication.Admin{Kind: replication.AdminSecondary})
	if err != nil {
		m.announce()
		return err
	}
	m.silenceAoE(true)
	return nil
}

// primary takes the Primary role, unless the peer is out of touch with this node and
// still serves its clients. It also makes a target serve that has fallen silent for
// such a peer.
func (m *managed) primary(ctx context.Context, force bool) error {
	r, err := m.running()
	if err != nil {
		return err
	}
	if !force && !m.isPrimary() && r.State(m.sec.local.Volumes[0].Number).Conn < state.Connected {
		if err := m.otherServer(ctx); err != nil {
			return control.Errorf(control.ExitRefused, "%s: State change failed: %v (--force takes no notice, and does not ask whether the data is good either)", m.name(), err)
		}
	}
	if err := m.command(ctx, replication.Admin{Kind: replication.AdminPrimary, Force: force}); err != nil {
		return err
	}
	m.announce()
	return nil
}

// command hands an operator's command to the core and translates a refusal.
func (m *managed) command(ctx context.Context, cmd replication.Admin) error {
	r, err := m.running()
	if err != nil {
		return err
	}
	res, err := r.Admin(ctx, cmd)
	if err != nil {
		return control.Errorf(control.ExitUsage, "%s: no answer from the resource: %v", m.name(), err)
	}
	return m.refusal(res)
}

// refusal turns the core's answer into an error with drbdsetup's text and code.
func (m *managed) refusal(res state.Result) error {
	if res.OK() {
		return nil
	}
	code := control.ExitRefused
	switch res {
	case state.NoUpToDateDisk:
		code = control.ExitNoData
	case state.LowerThanOutdated:
		code = control.ExitInconsistent
	case state.NoLocalDisk:
		code = control.ExitNoDisk
	default:
	}
	if res.Configuration() {
		return control.Errorf(control.ExitConfig, "%s: Failure: (%d) %v", m.name(), -res, res)
	}
	return control.Errorf(code, "%s: State change failed: (%d) %v", m.name(), res, res)
}

// offline works on the metadata of a volume that is not attached.
func (m *managed) offline(vol uint16, fn func(mdtool.Store, metadata.Placement) error) error {
	defer m.lock()()
	return withStore(m.sec.local.Volume(vol), true, fn)
}

// changed hears of everything that happens to the resource. It is called in the middle
// of it and must not wait.
func (m *managed) changed(c node.Change) {
	m.history.changed(c)
	switch c.Kind {
	case node.ChangeState:
		m.sync.changed(c.Volume, c.Old.Conn, c.New.Conn)
		if c.New.Conn >= state.Connected && c.Old.Conn < state.Connected && c.Volume == m.sec.local.Volumes[0].Number {
			m.connections.Add(1)
		}
		if c.Old.Role != c.New.Role {
			select {
			case m.roles <- struct{}{}:
			default:
			}
		}
		m.events.publish(event{kind: eventState, volume: c.Volume, old: c.Old, new: c.New})
	case node.ChangeMoved:
		d := m.disks[c.Volume].disk.Load()
		d.moved()
		go m.noteSize(c.Volume, d)
	case node.ChangeNote:
		if c.Note == replication.NoteSplitBrain {
			m.splitBrains.Add(1)
		}
	default:
	}
}

// follow opens and closes the exports as the role changes, until ctx ends.
func (m *managed) follow(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-m.roles:
		}
		if m.isPrimary() {
			if !m.closing.Load() {
				m.announce()
			}
			continue
		}
		// Usually done by the command that took the role away; a role can
		// also be lost.
		m.silenceAoE(true)
		hushCtx, cancel := context.WithTimeout(ctx, downTimeout)
		if err := m.hush(hushCtx); err != nil && ctx.Err() == nil {
			m.log.Warn("exports did not close in time", "err", err)
		}
		cancel()
	}
}

// isConnected says whether the peer is connected.
func (m *managed) isConnected() bool {
	r := m.res.Load()
	return r != nil && r.State(m.sec.local.Volumes[0].Number).Conn >= state.Connected
}

func (m *managed) isPrimary() bool {
	r := m.res.Load()
	return r != nil && r.State(m.sec.local.Volumes[0].Number).Role == state.Primary
}
