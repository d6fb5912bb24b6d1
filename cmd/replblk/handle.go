package main

import (
	"context"
	"time"

	"github.com/replblk/replblk/internal/control"
	"github.com/replblk/replblk/internal/mdtool"
	"github.com/replblk/replblk/metadata"
	"github.com/replblk/replblk/replication"
	"github.com/replblk/replblk/replication/state"
)

// commandTimeout bounds a command: the core answers when it can, and a peer that is
// being lost takes its time.
const commandTimeout = 2 * time.Minute

// Handle implements control.Handler.
func (d *daemon) Handle(ctx context.Context, req *control.Request, send func(any) error) error {
	list, err := d.targets(req)
	if err != nil {
		return err
	}
	switch req.Command {
	case "status":
		for _, m := range list {
			if err := send(m.snapshot()); err != nil {
				return err
			}
		}
		return nil
	case "events":
		return d.streamEvents(ctx, list, req, send)
	}
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	for _, m := range list {
		select {
		case <-m.started: // a command right after the daemon's start waits for it
		case <-ctx.Done():
			return control.Errorf(control.ExitUsage, "%s: still being brought up", m.name())
		}
		err := error(nil)
		if req.Command == "adjust" {
			err = d.adjust(ctx, m, send)
		} else {
			err = m.handle(ctx, req)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// targets returns the resources that a command is about.
func (d *daemon) targets(req *control.Request) ([]*managed, error) {
	if req.Resource == "" {
		return d.resources, nil
	}
	m := d.find(req.Resource)
	if m == nil {
		return nil, control.Errorf(control.ExitConfig, "%s: Failure: (158) Unknown resource", req.Resource)
	}
	if req.Volume != nil && m.sec.local.Volume(*req.Volume) == nil {
		return nil, control.Errorf(control.ExitConfig, "%s/%d: Failure: (127) Device minor not allocated: the resource has no such volume", req.Resource, *req.Volume)
	}
	return []*managed{m}, nil
}

// handle carries out a command about one resource.
func (m *managed) handle(ctx context.Context, req *control.Request) error {
	m.log.Info("command", "command", req.Command, "force", req.Force)
	switch req.Command {
	case "up":
		return m.up(ctx)
	case "down":
		return m.down(ctx, req.Force)
	case "primary":
		return m.primary(ctx, req.Force)
	case "secondary":
		return m.secondary(ctx, req.Force)
	case "disconnect":
		return m.disconnect(ctx, req.Force)
	case "connect":
		return m.connect(ctx, req)
	case "outdate":
		return m.outdate(ctx)
	}
	if kind, ok := resourceCommands[req.Command]; ok {
		return m.command(ctx, replication.Admin{Kind: kind, Force: req.Force})
	}
	for _, v := range m.sec.local.Volumes {
		if req.Volume != nil && *req.Volume != v.Number {
			continue
		}
		if err := m.handleVolume(ctx, req, v.Number); err != nil {
			return err
		}
	}
	return nil
}

// resourceCommands are about a resource as a whole and need no more than the core.
var resourceCommands = map[string]replication.AdminKind{
	"suspend-io": replication.AdminSuspendIO,
	"resume-io":  replication.AdminResumeIO,
	"repair":     replication.AdminRepair,
}

// volumeCommands are about a volume and need no more than the core.
var volumeCommands = map[string]replication.AdminKind{
	"detach":            replication.AdminDetach,
	"invalidate-remote": replication.AdminInvalidateRemote,
	"pause-sync":        replication.AdminPauseSync,
	"resume-sync":       replication.AdminResumeSync,
	"new-current-uuid":  replication.AdminNewCurrentUUID,
	"verify":            replication.AdminVerify,
	"stop-verify":       replication.AdminStopVerify,
	"resize":            replication.AdminResize,
}

func (m *managed) handleVolume(ctx context.Context, req *control.Request, vol uint16) error {
	switch req.Command {
	case "attach":
		return m.attach(ctx, vol)
	case "invalidate":
		return m.invalidate(ctx, vol)
	}
	kind, ok := volumeCommands[req.Command]
	if !ok {
		return control.Errorf(control.ExitUsage, "unknown command %q", req.Command)
	}
	if kind == replication.AdminVerify {
		if err := m.checkVerify(req, vol); err != nil {
			return err
		}
	}
	return m.command(ctx, replication.Admin{
		Kind: kind, Vol: vol, Force: req.Force, ClearBitmap: req.ClearBitmap, Start: req.StartSector, Stop: req.StopSector, Resume: req.Resume,
		Sectors: req.SizeSectors, AssumeClean: req.AssumeClean, AssumePeer: req.AssumePeer,
	})
}

func (m *managed) connect(ctx context.Context, req *control.Request) error {
	if m.sec.peer == nil {
		return control.Errorf(control.ExitConfig, "%s: %s: no section for a peer", m.sec.res.Pos, m.name())
	}
	r, err := m.running()
	if err != nil {
		return err
	}
	if r.Status().Connection != state.StandAlone {
		return control.Errorf(control.ExitConfig, "%s: Failure: (125) Device has a net-config (use disconnect first)", m.name())
	}
	if req.DiscardMyData && m.isPrimary() {
		return control.Errorf(control.ExitConfig, "%s: Failure: (123) --discard-my-data not allowed when primary", m.name())
	}
	return m.command(ctx, replication.Admin{Kind: replication.AdminConnect, DiscardMyData: req.DiscardMyData, Tentative: req.Tentative})
}

// disconnect is fine with a resource that is not connected, as drbdsetup is.
func (m *managed) disconnect(ctx context.Context, force bool) error {
	r, err := m.running()
	if err != nil {
		return err
	}
	if r.Status().Connection == state.StandAlone {
		return nil
	}
	return m.command(ctx, replication.Admin{Kind: replication.AdminDisconnect, Force: force})
}

// attached says whether a volume has a disk.
func (m *managed) attached(vol uint16) bool {
	r := m.res.Load()
	return r != nil && r.State(vol).Disk != state.Diskless
}

// outdate marks the disks of a resource, through the core or on disks that are not
// attached, as drbdadm does.
func (m *managed) outdate(ctx context.Context) error {
	for _, v := range m.sec.local.Volumes {
		if m.attached(v.Number) {
			return m.command(ctx, replication.Admin{Kind: replication.AdminOutdate})
		}
	}
	for _, v := range m.sec.local.Volumes {
		err := m.offline(v.Number, func(s mdtool.Store, p metadata.Placement) error { return mdtool.Outdate(s, p) })
		if err != nil {
			return offlineError(m.name(), v.Number, err)
		}
	}
	return nil
}

func (m *managed) invalidate(ctx context.Context, vol uint16) error {
	if m.attached(vol) {
		return m.command(ctx, replication.Admin{Kind: replication.AdminInvalidate, Vol: vol})
	}
	err := m.offline(vol, func(s mdtool.Store, p metadata.Placement) error { return mdtool.Invalidate(s, p) })
	if err != nil {
		return offlineError(m.name(), vol, err)
	}
	return nil
}

func offlineError(name string, vol uint16, err error) error {
	return control.Errorf(exitCode(err), "%s/%d: %v", name, vol, err)
}

// checkVerify refuses a range without a block to compare, which the core would take for
// nothing to do.
func (m *managed) checkVerify(req *control.Request, vol uint16) error {
	r, err := m.running()
	if err != nil {
		return err
	}
	size := r.Volume(vol).Geometry().Sectors
	switch {
	case req.StartSector >= size && size > 0:
		return control.Errorf(control.ExitUsage, "%s/%d: start sector %d is beyond the end of the device, which has %d", m.name(), vol, req.StartSector, size)
	case req.StopSector > 0 && req.StopSector <= req.StartSector:
		return control.Errorf(control.ExitUsage, "%s/%d: stop sector %d is not after the start sector %d", m.name(), vol, req.StopSector, req.StartSector)
	}
	return nil
}
